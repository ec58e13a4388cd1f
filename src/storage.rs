//! What opens the URLs of a configuration: the object stores, in the terms of the corpus. Without the feature `cloud`,
//! nothing does, and the error says so.

use std::sync::Arc;

use carousel_corpus::Storage;

/// The way to objects behind URLs. Nothing is started before the first of them is asked for.
pub(crate) fn storage() -> Arc<dyn Storage> {
    #[cfg(feature = "cloud")]
    let storage = cloud::Cloud::default();
    #[cfg(not(feature = "cloud"))]
    let storage = carousel_corpus::LocalOnly;
    Arc::new(storage)
}

#[cfg(feature = "cloud")]
mod cloud {
    use std::io::{self, Read};
    use std::ops::Range;
    use std::sync::OnceLock;

    use carousel_corpus::{Object, Storage, StorageError};
    use carousel_storage::{Reader, StorageError as Problem, Store};

    /// The object stores, from the first URL on.
    #[derive(Default)]
    pub(super) struct Cloud(OnceLock<Store>);

    impl Cloud {
        fn store(&self) -> Result<&Store, StorageError> {
            if self.0.get().is_none() {
                let store = Store::new().map_err(told)?;
                // When two threads come first together, one store is as good as the other.
                drop(self.0.set(store));
            }
            Ok(self.0.get().expect("it was set above or by another thread"))
        }
    }

    impl Storage for Cloud {
        fn find(&self, url: &str) -> Result<Option<Object>, StorageError> {
            Ok(self.store()?.find(url).map_err(told)?.map(found))
        }

        fn list(&self, folder: &str) -> Result<Vec<Object>, StorageError> {
            Ok(self.store()?.list(folder).map_err(told)?.into_iter().map(found).collect())
        }

        fn open(&self, object: &Object, range: Range<u64>) -> Result<Box<dyn Read + Send>, StorageError> {
            let Object { url, bytes, version } = object.clone();
            let object = carousel_storage::Object { url, bytes: bytes.unwrap_or(u64::MAX), tag: version };
            Ok(Box::new(Told(self.store()?.open(&object, range).map_err(told)?)))
        }
    }

    /// A reader whose errors are the corpus's.
    struct Told(Reader);

    impl Read for Told {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer).map_err(|error| match error.downcast::<Problem>() {
                Ok(problem) => io::Error::other(told(problem)),
                Err(error) => error,
            })
        }
    }

    fn found(object: carousel_storage::Object) -> Object {
        Object { url: object.url, bytes: Some(object.bytes), version: object.tag }
    }

    fn told(problem: Problem) -> StorageError {
        match problem {
            Problem::UnknownScheme { scheme } => {
                StorageError::UnknownScheme { scheme, expected: Problem::SCHEMES }
            }
            Problem::BadUrl { reason } => StorageError::BadUrl { reason },
            Problem::Denied { hint, source } => StorageError::Denied { hint, source },
            Problem::Vanished => StorageError::Gone { what: "vanished" },
            Problem::Changed => StorageError::Gone { what: "changed" },
            other => StorageError::Failed { source: other.into() },
        }
    }
}
