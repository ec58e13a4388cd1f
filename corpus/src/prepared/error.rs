//! What can be wrong with a folder of prepared tokens.

use std::io;
use std::path::PathBuf;

/// Why a folder of prepared tokens cannot be used, or not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PreparedError {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// There is a folder, but no usable `prepared.json` in it.
    #[error("{}: not a prepared folder ({reason}); remove it, or name another with data.prepared", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        reason: String,
    },
    /// It was made with another value of a key.
    #[error("{}: made with {key} = {made}, the configuration has {found}", folder.display())]
    Key {
        /// The folder.
        folder: PathBuf,
        /// The key.
        key: String,
        /// Its value when the folder was made.
        made: String,
        /// Its value now.
        found: String,
    },
    /// It was made from another text.
    #[error("{}: made from another text: {what}", folder.display())]
    Text {
        /// The folder.
        folder: PathBuf,
        /// The key that names the text, and what is different.
        what: String,
    },
    /// It has no token file of a split that the configuration names, or one that it does not.
    #[error("{}: {made} of {split} in it, the configuration has {found}", folder.display())]
    Split {
        /// The folder.
        folder: PathBuf,
        /// The split.
        split: &'static str,
        /// Whether the folder has it.
        made: &'static str,
        /// Whether the configuration has it.
        found: &'static str,
    },
    /// Another process makes the same folder now.
    #[error("{}: another process is making it", folder.display())]
    Busy {
        /// The folder.
        folder: PathBuf,
    },
}

impl PreparedError {
    /// Whether the folder is sound, but not what the configuration asks for.
    pub fn is_misfit(&self) -> bool {
        matches!(self, PreparedError::Key { .. } | PreparedError::Text { .. } | PreparedError::Split { .. })
    }
}
