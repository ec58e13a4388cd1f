//! Objects written, replaced under a condition, and removed. A put is whole or not there at all: a large object goes up in
//! parts that the server puts together at the end.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use object_store::{
    Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion, WriteMultipart,
};

use crate::address::{Address, Kind};
use crate::{StorageError, Store};

/// A file up to this size is one put; S3 takes no smaller parts than 5 MiB.
const PART_BYTES: u64 = 8 << 20;
/// S3 takes at most 10,000 parts.
const MOST_PARTS: u64 = 9_000;
/// Parts on their way at once.
const AT_ONCE: usize = 4;

/// What must hold for an object to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition<'a> {
    /// There is none yet.
    Absent,
    /// It is still the one of this tag.
    Unchanged(&'a str),
}

impl Store {
    /// Writes a small object, whatever was there.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn put(&self, url: &str, bytes: &[u8]) -> Result<(), StorageError> {
        let (address, client) = self.place(url)?;
        let put = client.put(&address.path, PutPayload::from(bytes.to_vec()));
        self.wait(put).map(drop).map_err(|error| of_put(error, address.kind))
    }

    /// Writes a file as an object, whatever was there.
    ///
    /// # Errors
    /// [`StorageError`]; [`StorageError::File`] when the file cannot be read. There is no half of an object then.
    pub fn put_file(&self, url: &str, path: &Path) -> Result<(), StorageError> {
        let mut file = File::open(path).map_err(StorageError::File)?;
        let bytes = file.metadata().map_err(StorageError::File)?.len();
        if bytes <= PART_BYTES {
            let mut content = Vec::new();
            file.take(PART_BYTES + 1).read_to_end(&mut content).map_err(StorageError::File)?;
            return self.put(url, &content);
        }
        let (address, client) = self.place(url)?;
        self.wait(in_parts(&*client, &address, &mut file, bytes))
    }

    /// Writes a small object if `condition` holds, as the server itself judges; gives its new tag.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] when it does not hold. After a broken connection that may be said of a put that went
    /// through: who must know looks what is there.
    pub fn put_if(&self, url: &str, bytes: &[u8], condition: Condition) -> Result<String, StorageError> {
        let (address, client) = self.place(url)?;
        let mode = match condition {
            Condition::Absent => PutMode::Create,
            Condition::Unchanged(tag) => PutMode::Update(version(tag)),
        };
        let options = PutOptions { mode, ..PutOptions::default() };
        let put = client.put_opts(&address.path, PutPayload::from(bytes.to_vec()), options);
        let put = self.wait(put).map_err(|error| of_put(error, address.kind))?;
        Ok(tag(put.e_tag, put.version))
    }

    /// A small object and its tag; none when there is no such object.
    ///
    /// # Errors
    /// [`StorageError`]; [`StorageError::TooLarge`] when it has more than `limit` bytes.
    pub fn get(&self, url: &str, limit: u64) -> Result<Option<(Vec<u8>, String)>, StorageError> {
        let (address, client) = self.place(url)?;
        let got = self.wait(async {
            let got = client.get(&address.path).await?;
            let (bytes, tag) = (got.meta.size, tag(got.meta.e_tag.clone(), got.meta.version.clone()));
            let content = if bytes <= limit { Some(got.bytes().await?) } else { None };
            Ok((bytes, content, tag))
        });
        match got {
            Ok((_, Some(content), tag)) => Ok(Some((content.into(), tag))),
            Ok((found, None, _)) => Err(StorageError::TooLarge { found, limit }),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(StorageError::of(error, address.kind.hint(), false)),
        }
    }

    /// Removes an object; that it is not there is no error.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn delete(&self, url: &str) -> Result<(), StorageError> {
        let (address, client) = self.place(url)?;
        match self.wait(client.delete(&address.path)) {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(StorageError::of(error, address.kind.hint(), false)),
        }
    }
}

async fn in_parts(
    client: &dyn ObjectStore,
    address: &Address,
    file: &mut File,
    bytes: u64,
) -> Result<(), StorageError> {
    let put = |error| of_put(error, address.kind);
    let size = PART_BYTES.max(bytes.div_ceil(MOST_PARTS)) as usize;
    let mut parts =
        WriteMultipart::new_with_chunk_size(client.put_multipart(&address.path).await.map_err(put)?, size);
    let mut buffer = vec![0; 1 << 20];
    let sent = loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(read) => read,
            Err(error) => break Err(StorageError::File(error)),
        };
        if let Err(error) = parts.wait_for_capacity(AT_ONCE).await {
            break Err(put(error));
        }
        parts.write(&buffer[..read]);
    };
    match sent {
        Ok(()) => parts.finish().await.map(drop).map_err(put),
        Err(error) => {
            if let Err(left) = parts.abort().await {
                tracing::info!("parts of an upload that was given up stay: {left}");
            }
            Err(error)
        }
    }
}

/// A put knows of no object that must be there: what is not found is the bucket.
fn of_put(error: Error, kind: Kind) -> StorageError {
    match error {
        Error::AlreadyExists { .. } | Error::Precondition { .. } => StorageError::Conflict,
        Error::NotFound { .. } => StorageError::NoBucket,
        error => StorageError::of(error, kind.hint(), false),
    }
}

/// One text for what a store tells versions apart by.
fn tag(e_tag: Option<String>, version: Option<String>) -> String {
    format!("{}\n{}", e_tag.unwrap_or_default(), version.unwrap_or_default())
}

fn version(tag: &str) -> UpdateVersion {
    let (e_tag, version) = tag.split_once('\n').unwrap_or((tag, ""));
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    UpdateVersion { e_tag: some(e_tag), version: some(version) }
}
