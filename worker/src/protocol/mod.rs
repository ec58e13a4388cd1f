//! The worker's side of the commit protocol as a plain state machine: the time and an event in, actions out. No sockets,
//! files, clocks or floats; the trainer does what the actions say. It is public for the simulation (`tests/simulation`).
//!
//! ```text
//!            Load                    Assigned, Computed      Gradient                 Commit
//! no replica ----> replica of step n -----------------> computed ----> acknowledged ---------> replica of step n + 1
//!                         ^                                                                          |
//!                         +--------------------------------------------------------------------------+
//! ```
//!
//! Invariants: weights move only on a commit of the step after the replica's, and only with that step's whole reduced
//! gradient; what is of an older term changes nothing; a replica, and a whole gradient that waits for its commit, survive
//! the loss of the session.

mod reconnect;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::time::Duration;

use carousel_proto::{Step, Term};

use reconnect::Reconnect;

/// Where the replica comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadSource {
    /// Made from the seed.
    Seed,
    /// Delivered by the coordinator before.
    Coordinator,
    /// Pulled from the peers.
    Peers,
    /// The worker's own.
    Held,
}

/// Where the carries of a step's lanes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CarrySource {
    /// The worker's own, from its last committed window.
    Keep,
    /// Zero: an epoch begins.
    Zero,
    /// Delivered by the coordinator before.
    Given,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A coordinator has welcomed this worker.
    Welcomed {
        /// Whether it is the run that the replica is of.
        same_run: bool,
    },
    /// The coordinator wants the replica of a step loaded.
    Load {
        /// The step.
        step: Step,
        /// Where from.
        source: LoadSource,
    },
    /// The replica was loaded.
    Loaded {
        /// Its step.
        step: Step,
    },
    /// The replica could not be loaded.
    LoadFailed {
        /// Its step.
        step: Step,
    },
    /// The coordinator has assigned lanes of a step.
    Assigned {
        /// The current term.
        term: Term,
        /// The step.
        step: Step,
        /// The lanes; may be empty.
        lanes: Range<u32>,
        /// Where their carries come from.
        carry: CarrySource,
    },
    /// The assigned lanes are computed.
    Computed {
        /// The term of the assignment.
        term: Term,
        /// Its step.
        step: Step,
    },
    /// The whole reduced gradient of a step is here.
    Gradient {
        /// The term that it was reduced in.
        term: Term,
        /// The step.
        step: Step,
    },
    /// The coordinator has committed a step.
    Committed {
        /// The step.
        step: Step,
    },
    /// The coordinator wants lanes evaluated.
    Evaluate,
    /// The coordinator wants a copy of the replica.
    CopyReplica {
        /// Of this step.
        step: Step,
    },
    /// The coordinator wants the replica's digest.
    AskDigest,
    /// The coordinator has ended the session.
    Dismissed {
        /// Whether the worker may come back.
        rejoin: bool,
        /// Whether its replica is no good.
        discard: bool,
    },
    /// The connection broke, or could not be made.
    SessionLost,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Forget the replica and whatever belongs to it.
    Discard,
    /// Load the replica; answer with [`Event::Loaded`] or [`Event::LoadFailed`].
    Load {
        /// Its step.
        step: Step,
        /// Where from.
        source: LoadSource,
    },
    /// Tell the coordinator the digest of the loaded replica.
    TellReady {
        /// Its step.
        step: Step,
    },
    /// Tell the coordinator that loading failed.
    TellLoadFailed {
        /// The replica's step.
        step: Step,
    },
    /// Compute lanes; answer with [`Event::Computed`].
    Compute {
        /// The current term.
        term: Term,
        /// The step.
        step: Step,
        /// The lanes; may be empty.
        lanes: Range<u32>,
        /// Where their carries come from.
        carry: CarrySource,
    },
    /// Hand the partial gradients and losses in.
    HandIn {
        /// The term of the assignment.
        term: Term,
        /// Its step.
        step: Step,
    },
    /// Hand the carries in, then acknowledge the whole gradient.
    Acknowledge {
        /// The current term.
        term: Term,
        /// The step.
        step: Step,
        /// The lanes of the carries.
        lanes: Range<u32>,
    },
    /// Update the replica with the gradient that is held.
    Apply {
        /// The committed step.
        step: Step,
    },
    /// Evaluate lanes.
    Evaluate,
    /// Copy the replica now and deposit the copy.
    CopyReplica {
        /// Its step.
        step: Step,
    },
    /// Tell the digest of the replica.
    TellDigest {
        /// Its step.
        step: Step,
    },
    /// Try to begin a session.
    Connect {
        /// After this pause.
        after: Duration,
    },
    /// Nothing more is to be done here.
    Stop,
    /// Tell the coordinator, and end.
    GiveUp(Fault),
}

/// Why a worker gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Work was asked for that needs a replica.
    #[error("the coordinator asked for work before a replica was loaded")]
    NoReplica,
    /// An assignment does not follow the replica.
    #[error("the coordinator assigned {assigned}, the replica is of {replica}")]
    Step {
        /// As assigned.
        assigned: Step,
        /// The replica's.
        replica: Step,
    },
    /// Own carries were to be kept that are not here.
    #[error("the coordinator wants carries kept that this worker does not have")]
    Carries,
    /// Nobody answered for too long.
    #[error("no coordinator was reached within {} s", .0.as_secs())]
    Unreachable(Duration),
}

/// A step that is computed, or about to be.
#[derive(Clone, Debug)]
struct Pending {
    term: Term,
    step: Step,
    lanes: Range<u32>,
}

/// What a worker still holds when it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The replica's step.
    pub step: Step,
    /// The step whose whole reduced gradient waits for its commit.
    pub gradient: Option<Step>,
}

/// The worker's side of the commit protocol.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// The highest term of this session.
    term: Term,
    /// The step of the replica.
    replica: Option<Step>,
    /// The lanes whose carries are kept, as of the replica.
    lanes: Option<Range<u32>>,
    pending: Option<Pending>,
    /// The step whose whole reduced gradient is held.
    gradient: Option<Step>,
    /// The step whose replica is being loaded in this session.
    loading: Option<Step>,
    reconnect: Reconnect,
}

impl Machine {
    /// A worker that holds nothing yet, and gives up when no coordinator has answered for so long.
    #[must_use]
    pub fn waiting(patience: Duration) -> Self {
        Self { reconnect: Reconnect::new(patience), ..Self::default() }
    }

    /// What may be gone on with in another session.
    #[must_use]
    pub fn held(&self) -> Option<Held> {
        self.replica.map(|step| Held { step, gradient: self.gradient })
    }

    /// The step of the replica.
    #[must_use]
    pub fn step(&self) -> Option<Step> {
        self.replica
    }

    /// Takes an event in, at a time of any clock that does not go back, and says what is to be done, in order.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Action> {
        match event {
            Event::Welcomed { same_run } => self.welcomed(same_run),
            Event::Load { step, source } => self.load(step, source),
            Event::Loaded { step } => self.loaded(step),
            Event::LoadFailed { step } => self.load_failed(step),
            Event::Assigned { term, step, lanes, carry } => self.assigned((term, step), lanes, carry),
            Event::Computed { term, step } => self.computed(term, step),
            Event::Gradient { term, step } => self.whole_gradient(term, step),
            Event::Committed { step } => self.committed(step),
            Event::Evaluate => self.with_replica(|_| Action::Evaluate),
            Event::CopyReplica { step } => self.copy_replica(step),
            Event::AskDigest => self.with_replica(|step| Action::TellDigest { step }),
            Event::Dismissed { rejoin: false, .. } => vec![Action::Stop],
            Event::Dismissed { discard, .. } => self.dismissed(now, discard),
            Event::SessionLost => vec![self.session_lost(now)],
        }
    }

    fn welcomed(&mut self, same_run: bool) -> Vec<Action> {
        self.reconnect.reached();
        if same_run || self.replica.is_none() { Vec::new() } else { vec![self.discard()] }
    }

    fn discard(&mut self) -> Action {
        (self.replica, self.lanes, self.pending, self.gradient) = (None, None, None, None);
        Action::Discard
    }

    fn load(&mut self, step: Step, source: LoadSource) -> Vec<Action> {
        match source {
            LoadSource::Held if self.replica == Some(step) => vec![Action::TellReady { step }],
            LoadSource::Held => vec![Action::TellLoadFailed { step }],
            _ => {
                self.loading = Some(step);
                vec![self.discard(), Action::Load { step, source }]
            }
        }
    }

    /// What was asked for in a session that is lost is nobody's any more.
    fn loaded(&mut self, step: Step) -> Vec<Action> {
        if self.loading.take_if(|loading| *loading == step).is_none() {
            return Vec::new();
        }
        self.replica = Some(step);
        vec![Action::TellReady { step }]
    }

    fn load_failed(&mut self, step: Step) -> Vec<Action> {
        match self.loading.take_if(|loading| *loading == step) {
            Some(step) => vec![Action::TellLoadFailed { step }],
            None => Vec::new(),
        }
    }

    fn with_replica(&self, action: impl Fn(Step) -> Action) -> Vec<Action> {
        vec![self.replica.map_or(Action::GiveUp(Fault::NoReplica), action)]
    }

    fn assigned(&mut self, (term, step): (Term, Step), lanes: Range<u32>, carry: CarrySource) -> Vec<Action> {
        if term < self.term {
            return Vec::new();
        }
        let Some(replica) = self.replica else { return vec![Action::GiveUp(Fault::NoReplica)] };
        if replica.next() != step {
            return vec![Action::GiveUp(Fault::Step { assigned: step, replica })];
        }
        if carry == CarrySource::Keep && self.lanes.as_ref() != Some(&lanes) {
            return vec![Action::GiveUp(Fault::Carries)];
        }
        self.reconnect.is_wanted();
        self.term = term;
        self.gradient = None;
        self.lanes = Some(lanes.clone());
        self.pending = Some(Pending { term, step, lanes: lanes.clone() });
        vec![Action::Compute { term, step, lanes, carry }]
    }

    fn is_pending(&self, term: Term, step: Step) -> bool {
        self.pending.as_ref().is_some_and(|pending| (pending.term, pending.step) == (term, step))
    }

    fn computed(&self, term: Term, step: Step) -> Vec<Action> {
        if self.is_pending(term, step) { vec![Action::HandIn { term, step }] } else { Vec::new() }
    }

    fn whole_gradient(&mut self, term: Term, step: Step) -> Vec<Action> {
        let Some(pending) = self.pending.as_ref().filter(|p| (p.term, p.step) == (term, step)) else {
            return Vec::new();
        };
        let lanes = pending.lanes.clone();
        self.gradient = Some(step);
        vec![Action::Acknowledge { term, step, lanes }]
    }

    /// A step's reduced gradient has the same bits in every term, so a commit of a later term than the one it was reduced
    /// in may be applied to it.
    fn committed(&mut self, step: Step) -> Vec<Action> {
        if self.gradient != Some(step) || self.replica.map(Step::next) != Some(step) {
            return Vec::new();
        }
        (self.replica, self.gradient) = (Some(step), None);
        if self.pending.take().is_none() {
            self.lanes = None;
        }
        vec![Action::Apply { step }]
    }

    fn copy_replica(&self, step: Step) -> Vec<Action> {
        if self.replica == Some(step) { vec![Action::CopyReplica { step }] } else { Vec::new() }
    }

    fn dismissed(&mut self, now: Duration, discard: bool) -> Vec<Action> {
        let discarded = discard.then(|| self.discard());
        let connect = self.session_lost(now);
        discarded.into_iter().chain([connect]).collect()
    }

    /// The replica is kept, and a whole gradient with it: its commit may be on its way.
    fn session_lost(&mut self, now: Duration) -> Action {
        (self.term, self.lanes, self.pending, self.loading) = (Term(0), None, None, None);
        self.reconnect.lost(now)
    }
}
