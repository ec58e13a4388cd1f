//! What a run's folder says of itself, checked: the journal as a ledger, and every checkpoint against its hashes.
//! Nothing is changed.

use std::path::{Path, PathBuf};

use carousel_proto::digest::Digest;

use crate::checkpoint::{Checkpoint, CheckpointError, RunFolder};
use crate::journal::{Contents, Journal, JournalError, Record};

/// Something that is not as it must be.
#[derive(Debug, thiserror::Error)]
pub enum Flaw {
    /// A step is missing from the journal, stands twice, or comes too early.
    #[error("journal: {found} follows step {before}, expected step {}", .before + 1)]
    Order {
        /// The step before.
        before: u64,
        /// What follows.
        found: u64,
    },
    /// A term went back.
    #[error("journal: step {step} has term {found}, after term {before}")]
    Term {
        /// The step.
        step: u64,
        /// The term before.
        before: u64,
        /// Its term.
        found: u64,
    },
    /// The end of the journal cannot be read.
    #[error("journal: {bytes} bytes at its end are torn or damaged")]
    Tail {
        /// How many.
        bytes: u64,
    },
    /// A checkpoint of a step that was never committed.
    #[error("{path}: a checkpoint of step {step}, the journal ends with step {last}")]
    Uncommitted {
        /// The checkpoint.
        path: PathBuf,
        /// Its step.
        step: u64,
        /// The journal's last step.
        last: u64,
    },
    /// A checkpoint that is not whole.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// What was found.
#[derive(Debug)]
pub struct Verification {
    /// Steps in the journal.
    pub steps: u64,
    /// The last term in it.
    pub last_term: u64,
    /// The checkpoints that are whole, oldest first, with their digests.
    pub checkpoints: Vec<(PathBuf, Digest)>,
    /// What is not as it must be.
    pub flaws: Vec<Flaw>,
}

/// Checks a run's folder: each step was committed once and in order, so that each window of each stream was read once;
/// terms never went back; each checkpoint is whole and of a committed step.
///
/// # Errors
/// When the journal cannot be read at all.
pub fn verify(folder: &Path) -> Result<Verification, VerifyError> {
    let run = RunFolder::new(folder);
    let Contents { records, damaged_bytes } = Journal::read(&run.journal())?;
    let mut flaws = ledger_flaws(&records);
    if damaged_bytes > 0 {
        flaws.push(Flaw::Tail { bytes: damaged_bytes });
    }
    let last = records.last().map_or(0, |r| r.step);
    let mut checkpoints = Vec::new();
    for path in run.by_ascending_step()? {
        match Checkpoint::open(&path) {
            Ok(whole) if whole.state.step > last => {
                flaws.push(Flaw::Uncommitted { path, step: whole.state.step, last });
            }
            Ok(whole) => checkpoints.push((path, whole.digest())),
            Err(error) => flaws.push(error.into()),
        }
    }
    let last_term = records.last().map_or(0, |r| r.term);
    Ok(Verification { steps: records.len() as u64, last_term, checkpoints, flaws })
}

/// Why a folder could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The folder of the checkpoints.
    #[error(transparent)]
    Checkpoints(#[from] CheckpointError),
}

fn ledger_flaws(records: &[Record]) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    let (mut step, mut term) = (0, 0);
    for record in records {
        if record.step != step + 1 {
            flaws.push(Flaw::Order { before: step, found: record.step });
        }
        if record.term < term {
            flaws.push(Flaw::Term { step: record.step, before: term, found: record.term });
        }
        (step, term) = (record.step, record.term);
    }
    flaws
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(step: u64, term: u64) -> Record {
        Record { term, step, tokens: 1, loss_sum: 1.0, grad_norm: 1.0, clip_scale: 1.0, learning_rate: 0.1 }
    }

    #[test]
    fn the_ledger_has_each_step_once_in_order() {
        let flaws = |records: &[(u64, u64)]| {
            let records: Vec<Record> = records.iter().map(|(step, term)| record(*step, *term)).collect();
            ledger_flaws(&records).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(flaws(&[(1, 1), (2, 1), (3, 4)]).is_empty());
        assert_eq!(flaws(&[(1, 1), (3, 1)]), ["journal: 3 follows step 1, expected step 2"]);
        assert_eq!(flaws(&[(1, 1), (1, 1)]), ["journal: 1 follows step 1, expected step 2"]);
        assert_eq!(flaws(&[(1, 3), (2, 2)]), ["journal: step 2 has term 2, after term 3"]);
        assert_eq!(flaws(&[(2, 1)]).len(), 1, "a ledger begins with step 1");
    }
}
