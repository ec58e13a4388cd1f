//! The journal: what was decided, appended in the order in which it was decided: that a term began, that a step was
//! committed. It is the run's memory of its decisions; it does not hold weights, and a replay of the steps from a
//! checkpoint makes them again.
//!
//! File: 7 bytes `CRSLJRN` and the version; then for each entry its length (u32, little endian), the first 8 bytes of the
//! BLAKE3 hash of its bytes, and the bytes (bincode, standard configuration). A torn or damaged tail ends the journal.
//!
//! Nothing that stands in it is ever taken out. A run that goes back to a checkpoint commits the steps after it again, in
//! a higher term; of a step that stands there twice the later record counts, and both must say the same.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use carousel_proto::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::append::{AppendFile, Appended};
use crate::storage::Storage;

const MAGIC: &[u8; 7] = b"CRSLJRN";
/// The version of the journal that is written and read.
pub(crate) const VERSION: u8 = 2;
const HEADER_BYTES: usize = MAGIC.len() + 1;
/// No entry is anywhere near as long; a longer length is damage.
const MAX_ENTRY: usize = 1 << 16;

/// What was decided at a commit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The term of the commit.
    pub term: u64,
    /// The committed step.
    pub step: u64,
    /// Targets of the step.
    pub tokens: u64,
    /// Their summed loss, nats.
    pub loss_sum: f64,
    /// The gradient's norm before the clip.
    pub grad_norm: f64,
    /// The factor of the clip.
    pub clip_scale: f32,
    /// The learning rate.
    pub learning_rate: f32,
}

impl Record {
    /// Whether two records say the same of their step; the term may differ, as it does after a replay.
    #[must_use]
    pub fn same_content(&self, other: &Record) -> bool {
        let bits = |r: &Record| {
            let floats = [r.loss_sum.to_bits(), r.grad_norm.to_bits()];
            (r.step, r.tokens, floats, r.clip_scale.to_bits(), r.learning_rate.to_bits())
        };
        bits(self) == bits(other)
    }
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Entry {
    /// A term begins. Appended before anything of that term is said to anybody, so that whoever starts the coordinator
    /// again takes a term above every one that was ever handed out.
    Term {
        /// The term.
        term: u64,
    },
    /// A step was committed.
    Commit(Record),
}

/// Why a journal could not be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file could not be read or written.
    #[error("journal {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The file is something else.
    #[error("journal {path}: not a journal (found {found:02x?} at its start)")]
    NotAJournal {
        /// The file.
        path: PathBuf,
        /// Its first bytes.
        found: Vec<u8>,
    },
    /// The file is a journal of another version.
    #[error("journal {path}: version {found}, this program reads version {VERSION}")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u8,
    },
    /// A process holds it open.
    #[error("journal {path}: another coordinator works on this run")]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The disk takes nothing, and so much waits in memory that a decision would be lost.
    #[error("journal {path}: the disk takes nothing and no more decisions can wait in memory")]
    Overflow {
        /// The file.
        path: PathBuf,
    },
}

/// What became of an entry that was appended.
#[derive(Debug)]
pub(crate) enum Journalled {
    /// It is in the file, or still waits as was said before.
    AsBefore,
    /// The disk has begun to refuse: the entry waits in memory and is tried again with the next one.
    Fails(io::Error),
    /// The disk takes entries again; every one that waited is in the file.
    Recovered,
}

/// An open journal, positioned at its end. While it is open no other process can open it.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: AppendFile,
    sync: JournalSync,
}

/// Brings what a journal's file holds to the disk, from any thread.
#[derive(Clone, Debug)]
pub(crate) struct JournalSync {
    path: PathBuf,
    /// `None` on a test's own disk. The file carries the lock, which ends with its last holder.
    file: Option<Arc<File>>,
}

/// What a journal held when it was opened.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Contents {
    /// Every whole entry, in order.
    pub entries: Vec<Entry>,
    /// Bytes of a torn or damaged tail that were passed over.
    pub damaged_bytes: u64,
}

impl Contents {
    /// The highest term that was ever handed out; 0 when none was.
    pub(crate) fn term(&self) -> u64 {
        let terms = self.entries.iter().map(|entry| match entry {
            Entry::Term { term } => *term,
            Entry::Commit(record) => record.term,
        });
        terms.max().unwrap_or(0)
    }

    /// Every record, in the order of the commits.
    pub(crate) fn commits(&self) -> impl Iterator<Item = &Record> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Commit(record) => Some(record),
            Entry::Term { .. } => None,
        })
    }

    /// The record of each step that was ever committed; of a step that was made again the later one.
    pub(crate) fn records(&self) -> BTreeMap<u64, Record> {
        self.commits().map(|record| (record.step, record.clone())).collect()
    }
}

impl Journal {
    /// Creates the journal of a new run and locks it.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub(crate) fn create(path: &Path) -> Result<Self, JournalError> {
        let io = |source| JournalError::Io { path: path.into(), source };
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(path).map_err(io)?;
        lock(&file, path)?;
        file.write_at(&header(), 0).map_err(io)?;
        file.sync_all().map_err(io)?;
        Self::over(file, path, HEADER_BYTES as u64)
    }

    /// As long as a journal without entries is.
    pub(crate) const EMPTY_BYTES: u64 = HEADER_BYTES as u64;

    /// Makes an empty journal of one that was never finished: it is missing, or shorter than its header.
    ///
    /// # Errors
    /// When another process holds it, or it cannot be written.
    pub(crate) fn finish(path: &Path) -> Result<(), JournalError> {
        let io = |source| JournalError::Io { path: path.into(), source };
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        lock(&file, path)?;
        if file.metadata().map_err(io)?.len() < Self::EMPTY_BYTES {
            file.write_at(&header(), 0).map_err(io)?;
            file.sync_all().map_err(io)?;
        }
        Ok(())
    }

    /// Reads a journal without changing it, whoever works with it.
    ///
    /// # Errors
    /// When the file cannot be read or is no journal.
    pub(crate) fn read(path: &Path) -> Result<Contents, JournalError> {
        let bytes = std::fs::read(path).map_err(|source| JournalError::Io { path: path.into(), source })?;
        decode(&bytes, path)
    }

    /// Opens a journal to go on with it, locks it, and cuts off a torn or damaged tail.
    ///
    /// # Errors
    /// When another process holds it, or the file cannot be read or written or is no journal.
    pub(crate) fn open(path: &Path) -> Result<(Self, Contents), JournalError> {
        let io = |source| JournalError::Io { path: path.into(), source };
        let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(io)?;
        lock(&file, path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io)?;
        let (contents, whole) = scan(body_of(&bytes, path)?);
        let end = (HEADER_BYTES + whole) as u64;
        file.set_length(end).map_err(io)?;
        Ok((Self::over(file, path, end)?, contents))
    }

    fn over(file: File, path: &Path, end: u64) -> Result<Self, JournalError> {
        let io = |source| JournalError::Io { path: path.into(), source };
        let second = file.try_clone().map_err(io)?;
        let sync = JournalSync { path: path.into(), file: Some(second.into()) };
        Ok(Self { path: path.into(), file: AppendFile::new(file, end), sync })
    }

    /// Appends an entry; it reaches the disk when the system writes it, or with a sync. What the disk does not take waits
    /// in memory, in order, and the run may go on.
    ///
    /// # Errors
    /// When too much waits already: the entry is lost.
    pub(crate) fn append(&mut self, entry: &Entry) -> Result<Journalled, JournalError> {
        let payload = bincode::serde::encode_to_vec(entry, bincode::config::standard())
            .expect("an entry of numbers can be encoded");
        let mut framed = Vec::with_capacity(payload.len() + 12);
        framed.extend((payload.len() as u32).to_le_bytes());
        framed.extend(&Digest::of_bytes(&payload).as_bytes()[..8]);
        framed.extend(payload);
        let appended = self.file.append(framed);
        self.told(appended)
    }

    /// Tries to write what waits.
    ///
    /// # Errors
    /// None that [`Journal::append`] has not told before.
    pub(crate) fn retry(&mut self) -> Result<Journalled, JournalError> {
        let appended = self.file.retry();
        self.told(appended)
    }

    /// Whether every entry is in the file.
    pub(crate) fn is_whole(&self) -> bool {
        self.file.is_whole()
    }

    /// A way to sync the file from another thread.
    pub(crate) fn syncer(&self) -> JournalSync {
        self.sync.clone()
    }

    fn told(&self, appended: Appended) -> Result<Journalled, JournalError> {
        match appended {
            Appended::Whole | Appended::Waits => Ok(Journalled::AsBefore),
            Appended::Fails(problem) => Ok(Journalled::Fails(problem)),
            Appended::Recovered { lost: 0 } => Ok(Journalled::Recovered),
            Appended::Lost | Appended::Recovered { .. } => {
                Err(JournalError::Overflow { path: self.path.clone() })
            }
        }
    }
}

impl JournalSync {
    /// Waits until every entry that the file has taken is on disk.
    ///
    /// # Errors
    /// When that is not sure.
    pub(crate) fn sync(&self) -> Result<(), JournalError> {
        let synced = self.file.as_ref().map_or(Ok(()), |file| file.sync_data());
        synced.map_err(|source| JournalError::Io { path: self.path.clone(), source })
    }
}

fn header() -> [u8; HEADER_BYTES] {
    let mut header = [VERSION; HEADER_BYTES];
    header[..MAGIC.len()].copy_from_slice(MAGIC);
    header
}

fn lock(file: &File, path: &Path) -> Result<(), JournalError> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => JournalError::Locked { path: path.into() },
        TryLockError::Error(source) => JournalError::Io { path: path.into(), source },
    })
}

/// The entries of a whole file's bytes.
pub(crate) fn decode(bytes: &[u8], path: &Path) -> Result<Contents, JournalError> {
    Ok(scan(body_of(bytes, path)?).0)
}

/// What follows the file's header, which must be a journal's.
fn body_of<'a>(bytes: &'a [u8], path: &Path) -> Result<&'a [u8], JournalError> {
    let version = bytes.strip_prefix(MAGIC).and_then(|rest| rest.split_first());
    match version {
        Some((&VERSION, body)) => Ok(body),
        Some((&found, _)) => Err(JournalError::Version { path: path.into(), found }),
        None => {
            let found = bytes.iter().take(HEADER_BYTES).copied().collect();
            Err(JournalError::NotAJournal { path: path.into(), found })
        }
    }
}

/// The whole entries, and their bytes.
fn scan(body: &[u8]) -> (Contents, usize) {
    let (mut entries, mut at) = (Vec::new(), 0);
    while let Some((entry, length)) = read_entry(&body[at..]) {
        at += length;
        entries.push(entry);
    }
    (Contents { entries, damaged_bytes: (body.len() - at) as u64 }, at)
}

fn read_entry(bytes: &[u8]) -> Option<(Entry, usize)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    let (checksum, rest) = rest.split_first_chunk::<8>()?;
    let payload = rest.get(..length).filter(|_| length <= MAX_ENTRY)?;
    if Digest::of_bytes(payload).as_bytes()[..8] != checksum[..] {
        return None;
    }
    let (entry, used) = bincode::serde::decode_from_slice(payload, bincode::config::standard()).ok()?;
    (used == length).then_some((entry, length + 12))
}

#[cfg(test)]
mod tests;
