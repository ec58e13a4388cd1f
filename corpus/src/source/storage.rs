//! What this crate needs of a place that is no local folder. The program implements it over an object store.

use std::error::Error;
use std::io::Read;
use std::ops::Range;

/// An object behind a URL, as it was when it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// `s3://bucket/key`, `https://host/path`, ...
    pub url: String,
    /// Its length; none when the server does not tell.
    pub bytes: Option<u64>,
    /// What changes when its content does (an entity tag); none when the server does not tell. Reading insists on it.
    pub version: Option<String>,
}

/// Objects behind URLs. Blocking; called from threads that may wait.
pub trait Storage: Send + Sync {
    /// The object of exactly this URL; none when there is no such object.
    ///
    /// # Errors
    /// [`StorageError`], but not [`Gone`](StorageError::Gone).
    fn find(&self, url: &str) -> Result<Option<Object>, StorageError>;

    /// Every object below `folder`, a URL that ends with `/`, at any depth and in any order.
    ///
    /// # Errors
    /// [`StorageError`]. A folder without objects is none.
    fn list(&self, folder: &str) -> Result<Vec<Object>, StorageError>;

    /// The bytes of `range` of an object that [`find`](Storage::find) or [`list`](Storage::list) returned; to its end
    /// where the range ends with `u64::MAX`. A connection that breaks is taken up where it broke; a reader that ends
    /// before the range does is an error, never an end. Its errors hold a [`StorageError`] where there is one.
    ///
    /// # Errors
    /// [`StorageError`].
    fn open(&self, object: &Object, range: Range<u64>) -> Result<Box<dyn Read + Send>, StorageError>;
}

/// Why an object could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// This program was built without what opens such a URL.
    #[error(
        "this build does not open {scheme}:// addresses; build it with: cargo build --release --features {feature}"
    )]
    NotBuilt {
        /// `s3`, `https`, ...
        scheme: String,
        /// The feature that is missing.
        feature: &'static str,
    },
    /// Nothing here knows such a URL.
    #[error("the scheme {scheme:?} is unknown; expected a path, {expected}")]
    UnknownScheme {
        /// What was found before `://`.
        scheme: String,
        /// What there is.
        expected: &'static str,
    },
    /// The URL names no object.
    #[error("not a usable address: {reason}")]
    BadUrl {
        /// What is wrong with it.
        reason: String,
    },
    /// The server wants other credentials, or none were found.
    #[error("access denied; {hint} ({source})")]
    Denied {
        /// Where credentials are looked for.
        hint: &'static str,
        /// What the server said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// An object that was found is not there any more, or is another one now.
    #[error("the object was there when the text was listed, and has {what} since")]
    Gone {
        /// `vanished` or `changed`.
        what: &'static str,
    },
    /// The server did not answer as it should, repeatedly.
    #[error("{source}")]
    Failed {
        /// What went wrong at last.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// No object at all: for a program that reads local files only.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalOnly;

/// Schemes that an object store could open.
const KNOWN: [&str; 8] = ["s3", "s3a", "gs", "az", "azure", "abfss", "http", "https"];

impl LocalOnly {
    fn refuse(url: &str) -> StorageError {
        let scheme = url.split("://").next().unwrap_or_default().to_owned();
        if KNOWN.contains(&scheme.as_str()) {
            StorageError::NotBuilt { scheme, feature: "cloud" }
        } else {
            StorageError::UnknownScheme { scheme, expected: StorageError::SCHEMES }
        }
    }
}

impl StorageError {
    /// The schemes of the house, for messages.
    pub const SCHEMES: &'static str = "s3://, gs://, az://, http:// or https://";
}

impl Storage for LocalOnly {
    fn find(&self, url: &str) -> Result<Option<Object>, StorageError> {
        Err(Self::refuse(url))
    }

    fn list(&self, folder: &str) -> Result<Vec<Object>, StorageError> {
        Err(Self::refuse(folder))
    }

    fn open(&self, object: &Object, _: Range<u64>) -> Result<Box<dyn Read + Send>, StorageError> {
        Err(Self::refuse(&object.url))
    }
}
