//! What can be wrong with a token file.

use std::io;
use std::path::PathBuf;

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenFileError {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It is not what `carousel prepare` writes.
    #[error("{}: not a token file: {reason}; make it again with carousel prepare", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        reason: String,
    },
    /// It is shorter or longer than it says.
    #[error("{}: {found} bytes, expected {expected}: it was cut short or grew; make it again with carousel prepare", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes there are.
        found: u64,
        /// Bytes there should be.
        expected: u64,
    },
    /// Its content is not what was written.
    #[error("{}: {what} has the hash {found}, expected {expected}: it was altered; make it again with carousel prepare", path.display())]
    Altered {
        /// The file.
        path: PathBuf,
        /// The tensor.
        what: &'static str,
        /// BLAKE3 of what is there.
        found: String,
        /// BLAKE3 of what was written.
        expected: String,
    },
    /// A token that its vocabulary has not.
    #[error("{}: token {index} is {token}, expected less than the vocabulary of {vocabulary}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Its place.
        index: u64,
        /// What was found.
        token: u32,
        /// Size of the vocabulary.
        vocabulary: usize,
    },
    /// It was made by another tokenizer than the one beside it.
    #[error("{}: made by the tokenizer {found}, but tokenizer.json is {expected}: they do not belong together", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// Hash of the tokenizer in the file's metadata.
        found: String,
        /// Hash of the tokenizer there is.
        expected: String,
    },
}
