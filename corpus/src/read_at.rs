//! Bytes at any place of a file: of this machine by positioned reads, of an object by ranges of which the last few are kept.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::{Object, Storage};

/// A file that is read in any order, by many at once.
pub(crate) trait ReadAt: fmt::Debug + Send + Sync {
    /// How long it is now.
    fn length(&self) -> io::Result<u64>;

    /// Fills `bytes` from `offset` on; an end before that is [`io::ErrorKind::UnexpectedEof`].
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, bytes, offset)
    }
}

/// An object, read in blocks. Many readers that each go forward ask for each block once, as long as there are fewer of them
/// than blocks are kept.
pub(crate) struct Blocks {
    object: Object,
    length: u64,
    storage: Arc<dyn Storage>,
    /// Bytes that are fetched at a time, and how many of such blocks stay.
    block: u64,
    kept: usize,
    /// Blocks by their number; the one used last is the last.
    blocks: Mutex<VecDeque<(u64, Bytes)>>,
}

impl Blocks {
    /// None for an object whose server does not tell its length.
    pub(crate) fn new(object: Object, storage: Arc<dyn Storage>, block: u64, kept: usize) -> Option<Self> {
        let length = object.bytes?;
        Some(Blocks { object, length, storage, block, kept, blocks: Mutex::default() })
    }

    /// The bytes of block `number`, which begins within the object.
    fn block(&self, number: u64) -> io::Result<Bytes> {
        if let Some(block) = self.use_kept(number) {
            return Ok(block);
        }
        let start = number * self.block;
        let mut bytes = vec![0; self.block.min(self.length - start) as usize];
        self.fetch(&mut bytes, start)?;
        let block = Bytes::from(bytes);
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.push_back((number, block.clone()));
        if blocks.len() > self.kept {
            blocks.pop_front();
        }
        Ok(block)
    }

    fn use_kept(&self, number: u64) -> Option<Bytes> {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let at = blocks.iter().position(|(n, _)| *n == number)?;
        let found = blocks.remove(at)?;
        let block = found.1.clone();
        blocks.push_back(found);
        Some(block)
    }

    fn fetch(&self, bytes: &mut [u8], start: u64) -> io::Result<()> {
        let range = start..start + bytes.len() as u64;
        self.storage.open(&self.object, range).map_err(io::Error::other)?.read_exact(bytes)
    }
}

impl ReadAt for Blocks {
    fn length(&self) -> io::Result<u64> {
        Ok(self.length)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64).filter(|&end| end <= self.length);
        end.ok_or(io::ErrorKind::UnexpectedEof)?;
        if bytes.len() as u64 > self.block {
            return self.fetch(bytes, offset);
        }
        let (mut filled, mut offset) = (0, offset);
        while filled < bytes.len() {
            let block = self.block(offset / self.block)?;
            let part = &block[(offset % self.block) as usize..];
            let length = part.len().min(bytes.len() - filled);
            bytes[filled..filled + length].copy_from_slice(&part[..length]);
            (filled, offset) = (filled + length, offset + length as u64);
        }
        Ok(())
    }
}

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blocks({}, {} bytes)", self.object.url, self.length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::ops::Range;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::StorageError;

    /// An object whose byte `i` is `i`, and the number of times it was asked for.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Storage for Counting {
        fn find(&self, _: &str) -> Result<Option<Object>, StorageError> {
            Ok(None)
        }

        fn list(&self, _: &str) -> Result<Vec<Object>, StorageError> {
            Ok(Vec::new())
        }

        fn open(&self, _: &Object, range: Range<u64>) -> Result<Box<dyn Read + Send>, StorageError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(Box::new(Cursor::new(range.map(|byte| byte as u8).collect::<Vec<u8>>())))
        }
    }

    fn blocks(kept: usize) -> (Arc<Counting>, Blocks) {
        let storage = Arc::new(Counting::default());
        let object = Object { url: "s3://b/x".into(), bytes: Some(100), version: None };
        (storage.clone(), Blocks::new(object, storage, 16, kept).unwrap())
    }

    #[test]
    fn every_place_is_what_it_is() {
        let (_, blocks) = blocks(2);
        for start in 0..100u64 {
            for length in 0..=100 - start {
                let mut bytes = vec![0xff; length as usize];
                blocks.read_exact_at(&mut bytes, start).unwrap();
                assert!(
                    bytes.iter().zip(start..).all(|(&byte, at)| u64::from(byte) == at),
                    "{start} {length}"
                );
            }
        }
        for (length, start) in [(1, 100), (2, 99), (101, 0), (1, u64::MAX)] {
            let error = blocks.read_exact_at(&mut vec![0; length], start).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn readers_that_go_forward_ask_for_each_block_once() {
        let (storage, blocks) = blocks(3);
        for step in 0..32 {
            for start in [0, 32, 64] {
                blocks.read_exact_at(&mut [0], start + step).unwrap();
            }
        }
        assert_eq!(storage.0.load(Ordering::Relaxed), 6);
        // With fewer blocks than readers, each step asks again.
        let (storage, blocks) = self::blocks(2);
        (0..4).for_each(|step| {
            [0, 32, 64].iter().for_each(|start| {
                blocks.read_exact_at(&mut [0], start + step).unwrap();
            })
        });
        assert_eq!(storage.0.load(Ordering::Relaxed), 12);
    }
}
