//! Opening a token file: its header, its length, its documents; and reading tokens in place.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use blake3::Hash;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::{CHUNK, CONTENT, DOCUMENTS, FORMAT, TOKENS, TokenFileError, TokenFileInfo, width_for};
use crate::read_at::ReadAt;

/// A header is a page; one of another writer may be longer, but not by much.
const MAX_HEADER: u64 = 1 << 20;

/// A file whose header, length and documents are in order.
#[derive(Debug)]
pub(super) struct Opened {
    file: Box<dyn ReadAt>,
    pub(super) path: PathBuf,
    pub(super) info: TokenFileInfo,
    pub(super) tokens: u64,
    /// Bytes of a token: 2 or 4.
    width: usize,
    /// Where the tokens begin in the file.
    start: u64,
    /// As the metadata has it.
    pub(super) hash: Hash,
    /// Where each document ends, when they are apart.
    pub(super) ends: Option<Vec<u64>>,
}

impl Opened {
    /// A file that is open already; `path` is its name.
    pub(super) fn open(path: &Path, file: Box<dyn ReadAt>) -> Result<Self, TokenFileError> {
        let io = |source| TokenFileError::Io { path: path.into(), source };
        let length = file.length().map_err(io)?;
        let (start, metadata) = read_header(&*file, length).map_err(|problem| problem.at(path))?;
        let expected = start.saturating_add(metadata.data_len() as u64);
        if length != expected {
            return Err(TokenFileError::Length { path: path.into(), found: length, expected });
        }
        let malformed = |reason| TokenFileError::Malformed { path: path.into(), reason };
        let said = Said(metadata.metadata().as_ref().ok_or_else(|| malformed("no metadata".into()))?);
        let info = said.info().map_err(malformed)?;
        let width = width_for(info.vocabulary);
        let tokens = tensor(&metadata, TOKENS, if width == 2 { Dtype::U16 } else { Dtype::U32 });
        let tokens = tokens.map_err(malformed)?;
        let data = start;
        let start = data + tokens.data_offsets.0 as u64;
        let hash = said.hash("tokens_blake3").map_err(malformed)?;
        let tokens = tokens.shape[0] as u64;
        let mut opened = Opened { file, path: path.into(), info, tokens, width, start, hash, ends: None };
        if metadata.info(DOCUMENTS).is_some() {
            let documents = tensor(&metadata, DOCUMENTS, Dtype::U64).map_err(malformed)?;
            let hash = said.hash("documents_blake3").map_err(malformed)?;
            opened.ends = Some(opened.read_documents(data, documents, hash)?);
        }
        Ok(opened)
    }

    /// Adds the tokens of `range` to `into`.
    pub(super) fn append(&self, range: Range<u64>, into: &mut Vec<u32>) -> Result<(), TokenFileError> {
        let width = self.width as u64;
        let mut bytes = vec![0; ((range.end - range.start) * width) as usize];
        self.read_at(&mut bytes, self.start + range.start * width)?;
        match self.width {
            2 => into.extend(bytes.chunks_exact(2).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]])))),
            _ => into.extend(bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
        }
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), TokenFileError> {
        self.file.read_exact_at(bytes, offset).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => TokenFileError::Length {
                path: self.path.clone(),
                found: self.file.length().unwrap_or(0),
                expected: offset + bytes.len() as u64,
            },
            _ => TokenFileError::Io { path: self.path.clone(), source },
        })
    }

    /// Reads every token once: whether the vocabulary has it, and whether all of them are those that were written.
    pub(super) fn check_tokens(&self) -> Result<(), TokenFileError> {
        let (mut hasher, mut tokens, mut bytes) = (blake3::Hasher::new(), Vec::new(), Vec::new());
        for start in (0..self.tokens).step_by(CHUNK as usize) {
            tokens.clear();
            self.append(start..self.tokens.min(start + CHUNK), &mut tokens)?;
            let vocabulary = self.info.vocabulary;
            if let Some(at) = tokens.iter().position(|&token| token as usize >= vocabulary) {
                let (index, token, path) = (start + at as u64, tokens[at], self.path.clone());
                return Err(TokenFileError::Token { path, index, token, vocabulary });
            }
            bytes.clear();
            bytes.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
            hasher.update(&bytes);
        }
        self.check_hash(TOKENS, hasher.finalize(), self.hash)
    }

    /// The ends of the documents, which lie in the file behind `data`: rising, and the last one at the last token.
    fn read_documents(
        &self,
        data: u64,
        documents: &TensorInfo,
        expected: Hash,
    ) -> Result<Vec<u64>, TokenFileError> {
        let (from, until) = documents.data_offsets;
        // As long as the file says, and the file's length is known to be right.
        let mut bytes = vec![0; until - from];
        self.read_at(&mut bytes, data + from as u64)?;
        self.check_hash(DOCUMENTS, blake3::hash(&bytes), expected)?;
        let eight = |b: &[u8]| u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
        let ends: Vec<u64> = bytes.chunks_exact(8).map(eight).collect();
        let rising = ends.first().is_none_or(|&first| first > 0) && ends.is_sorted_by(|a, b| a < b);
        if !rising || ends.last().copied().unwrap_or(0) != self.tokens {
            let reason = format!("its documents do not cover its {} tokens", self.tokens);
            return Err(TokenFileError::Malformed { path: self.path.clone(), reason });
        }
        Ok(ends)
    }

    fn check_hash(&self, what: &'static str, found: Hash, expected: Hash) -> Result<(), TokenFileError> {
        if found == expected {
            return Ok(());
        }
        let (found, expected) = (found.to_string(), expected.to_string());
        Err(TokenFileError::Altered { path: self.path.clone(), what, found, expected })
    }
}

enum HeaderProblem {
    Io(io::Error),
    Malformed(String),
}

impl HeaderProblem {
    fn at(self, path: &Path) -> TokenFileError {
        match self {
            HeaderProblem::Io(source) => TokenFileError::Io { path: path.into(), source },
            HeaderProblem::Malformed(reason) => TokenFileError::Malformed { path: path.into(), reason },
        }
    }
}

/// Where the data begins, and what is in it.
fn read_header(file: &dyn ReadAt, length: u64) -> Result<(u64, Metadata), HeaderProblem> {
    let mut size = [0; 8];
    if length < 8 {
        return Err(HeaderProblem::Malformed(format!("{length} bytes, expected a header")));
    }
    file.read_exact_at(&mut size, 0).map_err(HeaderProblem::Io)?;
    let header = u64::from_le_bytes(size);
    if header == 0 || header > MAX_HEADER.min(length - 8) {
        let reason = format!("a header of {header} bytes in a file of {length}, expected 1 to {MAX_HEADER}");
        return Err(HeaderProblem::Malformed(reason));
    }
    let mut bytes = vec![0; header as usize];
    file.read_exact_at(&mut bytes, 8).map_err(HeaderProblem::Io)?;
    // Checks that the tensors follow each other without a hole, each as long as its shape.
    let metadata: Metadata = serde_json::from_slice(&bytes)
        .map_err(|error| HeaderProblem::Malformed(format!("no safetensors header: {error}")))?;
    Ok((8 + header, metadata))
}

fn tensor<'a>(metadata: &'a Metadata, name: &str, dtype: Dtype) -> Result<&'a TensorInfo, String> {
    let found = metadata.info(name).ok_or_else(|| format!("no tensor {name:?}"))?;
    if found.dtype != dtype || found.shape.len() != 1 {
        let (found, shape) = (found.dtype, &found.shape);
        return Err(format!("the tensor {name:?} is {found:?} {shape:?}, expected one row of {dtype:?}"));
    }
    Ok(found)
}

/// The metadata, text by text.
struct Said<'a>(&'a HashMap<String, String>);

impl Said<'_> {
    fn info(&self) -> Result<TokenFileInfo, String> {
        let (content, format) = (self.text("content")?, self.text("format")?);
        if content != CONTENT || format != FORMAT {
            return Err(format!(
                "{content:?} of format {format:?}, expected {CONTENT:?} of format {FORMAT:?}"
            ));
        }
        Ok(TokenFileInfo {
            split: self.text("split")?.to_owned(),
            tokenizer: self.hash("tokenizer")?,
            vocabulary: usize::try_from(self.number("vocabulary")?).map_err(|error| error.to_string())?,
            text: self.hash("text")?,
            documents: self.number("documents")?,
        })
    }

    fn text(&self, key: &str) -> Result<&str, String> {
        self.0.get(key).map(String::as_str).ok_or_else(|| format!("no {key:?} in its metadata"))
    }

    fn number(&self, key: &str) -> Result<u64, String> {
        let text = self.text(key)?;
        text.parse().map_err(|_| format!("{key:?} is {text:?} in its metadata, expected a number"))
    }

    fn hash(&self, key: &str) -> Result<Hash, String> {
        let text = self.text(key)?;
        Hash::from_hex(text)
            .map_err(|_| format!("{key:?} is {text:?} in its metadata, expected a BLAKE3 hash"))
    }
}
