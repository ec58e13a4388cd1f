//! The coordinator's process: the real state machine, and a model of its driver, with hashes for floats and a disk that
//! outlives it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use carousel_coordinator::protocol::{
    Action, CarryOrigin, Ending, Event, Exchange, ExpelReason, Held, LoadSource, Machine, Origin, RunPlan,
    Scope, Stage, Start,
};
use carousel_proto::digest::Digest;
use carousel_proto::{Step, Term, WorkerId};

use crate::content::{Quiet, ZERO_CARRY, reduced};
use crate::messages::{Carry, LoadFrom, NodeId, Peer, ToCoordinator, ToWorker};
use crate::mutation::Mutation;

/// What is on disk; a killed coordinator leaves it as it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub highest_term: u64,
    /// Step and reduced gradient of each commit, in the order of the commits.
    pub journal: Vec<(u64, u64)>,
    pub committed: Committed,
    pub checkpoints: BTreeMap<u64, Checkpoint>,
    pub ended: Option<Ending>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Committed {
    pub step: u64,
    pub carries: Vec<u64>,
    pub validated: bool,
    pub recent_steps: Vec<Duration>,
}

#[derive(Clone, Debug)]
pub(crate) struct Checkpoint {
    pub replica: u64,
    pub carries: Vec<u64>,
}

/// What the coordinator's process wants of the world.
#[derive(Debug)]
pub(crate) enum Out {
    Send(WorkerId, ToWorker),
    EndSession(WorkerId),
    /// A checkpoint is written by another thread, as fast as the disk is.
    WriteCheckpoint(u64, Checkpoint),
}

/// A step under way.
#[derive(Default)]
struct StepWork {
    at: (Term, Step),
    shares: Vec<(WorkerId, Range<u32>)>,
    gradients: BTreeMap<u32, u64>,
    carries: BTreeMap<u32, u64>,
    slices: BTreeMap<WorkerId, u64>,
    mesh: bool,
    result: u64,
}

pub(crate) struct Coordinator {
    pub machine: Machine,
    plan: RunPlan,
    mutation: Option<Mutation>,
    sessions: BTreeMap<WorkerId, NodeId>,
    carries: Vec<u64>,
    replica: Option<u64>,
    asked: Option<(WorkerId, Step)>,
    deposited: Option<(Step, u64)>,
    snapshot: Option<(Step, Vec<u64>)>,
    work: StepWork,
    events: VecDeque<Event>,
}

pub(crate) fn digest(replica: u64) -> Digest {
    Digest::of_bytes(&replica.to_le_bytes())
}

impl Coordinator {
    /// Starts a process on what the disk has, as `open.rs` does.
    pub(crate) fn start(
        plan: &RunPlan,
        exchange: Exchange,
        workers: usize,
        disk: &Disk,
        mutation: Option<Mutation>,
    ) -> Self {
        let checkpoint = disk.checkpoints.last_key_value();
        let saved_at = checkpoint.map_or(0, |(step, _)| *step);
        let last = disk.journal.last().map_or(0, |(step, _)| *step);
        let outlive = disk.committed.step > saved_at && last == disk.committed.step;
        let zero = vec![ZERO_CARRY; plan.lanes as usize];
        let (step, origin, carries, replica) = match checkpoint {
            _ if outlive => {
                let (validated, checkpointed) =
                    (disk.committed.validated, checkpoint.map(|(step, _)| Step(*step)));
                let origin = Origin::Workers { validated, checkpointed };
                (disk.committed.step, origin, disk.committed.carries.clone(), None)
            }
            Some((step, found)) => {
                let origin = Origin::Checkpoint(digest(found.replica));
                (*step, origin, found.carries.clone(), Some(found.replica))
            }
            None => (0, Origin::Seed, zero, None),
        };
        let term = match mutation {
            Some(Mutation::ReuseTerms) => Term(1),
            _ => Term(disk.highest_term + 1),
        };
        let recent_steps = disk.committed.recent_steps.clone();
        let start =
            Start { exchange, workers_to_start: workers, term, step: Step(step), origin, recent_steps };
        Self {
            machine: Machine::new(plan.clone(), start),
            plan: plan.clone(),
            mutation,
            sessions: BTreeMap::new(),
            carries,
            replica,
            asked: None,
            deposited: None,
            snapshot: None,
            work: StepWork::default(),
            events: VecDeque::new(),
        }
    }

    pub(crate) fn session_lost(&mut self, worker: WorkerId) {
        if self.sessions.remove(&worker).is_some() {
            self.events.push_back(Event::Left { worker });
        }
    }

    pub(crate) fn tick(&mut self) {
        self.events.push_back(Event::Tick);
    }

    /// As the driver's wishes do it; whether it is granted.
    pub(crate) fn drain(&mut self, worker: WorkerId) -> bool {
        let is_here = self.sessions.contains_key(&worker);
        self.events.extend(is_here.then_some(Event::DrainRequested { worker }));
        is_here
    }

    pub(crate) fn want_checkpoint(&mut self) -> bool {
        let nobody = matches!(self.machine.stage(), Stage::Waiting { .. } | Stage::RollingBack);
        self.events.extend((!nobody).then_some(Event::CheckpointRequested));
        !nobody
    }

    pub(crate) fn checkpoint_written(&mut self, step: u64) {
        self.events.push_back(Event::CheckpointWritten { step: Step(step) });
    }

    /// Takes a worker's message in, as the driver's `hear` does.
    pub(crate) fn hear(&mut self, worker: WorkerId, node: NodeId, message: ToCoordinator) {
        if let ToCoordinator::Hello { held } = message {
            self.sessions.insert(worker, node);
            let held = held.map(|(step, gradient)| Held { step, gradient });
            return self.events.push_back(Event::Joined { worker, held });
        }
        if !self.sessions.contains_key(&worker) {
            return;
        }
        let event = match message {
            ToCoordinator::Hello { .. } => return,
            ToCoordinator::Ready { step, replica } => Event::Ready { worker, step, digest: digest(replica) },
            ToCoordinator::LoadFailed => Event::LoadFailed { worker },
            ToCoordinator::Report { term, step, gradients, took } => {
                if self.work.at == (term, step) {
                    self.work.gradients.extend(gradients);
                }
                Event::Reported { worker, term, step, took }
            }
            ToCoordinator::Sliced { term, step, gradient } => {
                if self.work.at == (term, step) {
                    self.work.slices.insert(worker, gradient);
                }
                Event::Sliced { worker, term, step }
            }
            ToCoordinator::Acknowledge { term, step, carries } => {
                if self.work.at == (term, step) {
                    self.work.carries.extend(carries);
                }
                Event::Acknowledged { worker, term, step }
            }
            ToCoordinator::Evaluated { term, scope } => Event::Evaluated { worker, term, scope },
            ToCoordinator::Deposit { step, replica } => {
                if self.asked.take_if(|asked| *asked == (worker, step)).is_none() {
                    return self.events.push_back(Event::Heard { worker });
                }
                if step == self.machine.step() {
                    self.replica = Some(replica);
                }
                self.deposited = Some((step, replica));
                Event::ReplicaReceived { worker, step, digest: digest(replica) }
            }
            ToCoordinator::Digest { step, replica } => {
                Event::Digested { worker, step, digest: digest(replica) }
            }
            ToCoordinator::Leave => Event::Leaving { worker },
        };
        self.events.push_back(event);
    }

    /// Does what the state machine makes of what has happened. The result names a broken invariant.
    pub(crate) fn work(&mut self, now: Duration, disk: &mut Disk, quiet: &Quiet) -> Result<Vec<Out>, String> {
        let mut out = Vec::new();
        while let Some(event) = self.events.pop_front() {
            for action in self.machine.handle(now, event) {
                self.perform(action, disk, quiet, &mut out)?;
            }
        }
        Ok(out)
    }

    fn perform(
        &mut self,
        action: Action,
        disk: &mut Disk,
        quiet: &Quiet,
        out: &mut Vec<Out>,
    ) -> Result<(), String> {
        match action {
            Action::Waiting { .. } => {}
            Action::Load { worker, step, source } => self.load(worker, step, source, out),
            Action::Begin { term, step, exchange, shares } => {
                disk.highest_term = disk.highest_term.max(term.0);
                let mesh = exchange == Exchange::Mesh;
                self.work = StepWork { at: (term, step), shares, mesh, ..StepWork::default() };
            }
            Action::Assign { worker, term, step, lanes, carry } => {
                let carry = self.carry(&lanes, carry);
                let peers = self.peers();
                out.push(Out::Send(worker, ToWorker::Assign { term, step, lanes, carry, peers }));
            }
            Action::Reduce { term, step } => self.reduce(term, step),
            Action::SendReduced { worker, term, step } => {
                let gradient = self.work.result;
                out.push(Out::Send(worker, ToWorker::Reduced { term, step, gradient }));
            }
            Action::Commit { step, .. } => self.commit(step, disk, quiet, out)?,
            Action::Evaluate { worker, term, scope, .. } => {
                disk.highest_term = disk.highest_term.max(term.0);
                out.push(Out::Send(worker, ToWorker::Evaluate { term, scope }));
            }
            Action::SummarizeEvaluation { scope, .. } => {
                disk.committed.validated |= scope == Scope::Scheduled
            }
            Action::FetchReplica { worker, step } => {
                self.asked = Some((worker, step));
                out.push(Out::Send(worker, ToWorker::SendReplica { step }));
            }
            Action::Snapshot { step } => self.snapshot = Some((step, self.carries.clone())),
            Action::WriteCheckpoint { step } => self.write_checkpoint(step, quiet, out)?,
            Action::Rollback => self.roll_back(disk),
            Action::AskDigest { worker, .. } => out.push(Out::Send(worker, ToWorker::AskDigest)),
            Action::Release { worker } => self.part(worker, (false, false), out),
            Action::Expel { worker, reason } => {
                let discard = !matches!(reason, ExpelReason::Overdue { .. });
                if let ExpelReason::DigestDiffers { step, .. } = reason {
                    return Err(format!("{worker} has another replica of {step}"));
                }
                self.part(worker, (true, discard), out);
            }
            Action::Finish { ending } => {
                disk.ended = Some(ending);
                let workers: Vec<WorkerId> = self.sessions.keys().copied().collect();
                workers.into_iter().for_each(|worker| self.part(worker, (false, false), out));
            }
        }
        Ok(())
    }

    fn part(&mut self, worker: WorkerId, (rejoin, discard): (bool, bool), out: &mut Vec<Out>) {
        self.sessions.remove(&worker);
        out.push(Out::Send(worker, ToWorker::Shutdown { rejoin, discard }));
        out.push(Out::EndSession(worker));
    }

    fn load(&mut self, worker: WorkerId, step: Step, source: LoadSource, out: &mut Vec<Out>) {
        let from = match source {
            LoadSource::Coordinator => self.replica.map_or(LoadFrom::Seed, LoadFrom::Coordinator),
            LoadSource::Peers { workers } => {
                LoadFrom::Peers(workers.iter().filter_map(|peer| self.sessions.get(peer)).copied().collect())
            }
            LoadSource::Held { commit } => {
                if commit {
                    out.push(Out::Send(worker, ToWorker::Commit { step }));
                }
                LoadFrom::Held
            }
        };
        out.push(Out::Send(worker, ToWorker::Load { step, from }));
    }

    fn carry(&self, lanes: &Range<u32>, origin: CarryOrigin) -> Carry {
        match origin {
            CarryOrigin::Keep => Carry::Keep,
            CarryOrigin::Zero => Carry::Zero,
            CarryOrigin::Given if self.mutation == Some(Mutation::ForgetCarries) => Carry::Zero,
            CarryOrigin::Given => {
                Carry::Given(lanes.clone().map(|lane| self.carries[lane as usize]).collect())
            }
        }
    }

    fn peers(&self) -> Vec<Peer> {
        let peer = |(worker, lanes): &(WorkerId, Range<u32>)| {
            self.sessions.get(worker).map(|&node| Peer { worker: *worker, node, lanes: lanes.clone() })
        };
        if self.work.mesh { self.work.shares.iter().filter_map(peer).collect() } else { Vec::new() }
    }

    fn reduce(&mut self, term: Term, step: Step) {
        // In a mesh each slice stands for the gradient it was cut from.
        let of_slices = self.work.slices.values().next().copied().unwrap_or_default();
        let all =
            (0..self.plan.lanes).map(|lane| self.work.gradients.get(&lane).copied().unwrap_or_default());
        self.work.result = if self.work.mesh { of_slices } else { reduced(step.0, all) };
        self.events.push_back(Event::Reduced { term, step });
        if self.mutation == Some(Mutation::CommitEarly) {
            let (at, workers) = (self.work.at, self.work.shares.iter().map(|(worker, _)| *worker));
            let said = workers.map(|worker| Event::Acknowledged { worker, term: at.0, step: at.1 });
            self.events.extend(said);
        }
    }

    fn commit(
        &mut self,
        step: Step,
        disk: &mut Disk,
        quiet: &Quiet,
        out: &mut Vec<Out>,
    ) -> Result<(), String> {
        let expected = quiet.gradients[step.0 as usize];
        if self.work.result != expected {
            return Err(format!("{step} was committed with another gradient"));
        }
        for (lane, carry) in std::mem::take(&mut self.work.carries) {
            self.carries[lane as usize] = carry;
        }
        if self.mutation != Some(Mutation::CommitEarly) && self.carries != quiet.carries[step.0 as usize] {
            return Err(format!("{step} was committed with other carries"));
        }
        self.replica = None;
        let recent_steps = self.machine.recent_steps().collect();
        let (carries, validated) = (self.carries.clone(), false);
        if self.mutation != Some(Mutation::TellBeforeJournal) || step.0.is_multiple_of(3) {
            disk.journal.push((step.0, expected));
        }
        disk.committed = Committed { step: step.0, carries, validated, recent_steps };
        out.extend(self.sessions.keys().map(|worker| Out::Send(*worker, ToWorker::Commit { step })));
        Ok(())
    }

    fn write_checkpoint(&mut self, step: Step, quiet: &Quiet, out: &mut Vec<Out>) -> Result<(), String> {
        let (of, carries) = self.snapshot.take().ok_or("a checkpoint without its snapshot")?;
        let deposited = self.deposited.take().filter(|(of, _)| *of == step).map(|(_, replica)| replica);
        let replica = deposited.or(self.replica).ok_or("a checkpoint without its replica")?;
        let same = of == step
            && replica == quiet.replicas[step.0 as usize]
            && carries == quiet.carries[step.0 as usize];
        if !same {
            return Err(format!("the checkpoint of {step} is not its state"));
        }
        out.push(Out::WriteCheckpoint(step.0, Checkpoint { replica, carries }));
        Ok(())
    }

    fn roll_back(&mut self, disk: &mut Disk) {
        let found = disk.checkpoints.last_key_value().map(|(step, found)| (*step, found.clone()));
        let zero = vec![ZERO_CARRY; self.plan.lanes as usize];
        let step = Step(found.as_ref().map_or(0, |(step, _)| *step));
        self.carries = found.as_ref().map_or(zero, |(_, found)| found.carries.clone());
        self.replica = found.as_ref().map(|(_, found)| found.replica);
        (self.asked, self.deposited) = (None, None);
        let digest = found.map(|(_, found)| digest(found.replica));
        self.events.push_back(Event::RolledBack { step, digest });
    }
}
