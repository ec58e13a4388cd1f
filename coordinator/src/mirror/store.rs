//! What a mirror needs of an object store, and no more. A trait: the program brings the real one, tests one that fails and
//! waits on command. Keys are below the run's address.

use std::error::Error;
use std::fmt::Debug;
use std::path::Path;

/// Why an object could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The condition of a put does not hold.
    #[error("the object is not as the put expected it")]
    Conflict,
    /// Asking again does not help: credentials, a missing bucket, a clock.
    #[error("{0}")]
    Refused(Box<dyn Error + Send + Sync>),
    /// The store was not reached, or did not answer as it should.
    #[error("{0}")]
    Failed(Box<dyn Error + Send + Sync>),
}

/// The objects of one run.
pub trait Store: Debug + Send + Sync {
    /// The run's address, for messages.
    fn address(&self) -> &str;

    /// Writes an object.
    ///
    /// # Errors
    /// When it is not known to be written whole.
    fn put(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError>;

    /// Writes a file as an object.
    ///
    /// # Errors
    /// When it is not known to be written whole.
    fn put_file(&self, key: &str, path: &Path) -> Result<(), StoreError>;

    /// Writes an object if it still has this tag, or with `None` if there is none; gives the new tag.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it has not; after a broken connection also when this very put went through.
    fn put_if(&self, key: &str, bytes: &[u8], tag: Option<&str>) -> Result<String, StoreError>;

    /// An object of at most `limit` bytes and its tag.
    ///
    /// # Errors
    /// When it is larger or cannot be read.
    fn get(&self, key: &str, limit: u64) -> Result<Option<(Vec<u8>, String)>, StoreError>;

    /// Reads an object of exactly `bytes` bytes into a new file.
    ///
    /// # Errors
    /// When it is not there, has another length, or cannot be read.
    fn get_file(&self, key: &str, bytes: u64, to: &Path) -> Result<(), StoreError>;

    /// Removes an object, if it is there.
    ///
    /// # Errors
    /// When it may still be there.
    fn delete(&self, key: &str) -> Result<(), StoreError>;
}
