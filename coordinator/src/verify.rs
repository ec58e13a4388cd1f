//! What a run's folder says of itself, checked: the journal as a ledger, the committed state against it, every checkpoint
//! against its hashes, the links. Nothing is changed.

mod ledger;

use std::path::{Path, PathBuf};

use carousel_proto::digest::Digest;

use crate::checkpoint::keep::{Standing, best};
use crate::checkpoint::{BEST, Checkpoint, CheckpointError, LATEST, RunFolder};
use crate::committed::{Committed, CommittedError, CommittedFile};
use crate::journal::{Contents, Journal, JournalError};
pub use ledger::Epoch;
use ledger::Ledger;

/// Something that is not as it must be.
#[derive(Debug, thiserror::Error)]
pub enum Flaw {
    /// A term does not grow.
    #[error("journal: term {found} begins after term {before}")]
    Term {
        /// The term before.
        before: u64,
        /// What follows.
        found: u64,
    },
    /// A commit is of a term that has not begun, or is over.
    #[error("journal: step {step} was committed in term {found}, the term that had begun is {begun}")]
    TermOfCommit {
        /// The step.
        step: u64,
        /// The last term that began before it.
        begun: u64,
        /// The term of the commit.
        found: u64,
    },
    /// A step was committed twice, or too early, in one term.
    #[error("journal: step {found} follows step {before} in one term")]
    Repeated {
        /// The step before.
        before: u64,
        /// What follows.
        found: u64,
    },
    /// Steps are missing from the journal.
    #[error("journal: steps {first} to {last} were never committed")]
    Missing {
        /// The first of them.
        first: u64,
        /// The last of them.
        last: u64,
    },
    /// A step that was made again has other figures than before.
    #[error("journal: step {step} was made again and came out differently")]
    Differs {
        /// The step.
        step: u64,
    },
    /// A window had other targets than in another epoch.
    #[error("journal: step {step} read {found} targets in window {window}, which has {expected}")]
    Window {
        /// The step.
        step: u64,
        /// The window, counted from 0 within its epoch.
        window: u64,
        /// Targets of the step.
        found: u64,
        /// Targets of that window in the first epoch.
        expected: u64,
    },
    /// The targets of an epoch do not add up to those of the text.
    #[error("journal: epoch {epoch} read {found} targets, it has {expected}")]
    Epoch {
        /// The epoch, counted from 1.
        epoch: u64,
        /// Targets of its steps.
        found: u64,
        /// Targets of the text.
        expected: u64,
    },
    /// The end of the journal cannot be read.
    #[error("journal: {bytes} bytes at its end are torn or damaged")]
    Tail {
        /// How many.
        bytes: u64,
    },
    /// The committed state cannot be read.
    #[error(transparent)]
    Committed(#[from] CommittedError),
    /// The committed state is of a step that the journal does not have.
    #[error("committed.bin: the state of step {step}, the journal ends with step {last}")]
    CommittedAhead {
        /// Its step.
        step: u64,
        /// The journal's last step.
        last: u64,
    },
    /// The committed state was saved in a term that the journal does not have.
    #[error("committed.bin: saved in term {found}, the journal's highest is {highest}")]
    CommittedTerm {
        /// Its term.
        found: u64,
        /// The journal's highest.
        highest: u64,
    },
    /// The committed state says something else of its step than the journal, or than the checkpoint of that step.
    #[error("committed.bin: step {step} is not as in {other}")]
    CommittedDiffers {
        /// Its step.
        step: u64,
        /// The journal, or a checkpoint.
        other: PathBuf,
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
    /// A link does not name what it should.
    #[error("{path}: {problem}")]
    Link {
        /// The link.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
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
    /// The highest term in it.
    pub last_term: u64,
    /// What the ledger was held against; `None` without a whole checkpoint.
    pub epoch: Option<Epoch>,
    /// The step of the committed state.
    pub committed: Option<u64>,
    /// The checkpoints that are whole, oldest first, with their digests.
    pub checkpoints: Vec<(PathBuf, Digest)>,
    /// The step of the checkpoint of the lowest validation loss, as linked.
    pub best: Option<u64>,
    /// What is not as it must be.
    pub flaws: Vec<Flaw>,
}

/// Checks a run's folder: terms grow, each window of each stream was committed once in each epoch, a step that was made
/// again came out the same, the committed state is the journal's, each checkpoint is whole and of a committed step, and
/// the links name whole ones.
///
/// # Errors
/// When the journal or the folder of the checkpoints cannot be read at all.
pub fn verify(folder: &Path) -> Result<Verification, VerifyError> {
    // The journal last: a run that is at work appends to it before it writes anything else.
    let committed = CommittedFile::read(&RunFolder::new(folder).committed());
    check(folder, committed)
}

/// Checks a run that was fetched from a bucket, as [`verify`] does: the committed state is not kept there.
///
/// # Errors
/// As [`verify`].
pub fn verify_copy(folder: &Path) -> Result<Verification, VerifyError> {
    check(folder, Ok(None))
}

fn check(
    folder: &Path,
    committed: Result<Option<Committed<'static>>, CommittedError>,
) -> Result<Verification, VerifyError> {
    let run = RunFolder::new(folder);
    let mut flaws = Vec::new();
    let whole = whole_checkpoints(&run, &mut flaws)?;
    let contents = Journal::read(&run.journal())?;
    let ledger = ledger::read(&contents.entries, &mut flaws);
    if contents.damaged_bytes > 0 {
        flaws.push(Flaw::Tail { bytes: contents.damaged_bytes });
    }
    let epoch = whole.last().map(|checkpoint| checkpoint.epoch);
    if let Some(epoch) = epoch {
        ledger::check_epochs(&ledger, epoch, &mut flaws);
    }
    let last = ledger.keys().last().copied().unwrap_or(0);
    for Whole { step, path, .. } in whole.iter().filter(|w| w.step > last) {
        flaws.push(Flaw::Uncommitted { path: path.clone(), step: *step, last });
    }
    let committed = match committed {
        Ok(committed) => committed,
        Err(error) => {
            flaws.push(error.into());
            None
        }
    };
    if let Some(committed) = &committed {
        check_committed(committed, (&run, &contents, &ledger, &whole), &mut flaws);
    }
    check_links(&run, &whole, &mut flaws);
    Ok(Verification {
        steps: ledger.len() as u64,
        last_term: contents.term(),
        epoch,
        committed: committed.map(|c| c.step),
        best: run.linked(BEST),
        checkpoints: whole.into_iter().filter(|w| w.step <= last).map(|w| (w.path, w.digest)).collect(),
        flaws,
    })
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

/// What is remembered of a whole checkpoint: not its floats, but for the carries.
struct Whole {
    path: PathBuf,
    step: u64,
    digest: Digest,
    valid_loss: Option<f64>,
    epoch: Epoch,
    carries: Vec<f32>,
}

fn whole_checkpoints(run: &RunFolder, flaws: &mut Vec<Flaw>) -> Result<Vec<Whole>, CheckpointError> {
    let mut whole = Vec::new();
    for path in run.by_ascending_step()? {
        match Checkpoint::open(&path) {
            Ok(found) => whole.push(Whole {
                step: found.state.step,
                digest: found.digest(),
                valid_loss: found.state.valid_loss,
                epoch: Epoch::of(&found.state),
                carries: found.snapshot.carries,
                path,
            }),
            Err(error) => flaws.push(error.into()),
        }
    }
    Ok(whole)
}

fn check_committed(
    committed: &Committed,
    (run, contents, ledger, whole): (&RunFolder, &Contents, &Ledger, &[Whole]),
    flaws: &mut Vec<Flaw>,
) {
    let (step, last) = (committed.step, ledger.keys().last().copied().unwrap_or(0));
    if step > last {
        flaws.push(Flaw::CommittedAhead { step, last });
    }
    if committed.term > contents.term() {
        flaws.push(Flaw::CommittedTerm { found: committed.term, highest: contents.term() });
    }
    let journalled = ledger.get(&step);
    let same = committed.record.as_ref().is_some_and(|own| journalled.is_none_or(|r| r.same_content(own)));
    if step > 0 && !same {
        flaws.push(Flaw::CommittedDiffers { step, other: run.journal() });
    }
    let bits = |carries: &[f32]| carries.iter().map(|f| f.to_bits()).collect::<Vec<_>>();
    let of_step = whole.iter().find(|w| w.step == step);
    if let Some(other) = of_step.filter(|w| bits(&w.carries) != bits(&committed.carries)) {
        flaws.push(Flaw::CommittedDiffers { step, other: other.path.clone() });
    }
}

fn check_links(run: &RunFolder, whole: &[Whole], flaws: &mut Vec<Flaw>) {
    let mut flaw = |link: &str, problem| {
        flaws.push(Flaw::Link { path: run.checkpoints().join(link), problem });
    };
    let is_whole = |step: u64| whole.iter().any(|w| w.step == step);
    match run.linked(LATEST) {
        Some(step) if !is_whole(step) => flaw(LATEST, "does not name a whole checkpoint"),
        None if !whole.is_empty() => flaw(LATEST, "is not there, though there are checkpoints"),
        _ => {}
    }
    // Whoever died just before the links were moved left the newest out of account.
    let older = whole.iter().take(whole.len().saturating_sub(1));
    let standing = older.map(|w| Standing { step: w.step, valid_loss: w.valid_loss });
    let best_of_older = best(&standing.collect::<Vec<_>>());
    let loss_of = |step| whole.iter().find(|w| w.step == step).and_then(|w| w.valid_loss);
    match run.linked(BEST) {
        Some(step) if !is_whole(step) => flaw(BEST, "does not name a whole checkpoint"),
        Some(step) if loss_of(step).is_none() => flaw(BEST, "names a checkpoint that was not validated"),
        Some(step) if loss_of(step) > best_of_older.and_then(loss_of) && best_of_older.is_some() => {
            flaw(BEST, "does not name the checkpoint of the lowest validation loss");
        }
        None if best_of_older.is_some() => flaw(BEST, "is not there, though there are validated checkpoints"),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
