//! The commit protocol of the coordinator as a plain state machine: the time and an event in, actions out. No sockets,
//! files, clocks or floats; the driver (`crate::driver`) does what the actions say and reports back with events.
//!
//! ```text
//!            enough workers            every newcomer ready
//! Gathering ----------------> Loading ----------------------> (boundary)
//!     ^                                                           |  tasks due after a commit, in order:
//!     | nobody left                                               |    Evaluating, FetchingReplica -> checkpoint, finish
//!     +---- any phase <-------- a worker is lost: new term, ------+
//!                               the phase starts again            v
//!            commit  <- Acknowledging <- Reducing <- Computing (step n + 1)
//! ```
//!
//! Invariants: a step is committed only when every active worker has acknowledged its whole reduced gradient in the
//! current term; commits are numbered without gap or repetition; only replicas with the digest of the committed state
//! become active; messages of another term change nothing.

mod event;
mod patience;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

use carousel_proto::digest::Digest;
use carousel_proto::{Step, Term, WorkerId};

pub use event::Ending;
pub(crate) use event::{Action, CarryOrigin, Event, ExpelReason, Scope};

use crate::plan::{RunPlan, cut_lanes};
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

    fn joined(&mut self, worker: WorkerId, actions: &mut Vec<Action>) {
        self.members.insert(worker, Standing::New);
        if self.phase == Phase::Gathering {
            self.advance(actions);
        }
    }

    fn left(&mut self, worker: WorkerId, actions: &mut Vec<Action>) {
        let standing = self.members.remove(&worker);
        self.lanes_of.remove(&worker);
        self.leaving.remove(&worker);
        match standing {
            None | Some(Standing::New) => {}
            Some(Standing::Loading) => {
                if self.phase == Phase::Loading {
                    self.loading_progressed(actions);
                }
            }
            Some(Standing::Active) => self.active_worker_lost(actions),
        }
    }

    /// Whatever was under way is void; it starts again, in a new term, with those who are left.
    fn active_worker_lost(&mut self, actions: &mut Vec<Action>) {
        self.enter_new_term();
        if matches!(self.phase, Phase::Gathering | Phase::Loading | Phase::WritingCheckpoint) {
            return;
        }
        self.advance(actions);
    }

    fn enter_new_term(&mut self) {
        self.term = self.term.next();
        self.carries_moved = true;
    }

    fn ready(&mut self, worker: WorkerId, step: Step, digest: Digest, actions: &mut Vec<Action>) {
        if self.members.get(&worker) != Some(&Standing::Loading) || step != self.step {
            return self.expel(worker, ExpelReason::UnexpectedReplica { step }, actions);
        }
        let expected = *self.reference.get_or_insert(digest);
        if digest != expected {
            return self.expel(worker, ExpelReason::DigestDiffers { step, expected, found: digest }, actions);
        }
        self.members.insert(worker, Standing::Active);
        self.enter_new_term();
        self.loading_progressed(actions);
    }

    fn expel(&mut self, worker: WorkerId, reason: ExpelReason, actions: &mut Vec<Action>) {
        actions.push(Action::Expel { worker, reason });
        self.left(worker, actions);
    }

    fn loading_progressed(&mut self, actions: &mut Vec<Action>) {
        if self.members.values().all(|s| *s != Standing::Loading) {
            self.advance(actions);
        }
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

    fn wait_for_workers(&mut self, actions: &mut Vec<Action>) {
        if self.stopping && self.nothing_to_save() {
            return self.finish(Ending::Interrupted, actions);
        }
        if self.phase != Phase::Gathering {
            self.workers_to_start = 1;
            self.phase = Phase::Gathering;
        }
        actions.push(Action::Waiting { joined: self.members.len(), needed: self.workers_to_start });
    }

    fn admit_newcomers(&mut self, actions: &mut Vec<Action>) {
        if !self.replica_at_hand {
            return self.fetch_replica(actions);
        }
        self.phase = Phase::Loading;
        for (&worker, standing) in &mut self.members {
            if *standing == Standing::New {
                *standing = Standing::Loading;
                actions.push(Action::Load { worker, step: self.step });
            }
        }
    }

    fn fetch_replica(&mut self, actions: &mut Vec<Action>) {
        let from = self.active().next().expect("a replica that is not at hand is held by an active worker");
        self.phase = Phase::FetchingReplica { from };
        actions.push(Action::FetchReplica { worker: from, step: self.step });
    }

    fn replica_received(&mut self, worker: WorkerId, step: Step, digest: Digest, actions: &mut Vec<Action>) {
        if self.phase != (Phase::FetchingReplica { from: worker }) || step != self.step {
            return;
        }
        self.reference = Some(digest);
        self.replica_at_hand = true;
        self.advance(actions);
    }

    fn wants_to_leave(&mut self, worker: WorkerId, actions: &mut Vec<Action>) {
        match self.members.get(&worker) {
            // At the next boundary, when the step under way is committed.
            Some(Standing::Active) => {
                self.leaving.insert(worker);
            }
            Some(_) => {
                actions.push(Action::Release { worker });
                self.left(worker, actions);
            }
            None => {}
        }
    }

    /// At a boundary: lets a worker go. The last one hands the replica over first.
    fn release(&mut self, worker: WorkerId, actions: &mut Vec<Action>) {
        let others = self.active().any(|other| !self.leaving.contains(&other));
        if !others && !self.replica_at_hand {
            return self.fetch_replica(actions);
        }
        self.leaving.remove(&worker);
        self.members.remove(&worker);
        self.lanes_of.remove(&worker);
        self.enter_new_term();
        actions.push(Action::Release { worker });
        self.advance(actions);
    }

    /// Expels who keeps the others waiting beyond the deadline. When that is everybody it is rather this machine that
    /// was held up: then only after ten times as long.
    fn look_at_the_clock(&mut self, actions: &mut Vec<Action>) {
        let overdue: Vec<WorkerId> = match &self.phase {
            // Without its partial sums nobody's slice can be reduced: who has not reported is the one to blame.
            Phase::Computing { reports, .. } if !reports.is_empty() => reports.iter().copied().collect(),
            Phase::Computing { slices, .. } => slices.iter().copied().collect(),
            Phase::Acknowledging { waiting } => waiting.iter().copied().collect(),
            Phase::Comparing { digests } => self.active().filter(|w| !digests.contains_key(w)).collect(),
            _ => return,
        };
        let waited = self.now.saturating_sub(self.waiting_since);
        let everybody = overdue.len() == self.active().count();
        let deadline = self.patience.deadline() * if everybody { 10 } else { 1 };
        if waited <= deadline {
            return;
        }
        for worker in &overdue {
            actions.push(Action::Expel { worker: *worker, reason: ExpelReason::Overdue { waited } });
            self.members.remove(worker);
            self.lanes_of.remove(worker);
            self.leaving.remove(worker);
        }
        self.active_worker_lost(actions);
    }

    fn start_checkpoint(&mut self, actions: &mut Vec<Action>) {
        if self.checkpointed == Some(self.step) {
            self.tasks.pop_front();
            return self.advance(actions);
        }
        if !self.replica_at_hand {
            return self.fetch_replica(actions);
        }
        self.phase = Phase::WritingCheckpoint;
        actions.push(Action::WriteCheckpoint { step: self.step });
    }

    fn checkpoint_written(&mut self, step: Step, actions: &mut Vec<Action>) {
        if self.phase != Phase::WritingCheckpoint || step != self.step {
            return;
        }
        self.checkpointed = Some(step);
        self.tasks.pop_front();
        self.advance(actions);
    }

    /// A full disk does not end a run; older checkpoints remain, and the next one may find room.
    fn checkpoint_failed(&mut self, step: Step, actions: &mut Vec<Action>) {
        if self.phase == Phase::WritingCheckpoint && step == self.step {
            self.tasks.pop_front();
            self.advance(actions);
        }
    }

    fn start_comparison(&mut self, actions: &mut Vec<Action>) {
        self.phase = Phase::Comparing { digests: BTreeMap::new() };
        self.waiting_since = self.now;
        actions.extend(self.active().map(|worker| Action::AskDigest { worker, step: self.step }));
    }

    fn digested(&mut self, worker: WorkerId, step: Step, digest: Digest, actions: &mut Vec<Action>) {
        let active: BTreeSet<WorkerId> = self.active().collect();
        let Phase::Comparing { digests } = &mut self.phase else { return };
        if step != self.step || !active.contains(&worker) {
            return;
        }
        digests.insert(worker, digest);
        if digests.len() < active.len() {
            return;
        }
        let expected = majority(digests);
        let differing: Vec<(WorkerId, Digest)> =
            digests.iter().filter(|(_, found)| **found != expected).map(|(w, found)| (*w, *found)).collect();
        self.reference = Some(expected);
        self.tasks.pop_front();
        for (worker, found) in &differing {
            let reason = ExpelReason::DigestDiffers { step, expected, found: *found };
            actions.push(Action::Expel { worker: *worker, reason });
            self.members.remove(worker);
            self.lanes_of.remove(worker);
            self.leaving.remove(worker);
        }
        if differing.is_empty() { self.advance(actions) } else { self.active_worker_lost(actions) }
    }

    fn start_evaluation(&mut self, scope: Scope, actions: &mut Vec<Action>) {
        let shares = self.shares();
        let waiting = shares.iter().filter(|(_, lanes)| !lanes.is_empty()).map(|(w, _)| *w).collect();
        self.phase = Phase::Evaluating { scope, waiting };
        for (worker, lanes) in shares {
            if !lanes.is_empty() {
                actions.push(Action::Evaluate { worker, term: self.term, scope, lanes });
            }
        }
    }

    fn evaluated(&mut self, worker: WorkerId, term: Term, scope: Scope, actions: &mut Vec<Action>) {
        let current = self.term;
        let Phase::Evaluating { scope: asked, waiting } = &mut self.phase else { return };
        if term != current || *asked != scope || !waiting.remove(&worker) || !waiting.is_empty() {
            return;
        }
        actions.push(Action::SummarizeEvaluation { step: self.step, scope });
        self.tasks.pop_front();
        self.advance(actions);
    }

    fn shares(&self) -> Vec<(WorkerId, Range<u32>)> {
        let workers: Vec<WorkerId> = self.active().collect();
        let cut = cut_lanes(self.plan.lanes, workers.len());
        workers.into_iter().zip(cut).collect()
    }

    fn start_step(&mut self, actions: &mut Vec<Action>) {
        let step = self.step.next();
        let shares = self.shares();
        let reports = shares.iter().filter(|(_, lanes)| !lanes.is_empty()).map(|(w, _)| *w).collect();
        actions.push(Action::Begin { term: self.term, step, shares: shares.clone() });
        for (worker, lanes) in &shares {
            let carry = self.carry_origin(step, *worker, lanes);
            actions.push(Action::Assign {
                worker: *worker,
                term: self.term,
                step,
                lanes: lanes.clone(),
                carry,
            });
        }
        self.lanes_of = shares.into_iter().collect();
        self.carries_moved = false;
        self.acknowledged.clear();
        let slices = match self.exchange {
            Exchange::Star => BTreeSet::new(),
            Exchange::Mesh => self.active().collect(),
        };
        self.phase = Phase::Computing { reports, slices };
        (self.assigned_at, self.waiting_since) = (self.now, self.now);
    }

    fn carry_origin(&self, step: Step, worker: WorkerId, lanes: &Range<u32>) -> CarryOrigin {
        if self.plan.window_of(step.0) == 0 {
            CarryOrigin::Zero
        } else if self.carries_moved || self.lanes_of.get(&worker) != Some(lanes) {
            CarryOrigin::Given
        } else {
            CarryOrigin::Keep
        }
    }

    fn is_current(&self, term: Term, step: Step) -> bool {
        (term, step) == (self.term, self.step.next())
    }

    fn reported(&mut self, worker: WorkerId, term: Term, step: Step, actions: &mut Vec<Action>) {
        let current = self.is_current(term, step);
        if let Phase::Computing { reports, .. } = &mut self.phase
            && current
            && reports.remove(&worker)
        {
            self.computing_progressed(actions);
        }
    }

    fn sliced(&mut self, worker: WorkerId, term: Term, step: Step, actions: &mut Vec<Action>) {
        let current = self.is_current(term, step);
        if let Phase::Computing { slices, .. } = &mut self.phase
            && current
            && slices.remove(&worker)
        {
            self.computing_progressed(actions);
        }
    }

    fn computing_progressed(&mut self, actions: &mut Vec<Action>) {
        self.waiting_since = self.now;
        let Phase::Computing { reports, slices } = &self.phase else { return };
        if reports.is_empty() && slices.is_empty() {
            self.phase = Phase::Reducing;
            actions.push(Action::Reduce { term: self.term, step: self.step.next() });
        }
    }

    fn reduced(&mut self, term: Term, step: Step, actions: &mut Vec<Action>) {
        if self.phase != Phase::Reducing || !self.is_current(term, step) {
            return;
        }
        let active = self.active();
        let waiting: BTreeSet<WorkerId> = active.filter(|w| !self.acknowledged.contains(w)).collect();
        if self.exchange == Exchange::Star {
            actions.extend(waiting.iter().map(|&worker| Action::SendReduced { worker, term, step }));
        }
        self.phase = Phase::Acknowledging { waiting };
        self.waiting_since = self.now;
        self.acknowledging_progressed(actions);
    }

    fn acknowledged(&mut self, worker: WorkerId, term: Term, step: Step, actions: &mut Vec<Action>) {
        if !self.is_current(term, step) {
            return;
        }
        match &mut self.phase {
            Phase::Acknowledging { waiting } => {
                waiting.remove(&worker);
                self.acknowledging_progressed(actions);
            }
            // A mesh hands its slices round without the coordinator: whoever has them all says so at once.
            Phase::Computing { .. } | Phase::Reducing if self.exchange == Exchange::Mesh => {
                self.acknowledged.insert(worker);
            }
            _ => {}
        }
    }

    fn acknowledging_progressed(&mut self, actions: &mut Vec<Action>) {
        if self.phase != (Phase::Acknowledging { waiting: BTreeSet::new() }) {
            return;
        }
        let (term, step) = (self.term, self.step.next());
        self.patience.learn(self.now.saturating_sub(self.assigned_at));
        self.step = step;
        self.reference = None;
        self.replica_at_hand = false;
        actions.push(Action::Commit { term, step });
        self.plan_boundary();
        self.advance(actions);
    }

    /// Validation comes before the checkpoint, so that a checkpoint knows every validation up to its step.
    fn plan_boundary(&mut self) {
        let step = self.step.0;
        // First of all: nothing is evaluated or written from a replica that differs.
        if self.plan.digest_due(step) {
            self.tasks.push_back(Task::CompareDigests);
        }
        if self.plan.validation_due(step) {
            self.tasks.push_back(Task::Evaluate(Scope::Scheduled));
        }
        if step >= self.plan.last_step() {
            return self.plan_the_end();
        }
        if self.stopping {
            self.tasks.extend([Task::Checkpoint, Task::Finish(Ending::Interrupted)]);
        } else if self.plan.checkpoint_due(step) {
            self.tasks.push_back(Task::Checkpoint);
        }
    }

    /// Figures of the end that no schedule asked for leave the state alone: a run that is later extended must go on
    /// as if it had never ended here.
    fn plan_the_end(&mut self) {
        self.tasks.push_back(Task::Checkpoint);
        if self.plan.has_valid && !self.plan.validation_due(self.step.0) {
            self.tasks.push_back(Task::Evaluate(Scope::FinalValid));
        }
        if self.plan.has_test {
            self.tasks.push_back(Task::Evaluate(Scope::FinalTest));
        }
        self.tasks.push_back(Task::Finish(Ending::Complete));
    }

    fn stop_requested(&mut self, actions: &mut Vec<Action>) {
        if self.stopping {
            return;
        }
        self.stopping = true;
        match self.phase {
            // Nobody computes, and a state that could be written is either the seed's or already on disk.
            Phase::Gathering => self.finish(Ending::Interrupted, actions),
            Phase::Loading if self.active().next().is_none() => self.finish(Ending::Interrupted, actions),
            // The step under way is committed first; then `plan_boundary` ends the run.
            Phase::Computing { .. } | Phase::Reducing | Phase::Acknowledging { .. } => {}
            _ => self.stop_after_pending_tasks(),
        }
    }

    fn stop_after_pending_tasks(&mut self) {
        if self.tasks.iter().any(|t| matches!(t, Task::Finish(_))) {
            return;
        }
        if !self.nothing_to_save() {
            self.tasks.push_back(Task::Checkpoint);
        }
        self.tasks.push_back(Task::Finish(Ending::Interrupted));
    }

    /// The committed state is the seed's, or in a checkpoint already.
    fn nothing_to_save(&self) -> bool {
        self.step == Step(0) || self.checkpointed == Some(self.step)
    }

    fn finish(&mut self, ending: Ending, actions: &mut Vec<Action>) {
        self.phase = Phase::Over;
        actions.push(Action::Finish { ending });
    }
}

/// The digest most workers have; of equally frequent ones, that of the worker that has been here longest.
fn majority(digests: &BTreeMap<WorkerId, Digest>) -> Digest {
    let votes = |digest: &Digest| digests.values().filter(|other| *other == digest).count();
    // `max_by_key` takes the last of the largest: reversed, that is the first to have joined.
    *digests.values().rev().max_by_key(|digest| votes(digest)).expect("there is an active worker")
}
