//! What goes into the state machine and what comes out of it: plain data. It decides nothing.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use carousel_proto::digest::Digest;
use carousel_proto::{Step, Term, WorkerId};

use super::Exchange;

/// Which evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Validation that the configuration asks for at this step; the schedule learns of it.
    Scheduled,
    /// Validation at the end of the run, for the record only.
    FinalValid,
    /// The test text, at the end of the run.
    FinalTest,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every step was made.
    Complete,
    /// It was asked to stop; the state is in a checkpoint.
    Interrupted,
}

/// What a worker that comes back still holds of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The step of its replica.
    pub step: Step,
    /// The step whose whole reduced gradient it holds, not applied yet.
    pub gradient: Option<Step>,
}

/// Where a worker's replica comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadSource {
    /// The seed or the coordinator: whatever it has at hand.
    Coordinator,
    /// These workers, which hold it.
    Peers {
        /// All active ones.
        workers: Vec<WorkerId>,
    },
    /// It never lost it.
    Held {
        /// Whether it must apply the last commit first.
        commit: bool,
    },
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A worker has introduced itself.
    Joined {
        /// Its number.
        worker: WorkerId,
        /// What it brings along.
        held: Option<Held>,
    },
    /// A worker's session is over, for whatever reason.
    Left {
        /// Its number.
        worker: WorkerId,
    },
    /// A worker has loaded a replica.
    Ready {
        /// The worker.
        worker: WorkerId,
        /// The step of its replica.
        step: Step,
        /// The replica's digest.
        digest: Digest,
    },
    /// A newcomer could not load the replica from its peers.
    LoadFailed {
        /// The worker.
        worker: WorkerId,
    },
    /// A worker has given a sign of life.
    Heard {
        /// The worker.
        worker: WorkerId,
    },
    /// A worker's partial gradients and losses of a step are all here.
    Reported {
        /// The worker.
        worker: WorkerId,
        /// The term it computed in.
        term: Term,
        /// The step it computed.
        step: Step,
        /// How long it computed.
        took: Duration,
    },
    /// Mesh: a worker has reduced its slice.
    Sliced {
        /// The worker.
        worker: WorkerId,
        /// The term of the gradient.
        term: Term,
        /// The step of the gradient.
        step: Step,
    },
    /// The driver has finished the lane tree and decided the clip.
    Reduced {
        /// As in [`Action::Reduce`].
        term: Term,
        /// As in [`Action::Reduce`].
        step: Step,
    },
    /// A worker holds the whole reduced gradient, and its carries are here.
    Acknowledged {
        /// The worker.
        worker: WorkerId,
        /// The term of the gradient.
        term: Term,
        /// The step of the gradient.
        step: Step,
    },
    /// A worker has evaluated its lanes.
    Evaluated {
        /// The worker.
        worker: WorkerId,
        /// The term it was asked in.
        term: Term,
        /// Which evaluation.
        scope: Scope,
    },
    /// A worker's replica has arrived whole.
    ReplicaReceived {
        /// The worker.
        worker: WorkerId,
        /// The replica's step.
        step: Step,
        /// Its digest, as computed by the receiver.
        digest: Digest,
    },
    /// A checkpoint is on disk.
    CheckpointWritten {
        /// Its step.
        step: Step,
    },
    /// The driver has gone back to the last checkpoint, or with no digest to the seed.
    RolledBack {
        /// Its step.
        step: Step,
        /// The digest of its replica.
        digest: Option<Digest>,
    },
    /// A worker tells the digest of its replica.
    Digested {
        /// The worker.
        worker: WorkerId,
        /// The replica's step.
        step: Step,
        /// The digest.
        digest: Digest,
    },
    /// A checkpoint could not be written; what was there before is untouched.
    CheckpointFailed {
        /// Its step.
        step: Step,
    },
    /// A worker wants to hand its lanes over and go.
    Leaving {
        /// The worker.
        worker: WorkerId,
    },
    /// An operator wants a worker to hand its lanes over and go; no sign of life of the worker.
    DrainRequested {
        /// The worker.
        worker: WorkerId,
    },
    /// An operator wants a checkpoint of this boundary, or of the next one.
    CheckpointRequested,
    /// Time has passed.
    Tick,
    /// The user wants the run to end in good order.
    StopRequested,
}

impl Event {
    /// The worker that an event is a sign of life of.
    #[must_use]
    pub fn worker(&self) -> Option<WorkerId> {
        match self {
            Self::Joined { worker, .. }
            | Self::Ready { worker, .. }
            | Self::LoadFailed { worker }
            | Self::Heard { worker }
            | Self::Reported { worker, .. }
            | Self::Sliced { worker, .. }
            | Self::Acknowledged { worker, .. }
            | Self::Evaluated { worker, .. }
            | Self::ReplicaReceived { worker, .. }
            | Self::Digested { worker, .. }
            | Self::Leaving { worker } => Some(*worker),
            Self::Left { .. }
            | Self::Reduced { .. }
            | Self::CheckpointWritten { .. }
            | Self::CheckpointFailed { .. }
            | Self::RolledBack { .. }
            | Self::DrainRequested { .. }
            | Self::CheckpointRequested
            | Self::Tick
            | Self::StopRequested => None,
        }
    }
}

/// Where the carries of a step's lanes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CarryOrigin {
    /// The worker's own last committed ones.
    Keep,
    /// Zero: an epoch begins.
    Zero,
    /// The coordinator sends the committed ones.
    Given,
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Tell the user that workers are awaited.
    Waiting {
        /// Workers here.
        joined: usize,
        /// Workers needed.
        needed: usize,
    },
    /// Let a worker load the committed replica; answer with [`Event::Ready`] or [`Event::LoadFailed`].
    Load {
        /// Who.
        worker: WorkerId,
        /// The committed step.
        step: Step,
        /// Where from.
        source: LoadSource,
    },
    /// A step begins, with these workers and lanes; assignments follow.
    Begin {
        /// The current term.
        term: Term,
        /// The step.
        step: Step,
        /// How its gradients are exchanged.
        exchange: Exchange,
        /// Every active worker in order, with its lanes; some may be empty.
        shares: Vec<(WorkerId, Range<u32>)>,
    },
    /// Give a worker its lanes of a step.
    Assign {
        /// To whom.
        worker: WorkerId,
        /// The current term.
        term: Term,
        /// The step to compute.
        step: Step,
        /// Its lanes; may be empty.
        lanes: Range<u32>,
        /// Where their carries come from.
        carry: CarryOrigin,
    },
    /// Finish the lane tree of a step (star) and decide the clip; answer with [`Event::Reduced`].
    Reduce {
        /// The current term.
        term: Term,
        /// The step.
        step: Step,
    },
    /// Send a worker the reduced gradient.
    SendReduced {
        /// To whom.
        worker: WorkerId,
        /// The current term.
        term: Term,
        /// The step.
        step: Step,
    },
    /// The step happened: journal it, and tell every active worker to apply it.
    Commit {
        /// The current term.
        term: Term,
        /// The step.
        step: Step,
    },
    /// Have a worker evaluate lanes.
    Evaluate {
        /// To whom.
        worker: WorkerId,
        /// The current term.
        term: Term,
        /// Which evaluation.
        scope: Scope,
        /// Its lanes.
        lanes: Range<u32>,
    },
    /// All losses of an evaluation are here.
    SummarizeEvaluation {
        /// The committed step they belong to.
        step: Step,
        /// Which evaluation.
        scope: Scope,
    },
    /// Ask a worker for a copy of its replica, which it sends beside its work; answer with [`Event::ReplicaReceived`].
    FetchReplica {
        /// Whom.
        worker: WorkerId,
        /// The committed step.
        step: Step,
    },
    /// A checkpoint of this boundary is to be made: keep its carries and schedule.
    Snapshot {
        /// The committed step.
        step: Step,
    },
    /// The replica of a snapshot is here: write them, beside the run; answer with [`Event::CheckpointWritten`] or
    /// [`Event::CheckpointFailed`].
    WriteCheckpoint {
        /// The snapshot's step.
        step: Step,
    },
    /// Go back to the last whole checkpoint, or to the seed; answer with [`Event::RolledBack`].
    Rollback,
    /// Ask a worker for the digest of its replica.
    AskDigest {
        /// Whom.
        worker: WorkerId,
        /// The committed step.
        step: Step,
    },
    /// Let a worker go that asked to.
    Release {
        /// Whom.
        worker: WorkerId,
    },
    /// End a worker's session.
    Expel {
        /// Whom.
        worker: WorkerId,
        /// Why.
        reason: ExpelReason,
    },
    /// The run is over.
    Finish {
        /// How.
        ending: Ending,
    },
}

/// Why a worker may not take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpelReason {
    /// It loaded a replica nobody asked for.
    UnexpectedReplica {
        /// The replica's step.
        step: Step,
    },
    /// It kept the others waiting; it may come back.
    Overdue {
        /// For how long.
        waited: Duration,
    },
    /// Its replica is not the run's.
    DigestDiffers {
        /// The replica's step.
        step: Step,
        /// The run's digest.
        expected: Digest,
        /// The worker's.
        found: Digest,
    },
}

impl fmt::Display for ExpelReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overdue { waited } => {
                write!(f, "it kept the others waiting for {:.1} s", waited.as_secs_f64())
            }
            Self::UnexpectedReplica { step } => {
                write!(f, "it loaded a replica of {step} that was not asked for")
            }
            Self::DigestDiffers { step, expected, found } => {
                write!(f, "its replica of {step} has digest {found}, the run's is {expected}")
            }
        }
    }
}
