//! A seeded world of processes: virtual time, a network that delays, loses, repeats and cuts, processes that are killed,
//! stopped and started, a disk that is slow. What it finds wrong it names.

mod faults;
mod network;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

use carousel_coordinator::protocol::{Ending, Epochs, Exchange, Length, RunPlan};
use carousel_proto::{Step, WorkerId};

use crate::content::Quiet;
use crate::coordinator::{Checkpoint, Coordinator, Disk, Out};
use crate::messages::{NodeId, ToCoordinator, ToPeer, ToWorker};
use crate::mutation::Mutation;
use crate::random::Random;
use crate::worker::{self, Worker};

const TICK: Duration = Duration::from_millis(100);
/// A silent connection is given up after this.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// A peer that gives no replica is left after this.
const PULL: Duration = Duration::from_millis(800);
/// Faults come until here; then the run must end within as long again, and more.
const TROUBLED: Duration = Duration::from_secs(8);
const PATIENT: Duration = Duration::from_secs(600);

const WORKERS_TO_START: usize = 2;

/// Numbers of a session, and of a process.
type SessionId = u64;
type Process = u64;

#[derive(Debug)]
pub(super) enum What {
    Tick(Process),
    ToWorker(SessionId, ToWorker),
    ToCoordinator(SessionId, ToCoordinator),
    ToPeer { to: NodeId, process: Process, message: ToPeer },
    PullTimeout { node: NodeId, process: Process, step: Step },
    Connect { node: NodeId, process: Process },
    ComputedBy { node: NodeId, process: Process },
    SessionBroke { session: SessionId, at_worker: bool },
    KeepaliveOver(SessionId),
    CheckpointOnDisk { process: Process, step: u64, checkpoint: Checkpoint },
    StartWorker(NodeId),
    StartCoordinator,
    Resume(NodeId),
    Heal(NodeId, Option<NodeId>),
    Fault,
}

struct Session {
    node: NodeId,
    worker_process: Process,
    coordinator_process: Process,
    worker: WorkerId,
    /// When the last message of each direction arrives: streams keep their order.
    last: [Duration; 2],
    open_at_worker: bool,
    open_at_coordinator: bool,
    /// What waits in both directions for a cut line to be whole: it is sent again then, in order.
    held: Vec<What>,
}

#[derive(Default)]
struct Node {
    process: Process,
    worker: Option<Worker>,
    session: Option<SessionId>,
    inbox: VecDeque<Mail>,
    busy: bool,
    stopped: bool,
    /// Cut off from the coordinator.
    cut: bool,
    /// Milliseconds of a lane.
    pace: u64,
}

enum Mail {
    Coordinator(SessionId, ToWorker),
    Peer(ToPeer),
    Broke(SessionId),
}

pub(crate) struct World {
    random: Random,
    now: Duration,
    queue: BinaryHeap<Reverse<(Duration, u64)>>,
    events: BTreeMap<u64, What>,
    scheduled: u64,
    plan: RunPlan,
    exchange: Exchange,
    quiet: Quiet,
    mutation: Option<Mutation>,
    disk: Disk,
    coordinator: Option<Coordinator>,
    coordinator_process: Process,
    processes: Process,
    nodes: Vec<Node>,
    sessions: BTreeMap<SessionId, Session>,
    next_session: SessionId,
    next_worker: u64,
    /// Pairs of workers that cannot reach each other.
    parted: BTreeSet<(NodeId, NodeId)>,
    pub told: Vec<String>,
    pub faults: BTreeMap<&'static str, u32>,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub commits: usize,
    pub faults: BTreeMap<&'static str, u32>,
    pub time: Duration,
}

impl World {
    pub(crate) fn new(seed: u64, mutation: Option<Mutation>) -> Self {
        let mut random = Random::new(seed);
        let exchange = if random.once_in(4) { Exchange::Star } else { Exchange::Mesh };
        let (lanes, updates) = (3 + random.below(5) as u32, 7 + random.below(8));
        let plan = RunPlan {
            lanes,
            epochs: Epochs::Even { updates },
            length: Length::Steps(30 + random.below(30)),
            evaluate_every: random.once_in(2).then_some(9),
            checkpoint_every: Some(4 + random.below(9)),
            digest_every: Some(5),
            has_valid: true,
            has_test: random.once_in(2),
        };
        let quiet = Quiet::new(plan.lanes, updates, plan.last_step());
        let count = 2 + random.below(3) as usize;
        let mut world = Self {
            random,
            now: Duration::ZERO,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            scheduled: 0,
            plan,
            exchange,
            quiet,
            mutation,
            disk: Disk::default(),
            coordinator: None,
            coordinator_process: 0,
            processes: 0,
            nodes: (0..count).map(|_| Node::default()).collect(),
            sessions: BTreeMap::new(),
            next_session: 0,
            next_worker: 0,
            parted: BTreeSet::new(),
            told: Vec::new(),
            faults: BTreeMap::new(),
        };
        world.after(Duration::ZERO, What::StartCoordinator);
        for node in 0..count {
            world.nodes[node].pace = 3 + world.random.below(9);
            let delay = world.random.between(Duration::ZERO, Duration::from_millis(300));
            world.after(delay, What::StartWorker(node));
        }
        world.after(Duration::from_millis(200), What::Fault);
        world
    }

    pub(super) fn after(&mut self, delay: Duration, what: What) {
        self.scheduled += 1;
        self.queue.push(Reverse((self.now + delay, self.scheduled)));
        self.events.insert(self.scheduled, what);
    }

    pub(super) fn tell(&mut self, text: impl FnOnce() -> String) {
        if self.told.len() < 4000 {
            let line = format!("{:9.3} {}", self.now.as_secs_f64(), text());
            self.told.push(line);
        }
    }

    /// Runs to the end; `Err` names a broken promise.
    pub(crate) fn run(mut self) -> (Vec<String>, Result<Outcome, String>) {
        let result = self.live();
        let result = result.and_then(|()| self.judge());
        (self.told, result)
    }

    pub(super) fn live(&mut self) -> Result<(), String> {
        while self.disk.ended.is_none() {
            let Some(Reverse((at, number))) = self.queue.pop() else {
                return Err("nothing happens any more".into());
            };
            self.now = at;
            if self.now > PATIENT {
                return Err(format!("no end after {PATIENT:?}: {} commits", self.disk.journal.len()));
            }
            let what = self.events.remove(&number).expect("what is scheduled is kept");
            self.happen(what)?;
            self.check_replicas()?;
        }
        Ok(())
    }

    /// A worker's replica is never ahead of the journal: nothing that was applied can be forgotten.
    pub(super) fn check_replicas(&self) -> Result<(), String> {
        let last = self.disk.journal.iter().map(|(step, _)| *step).max().unwrap_or(0);
        let ahead =
            self.nodes.iter().filter_map(|node| node.worker.as_ref()?.step()).any(|step| step.0 > last);
        if ahead { Err(format!("a worker applied a step beyond the journal's {last}")) } else { Ok(()) }
    }

    pub(super) fn judge(&mut self) -> Result<Outcome, String> {
        if self.disk.ended != Some(Ending::Complete) {
            return Err(format!("it ended as {:?}", self.disk.ended));
        }
        let last = self.plan.last_step();
        let mut before = 0;
        for &(step, gradient) in &self.disk.journal {
            // Going back to a checkpoint commits again what was committed before, and going on from a later one that was
            // being written meanwhile leaves some of that out; nothing is committed for the first time out of turn.
            if step > before + 1 || gradient != self.quiet.gradients[step as usize] {
                return Err(format!("the ledger has step {step} after {before}"));
            }
            before = before.max(step);
        }
        let saved = self.disk.checkpoints.get(&last).map(|found| (found.replica, &found.carries));
        let expected = (self.quiet.replicas[last as usize], &self.quiet.carries[last as usize]);
        if before != last || saved != Some(expected) {
            return Err(format!("the end is step {before}, its checkpoint {saved:?}, expected {expected:?}"));
        }
        let (commits, faults) = (self.disk.journal.len(), std::mem::take(&mut self.faults));
        Ok(Outcome { commits, faults, time: self.now })
    }

    fn happen(&mut self, what: What) -> Result<(), String> {
        match what {
            What::Tick(process) if process == self.coordinator_process => {
                if let Some(coordinator) = &mut self.coordinator {
                    coordinator.tick();
                    self.after(TICK, What::Tick(process));
                }
                self.coordinate()
            }
            What::ToCoordinator(session, message) => self.arrive_at_coordinator(session, message),
            What::ToWorker(session, message) => self.arrive_at_worker(session, message),
            What::ToPeer { to, process, message } => {
                if self.nodes[to].process == process && self.nodes[to].worker.is_some() {
                    self.nodes[to].inbox.push_back(Mail::Peer(message));
                }
                self.work(to)
            }
            What::PullTimeout { node, process, step } => self.pull_timed_out(node, process, step),
            What::Connect { node, process } => self.connect(node, process),
            What::ComputedBy { node, process } => self.computed(node, process),
            What::SessionBroke { session, at_worker } => self.break_session(session, at_worker),
            What::KeepaliveOver(session) => self.keepalive_over(session),
            What::CheckpointOnDisk { process, step, checkpoint } => {
                self.checkpoint_on_disk(process, step, checkpoint)
            }
            What::StartWorker(node) => self.start_worker(node),
            What::StartCoordinator => self.start_coordinator(),
            What::Resume(node) => {
                self.nodes[node].stopped = false;
                self.tell(|| format!("node {node} goes on"));
                self.work(node)
            }
            What::Heal(node, other) => self.heal(node, other),
            What::Fault => self.fault(),
            What::Tick(_) => Ok(()),
        }
    }

    pub(super) fn start_coordinator(&mut self) -> Result<(), String> {
        if self.coordinator.is_some() {
            return Ok(());
        }
        self.processes += 1;
        self.coordinator_process = self.processes;
        // Numbers begin anew: a worker may get one that another had.
        self.next_worker = 0;
        let workers = WORKERS_TO_START;
        self.coordinator =
            Some(Coordinator::start(&self.plan, self.exchange, workers, &self.disk, self.mutation));
        let step = self.disk.committed.step;
        self.tell(|| format!("the coordinator starts; {step} steps are committed"));
        self.after(TICK, What::Tick(self.coordinator_process));
        Ok(())
    }

    pub(super) fn kill_coordinator(&mut self) {
        self.tell(|| "the coordinator is killed".into());
        self.coordinator = None;
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.close_at_coordinator(id);
        }
        let delay = self.random.between(Duration::from_millis(20), Duration::from_secs(2));
        self.after(delay, What::StartCoordinator);
    }

    pub(super) fn start_worker(&mut self, node: NodeId) -> Result<(), String> {
        if self.nodes[node].worker.is_some() {
            return Ok(());
        }
        self.processes += 1;
        let process = self.processes;
        let worker = Worker::new(node, self.plan.lanes, self.mutation);
        let (pace, cut) = (self.nodes[node].pace, self.nodes[node].cut);
        self.nodes[node] = Node { process, worker: Some(worker), pace, cut, ..Node::default() };
        self.tell(|| format!("node {node} starts a worker"));
        self.connect(node, process)
    }

    pub(super) fn kill_worker(&mut self, node: NodeId) {
        if self.nodes[node].worker.is_none() {
            return;
        }
        self.tell(|| format!("the worker of node {node} is killed"));
        self.end_worker(node);
        let delay = self.random.between(Duration::from_millis(50), Duration::from_secs(3));
        self.after(delay, What::StartWorker(node));
    }

    pub(super) fn end_worker(&mut self, node: NodeId) {
        self.nodes[node].worker = None;
        self.nodes[node].inbox.clear();
        if let Some(session) = self.nodes[node].session.take() {
            self.close_at_worker(session);
        }
    }

    pub(super) fn coordinate(&mut self) -> Result<(), String> {
        let Some(coordinator) = &mut self.coordinator else { return Ok(()) };
        let out = coordinator.work(self.now, &mut self.disk, &self.quiet)?;
        for out in out {
            // A kill between any two things it does.
            if self.is_troubled() && self.random.once_in(1500) {
                self.count("coordinator killed at an action");
                self.kill_coordinator();
                return Ok(());
            }
            match out {
                Out::Send(worker, message) => {
                    self.tell(|| format!("  coordinator to {worker}: {message:?}"));
                    if let Some(id) = self.session_of(worker) {
                        self.send_to_worker(id, message);
                    }
                }
                Out::EndSession(worker) => {
                    if let Some(id) = self.session_of(worker) {
                        self.close_at_coordinator(id);
                    }
                }
                Out::WriteCheckpoint(step, checkpoint) => {
                    let slow = if self.random.once_in(8) { 3000 } else { 60 };
                    let delay = self.random.between(Duration::from_millis(1), Duration::from_millis(slow));
                    let process = self.coordinator_process;
                    self.after(delay, What::CheckpointOnDisk { process, step, checkpoint });
                }
            }
        }
        Ok(())
    }

    pub(super) fn session_of(&self, worker: WorkerId) -> Option<SessionId> {
        let is = |session: &Session| session.worker == worker && session.open_at_coordinator;
        self.sessions.iter().find(|(_, session)| is(session)).map(|(id, _)| *id)
    }

    /// A checkpoint that a killed coordinator was writing is torn, and never seen.
    pub(super) fn checkpoint_on_disk(
        &mut self,
        process: Process,
        step: u64,
        checkpoint: Checkpoint,
    ) -> Result<(), String> {
        if process == self.coordinator_process
            && let Some(coordinator) = &mut self.coordinator
        {
            self.disk.checkpoints.insert(step, checkpoint);
            coordinator.checkpoint_written(step);
        }
        self.coordinate()
    }

    /// Lets a worker take in what waits for it.
    pub(super) fn work(&mut self, node: NodeId) -> Result<(), String> {
        while let Some(place) = self.nodes.get_mut(node)
            && place.worker.is_some()
            && !place.busy
            && !place.stopped
            && let Some(mail) = place.inbox.pop_front()
        {
            let now = self.now;
            let worker = place.worker.as_mut().expect("it was just seen");
            let out = match mail {
                Mail::Coordinator(id, _) | Mail::Broke(id) if place.session != Some(id) => Vec::new(),
                Mail::Coordinator(_, message) => worker.hear(now, message, &self.quiet)?,
                Mail::Peer(message) => worker.hear_peer(now, message, &self.quiet)?,
                Mail::Broke(_) => {
                    place.session = None;
                    worker.session_lost(now, &self.quiet)?
                }
            };
            self.carry_out(node, out)?;
        }
        Ok(())
    }

    pub(super) fn computed(&mut self, node: NodeId, process: Process) -> Result<(), String> {
        if self.nodes[node].process != process || self.nodes[node].worker.is_none() {
            return Ok(());
        }
        if self.nodes[node].stopped {
            self.after(Duration::from_millis(50), What::ComputedBy { node, process });
            return Ok(());
        }
        self.nodes[node].busy = false;
        let worker = self.nodes[node].worker.as_mut().expect("it was just seen");
        let out = worker.computed(self.now, &self.quiet)?;
        self.carry_out(node, out)?;
        self.work(node)
    }

    pub(super) fn pull_timed_out(
        &mut self,
        node: NodeId,
        process: Process,
        step: Step,
    ) -> Result<(), String> {
        if self.nodes[node].process != process {
            return Ok(());
        }
        let Some(worker) = self.nodes[node].worker.as_mut() else { return Ok(()) };
        let out = worker.pull_timed_out(self.now, step, &self.quiet)?;
        self.carry_out(node, out)
    }

    pub(super) fn carry_out(&mut self, node: NodeId, out: Vec<worker::Out>) -> Result<(), String> {
        for out in out {
            if self.is_troubled() && self.random.once_in(4000) {
                self.count("worker killed at an action");
                self.kill_worker(node);
                return Ok(());
            }
            let process = self.nodes[node].process;
            match out {
                worker::Out::Tell(message) => {
                    self.tell(|| format!("  node {node} to coordinator: {message:?}"));
                    if let Some(session) = self.nodes[node].session {
                        self.send_to_coordinator(session, message);
                    }
                }
                worker::Out::Peer(to, message) => self.send_to_peer(node, to, message),
                worker::Out::Busy(lanes) => {
                    self.nodes[node].busy = true;
                    let pace = self.nodes[node].pace * lanes as u64;
                    let time =
                        self.random.between(Duration::from_millis(pace), Duration::from_millis(pace + 3));
                    self.after(time, What::ComputedBy { node, process });
                }
                worker::Out::Connect(pause) => {
                    if let Some(session) = self.nodes[node].session.take() {
                        self.close_at_worker(session);
                    }
                    self.after(pause, What::Connect { node, process });
                }
                worker::Out::Exit => {
                    self.end_worker(node);
                    let back = self.random.between(Duration::from_secs(1), Duration::from_secs(4));
                    self.after(back, What::StartWorker(node));
                }
            }
        }
        Ok(())
    }

    /// Peers' streams: delayed, now and then repeated or overtaken, lost when the two cannot reach each other.
    pub(super) fn send_to_peer(&mut self, from: NodeId, to: NodeId, message: ToPeer) {
        self.tell(|| format!("  node {from} to node {to}: {message:?}"));
        if let ToPeer::Pull { step, .. } = message {
            let process = self.nodes[from].process;
            self.after(PULL, What::PullTimeout { node: from, process, step });
        }
        if self.parted.contains(&(from.min(to), from.max(to))) || self.nodes[to].worker.is_none() {
            return;
        }
        let process = self.nodes[to].process;
        let copies = if self.random.once_in(40) { 2 } else { 1 };
        for _ in 0..copies {
            let delay = self.random.between(Duration::from_micros(100), Duration::from_millis(6));
            self.after(delay, What::ToPeer { to, process, message: message.clone() });
        }
    }
}
