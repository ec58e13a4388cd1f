//! The `[data]` section as this crate needs it. Parsing TOML is the program's work.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use crate::{Format, LocalOnly, SourceOptions, Split, Storage};

/// Which text a run reads, and how it becomes tokens. Paths are used as they are: see [`expand`](crate::expand).
#[derive(Clone)]
pub struct DataConfig {
    /// Files and folders of the training text, in this order. At least one.
    pub train: Vec<PathBuf>,
    /// Files and folders of the validation text; may be empty.
    pub valid: Vec<PathBuf>,
    /// Files and folders of the test text; may be empty.
    pub test: Vec<PathBuf>,
    /// Globs that choose files of a folder, relative to it; every file when empty. A glob without `/` is matched
    /// against the file's name at any depth (`*.rs`), one with `/` against the whole relative path, where `*`
    /// stays within a folder and `**` does not (`src/**/*.rs`). Files that are named themselves are always read.
    pub include: Vec<String>,
    /// At most this many bytes of *training* text (validation included when it is cut from it), ending at a
    /// character's boundary. What lies behind is not read.
    pub max_bytes: Option<u64>,
    /// When `valid` names nothing: the last part of the training text that becomes the validation text, in [0, 1).
    pub valid_fraction: f64,
    /// How text becomes tokens.
    pub tokenizer: TokenizerConfig,
    /// What a file holds.
    pub format: Format,
    /// The field of a JSON line, or the column of a Parquet file, that is the text.
    pub field: String,
    /// What opens a URL.
    pub storage: Arc<dyn Storage>,
}

impl DataConfig {
    /// How the files of a text are read; only the training text is limited by `max_bytes`.
    pub fn source_options(&self, split: Split) -> SourceOptions {
        SourceOptions {
            include: self.include.clone(),
            max_bytes: self.max_bytes.filter(|_| split == Split::Train),
            format: self.format,
            field: self.field.clone(),
            storage: self.storage.clone(),
        }
    }
}

impl Default for DataConfig {
    /// No text, every file of a folder, no limit, no validation part, characters.
    fn default() -> Self {
        DataConfig {
            train: Vec::new(),
            valid: Vec::new(),
            test: Vec::new(),
            include: Vec::new(),
            max_bytes: None,
            valid_fraction: 0.0,
            tokenizer: TokenizerConfig::Chars,
            format: Format::default(),
            field: "text".into(),
            storage: Arc::new(LocalOnly),
        }
    }
}

/// `data.tokenizer`: one of three that need no file, or a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenizerConfig {
    /// Unicode scalar values, vocabulary from the training text.
    Chars,
    /// The 256 bytes of UTF-8.
    Bytes,
    /// Split at white space, vocabulary from the training text.
    Words,
    /// A Hugging Face `tokenizer.json`.
    File(PathBuf),
}

impl FromStr for TokenizerConfig {
    type Err = Infallible;

    /// `chars`, `bytes`, `words`; anything else is a path (a file of one of these names is `./chars`).
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "chars" => TokenizerConfig::Chars,
            "bytes" => TokenizerConfig::Bytes,
            "words" => TokenizerConfig::Words,
            path => TokenizerConfig::File(PathBuf::from(path)),
        })
    }
}

impl fmt::Display for TokenizerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenizerConfig::Chars => f.write_str("chars"),
            TokenizerConfig::Bytes => f.write_str("bytes"),
            TokenizerConfig::Words => f.write_str("words"),
            TokenizerConfig::File(path) => write!(f, "{}", path.display()),
        }
    }
}
