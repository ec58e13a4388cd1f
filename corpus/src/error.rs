//! What can be wrong with the data of a run: one variant for each thing its owner would mend differently.
//!
//! `setting` is the configuration key (`data.train`) or command-line option that named the text.

use std::io;
use std::path::PathBuf;

use crate::{PreparedError, StorageError, TokenFileError};

/// Why a text could not be read, or not be turned into tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CorpusError {
    /// A setting that must name at least one path names none.
    #[error("{setting} names no file: expected a file, a list of files, or a folder")]
    NothingNamed {
        /// The configuration key or option.
        setting: String,
    },
    /// A path that was named does not exist.
    #[error("{setting}: there is no file or folder {}; correct the path, which begins at the working directory", path.display())]
    NotFound {
        /// The configuration key or option.
        setting: String,
        /// The path as it was named.
        path: PathBuf,
    },
    /// The operating system refused to list or read something that exists.
    #[error("{setting}: cannot read {}: {source}", path.display())]
    Unreadable {
        /// The configuration key or option.
        setting: String,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// An object behind a URL could not be found, listed or read.
    #[error("{setting}: {url}: {source}")]
    Storage {
        /// The configuration key or option.
        setting: String,
        /// The object, or the folder that was to be listed.
        url: String,
        /// What went wrong.
        source: StorageError,
    },
    /// A folder's match is a pipe, a socket or a device.
    #[error("{setting}: {} is neither a file nor a folder; leave it out with data.include", path.display())]
    NotAFile {
        /// The configuration key or option.
        setting: String,
        /// The entry of the folder.
        path: PathBuf,
    },
    /// No file below a folder matches `data.include`.
    #[error("{setting}: no file below {}{}; name another folder or a file", path.display(), matching(include))]
    NoMatch {
        /// The configuration key or option.
        setting: String,
        /// The folder.
        path: PathBuf,
        /// The globs; empty when every file would have matched.
        include: Vec<String>,
    },
    /// An element of `data.include` is not a glob.
    #[error("data.include: {pattern:?} is not a glob: {source}")]
    BadGlob {
        /// The element.
        pattern: String,
        /// What is wrong with it.
        source: globset::Error,
    },
    /// A file is not UTF-8.
    #[error("{setting}: {}, line {line}: not UTF-8 (byte offset {offset}); convert the file, as with iconv -t UTF-8", path.display())]
    NotUtf8 {
        /// The configuration key or option.
        setting: String,
        /// The file.
        path: PathBuf,
        /// Line of the first bad byte, counted from 1.
        line: u64,
        /// Position of the first bad byte in the file, counted from 0.
        offset: u64,
    },
    /// A compressed file or a Parquet file that is cut off or not what it says it is.
    #[error("{setting}: {}: {problem}", path.display())]
    Damaged {
        /// The configuration key or option.
        setting: String,
        /// The file.
        path: PathBuf,
        /// What was found.
        problem: String,
    },
    /// A line of JSON lines that cannot be used.
    #[error("{setting}: {}, line {line}: {problem}", path.display())]
    BadLine {
        /// The configuration key or option.
        setting: String,
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// What was found and what was expected.
        problem: String,
    },
    /// A Parquet file has no such column, or not one of text.
    #[error("{setting}: {}: {}", path.display(), bad_column(column, found.as_deref(), columns))]
    BadColumn {
        /// The configuration key or option.
        setting: String,
        /// The file.
        path: PathBuf,
        /// The column that was asked for (`data.field`).
        column: String,
        /// What it holds; none when there is no such column.
        found: Option<String>,
        /// The columns there are.
        columns: Vec<String>,
    },
    /// A row of a Parquet file is not UTF-8.
    #[error("{setting}: {}, row {row}: not UTF-8 (byte offset {offset} of the row)", path.display())]
    RowNotUtf8 {
        /// The configuration key or option.
        setting: String,
        /// The file.
        path: PathBuf,
        /// The row, counted from 1.
        row: u64,
        /// Position of the first bad byte in it, counted from 0.
        offset: usize,
    },
    /// This program was built without what reads such a file.
    #[error(
        "{setting}: {}: this build does not read {what}; build it with: cargo build --release --features {feature}",
        path.display()
    )]
    NotBuilt {
        /// The configuration key or option.
        setting: String,
        /// The file.
        path: PathBuf,
        /// What it holds.
        what: &'static str,
        /// The feature that is missing.
        feature: &'static str,
    },
    /// Everything that was named was read, and there was not one character in it.
    #[error("{setting}: the text is empty ({} read); name one with something in it", list(paths))]
    EmptyText {
        /// The configuration key or option.
        setting: String,
        /// What was read.
        paths: Vec<PathBuf>,
    },
    /// `data.max_bytes` leaves no room for the first character.
    #[error(
        "data.max_bytes = {max_bytes} leaves nothing of the text; expected room for at least one character"
    )]
    MaxBytesTooSmall {
        /// The limit, in bytes.
        max_bytes: u64,
    },
    /// `data.valid_fraction` is not in [0, 1).
    #[error("data.valid_fraction = {fraction}; expected 0 or more, and less than 1")]
    ValidFractionOutOfRange {
        /// What was found.
        fraction: f64,
    },
    /// `data.valid_fraction` of a short text is not one character.
    #[error("data.valid_fraction = {fraction} of {bytes} bytes of text leaves no validation text")]
    ValidFractionTooSmall {
        /// The fraction.
        fraction: f64,
        /// Length of the text before the cut.
        bytes: usize,
    },
    /// A tokenizer file is not one we can train with.
    #[error("{}: not a usable tokenizer.json: {reason}", path.as_ref().map_or_else(|| "tokenizer".into(), |path| path.display().to_string()))]
    BadTokenizer {
        /// The file; none when the JSON came from elsewhere (a run's folder, a message).
        path: Option<PathBuf>,
        /// What was found and what was expected.
        reason: String,
    },
    /// A tokenizer from a file failed on a text.
    #[error("data.tokenizer: the file's tokenizer cannot encode the text: {reason}")]
    Encode {
        /// What the tokenizer said.
        reason: String,
    },
    /// Two passes over a text did not read the same.
    #[error("{setting}: the text has changed while it was read; nothing was kept of it")]
    TextChanged {
        /// The configuration key.
        setting: String,
    },
    /// With documents apart, the fraction to validate with begins in the last document.
    #[error(
        "data.valid_fraction = {fraction} with data.documents = \"apart\": none of the {documents} documents begins \
         in that part of the text; name a text with data.valid"
    )]
    NoDocumentToValidate {
        /// The fraction.
        fraction: f64,
        /// Documents of the training text.
        documents: u64,
    },
    /// With documents apart, the tokenizer has no token to end one.
    #[error("data.eos = {eos:?}: the tokenizer {tokenizer} has no such token to end a document with")]
    NoEos {
        /// The text of the token.
        eos: String,
        /// The tokenizer, as the configuration has it.
        tokenizer: String,
    },
    /// A token file cannot be used, or not be written.
    #[error(transparent)]
    TokenFile(#[from] TokenFileError),
    /// A folder of prepared tokens cannot be used, or not be made.
    #[error(transparent)]
    Prepared(#[from] PreparedError),
    /// `${VAR}` in a path, and the environment has no `VAR`.
    #[error("{text:?}: the environment variable {name} is not set; set it, or write ${{{name}:-default}}")]
    UnsetVariable {
        /// The path as it was written.
        text: String,
        /// The variable.
        name: String,
    },
    /// `${` in a path without its `}`, or around something that is no variable's name.
    #[error("{text:?}: {found:?} is not ${{NAME}} or ${{NAME:-default}}")]
    BadVariable {
        /// The path as it was written.
        text: String,
        /// The part from `${` on.
        found: String,
    },
}

fn bad_column(column: &str, found: Option<&str>, columns: &[String]) -> String {
    match found {
        Some(found) => format!("column {column:?} (data.field) holds {found}, expected strings"),
        None => format!("no column {column:?} (data.field); there are: {}", columns.join(", ")),
    }
}

fn matching(include: &[String]) -> String {
    if include.is_empty() { String::new() } else { format!(" matches data.include = {include:?}") }
}

fn list(paths: &[PathBuf]) -> String {
    const SHOWN: usize = 3;
    let mut names: Vec<String> = paths.iter().take(SHOWN).map(|path| path.display().to_string()).collect();
    if paths.len() > SHOWN {
        names.push(format!("{} more", paths.len() - SHOWN));
    }
    names.join(", ")
}
