//! A file that is one document of plain text: read block after block, never held whole. Where pieces end is `cut`'s.

use std::io::Read;

use super::cut::Cut;
use super::input::Input;
use super::{Documents, Part};
use crate::CorpusError;

/// Bytes that are asked for at a time.
const BLOCK: u64 = 256 << 10;

/// A reader of plain text.
pub(super) struct Plain {
    input: Input,
    bytes: Box<dyn Read + Send>,
    /// Read, and not yet given out.
    buffer: Vec<u8>,
    /// Bytes that may still be read.
    left: u64,
    /// Whether nothing follows the buffer, and whether that is because of the limit.
    exhausted: bool,
    cut: bool,
    /// Where the buffer begins: a position in the text of this file, and the line it is in, counted from 1.
    offset: u64,
    line: u64,
    finished: bool,
}

impl Plain {
    /// A reader of at most `limit` bytes of text.
    pub(super) fn new(input: Input, bytes: Box<dyn Read + Send>, limit: u64) -> Self {
        Plain {
            input,
            bytes,
            buffer: Vec::new(),
            left: limit,
            exhausted: false,
            cut: false,
            offset: 0,
            line: 1,
            finished: false,
        }
    }

    /// Reads a block; one byte behind the limit tells a file that is cut from one that ends there.
    fn fill(&mut self) -> Result<(), CorpusError> {
        let block = BLOCK.min(self.left.saturating_add(1));
        let read = self.bytes.by_ref().take(block).read_to_end(&mut self.buffer);
        let read = read.map_err(|source| self.input.unreadable(source))? as u64;
        self.exhausted = read < block;
        if read > self.left {
            self.buffer.pop();
            (self.exhausted, self.cut) = (true, true);
        }
        self.left = self.left.saturating_sub(read);
        Ok(())
    }

    /// Length of the next piece, once enough is read to know it.
    fn piece(&mut self) -> Result<usize, CorpusError> {
        let mut cut = Cut::default();
        loop {
            if let Some(end) = cut.find(&self.buffer) {
                // Whether the document ends here too must be known.
                if end < self.buffer.len() || self.exhausted {
                    return Ok(end);
                }
            } else if self.exhausted {
                return Ok(self.buffer.len());
            }
            self.fill()?;
        }
    }

    /// The bytes of a piece as text; at a limit, without the beginning of a character at their end.
    fn decode(&mut self, bytes: Vec<u8>, at_limit: bool) -> Result<String, CorpusError> {
        let text = String::from_utf8(bytes).or_else(|error| {
            let (utf8, mut bytes) = (error.utf8_error(), error.into_bytes());
            bytes.truncate(utf8.valid_up_to());
            if at_limit && utf8.error_len().is_none() {
                return Ok(String::from_utf8(bytes).expect("the part before the error is valid"));
            }
            Err(self.input.not_utf8(self.line + lines(&bytes), self.offset + bytes.len() as u64))
        })?;
        self.line += lines(text.as_bytes());
        self.offset += text.len() as u64;
        Ok(text)
    }
}

fn lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

impl Documents for Plain {
    fn next_part(&mut self) -> Result<Option<Part>, CorpusError> {
        if self.finished {
            return Ok(None);
        }
        let end = self.piece()?;
        let rest = self.buffer.split_off(end);
        let bytes = std::mem::replace(&mut self.buffer, rest);
        self.finished = self.exhausted && self.buffer.is_empty();
        let cut = self.finished && self.cut;
        let text = self.decode(bytes, cut)?;
        Ok(Some(Part { text, ends_document: self.finished, cut }))
    }
}
