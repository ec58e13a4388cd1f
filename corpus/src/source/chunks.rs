//! A file as the Parquet decoder wants it: it begins at its end, and goes on where a page is.

use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use ::parquet::errors::{ParquetError, Result};
use ::parquet::file::reader::{ChunkReader, Length};
use bytes::Bytes;

use super::input::{Input, Meter};
use super::listing::Place;
use crate::CorpusError;
use crate::read_at::{Blocks, ReadAt};

/// Bytes that are fetched at a time of an object, and how many of such blocks stay.
const BLOCK: u64 = 4 << 20;
const KEPT: usize = 3;
/// Bytes that a reader asks for at a time.
const BUFFER: u64 = 64 << 10;

/// A file, shared by all who read it.
#[derive(Clone)]
pub(super) struct Chunks(Arc<Shared>);

struct Shared {
    bytes: Box<dyn ReadAt>,
    length: u64,
    meter: Meter,
    /// What went wrong below, for a message that the decoder would reduce to text.
    failure: Mutex<Option<io::Error>>,
}

impl Chunks {
    /// Opens `input`.
    pub(super) fn open(input: &Input) -> std::result::Result<Self, CorpusError> {
        let bytes: Box<dyn ReadAt> = match input.place() {
            Place::File(path, _) => Box::new(File::open(path).map_err(|source| input.unreadable(source))?),
            Place::Object(object) => {
                let blocks = Blocks::new(object.clone(), input.storage(), BLOCK, KEPT);
                let unknown = || {
                    input.damaged("the server does not tell its length, which a Parquet file needs".into())
                };
                Box::new(blocks.ok_or_else(unknown)?)
            }
        };
        let length = bytes.length().map_err(|source| input.unreadable(source))?;
        Ok(Chunks(Arc::new(Shared { bytes, length, meter: input.meter(), failure: Mutex::default() })))
    }

    /// What went wrong below the last error of the decoder, if anything did.
    pub(super) fn failure(&self) -> Option<io::Error> {
        self.0.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn read(&self, start: u64, length: u64) -> Result<Bytes> {
        if start.checked_add(length).is_none_or(|end| end > self.0.length) {
            let whole = self.0.length;
            return Err(ParquetError::EOF(format!("{length} bytes at {start} of a file of {whole} bytes")));
        }
        let mut bytes = vec![0; length as usize];
        let read = self.0.bytes.read_exact_at(&mut bytes, start);
        self.0.meter.add(length);
        read.map(|()| bytes.into()).map_err(|error| {
            let text = error.to_string();
            *self.0.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            ParquetError::General(text)
        })
    }
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.0.length
    }
}

impl ChunkReader for Chunks {
    type T = Sequential;

    fn get_read(&self, start: u64) -> Result<Sequential> {
        self.read(start, 0)?;
        Ok(Sequential { chunks: self.clone(), position: start, buffer: Bytes::new() })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        self.read(start, length as u64)
    }
}

/// A reader from a position on.
pub(super) struct Sequential {
    chunks: Chunks,
    /// Where the next buffer begins.
    position: u64,
    buffer: Bytes,
}

impl Read for Sequential {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.buffer.is_empty() {
            let length = BUFFER.min(self.chunks.0.length - self.position);
            self.buffer = self.chunks.read(self.position, length).map_err(io::Error::other)?;
            self.position += length;
        }
        let length = buffer.len().min(self.buffer.len());
        buffer[..length].copy_from_slice(&self.buffer.split_to(length));
        Ok(length)
    }
}
