//! Writing a token file: tokens as they come, the header when their number is known. Until then the file begins with
//! zeros, and is no token file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{
    CONTENT, DATA_START, DOCUMENTS, FORMAT, PADDING, TOKENS, TokenFileError, TokenFileInfo, width_for,
};

/// Bytes that are gathered for a write.
const BUFFER: usize = 1 << 20;

/// A token file that is being written.
pub(crate) struct TokenFileWriter {
    file: BufWriter<File>,
    path: PathBuf,
    /// Bytes of a token: 2 or 4.
    width: usize,
    tokens: u64,
    hasher: blake3::Hasher,
    /// Where documents end, when they are apart.
    ends: Option<Vec<u64>>,
}

impl TokenFileWriter {
    /// Begins a new file for tokens of a vocabulary of this size; `apart`: whether documents are.
    pub(crate) fn create(path: &Path, vocabulary: usize, apart: bool) -> Result<Self, TokenFileError> {
        let create = || {
            let mut file = File::create_new(path)?;
            file.seek(SeekFrom::Start(DATA_START))?;
            Ok(BufWriter::with_capacity(BUFFER, file))
        };
        let file = create().map_err(|source| TokenFileError::Io { path: path.into(), source })?;
        Ok(TokenFileWriter {
            file,
            path: path.into(),
            width: width_for(vocabulary),
            tokens: 0,
            hasher: blake3::Hasher::new(),
            ends: apart.then(Vec::new),
        })
    }

    /// Adds tokens, and the documents that end among them: each behind so many of these tokens.
    pub(crate) fn add(&mut self, tokens: &[u32], ends: &[usize]) -> Result<(), TokenFileError> {
        if let Some(all) = &mut self.ends {
            all.extend(ends.iter().map(|&end| self.tokens + end as u64));
        }
        self.tokens += tokens.len() as u64;
        let wide: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        self.hasher.update(&wide);
        let written = match self.width {
            2 => {
                let narrow = wide.chunks_exact(4).flat_map(|b| [b[0], b[1]]);
                self.file.write_all(&narrow.collect::<Vec<u8>>())
            }
            _ => self.file.write_all(&wide),
        };
        written.map_err(|source| self.io(source))
    }

    /// Tokens so far.
    pub(crate) fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Writes what belongs behind and before the tokens, and waits until all of it is on the disk.
    pub(crate) fn finish(mut self, info: &TokenFileInfo) -> Result<(), TokenFileError> {
        let bytes = self.tokens * self.width as u64;
        let padding = self.ends.as_ref().map_or(0, |_| bytes.next_multiple_of(8) - bytes);
        let documents: Option<Vec<u8>> =
            self.ends.take().map(|ends| ends.iter().flat_map(|end| end.to_le_bytes()).collect());
        let header = self.header(info, bytes, padding, documents.as_deref());
        let mut write = || {
            self.file.write_all(&vec![0; padding as usize])?;
            self.file.write_all(documents.as_deref().unwrap_or_default())?;
            self.file.flush()?;
            self.file.get_ref().write_all_at(&header, 0)?;
            self.file.get_ref().sync_all()
        };
        write().map_err(|source| TokenFileError::Io { path: self.path.clone(), source })
    }

    /// Length, JSON, and spaces up to where the tokens begin.
    fn header(&self, info: &TokenFileInfo, bytes: u64, padding: u64, documents: Option<&[u8]>) -> Vec<u8> {
        let tensor = |dtype: &str, length: u64, from: u64, until: u64| json!({ "data_offsets": [from, until], "dtype": dtype, "shape": [length] });
        let dtype = if self.width == 2 { "U16" } else { "U32" };
        let mut header: BTreeMap<&str, Value> = BTreeMap::new();
        header.insert("__metadata__", self.metadata(info, documents));
        header.insert(TOKENS, tensor(dtype, self.tokens, 0, bytes));
        let behind = bytes + padding;
        if padding > 0 {
            header.insert(PADDING, tensor("U8", padding, bytes, behind));
        }
        if let Some(documents) = documents {
            let length = documents.len() as u64;
            header.insert(DOCUMENTS, tensor("U64", length / 8, behind, behind + length));
        }
        let json = serde_json::to_string(&header).expect("names and numbers can be written as JSON");
        let room = DATA_START as usize - 8;
        assert!(json.len() <= room, "numbers, names and hashes fit into a page");
        [&(room as u64).to_le_bytes()[..], json.as_bytes(), &vec![b' '; room - json.len()]].concat()
    }

    fn metadata(&self, info: &TokenFileInfo, documents: Option<&[u8]>) -> Value {
        let mut metadata = BTreeMap::from([
            ("content", CONTENT.to_owned()),
            ("format", FORMAT.to_owned()),
            ("split", info.split.clone()),
            ("tokenizer", info.tokenizer.to_string()),
            ("vocabulary", info.vocabulary.to_string()),
            ("text", info.text.to_string()),
            ("tokens", self.tokens.to_string()),
            ("documents", info.documents.to_string()),
            ("tokens_blake3", self.hasher.finalize().to_string()),
        ]);
        if let Some(documents) = documents {
            metadata.insert("documents_blake3", blake3::hash(documents).to_string());
        }
        json!(metadata)
    }

    fn io(&self, source: io::Error) -> TokenFileError {
        TokenFileError::Io { path: self.path.clone(), source }
    }
}
