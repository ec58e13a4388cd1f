//! The journal: one record for each commit, appended, in the order of the steps. It is the run's memory of what was
//! decided; it does not hold weights, and a replay of the steps from a checkpoint makes them again.
//!
//! File: 8 bytes `CRSLJRN` + version; then for each record its length (u32, little endian), the first 8 bytes of the
//! BLAKE3 hash of its bytes, and the bytes (bincode, standard configuration). A torn or damaged tail ends the journal.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use carousel_proto::digest::Digest;
use serde::{Deserialize, Serialize};

const MAGIC: &[u8; 8] = b"CRSLJRN\x01";
/// No record is anywhere near as long; a longer length is damage.
const MAX_RECORD: usize = 1 << 16;

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
    #[error("journal {path}: not a journal of this version (found {found:02x?} at its start)")]
    NotAJournal {
        /// The file.
        path: PathBuf,
        /// Its first bytes.
        found: Vec<u8>,
    },
}

/// An open journal, positioned at its end.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
}

/// What a journal held when it was opened.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// The whole records, in order.
    pub records: Vec<Record>,
    /// Bytes of a torn or damaged tail that were passed over.
    pub damaged_bytes: u64,
}

impl Journal {
    /// Creates the journal of a new run.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub(crate) fn create(path: &Path) -> Result<Self, JournalError> {
        let io = |source| JournalError::Io { path: path.into(), source };
        let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(io)?;
        file.write_all(MAGIC).map_err(io)?;
        file.sync_all().map_err(io)?;
        Ok(Self { path: path.into(), file })
    }

    /// Reads a journal without changing it.
    ///
    /// # Errors
    /// When the file cannot be read or is no journal.
    pub(crate) fn read(path: &Path) -> Result<Contents, JournalError> {
        let bytes = std::fs::read(path).map_err(|source| JournalError::Io { path: path.into(), source })?;
        let body = body_of(&bytes, path)?;
        let (records, _, whole) = scan(body, u64::MAX);
        Ok(Contents { records, damaged_bytes: (body.len() - whole) as u64 })
    }

    /// Opens a journal and keeps the records up to and including `last_step`: what a checkpoint stands for. What came
    /// after it is handed out with the rest, to be compared when these steps are made again.
    ///
    /// # Errors
    /// When the file cannot be read or written or is no journal.
    pub(crate) fn reopen(path: &Path, last_step: u64) -> Result<(Self, Contents), JournalError> {
        let io = |source| JournalError::Io { path: path.into(), source };
        let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(io)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io)?;
        let body = body_of(&bytes, path)?;
        let (records, kept, whole) = scan(body, last_step);
        let end = (MAGIC.len() + kept) as u64;
        file.set_len(end).map_err(io)?;
        file.seek(SeekFrom::Start(end)).map_err(io)?;
        let damaged_bytes = (body.len() - whole) as u64;
        Ok((Self { path: path.into(), file }, Contents { records, damaged_bytes }))
    }

    /// Appends a record; it reaches the disk when the system writes it, or with [`Journal::sync`].
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn append(&mut self, record: &Record) -> Result<(), JournalError> {
        let payload = bincode::serde::encode_to_vec(record, bincode::config::standard())
            .expect("a record of numbers can be encoded");
        let mut framed = Vec::with_capacity(payload.len() + 12);
        framed.extend((payload.len() as u32).to_le_bytes());
        framed.extend(&Digest::of_bytes(&payload).as_bytes()[..8]);
        framed.extend(payload);
        self.file.write_all(&framed).map_err(|source| JournalError::Io { path: self.path.clone(), source })
    }

    /// Waits until every record is on disk.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn sync(&mut self) -> Result<(), JournalError> {
        self.file.sync_data().map_err(|source| JournalError::Io { path: self.path.clone(), source })
    }
}

/// What follows the file's first bytes, which must be a journal's.
fn body_of<'a>(bytes: &'a [u8], path: &Path) -> Result<&'a [u8], JournalError> {
    bytes.strip_prefix(MAGIC).ok_or_else(|| JournalError::NotAJournal {
        path: path.into(),
        found: bytes.iter().take(MAGIC.len()).copied().collect(),
    })
}

/// The whole records, the bytes of those up to `last_step`, and the bytes of all whole ones.
fn scan(body: &[u8], last_step: u64) -> (Vec<Record>, usize, usize) {
    let (mut records, mut kept, mut at) = (Vec::new(), 0, 0);
    while let Some((record, length)) = read_record(&body[at..]) {
        at += length;
        if record.step <= last_step {
            kept = at;
        }
        records.push(record);
    }
    (records, kept, at)
}

fn read_record(bytes: &[u8]) -> Option<(Record, usize)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    let (checksum, rest) = rest.split_first_chunk::<8>()?;
    let payload = rest.get(..length).filter(|_| length <= MAX_RECORD)?;
    if Digest::of_bytes(payload).as_bytes()[..8] != checksum[..] {
        return None;
    }
    let (record, used) = bincode::serde::decode_from_slice(payload, bincode::config::standard()).ok()?;
    (used == length).then_some((record, length + 12))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(step: u64) -> Record {
        Record {
            term: 1,
            step,
            tokens: 10,
            loss_sum: 3.5,
            grad_norm: 0.25,
            clip_scale: 1.0,
            learning_rate: 0.1,
        }
    }

    fn written(steps: u64) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.bin");
        let mut journal = Journal::create(&path).unwrap();
        for step in 1..=steps {
            journal.append(&record(step)).unwrap();
        }
        journal.sync().unwrap();
        (folder, path)
    }

    #[test]
    fn records_beyond_the_checkpoint_are_handed_out_and_cut() {
        let (_folder, path) = written(5);
        let (mut journal, contents) = Journal::reopen(&path, 3).unwrap();
        assert_eq!(contents.records, (1..=5).map(record).collect::<Vec<_>>());
        journal.append(&record(4)).unwrap();
        let (_, contents) = Journal::reopen(&path, 9).unwrap();
        assert_eq!(contents.records.iter().map(|r| r.step).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(contents.damaged_bytes, 0);
    }

    #[test]
    fn a_torn_or_damaged_tail_is_passed_over() {
        let (_folder, path) = written(3);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let (_, contents) = Journal::reopen(&path, 9).unwrap();
        assert_eq!(contents.records.len(), 2);
        assert!(contents.damaged_bytes > 0);
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        std::fs::write(&path, flipped).unwrap();
        assert_eq!(Journal::reopen(&path, 9).unwrap().1.records.len(), 2);
    }

    #[test]
    fn another_file_is_no_journal() {
        let (_folder, path) = written(1);
        std::fs::write(&path, b"{}").unwrap();
        assert!(
            matches!(Journal::reopen(&path, 9), Err(JournalError::NotAJournal { found, .. }) if found == b"{}")
        );
        assert!(
            matches!(Journal::create(&path), Err(JournalError::Io { .. })),
            "a run's journal is never overwritten"
        );
    }

    #[test]
    fn a_huge_length_is_damage_not_memory() {
        let mut bytes = u32::MAX.to_le_bytes().to_vec();
        bytes.extend([0; 64]);
        assert!(read_record(&bytes).is_none());
    }

    #[test]
    fn the_term_is_no_content() {
        assert!(record(1).same_content(&Record { term: 9, ..record(1) }));
        assert!(!record(1).same_content(&Record { grad_norm: 0.5, ..record(1) }));
    }
}
