//! `prepared.json`: what a folder of token files was made from and what is in it. It decides nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::batches::Fingerprint;
use crate::{DataConfig, Documents, FileStamp, Split, TokenizerConfig};

/// The file.
pub(super) const FILE: &str = "prepared.json";
/// A larger one is none: some hundred bytes a file of the text, for a hundred thousand files.
pub(super) const MOST_BYTES: u64 = 64 << 20;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// [`FORMAT`](crate::token_file::FORMAT).
    pub format: String,
    pub program_version: String,
    /// Keys of `[data]` that decide how text becomes tokens.
    pub tokens: BTreeMap<String, String>,
    /// Keys of `[data]` that decide what of the files is text.
    pub selection: BTreeMap<String, String>,
    /// By the name of the split that names them.
    pub texts: BTreeMap<String, TextRecord>,
    /// BLAKE3 of tokenizer.json.
    pub tokenizer_blake3: String,
    pub vocabulary: u64,
    /// Words that came at most so often may be missing from the counts; 0: none are.
    pub forgotten_to: u64,
    /// By name.
    pub splits: BTreeMap<String, SplitFigures>,
}

/// A text that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TextRecord {
    pub bytes: u64,
    pub documents: u64,
    pub text_blake3: String,
    pub documents_blake3: String,
    pub files: Vec<FileStamp>,
}

/// What a token file came out as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitFigures {
    /// `train`, `valid` or `test`.
    pub split: String,
    /// Its name in the folder.
    pub file: String,
    /// How many tokens.
    pub tokens: u64,
    /// Bytes of text they stand for.
    pub bytes: u64,
    /// Documents of the text they come from.
    pub documents: u64,
    /// How many of the tokens are the one for everything unknown.
    pub unknown: u64,
}

impl TextRecord {
    pub(super) fn new(text: &Fingerprint, files: Vec<FileStamp>) -> Self {
        TextRecord {
            bytes: text.bytes,
            documents: text.documents,
            text_blake3: text.text.to_string(),
            documents_blake3: text.ends.to_string(),
            files,
        }
    }

    /// Whether this is the same text, for tokens with documents joined or apart.
    pub(super) fn is_of(&self, text: &Fingerprint, documents: Documents) -> bool {
        let same_ends = self.documents_blake3 == text.ends.to_string();
        self.text_blake3 == text.text.to_string() && (documents == Documents::Joined || same_ends)
    }
}

/// What of a configuration decides how text becomes tokens.
pub(super) fn token_keys(config: &DataConfig) -> BTreeMap<String, String> {
    let tokenizer = match &config.tokenizer {
        TokenizerConfig::File(_) => "a file".into(),
        other => other.to_string(),
    };
    let mut keys = BTreeMap::from([
        ("data.documents".to_owned(), config.documents.name().to_owned()),
        ("data.tokenizer".to_owned(), tokenizer),
    ]);
    if config.documents == Documents::Apart {
        keys.insert("data.eos".into(), config.eos.clone());
    }
    if config.valid.is_empty() {
        keys.insert("data.valid_fraction".into(), config.valid_fraction.to_string());
    }
    keys
}

/// What of a configuration decides what of the files is text.
pub(super) fn selection_keys(config: &DataConfig) -> BTreeMap<String, String> {
    let max_bytes = config.max_bytes.map_or_else(|| "not set".into(), |bytes| bytes.to_string());
    BTreeMap::from([
        ("data.include".to_owned(), format!("{:?}", config.include)),
        ("data.max_bytes".to_owned(), max_bytes),
        ("data.format".to_owned(), format!("{:?}", config.format)),
        ("data.field".to_owned(), config.field.clone()),
    ])
}

/// The splits whose files are named.
pub(super) fn named(config: &DataConfig) -> impl Iterator<Item = Split> {
    [Split::Train, Split::Valid, Split::Test].into_iter().filter(|&split| !config.paths(split).is_empty())
}
