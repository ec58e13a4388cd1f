//! The commit protocol of the coordinator as a plain state machine: the time and an event in, actions out. No sockets,
//! files, clocks or floats; the driver (`crate::driver`) does what the actions say and reports back with events. It is
//! public for the simulation (`tests/simulation`), which plays the driver, the network and the workers.
//!
//! ```text
//!            enough workers            every newcomer ready
//! Gathering ----------------> Loading ----------------------> (boundary)
//!  ^  |  ^                                                        |  tasks due after a commit, in order: Comparing,
//!  |  |  | nobody left                                            |    Evaluating, then a checkpoint beside the run
//!  |  |  +--- any phase <-------- a worker is lost: new term, ----+
//!  |  |                           the phase starts again          v
//!  |  v  nobody came back with  commit <- Acknowledging <- Reducing <- Computing (step n + 1)
//! RollingBack  the replica
//! ```
//!
//! README.md beside this file draws every arrow, with its event and its function.
//!
//! `membership` has who is here and `loading` how they get the committed replica, `boundary` and `saving` what is due
//! between two steps, `step` the last line, `clock` who is too late.
//!
//! Invariants: a step is committed only when every active worker has acknowledged its whole reduced gradient in the
//! current term; commits are numbered without gap or repetition; only replicas with the digest of the committed state
//! become active; messages of another term change nothing.

mod balance;
mod boundary;
mod clock;
mod event;
mod loading;
mod membership;
mod patience;
mod saving;
mod step;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

use carousel_proto::digest::Digest;
use carousel_proto::{Step, Term, WorkerId};

pub use event::{Action, CarryOrigin, Ending, Event, ExpelReason, Held, LoadSource, Scope};

pub use view::{Presence, Stage};

pub use crate::plan::{Epochs, Length, RunPlan};
use balance::Balance;
use clock::Relay;
use patience::Patience;
use saving::Saving;

/// What the coordinator is waiting for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// For enough workers, or for one that still holds the committed replica.
    Gathering,
    /// For the driver to go back to the last checkpoint.
    RollingBack,
    /// For newcomers to load the replica of the committed step; the digests of those that have.
    Loading { digests: BTreeMap<WorkerId, Digest> },
    /// For the replica that was asked of a worker.
    FetchingReplica,
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
    /// For a checkpoint: the last one, or the one before that which is due.
    Saving,
    /// For nothing: the run is over.
    Over,
}

/// What is to be done at a boundary before the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    CompareDigests,
    Evaluate(Scope),
    Checkpoint,
    AwaitCheckpoint,
    Finish(Ending),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Welcomed; the coordinator has not said yet where its replica comes from.
    New,
    /// Told to load the replica of the committed step.
    Loading,
    /// Holds the committed replica.
    Active,
}

/// A worker that is here.
#[derive(Clone, Debug)]
struct Member {
    standing: Standing,
    /// The replica it brought along, which may be of an older step.
    held: Option<Held>,
    /// When it last gave a sign of life.
    heard: Duration,
}

/// Where the driver can get the committed replica from, when no active worker need be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Every worker makes the initial state from the seed.
    Seed,
    /// The driver holds the replica of a checkpoint, with this digest.
    Checkpoint(Digest),
    /// The run's workers hold it: the coordinator was lost, not they.
    Workers {
        /// Whether the validation that is due after the step has been made.
        validated: bool,
        /// The last checkpoint's step.
        checkpointed: Option<Step>,
    },
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
#[derive(Clone, Debug)]
pub struct Start {
    /// How gradients are exchanged.
    pub exchange: Exchange,
    /// Workers to wait for.
    pub workers_to_start: usize,
    /// Above every term the run has had.
    pub term: Term,
    /// The last committed step.
    pub step: Step,
    /// Who holds its replica.
    pub origin: Origin,
    /// How long recent steps took, where that is known; oldest first.
    pub recent_steps: Vec<Duration>,
}

/// The coordinator's side of the commit protocol.
#[derive(Clone, Debug)]
pub struct Machine {
    plan: RunPlan,
    exchange: Exchange,
    workers_to_start: usize,
    term: Term,
    /// The last committed step.
    step: Step,
    members: BTreeMap<WorkerId, Member>,
    phase: Phase,
    tasks: VecDeque<Task>,
    /// The digest every replica of the committed step must have, once known.
    reference: Option<Digest>,
    /// Whether the driver holds (or everyone can make) the replica of the committed step.
    replica_at_hand: bool,
    /// Of whom a replica was asked, and of which step.
    fetching: Option<(WorkerId, Step)>,
    saving: Saving,
    /// Newcomers that could not load from their peers.
    relayed: BTreeSet<WorkerId>,
    /// The lanes of the last assignment: a worker with unchanged lanes keeps its own carries.
    lanes_of: BTreeMap<WorkerId, Range<u32>>,
    carries_moved: bool,
    balance: Balance,
    /// Mesh: who holds the whole reduced gradient of the step under way; that need not wait for the clip.
    acknowledged: BTreeSet<WorkerId>,
    /// Who has asked to leave and goes at the next boundary.
    leaving: BTreeSet<WorkerId>,
    patience: Patience,
    /// Mesh: who was asked for a sign of life and has not given one yet.
    probed: Option<BTreeSet<WorkerId>>,
    relay: Relay,
    /// The time of the event being handled; of the step's assignment; and since when the phase has waited.
    now: Duration,
    assigned_at: Duration,
    waiting_since: Duration,
    /// Since when a run that lost its replica has had somebody to go on with.
    gathering_since: Option<Duration>,
    /// What the user was last told of the workers awaited.
    told: Option<(usize, usize)>,
    stopping: bool,
}

impl Machine {
    /// A run that stands at `step` and starts when `workers_to_start` workers have joined; from a lost coordinator's
    /// workers also with fewer, when the others do not come back soon.
    #[must_use]
    pub fn new(plan: RunPlan, start: Start) -> Self {
        let Start { exchange, workers_to_start, term, step, origin, recent_steps } = start;
        let mut machine = Self {
            plan,
            exchange,
            workers_to_start: workers_to_start.max(1),
            term,
            step,
            members: BTreeMap::new(),
            phase: Phase::Gathering,
            tasks: VecDeque::new(),
            reference: None,
            replica_at_hand: !matches!(origin, Origin::Workers { .. }),
            fetching: None,
            saving: Saving::default(),
            relayed: BTreeSet::new(),
            lanes_of: BTreeMap::new(),
            carries_moved: true,
            balance: Balance::default(),
            acknowledged: BTreeSet::new(),
            leaving: BTreeSet::new(),
            patience: Patience::default(),
            probed: None,
            relay: Relay::default(),
            now: Duration::ZERO,
            assigned_at: Duration::ZERO,
            waiting_since: Duration::ZERO,
            gathering_since: None,
            told: None,
            stopping: false,
        };
        recent_steps.into_iter().for_each(|took| machine.patience.learn(took));
        machine.stand_at(origin);
        machine
    }

    /// What is still due at the step where a run goes on.
    fn stand_at(&mut self, origin: Origin) {
        match origin {
            Origin::Seed => {}
            // Validation comes before the checkpoint: nothing but the end can be due.
            Origin::Checkpoint(digest) => {
                self.reference = Some(digest);
                self.saving.wrote(self.step);
                if self.step.0 >= self.plan.last_step() {
                    self.plan_the_end();
                }
            }
            Origin::Workers { validated, checkpointed } => {
                checkpointed.into_iter().for_each(|step| self.saving.wrote(step));
                self.plan_boundary();
                if validated {
                    self.tasks.retain(|task| *task != Task::Evaluate(Scope::Scheduled));
                }
            }
        }
    }

    /// The last committed step.
    #[must_use]
    pub fn step(&self) -> Step {
        self.step
    }

    /// The current term.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// Whether a checkpoint is on its way.
    #[must_use]
    pub fn is_saving(&self) -> bool {
        self.saving.is_under_way()
    }

    /// The workers that hold the committed replica.
    pub fn active(&self) -> impl Iterator<Item = WorkerId> + '_ {
        self.standing(Standing::Active)
    }

    /// How long recent steps took, oldest first.
    pub fn recent_steps(&self) -> impl Iterator<Item = Duration> + '_ {
        self.patience.recent()
    }

    fn standing(&self, standing: Standing) -> impl Iterator<Item = WorkerId> + '_ {
        self.members.iter().filter(move |(_, m)| m.standing == standing).map(|(w, _)| *w)
    }

    /// Takes an event in, at a time of any clock that does not go back, and says what is to be done, in order.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Action> {
        self.wake(now);
        let mut actions = Vec::new();
        if self.phase == Phase::Over {
            return actions;
        }
        if let Some(member) = event.worker().and_then(|worker| self.members.get_mut(&worker)) {
            member.heard = now;
        }
        match event {
            Event::Joined { worker, held } => self.joined(worker, held, &mut actions),
            Event::Left { worker } => self.left(worker, &mut actions),
            Event::Ready { worker, step, digest } => self.ready(worker, step, digest, &mut actions),
            Event::LoadFailed { worker } => self.load_failed(worker, &mut actions),
            // That it was heard is all there is to it.
            Event::Heard { .. } => {}
            Event::Reported { worker, term, step, took } => {
                self.reported(worker, (term, step), took, &mut actions);
            }
            Event::Sliced { worker, term, step } => self.sliced(worker, term, step, &mut actions),
            Event::Reduced { term, step } => self.reduced(term, step, &mut actions),
            Event::Acknowledged { worker, term, step } => self.acknowledged(worker, term, step, &mut actions),
            Event::Evaluated { worker, term, scope } => self.evaluated(worker, term, scope, &mut actions),
            Event::ReplicaReceived { worker, step, digest } => {
                self.replica_received(worker, step, digest, &mut actions);
            }
            Event::CheckpointWritten { step } => self.checkpoint_written(step, &mut actions),
            Event::CheckpointFailed { step } => self.checkpoint_failed(step, &mut actions),
            Event::RolledBack { step, digest } => self.rolled_back(step, digest, &mut actions),
            Event::Digested { worker, step, digest } => self.digested(worker, step, digest, &mut actions),
            Event::Leaving { worker } => self.wants_to_leave(worker, &mut actions),
            Event::DrainRequested { worker } => self.wants_to_leave(worker, &mut actions),
            Event::CheckpointRequested => self.checkpoint_requested(),
            Event::Tick => self.look_at_the_clock(&mut actions),
            Event::StopRequested => self.stop_requested(&mut actions),
        }
        actions
    }

    /// At a boundary: the one place that decides what comes next.
    fn advance(&mut self, actions: &mut Vec<Action>) {
        if !self.needs_nobody() && !self.is_staffed(actions) {
            return;
        }
        match self.tasks.front().copied() {
            Some(Task::CompareDigests) => self.start_comparison(actions),
            Some(Task::Evaluate(scope)) => self.start_evaluation(scope, actions),
            Some(Task::Checkpoint) => self.start_checkpoint(actions),
            Some(Task::AwaitCheckpoint) => self.await_checkpoint(actions),
            Some(Task::Finish(ending)) => self.finish(ending, actions),
            None => {
                self.save_if_wanted(actions);
                self.start_step(actions);
            }
        }
    }

    /// At a boundary: whether everybody who is here holds the committed replica, and somebody is; else it has been seen
    /// to.
    fn is_staffed(&mut self, actions: &mut Vec<Action>) -> bool {
        let started = self.active().next().is_some();
        // A run that had begun goes on with whoever is here.
        let begun = started || self.phase != Phase::Gathering;
        let enough = if begun { 1 } else { self.workers_to_start };
        if !started && !self.replica_at_hand {
            self.await_the_replica(actions);
        } else if self.members.len() < enough {
            self.wait_for_workers(actions);
        } else if let Some(worker) = self.leaving.first().copied() {
            self.release(worker, actions);
        } else if self.standing(Standing::New).next().is_some() {
            self.admit_newcomers(actions);
        } else {
            return true;
        }
        false
    }
}
