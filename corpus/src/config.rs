//! The `[data]` section as this crate needs it. Parsing TOML is the program's work.

use std::path::PathBuf;
use std::sync::Arc;

use crate::{Format, LocalOnly, SourceOptions, Split, Storage, TokenizerConfig};

/// Which text a run reads, and how it becomes tokens. Paths are used as they are: see [`expand`](crate::expand()).
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
    /// Whether documents run into each other.
    pub documents: Documents,
    /// With documents apart: the token that ends one, as the tokenizer's vocabulary writes it.
    pub eos: String,
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
            tokenizer: TokenizerConfig::CHARS,
            documents: Documents::Joined,
            eos: EOS.into(),
            format: Format::default(),
            field: "text".into(),
            storage: Arc::new(LocalOnly),
        }
    }
}

/// The token that ends a document, where the configuration names no other.
pub const EOS: &str = "<eos>";

/// `data.documents`: how the documents of a text (files, JSON lines, rows) follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Documents {
    /// As one text.
    #[default]
    Joined,
    /// Each tokenized by itself and ended by [`DataConfig::eos`]; those of the training text in an order that the
    /// run's seed decides.
    Apart,
}

impl Documents {
    /// The word of the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Documents::Joined => "joined",
            Documents::Apart => "apart",
        }
    }
}
