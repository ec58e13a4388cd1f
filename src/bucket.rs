//! The object stores, in the terms of the coordinator's mirror. Without the feature `cloud` there is none, and the error
//! says so.

use std::sync::Arc;

use carousel_coordinator::mirror::Store;

use crate::failure::Failure;

/// The objects below an address.
#[cfg(not(feature = "cloud"))]
pub(crate) fn store(address: &str) -> Result<Arc<dyn Store>, Failure> {
    let scheme = address.split("://").next().unwrap_or_default();
    Err(Failure::bad_input(format!(
        "{address}: this build does not open {scheme}:// addresses; build it with: cargo build --release --features cloud"
    )))
}

/// The objects below an address.
#[cfg(feature = "cloud")]
pub(crate) fn store(address: &str) -> Result<Arc<dyn Store>, Failure> {
    if address.starts_with("http://") || address.starts_with("https://") {
        let expected = "s3://, gs:// or az://: a web server has no conditional writes";
        return Err(Failure::bad_input(format!("{address}: nothing can be kept there, expected {expected}")));
    }
    let store = carousel_storage::Store::new().map_err(Failure::failed)?;
    Ok(Arc::new(cloud::Bucket { store, address: address.into() }))
}

#[cfg(feature = "cloud")]
mod cloud {
    use std::fs::File;
    use std::io;
    use std::path::Path;

    use carousel_coordinator::mirror::{Store, StoreError};
    use carousel_storage::{Condition, StorageError};

    #[derive(Debug)]
    pub(super) struct Bucket {
        pub(super) store: carousel_storage::Store,
        pub(super) address: String,
    }

    impl Bucket {
        fn url(&self, key: &str) -> String {
            format!("{}/{key}", self.address)
        }
    }

    impl Store for Bucket {
        fn address(&self) -> &str {
            &self.address
        }

        fn put(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
            self.store.put(&self.url(key), bytes).map_err(told)
        }

        fn put_file(&self, key: &str, path: &Path) -> Result<(), StoreError> {
            self.store.put_file(&self.url(key), path).map_err(told)
        }

        fn put_if(&self, key: &str, bytes: &[u8], tag: Option<&str>) -> Result<String, StoreError> {
            let condition = tag.map_or(Condition::Absent, Condition::Unchanged);
            self.store.put_if(&self.url(key), bytes, condition).map_err(told)
        }

        fn get(&self, key: &str, limit: u64) -> Result<Option<(Vec<u8>, String)>, StoreError> {
            self.store.get(&self.url(key), limit).map_err(told)
        }

        fn get_file(&self, key: &str, bytes: u64, to: &Path) -> Result<(), StoreError> {
            let wrong = |problem: String| StoreError::Refused(format!("{key}: {problem}").into());
            let found = self.store.find(&self.url(key)).map_err(told)?;
            let found = found.ok_or_else(|| wrong("nothing is there".into()))?;
            if found.bytes != bytes {
                return Err(wrong(format!("found {} bytes, expected {bytes}", found.bytes)));
            }
            let mut reader = self.store.open(&found, 0..bytes).map_err(told)?;
            let mut write = || {
                let mut file = File::create_new(to)?;
                io::copy(&mut reader, &mut file)?;
                file.sync_all()
            };
            write().map_err(|error| StoreError::Failed(error.into()))
        }

        fn delete(&self, key: &str) -> Result<(), StoreError> {
            self.store.delete(&self.url(key)).map_err(told)
        }
    }

    fn told(error: StorageError) -> StoreError {
        match error {
            StorageError::Conflict => StoreError::Conflict,
            StorageError::Failed { .. } | StorageError::Broken { .. } | StorageError::File(_) => {
                StoreError::Failed(error.into())
            }
            _ => StoreError::Refused(error.into()),
        }
    }
}
