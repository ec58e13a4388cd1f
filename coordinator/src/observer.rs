//! What a run tells the person in front of it while it goes on. How it is shown is the program's business.

use std::io;
use std::path::Path;

use carousel_proto::WorkerId;
use carousel_proto::digest::Digest;
use carousel_proto::v1::Hello;

use crate::checkpoint::CheckpointError;
use crate::metrics::{StepMetrics, TestMetrics, ValidMetrics};

/// Something worth telling.
#[derive(Debug)]
pub enum Report<'a> {
    /// The coordinator waits for workers.
    Waiting {
        /// Workers here.
        joined: usize,
        /// Workers needed.
        needed: usize,
    },
    /// A worker is here.
    Joined {
        /// Its number.
        worker: WorkerId,
        /// What it said of itself; its strings are not to be trusted.
        hello: &'a Hello,
    },
    /// A worker is gone.
    Left {
        /// Its number.
        worker: WorkerId,
        /// Why.
        reason: &'a str,
    },
    /// A step was committed.
    Step(&'a StepMetrics),
    /// A validation was made.
    Valid {
        /// Its figures.
        metrics: &'a ValidMetrics,
        /// Whether it is the best of the run so far; never for one that no schedule asked for.
        best: bool,
    },
    /// The test figures.
    Test(&'a TestMetrics),
    /// A checkpoint is on disk.
    Checkpoint {
        /// Its step.
        step: u64,
        /// Its folder.
        path: &'a Path,
        /// The state's digest.
        digest: Digest,
    },
    /// A checkpoint could not be written; the run goes on, and older ones remain.
    Unsaved {
        /// Its step.
        step: u64,
        /// Why.
        problem: &'a CheckpointError,
    },
    /// Every replica of the committed state was lost: the run goes on from its last checkpoint, to the same bits.
    RolledBack {
        /// Its step; 0: there was none, and the run begins anew.
        step: u64,
    },
    /// A file takes nothing any more, as on a full disk; what belongs in it waits in memory and the run goes on. Told once.
    Unwritten {
        /// The file, as it is called in the run's folder.
        file: &'a str,
        /// Why.
        problem: &'a io::Error,
    },
    /// A file takes what belongs in it again, and has what waited.
    Written {
        /// The file.
        file: &'a str,
        /// Entries that found no room in memory either and are missing.
        lost: u64,
    },
    /// The run was asked to stop and ends the step under way.
    Stopping,
}

/// Who is told.
pub trait Observer {
    /// Called on the coordinator's own thread: a slow observer slows the run.
    fn observe(&mut self, report: Report<'_>);
}
