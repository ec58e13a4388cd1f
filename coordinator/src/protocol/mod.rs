//! The commit protocol of the coordinator as a plain state machine: the time and an event in, actions out. No sockets,
//! files, clocks or floats; the driver (`crate::driver`) does what the actions say and reports back with events.
//!
//! ```text
//!            enough workers            every newcomer ready
//! Gathering ----------------> Loading ----------------------> (boundary)
//!     ^                                                           |  tasks due after a commit, in order: Comparing,
//!     | nobody left                                               |    Evaluating, FetchingReplica, WritingCheckpoint
//!     +---- any phase <-------- a worker is lost: new term, ------+
//!                               the phase starts again            v
//!            commit  <- Acknowledging <- Reducing <- Computing (step n + 1)
//! ```
//!
//! `membership` has the left side of the drawing, `boundary` the right, `step` the last line.
//!
//! Invariants: a step is committed only when every active worker has acknowledged its whole reduced gradient in the
//! current term; commits are numbered without gap or repetition; only replicas with the digest of the committed state
//! become active; messages of another term change nothing.

mod boundary;
mod event;
mod membership;
mod patience;
mod step;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

use carousel_proto::digest::Digest;
use carousel_proto::{Step, Term, WorkerId};

pub use event::Ending;
pub(crate) use event::{Action, CarryOrigin, Event, ExpelReason, Scope};

use crate::plan::RunPlan;
use patience::Patience;

/// What the coordinator is waiting for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// For enough workers.
    Gathering,
    /// For newcomers to load the replica of the committed step.
    Loading,
    /// For a worker to send its replica; `None` while none has been asked.
    FetchingReplica { from: WorkerId },
    /// For the lanes' gradients; with a mesh also for the reduced slice of every worker.
    Computing { reports: BTreeSet<WorkerId>, slices: BTreeSet<WorkerId> },
    /// For the driver's reduction.
    Reducing,
    /// For every worker to hold the reduced gradient.
    Acknowledging { waiting: BTreeSet<WorkerId> },
    /// For the digest of every replica.
    Comparing { digests: BTreeMap<WorkerId, Digest> },
    /// For losses of an evaluation.
    Evaluating { scope: Scope, waiting: BTreeSet<WorkerId> },
    /// For the driver to write a checkpoint.
    WritingCheckpoint,
    /// For nothing: the run is over.
    Over,
}

/// What is to be done at a boundary before the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    CompareDigests,
    Evaluate(Scope),
    Checkpoint,
    Finish(Ending),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Welcomed; has no replica yet.
    New,
    /// Told to load the replica of the committed step.
    Loading,
    /// Holds the committed replica.
    Active,
}

/// Where the driver can get the committed replica from, when no active worker need be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Every worker makes the initial state from the seed.
    Seed,
    /// The driver holds the replica of a checkpoint, with this digest.
    Checkpoint(Digest),
}

/// How gradients are exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Workers send partial sums to the coordinator, which reduces for everyone.
    Star,
    /// Each worker reduces a slice, from the others' partial sums, and hands it round.
    Mesh,
}

/// Where a run stands when its coordinator starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    pub exchange: Exchange,
    pub workers_to_start: usize,
    /// Above every term the run has had.
    pub term: Term,
    /// The last committed step.
    pub step: Step,
    pub origin: Origin,
}

/// The coordinator's side of the commit protocol.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    plan: RunPlan,
    exchange: Exchange,
    workers_to_start: usize,
    term: Term,
    /// The last committed step.
    step: Step,
    members: BTreeMap<WorkerId, Standing>,
    phase: Phase,
    tasks: VecDeque<Task>,
    /// The digest every replica of the committed step must have, once known.
    reference: Option<Digest>,
    /// Whether the driver holds (or everyone can make) the replica of the committed step.
    replica_at_hand: bool,
    checkpointed: Option<Step>,
    /// The lanes and term of the last commit: a worker with unchanged lanes keeps its own carries.
    lanes_of: BTreeMap<WorkerId, Range<u32>>,
    carries_moved: bool,
    /// Mesh: who holds the whole reduced gradient of the step under way; that need not wait for the clip.
    acknowledged: BTreeSet<WorkerId>,
    /// Who has asked to leave and goes at the next boundary.
    leaving: BTreeSet<WorkerId>,
    patience: Patience,
    /// Mesh: who was asked for a sign of life and has not given one yet.
    probed: Option<BTreeSet<WorkerId>>,
    /// The time of the event being handled; of the step's assignment; and since when the phase has waited.
    now: Duration,
    assigned_at: Duration,
    waiting_since: Duration,
    stopping: bool,
}

impl Machine {
    /// A run that stands at `step` and starts when `workers_to_start` workers have joined.
    #[must_use]
    pub(crate) fn new(plan: RunPlan, start: Start) -> Self {
        let Start { exchange, workers_to_start, term, step, origin } = start;
        let mut machine = Self {
            plan,
            exchange,
            workers_to_start: workers_to_start.max(1),
            term,
            step,
            members: BTreeMap::new(),
            phase: Phase::Gathering,
            tasks: VecDeque::new(),
            reference: match origin {
                Origin::Seed => None,
                Origin::Checkpoint(digest) => Some(digest),
            },
            replica_at_hand: true,
            checkpointed: matches!(origin, Origin::Checkpoint(_)).then_some(step),
            lanes_of: BTreeMap::new(),
            carries_moved: true,
            acknowledged: BTreeSet::new(),
            leaving: BTreeSet::new(),
            patience: Patience::default(),
            probed: None,
            now: Duration::ZERO,
            assigned_at: Duration::ZERO,
            waiting_since: Duration::ZERO,
            stopping: false,
        };
        if step.0 >= machine.plan.last_step() {
            machine.plan_the_end();
        }
        machine
    }

    /// The last committed step.
    #[must_use]
    pub(crate) fn step(&self) -> Step {
        self.step
    }

    /// The current term.
    #[cfg(test)]
    pub(crate) fn term(&self) -> Term {
        self.term
    }

    /// The workers that hold the committed replica.
    pub(crate) fn active(&self) -> impl Iterator<Item = WorkerId> + '_ {
        self.members.iter().filter(|(_, s)| **s == Standing::Active).map(|(w, _)| *w)
    }

    /// Takes an event in, at a time of any clock that does not go back, and says what is to be done, in order.
    pub(crate) fn handle(&mut self, now: Duration, event: Event) -> Vec<Action> {
        self.now = now;
        let mut actions = Vec::new();
        if self.phase == Phase::Over {
            return actions;
        }
        match event {
            Event::Joined { worker } => self.joined(worker, &mut actions),
            Event::Left { worker } => self.left(worker, &mut actions),
            Event::Ready { worker, step, digest } => self.ready(worker, step, digest, &mut actions),
            Event::Reported { worker, term, step } => self.reported(worker, term, step, &mut actions),
            Event::Sliced { worker, term, step } => self.sliced(worker, term, step, &mut actions),
            Event::Reduced { term, step } => self.reduced(term, step, &mut actions),
            Event::Acknowledged { worker, term, step } => self.acknowledged(worker, term, step, &mut actions),
            Event::Evaluated { worker, term, scope } => self.evaluated(worker, term, scope, &mut actions),
            Event::ReplicaReceived { worker, step, digest } => {
                self.replica_received(worker, step, digest, &mut actions);
            }
            Event::CheckpointWritten { step } => self.checkpoint_written(step, &mut actions),
            Event::Digested { worker, step, digest } => self.digested(worker, step, digest, &mut actions),
            Event::CheckpointFailed { step } => self.checkpoint_failed(step, &mut actions),
            Event::Leaving { worker } => self.wants_to_leave(worker, &mut actions),
            Event::Tick => self.look_at_the_clock(&mut actions),
            Event::StopRequested => self.stop_requested(&mut actions),
        }
        actions
    }

    /// At a boundary: the one place that decides what comes next.
    fn advance(&mut self, actions: &mut Vec<Action>) {
        let started = self.active().next().is_some();
        if !started && !self.replica_at_hand {
            return self.finish(Ending::EveryReplicaLost, actions);
        }
        let enough = if started { 1 } else { self.workers_to_start };
        if self.members.len() < enough {
            return self.wait_for_workers(actions);
        }
        if let Some(worker) = self.leaving.first().copied() {
            return self.release(worker, actions);
        }
        if self.members.values().any(|s| *s == Standing::New) {
            return self.admit_newcomers(actions);
        }
        match self.tasks.front().copied() {
            Some(Task::CompareDigests) => self.start_comparison(actions),
            Some(Task::Evaluate(scope)) => self.start_evaluation(scope, actions),
            Some(Task::Checkpoint) => self.start_checkpoint(actions),
            Some(Task::Finish(ending)) => self.finish(ending, actions),
            None => self.start_step(actions),
        }
    }
}
