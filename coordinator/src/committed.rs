//! `committed.bin`: the committed state that no replica holds. Workers keep weights and optimizer over the loss of a
//! coordinator; step, term, schedule and the carries of all streams are the coordinator's, and live here.
//!
//! Two slots are written in turn, in place: whatever a killed process leaves half written, the other slot is whole. The
//! file gets its size when it is created, so that a disk that runs full later does not hurt it. Nothing is fsynced: it
//! outlives the process, not the machine's power; after that a checkpoint is what is left.
//!
//! ```text
//! a slot, little endian: "CRSLCMT" version, BLAKE3 of the rest, sequence (u64), carry floats (u64), bytes of the head
//!                        (u32), the head (bincode, standard configuration), zeros up to 4096; the floats, zeros up to
//!                        the next 4096
//! ```

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use carousel_proto::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::journal::Record;
use crate::schedule::ScheduleState;
use crate::storage::Storage;

const MAGIC: &[u8; 8] = b"CRSLCMT\x02";
/// What is hashed begins behind the magic and the hash itself.
const HASHED: usize = MAGIC.len() + 32;
const HEAD: usize = HASHED + 8 + 8 + 4;
/// Where the floats begin, and what a slot's size is a multiple of: slots share no block of the disk.
const BLOCK: usize = 4096;
const SLOTS: usize = 2;

/// The committed state, but for what replicas hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Committed<'a> {
    /// The term it was saved in.
    pub term: u64,
    /// Commits made.
    pub step: u64,
    /// The last of them; `None` before the first.
    pub record: Option<Record>,
    /// What the schedule remembers.
    pub schedule: ScheduleState,
    /// The loss of the validation that the schedule asks for after this step, nats a token, once it has been made.
    pub validation: Option<f64>,
    /// How long recent steps took, milliseconds, oldest first; at most 256 of them.
    pub step_ms: Vec<u32>,
    /// (streams, carry) floats.
    #[serde(skip)]
    pub carries: Cow<'a, [f32]>,
}

/// Why the file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CommittedError {
    /// It could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// It is not as long as such a file of this run must be.
    #[error("{path}: found {found} bytes, expected {expected}")]
    Size {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// The length of a whole one.
        expected: u64,
    },
    /// Both slots have been written and neither is whole.
    #[error("{path}: damaged: slot 0 {}, slot 1 {}", .slots[0], .slots[1])]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with each.
        slots: [SlotFault; SLOTS],
    },
}

/// Why a slot is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotFault {
    /// It was never written.
    #[error("was never written")]
    Empty,
    /// It does not begin as a slot of this version does.
    #[error("is not one of this version")]
    Magic,
    /// Its bytes are not those that were hashed.
    #[error("does not have its hash")]
    Hash,
    /// It is whole, and says impossible things.
    #[error("has its hash and no sense")]
    Content,
}

/// An open file.
#[derive(Debug)]
pub(crate) struct CommittedFile {
    path: PathBuf,
    storage: Box<dyn Storage>,
    /// The slot that is not the newest whole one.
    next_slot: usize,
    /// Higher than that of any slot.
    next_sequence: u64,
    /// A slot, to be filled.
    slot: Vec<u8>,
}

impl CommittedFile {
    /// Makes the file, with nothing saved in it, in the place of whatever was there.
    ///
    /// # Errors
    /// When the disk does not have room for all that will ever be saved, or cannot be written.
    pub(crate) fn create(path: &Path, carry_floats: usize) -> Result<Self, CommittedError> {
        let zeros = vec![0; slot_bytes(carry_floats)];
        let beside = path.with_extension("bin.new");
        let make = || {
            let mut file = File::create(&beside)?;
            for slot in 0..SLOTS {
                file.write_at(&zeros, (slot * zeros.len()) as u64)?;
            }
            file.sync_all()?;
            fs::rename(&beside, path)?;
            Ok(file)
        };
        let file = make().map_err(|source| CommittedError::Io { path: path.into(), source })?;
        Ok(Self { path: path.into(), storage: Box::new(file), next_slot: 0, next_sequence: 1, slot: zeros })
    }

    /// Opens the file of a run with so many carry floats, and gives what was saved last; `None` when no save was ever
    /// finished.
    ///
    /// # Errors
    /// When it cannot be read, has another size, or has been damaged.
    pub(crate) fn open(
        path: &Path,
        carry_floats: usize,
    ) -> Result<(Self, Option<Committed<'static>>), CommittedError> {
        let io = |source| CommittedError::Io { path: path.into(), source };
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(io)?;
        let (found, expected) = (file.metadata().map_err(io)?.len(), file_bytes(carry_floats));
        if found != expected {
            return Err(CommittedError::Size { path: path.into(), found, expected });
        }
        let newest = newest(&fs::read(path).map_err(io)?, path)?;
        let (slot, sequence) = newest.as_ref().map_or((1, 0), |whole| (whole.slot, whole.sequence));
        let opened = Self {
            path: path.into(),
            storage: Box::new(file),
            next_slot: (slot + 1) % SLOTS,
            next_sequence: sequence + 1,
            slot: vec![0; slot_bytes(carry_floats)],
        };
        Ok((opened, newest.map(|whole| whole.committed)))
    }

    /// Reads what was saved last without changing anything, whatever the run.
    ///
    /// # Errors
    /// When the file cannot be read or has been damaged.
    pub(crate) fn read(path: &Path) -> Result<Option<Committed<'static>>, CommittedError> {
        let bytes = fs::read(path).map_err(|source| CommittedError::Io { path: path.into(), source })?;
        decode(&bytes, path)
    }

    /// Saves a state: when this returns, it outlives the process. When it fails, what was saved before is still there.
    ///
    /// # Errors
    /// When the file cannot be written.
    ///
    /// # Panics
    /// When the carries are not as many as the file was made for.
    pub(crate) fn save(&mut self, committed: &Committed) -> Result<(), CommittedError> {
        fill(&mut self.slot, self.next_sequence, committed);
        let offset = (self.next_slot * self.slot.len()) as u64;
        let written = self.storage.write_at(&self.slot, offset);
        written.map_err(|source| CommittedError::Io { path: self.path.clone(), source })?;
        self.next_slot = (self.next_slot + 1) % SLOTS;
        self.next_sequence += 1;
        Ok(())
    }
}

/// What the bytes of a whole file say was saved last.
pub(crate) fn decode(bytes: &[u8], path: &Path) -> Result<Option<Committed<'static>>, CommittedError> {
    Ok(newest(bytes, path)?.map(|whole| whole.committed))
}

/// Bytes of a slot, in whole blocks.
fn slot_bytes(carry_floats: usize) -> usize {
    BLOCK + (carry_floats * 4).next_multiple_of(BLOCK)
}

fn file_bytes(carry_floats: usize) -> u64 {
    (SLOTS * slot_bytes(carry_floats)) as u64
}

fn fill(slot: &mut [u8], sequence: u64, committed: &Committed) {
    assert_eq!(slot.len(), slot_bytes(committed.carries.len()), "a run's carries never change their number");
    slot[..BLOCK].fill(0);
    slot[..MAGIC.len()].copy_from_slice(MAGIC);
    slot[HASHED..HASHED + 8].copy_from_slice(&sequence.to_le_bytes());
    slot[HASHED + 8..HASHED + 16].copy_from_slice(&(committed.carries.len() as u64).to_le_bytes());
    let config = bincode::config::standard();
    let head = bincode::serde::encode_into_slice(committed, &mut slot[HEAD..BLOCK], config)
        .expect("a head with at most 256 step times fits its block");
    slot[HASHED + 16..HEAD].copy_from_slice(&(head as u32).to_le_bytes());
    for (bytes, float) in slot[BLOCK..].chunks_exact_mut(4).zip(&*committed.carries) {
        bytes.copy_from_slice(&float.to_le_bytes());
    }
    let hash = Digest::of_bytes(&slot[HASHED..]);
    slot[MAGIC.len()..HASHED].copy_from_slice(hash.as_bytes());
}

/// A slot that has its hash.
struct Whole {
    slot: usize,
    sequence: u64,
    committed: Committed<'static>,
}

/// The whole slot of the highest sequence. A slot that is not whole beside one that never was written is a first save
/// that was cut short: nothing has been saved.
fn newest(bytes: &[u8], path: &Path) -> Result<Option<Whole>, CommittedError> {
    let half = bytes.len() / SLOTS;
    if !bytes.len().is_multiple_of(SLOTS * BLOCK) || half == 0 {
        let expected = (bytes.len().next_multiple_of(SLOTS * BLOCK)).max(SLOTS * BLOCK) as u64;
        return Err(CommittedError::Size { path: path.into(), found: bytes.len() as u64, expected });
    }
    match [read_slot(&bytes[..half], 0), read_slot(&bytes[half..], 1)] {
        [Ok(a), Ok(b)] => Ok(Some(if a.sequence > b.sequence { a } else { b })),
        [Ok(whole), Err(_)] | [Err(_), Ok(whole)] => Ok(Some(whole)),
        [Err(SlotFault::Empty), Err(_)] | [Err(_), Err(SlotFault::Empty)] => Ok(None),
        [Err(first), Err(second)] => {
            Err(CommittedError::Damaged { path: path.into(), slots: [first, second] })
        }
    }
}

fn read_slot(bytes: &[u8], slot: usize) -> Result<Whole, SlotFault> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Err(SlotFault::Empty);
    }
    if !bytes.starts_with(MAGIC) {
        return Err(SlotFault::Magic);
    }
    if Digest::of_bytes(&bytes[HASHED..]).as_bytes()[..] != bytes[MAGIC.len()..HASHED] {
        return Err(SlotFault::Hash);
    }
    parse(bytes).map(|(sequence, committed)| Whole { slot, sequence, committed }).ok_or(SlotFault::Content)
}

/// The content of a slot that has its hash; what it says of lengths is still held against what there is.
fn parse(bytes: &[u8]) -> Option<(u64, Committed<'static>)> {
    let (sequence, rest) = bytes[HASHED..].split_first_chunk::<8>()?;
    let (floats, rest) = rest.split_first_chunk::<8>()?;
    let (head, _) = rest.split_first_chunk::<4>()?;
    let floats = usize::try_from(u64::from_le_bytes(*floats)).ok()?;
    let carries = bytes[BLOCK..].get(..floats.checked_mul(4)?)?;
    let head = bytes[HEAD..BLOCK].get(..u32::from_le_bytes(*head) as usize)?;
    let config = bincode::config::standard().with_limit::<BLOCK>();
    let (committed, used): (Committed, usize) = bincode::serde::decode_from_slice(head, config).ok()?;
    let carries = carries.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    (used == head.len()).then_some((u64::from_le_bytes(*sequence), Committed { carries, ..committed }))
}

#[cfg(test)]
mod tests;
