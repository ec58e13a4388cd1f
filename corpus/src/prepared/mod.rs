//! A folder of token files: made once from the texts of a configuration, and used by every run that asks for the same
//! tokens of the same text.
//!
//! ```text
//! prepared/NAME/  prepared.json  tokenizer.json  train.safetensors  valid.safetensors  test.safetensors
//! ```

mod error;
mod fit;
mod make;
mod manifest;

use std::path::{Path, PathBuf};

pub use self::error::PreparedError;
pub use self::fit::Opened;
pub use self::make::Made;
use self::manifest::Manifest;
pub use self::manifest::SplitFigures;
use crate::read_whole;
use crate::token_file::FORMAT;

const TOKENIZER_FILE: &str = "tokenizer.json";

/// A folder of token files that is there, not yet looked into but for its manifest.
#[derive(Debug)]
pub struct Prepared {
    folder: PathBuf,
    manifest: Manifest,
}

impl Prepared {
    /// The folder, when there is one.
    ///
    /// # Errors
    /// [`PreparedError`] when something else is there.
    pub fn find(folder: &Path) -> Result<Option<Self>, PreparedError> {
        let io = |source| PreparedError::Io { path: folder.into(), source };
        if !folder.try_exists().map_err(io)? {
            return Ok(None);
        }
        let path = folder.join(manifest::FILE);
        let malformed = |reason: String| PreparedError::Manifest { path: path.clone(), reason };
        let json = read_whole(&path, manifest::MOST_BYTES).map_err(|error| malformed(error.to_string()))?;
        let manifest: Manifest = serde_json::from_str(&json).map_err(|error| malformed(error.to_string()))?;
        if manifest.format != FORMAT {
            return Err(malformed(format!("format {:?}, expected {FORMAT:?}", manifest.format)));
        }
        Ok(Some(Prepared { folder: folder.into(), manifest }))
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What is in it, in the order training, validation, test.
    pub fn figures(&self) -> Vec<SplitFigures> {
        let names = ["train", "valid", "test"];
        names.iter().filter_map(|&name| self.manifest.splits.get(name).cloned()).collect()
    }

    /// Size of the vocabulary.
    pub fn vocabulary(&self) -> u64 {
        self.manifest.vocabulary
    }

    /// Words that came at most so often may be missing from the counts the vocabulary was made of; 0: none are.
    pub fn forgotten_to(&self) -> u64 {
        self.manifest.forgotten_to
    }
}
