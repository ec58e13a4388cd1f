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

use std::io;
use std::path::{Path, PathBuf};

pub use self::error::PreparedError;
pub use self::fit::Opened;
pub use self::make::Made;
use self::manifest::Manifest;
pub use self::manifest::SplitFigures;
use crate::token_file::FORMAT;
use crate::whole::read_whole_with;
use crate::{LocalOnly, Storage, is_url};

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
        Self::find_in(folder, &LocalOnly)
    }

    /// The folder, when there is one; it may be an address, below which there is one when there is a manifest.
    ///
    /// # Errors
    /// [`PreparedError`] when something else is there, or the storage refuses.
    pub fn find_in(folder: &Path, storage: &dyn Storage) -> Result<Option<Self>, PreparedError> {
        let io = |source| PreparedError::Io { path: folder.into(), source };
        let is_address = folder.to_str().is_some_and(is_url);
        if !is_address && !folder.try_exists().map_err(io)? {
            return Ok(None);
        }
        let path = folder.join(manifest::FILE);
        let malformed = |reason: String| PreparedError::Manifest { path: path.clone(), reason };
        let json = match read_whole_with(&path, manifest::MOST_BYTES, storage) {
            Err(error) if is_address && error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if is_address && error.kind() == io::ErrorKind::Other => return Err(io(error)),
            read => read.map_err(|error| malformed(error.to_string()))?,
        };
        let manifest: Manifest = serde_json::from_str(&json).map_err(|error| malformed(error.to_string()))?;
        if manifest.format != FORMAT {
            return Err(malformed(format!("format {:?}, expected {FORMAT:?}", manifest.format)));
        }
        Ok(Some(Prepared { folder: folder.into(), manifest }))
    }

    /// Names of all files in it. What a copy is made of; the last is the manifest, without which it is none.
    pub fn files(&self) -> Vec<String> {
        let tokens = self.manifest.splits.values().map(|split| split.file.clone());
        tokens.chain([TOKENIZER_FILE.into(), manifest::FILE.into()]).collect()
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
