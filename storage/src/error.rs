//! What can go wrong with an object, by what its owner would do about it.

use std::error::Error;

/// Why an object could not be found, listed or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The scheme of a URL is none of those of [`StorageError::SCHEMES`].
    #[error("the scheme {scheme:?} is unknown; expected a path, {}", Self::SCHEMES)]
    UnknownScheme {
        /// What was found before `://`.
        scheme: String,
    },
    /// A URL names no bucket, or nothing in it.
    #[error("not a usable address: {reason}")]
    BadUrl {
        /// What is wrong with it.
        reason: String,
    },
    /// The server wants other credentials, or there are none.
    #[error("access denied; {hint} ({source})")]
    Denied {
        /// Where credentials are looked for.
        hint: &'static str,
        /// What the server said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// An object that was found is not there any more.
    #[error("the object was there when it was listed, and has vanished since")]
    Vanished,
    /// An object that was found is another one now.
    #[error("the object is not the one that was listed: it has changed since")]
    Changed,
    /// A condition of a put does not hold.
    #[error("the object is not as the put expected it")]
    Conflict,
    /// There is no such bucket.
    #[error("there is no such bucket; make it, or correct its name")]
    NoBucket,
    /// An object is larger than anything of its kind.
    #[error("{found} bytes, expected at most {limit}")]
    TooLarge {
        /// Its length.
        found: u64,
        /// The most that is read.
        limit: u64,
    },
    /// A local file could not be read.
    #[error(transparent)]
    File(std::io::Error),
    /// The server's clock and this machine's differ.
    #[error("the server refuses this machine's clock; set it right, as by NTP ({source})")]
    Clock {
        /// What the server said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A web server that does not list its folders (WebDAV's PROPFIND).
    #[error("this server does not list what it has; name each file by its own address ({source})")]
    NoListing {
        /// What the server said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The connection broke more often than is tried again.
    #[error("the connection broke at byte {at} of {bytes}, {failures} times in a row: {source}")]
    Broken {
        /// Bytes of the object that had come.
        at: u64,
        /// Bytes of the object.
        bytes: u64,
        /// Tries without a byte in between.
        failures: u32,
        /// The last failure.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The server did not answer as it should, however often it was asked.
    #[error("{source}")]
    Failed {
        /// What went wrong at last.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl StorageError {
    /// The schemes of the house, for messages.
    pub const SCHEMES: &str = "s3://, gs://, az://, http:// or https://";

    /// What an error of the store below is to the owner of an object that was listed before, if `found`.
    pub(crate) fn of(error: object_store::Error, hint: &'static str, found: bool) -> Self {
        match error {
            object_store::Error::NotFound { .. } if found => Self::Vanished,
            object_store::Error::Precondition { .. } => Self::Changed,
            error if skewed(&error) => Self::Clock { source: error.into() },
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                Self::Denied { hint, source: error.into() }
            }
            // What the stores do not call a refusal: one of a listing.
            error if refused(&error) => Self::Denied { hint, source: error.into() },
            // Without credentials the stores ask the machine that rents out machines.
            error if error.to_string().contains("169.254.169.254") => {
                Self::Denied { hint, source: "no credentials were found".into() }
            }
            error => Self::Failed { source: error.into() },
        }
    }

    /// Whether asking again could help.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }
}

/// Whether a server refuses the time of a signature.
fn skewed(error: &object_store::Error) -> bool {
    error.to_string().contains("RequestTimeTooSkewed")
}

/// Whether a server has answered that one must not. A listing's refusal comes without a variant of its own, and its status in
/// the message alone: the type that has it is private.
fn refused(error: &object_store::Error) -> bool {
    let text = error.to_string();
    ["status code: 401", "status code: 403"].iter().any(|status| text.contains(status))
}
