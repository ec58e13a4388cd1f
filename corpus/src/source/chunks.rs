//! Any part of a file in any order, for a format that begins at its end: local files by positioned reads, objects by
//! ranges. A few blocks are kept, so that a column read page after page asks for each block once.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::parquet::errors::{ParquetError, Result};
use ::parquet::file::reader::{ChunkReader, Length};
use bytes::{Buf, Bytes};

use super::input::{Input, Meter};
use super::listing::Place;
use super::{Object, Storage};
use crate::CorpusError;

/// Bytes that are fetched at a time, and how many of such blocks stay.
const BLOCK: u64 = 4 << 20;
const KEPT: usize = 3;

/// A file, shared by all who read it.
#[derive(Clone)]
pub(super) struct Chunks(Arc<Shared>);

struct Shared {
    from: From,
    length: u64,
    meter: Meter,
    state: Mutex<State>,
}

enum From {
    File(File),
    Object(Object, Arc<dyn Storage>),
}

#[derive(Default)]
struct State {
    /// Blocks by their number, the newest last.
    blocks: VecDeque<(u64, Bytes)>,
    /// What went wrong below, for a message that the decoder would reduce to text.
    failure: Option<io::Error>,
}

impl Chunks {
    /// Opens `input`.
    pub(super) fn open(input: &Input) -> std::result::Result<Self, CorpusError> {
        let (from, length) = match input.place() {
            Place::File(path, length) => {
                (From::File(File::open(path).map_err(|source| input.unreadable(source))?), Some(*length))
            }
            Place::Object(object) => (From::Object(object.clone(), input.storage()), object.bytes),
        };
        let unknown =
            || input.damaged("the server does not tell its length, which a Parquet file needs".into());
        let (length, meter) = (length.ok_or_else(unknown)?, input.meter());
        Ok(Chunks(Arc::new(Shared { from, length, meter, state: Mutex::default() })))
    }

    /// What went wrong below the last error of the decoder, if anything did.
    pub(super) fn failure(&self) -> Option<io::Error> {
        self.0.state().failure.take()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Blocks are put in whole: a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Block `number` of the file.
    fn block(&self, number: u64) -> Result<Bytes> {
        if let Some((_, block)) = self.state().blocks.iter().find(|(n, _)| *n == number) {
            return Ok(block.clone());
        }
        let start = number * BLOCK;
        let block = self.fetch(start, BLOCK.min(self.length - start))?;
        let mut state = self.state();
        state.blocks.push_back((number, block.clone()));
        if state.blocks.len() > KEPT {
            state.blocks.pop_front();
        }
        Ok(block)
    }

    fn fetch(&self, start: u64, length: u64) -> Result<Bytes> {
        let mut bytes = vec![0; length as usize];
        let read = match &self.from {
            From::File(file) => file.read_exact_at(&mut bytes, start),
            From::Object(object, storage) => storage
                .open(object, start..start + length)
                .map_err(io::Error::other)
                .and_then(|mut reader| reader.read_exact(&mut bytes)),
        };
        self.meter.add(length);
        read.map(|()| bytes.into()).map_err(|error| {
            let text = error.to_string();
            self.state().failure = Some(error);
            ParquetError::General(text)
        })
    }

    fn check(&self, start: u64, length: u64) -> Result<()> {
        match start.checked_add(length) {
            Some(end) if end <= self.length => Ok(()),
            _ => Err(ParquetError::EOF(format!(
                "{length} bytes at {start} of a file of {} bytes",
                self.length
            ))),
        }
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
        self.0.check(start, 0)?;
        Ok(Sequential { chunks: self.clone(), position: start })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        self.0.check(start, length as u64)?;
        let (first, within) = (start / BLOCK, (start % BLOCK) as usize);
        if length as u64 > BLOCK {
            return self.0.fetch(start, length as u64);
        }
        if length == 0 {
            return Ok(Bytes::new());
        }
        let block = self.0.block(first)?;
        if within + length <= block.len() {
            return Ok(block.slice(within..within + length));
        }
        let mut bytes = block.slice(within..).to_vec();
        let rest = self.0.block(first + 1)?;
        bytes.extend_from_slice(&rest[..length - bytes.len()]);
        Ok(bytes.into())
    }
}

/// A reader from a position on.
pub(super) struct Sequential {
    chunks: Chunks,
    position: u64,
}

impl Read for Sequential {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.chunks.0.length {
            return Ok(0);
        }
        let mut block = self.chunks.0.block(self.position / BLOCK).map_err(io::Error::other)?;
        block.advance((self.position % BLOCK) as usize);
        let read = block.reader().read(buffer)?;
        self.position += read as u64;
        Ok(read)
    }
}
