//! The token file of one split: a safetensors file with the tensor `tokens`, and with documents apart their ends as
//! the tensor `documents`. Written once, then read in place with positioned reads: no part of it is ever mapped, so a
//! file that is cut short while it is used is an error and no signal. What it says of itself is checked before it is
//! used, and all of its content once.

mod error;
mod read;
mod write;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use blake3::Hash;

pub use self::error::TokenFileError;
use self::read::Opened;
pub(crate) use self::write::TokenFileWriter;
use crate::read_at::{Blocks, ReadAt};
use crate::{Storage, is_url};

/// The version of what is in such a file, and of the folder it lies in.
pub(crate) const FORMAT: &str = "1";
/// What `format` says of the content.
const CONTENT: &str = "carousel tokens";
/// Bytes before the tokens: a page, so that who maps the file finds them at a page's start.
const DATA_START: u64 = 4096;
/// Tokens that are checked at a time.
const CHUNK: u64 = 1 << 18;
/// Bytes that are fetched at a time of an object, and how many of such blocks are kept.
const BLOCK: u64 = 256 << 10;
const KEPT_BLOCKS: usize = 256;
/// Vocabularies up to this have tokens of two bytes.
const MAX_U16: usize = 1 << 16;

const TOKENS: &str = "tokens";
const DOCUMENTS: &str = "documents";
/// Brings `documents` to a multiple of eight bytes.
const PADDING: &str = "padding";

/// What a token file says of itself, beside its tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFileInfo {
    /// `train`, `valid` or `test`.
    pub split: String,
    /// BLAKE3 of the tokenizer's `tokenizer.json`.
    pub tokenizer: Hash,
    /// Size of the vocabulary: every token is below it.
    pub vocabulary: usize,
    /// BLAKE3 of the text it was made from.
    pub text: Hash,
    /// Documents in this split.
    pub documents: u64,
}

/// An open token file. Its clones share it.
#[derive(Debug, Clone)]
pub struct TokenFile(Arc<Opened>);

/// Bytes of a token in a file for a vocabulary of this size.
fn width_for(vocabulary: usize) -> usize {
    if vocabulary <= MAX_U16 { 2 } else { 4 }
}

impl TokenFile {
    /// Opens and checks a file: its header, its length, and then every token and its hashes.
    ///
    /// # Errors
    /// Every [`TokenFileError`] but `Tokenizer`.
    pub fn open(path: &Path) -> Result<Self, TokenFileError> {
        let file = File::open(path).map_err(|source| TokenFileError::Io { path: path.into(), source })?;
        Self::checked(path, Box::new(file))
    }

    /// As [`TokenFile::open`], of a path or of a URL that `storage` opens. An object is read in blocks, of which so many are
    /// kept that as many streams can go forward in it.
    ///
    /// # Errors
    /// As there; what the storage says is in the source of `Io`.
    pub fn open_with(path: &Path, storage: &Arc<dyn Storage>) -> Result<Self, TokenFileError> {
        let Some(url) = path.to_str().filter(|text| is_url(text)) else { return Self::open(path) };
        let io = |source| TokenFileError::Io { path: path.into(), source };
        let object = storage.find(url).map_err(|error| io(io::Error::other(error)))?;
        let object =
            object.ok_or_else(|| io(io::Error::new(io::ErrorKind::NotFound, "there is no such object")))?;
        let blocks = Blocks::new(object, storage.clone(), BLOCK, KEPT_BLOCKS);
        let blocks = blocks.ok_or_else(|| io(io::Error::other("the server does not tell its length")))?;
        Self::checked(path, Box::new(blocks))
    }

    fn checked(path: &Path, file: Box<dyn ReadAt>) -> Result<Self, TokenFileError> {
        let opened = Opened::open(path, file)?;
        opened.check_tokens()?;
        Ok(TokenFile(Arc::new(opened)))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// What it says of itself.
    pub fn info(&self) -> &TokenFileInfo {
        &self.0.info
    }

    /// How many tokens it has.
    pub fn tokens(&self) -> u64 {
        self.0.tokens
    }

    /// BLAKE3 of the tokens, each as four bytes, the lowest first.
    pub fn hash(&self) -> Hash {
        self.0.hash
    }

    /// Behind how many tokens each document ends, when documents are apart.
    pub fn document_ends(&self) -> Option<&[u64]> {
        self.0.ends.as_deref()
    }

    /// Reads the tokens of `range` behind those in `into`.
    ///
    /// # Errors
    /// [`TokenFileError::Io`]; [`TokenFileError::Length`] when the file ends before them.
    pub(crate) fn append(&self, range: Range<u64>, into: &mut Vec<u32>) -> Result<(), TokenFileError> {
        self.0.append(range, into)
    }
}
