//! A worker's process: the real state machine, and a model of its trainer and of the exchange with its peers.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use carousel_proto::{Step, Term, WorkerId};
use carousel_worker::protocol::{Action, CarrySource, Event, LoadSource, Machine};

use crate::content::{Quiet, SEED_REPLICA, ZERO_CARRY, lane_gradient, next_carry, next_replica, reduced};
use crate::messages::{Carry, LoadFrom, NodeId, Peer, ToCoordinator, ToPeer, ToWorker};
use crate::mutation::Mutation;

/// What a worker's process wants of the world.
#[derive(Debug)]
pub(crate) enum Out {
    Tell(ToCoordinator),
    Peer(NodeId, ToPeer),
    /// It computes for so many lanes, and takes nothing else in meanwhile.
    Busy(usize),
    Connect(Duration),
    Exit,
}

/// The mesh side of a step: everybody's gradients, then everybody's slices.
#[derive(Default)]
struct Mesh {
    at: (Term, Step),
    peers: Vec<Peer>,
    gradients: BTreeMap<u32, u64>,
    slices: BTreeMap<WorkerId, u64>,
    early: Vec<ToPeer>,
}

struct Computed {
    at: (Term, Step),
    gradients: Vec<(u32, u64)>,
    carries: Vec<(u32, u64)>,
    took: Duration,
}

pub(crate) struct Worker {
    node: NodeId,
    lanes: u32,
    machine: Machine,
    mutation: Option<Mutation>,
    pub id: WorkerId,
    replica: Option<u64>,
    gradient: Option<u64>,
    carries: BTreeMap<u32, u64>,
    computed: Option<Computed>,
    mesh: Mesh,
    load_from: Option<LoadFrom>,
    /// The step whose replica was asked of a peer in this session.
    pulling: Option<Step>,
    assigned: (Carry, Vec<Peer>),
    evaluate: Option<ToCoordinator>,
    /// What the machine waits for while the process is busy.
    pending: VecDeque<Event>,
}

impl Worker {
    pub(crate) fn new(node: NodeId, lanes: u32, mutation: Option<Mutation>) -> Self {
        Self {
            node,
            lanes,
            machine: Machine::default(),
            mutation,
            id: WorkerId(0),
            replica: None,
            gradient: None,
            carries: BTreeMap::new(),
            computed: None,
            mesh: Mesh::default(),
            load_from: None,
            pulling: None,
            assigned: (Carry::Zero, Vec::new()),
            evaluate: None,
            pending: VecDeque::new(),
        }
    }

    /// The step of its replica.
    pub(crate) fn step(&self) -> Option<Step> {
        self.machine.step()
    }

    /// Begins a session: what it says first.
    pub(crate) fn connected(&mut self, id: WorkerId, now: Duration) -> ToCoordinator {
        self.id = id;
        self.mesh = Mesh::default();
        (self.computed, self.pulling) = (None, None);
        self.machine.handle(now, Event::Welcomed { same_run: true });
        let held = self.machine.held().map(|held| (held.step, held.gradient));
        ToCoordinator::Hello { held }
    }

    pub(crate) fn session_lost(&mut self, now: Duration, quiet: &Quiet) -> Result<Vec<Out>, String> {
        self.happen(now, Event::SessionLost, quiet)
    }

    pub(crate) fn hear(
        &mut self,
        now: Duration,
        message: ToWorker,
        quiet: &Quiet,
    ) -> Result<Vec<Out>, String> {
        let event = match message {
            ToWorker::Load { step, from } => {
                let source = match &from {
                    LoadFrom::Seed => LoadSource::Seed,
                    LoadFrom::Coordinator(_) => LoadSource::Coordinator,
                    LoadFrom::Peers(_) => LoadSource::Peers,
                    LoadFrom::Held => LoadSource::Held,
                };
                self.load_from = Some(from);
                Event::Load { step, source }
            }
            ToWorker::Assign { term, step, lanes, carry, peers } => {
                let source = match &carry {
                    Carry::Keep => CarrySource::Keep,
                    Carry::Zero => CarrySource::Zero,
                    Carry::Given(_) => CarrySource::Given,
                };
                self.assigned = (carry, peers);
                Event::Assigned { term, step, lanes, carry: source }
            }
            ToWorker::Reduced { term, step, gradient } => match self.hold((term, step), gradient) {
                Some(event) => event,
                None => return Ok(Vec::new()),
            },
            ToWorker::Commit { step } => Event::Committed { step },
            ToWorker::Evaluate { term, scope, .. } => {
                self.evaluate = Some(ToCoordinator::Evaluated { term, scope });
                Event::Evaluate
            }
            ToWorker::SendReplica { step } => Event::CopyReplica { step },
            ToWorker::AskDigest => Event::AskDigest,
            ToWorker::Shutdown { rejoin, discard } => Event::Dismissed { rejoin, discard },
        };
        self.happen(now, event, quiet)
    }

    pub(crate) fn hear_peer(
        &mut self,
        now: Duration,
        message: ToPeer,
        quiet: &Quiet,
    ) -> Result<Vec<Out>, String> {
        match message {
            ToPeer::Pull { step, to } => {
                let replica = self.replica.filter(|_| self.machine.step() == Some(step));
                Ok(vec![Out::Peer(to, ToPeer::Pulled { step, replica })])
            }
            // An answer to a question that is not asked any more is nobody's.
            ToPeer::Pulled { step, .. } if self.pulling != Some(step) => Ok(Vec::new()),
            ToPeer::Pulled { step, replica } => {
                self.pulling = None;
                let Some(replica) = replica else {
                    return self.happen(now, Event::LoadFailed { step }, quiet);
                };
                self.replica = Some(replica);
                self.happen(now, Event::Loaded { step }, quiet)
            }
            ToPeer::Partial { at, .. } | ToPeer::Reduced { at, .. } if at > self.mesh.at => {
                self.mesh.early.push(message);
                Ok(Vec::new())
            }
            message => {
                let mut out = Vec::new();
                self.take_in(message)?;
                let events = self.mesh_progress(&mut out);
                for event in events {
                    out.extend(self.happen(now, event, quiet)?);
                }
                Ok(out)
            }
        }
    }

    /// The peers that were to give the replica did not answer.
    pub(crate) fn pull_timed_out(
        &mut self,
        now: Duration,
        step: Step,
        quiet: &Quiet,
    ) -> Result<Vec<Out>, String> {
        match self.pulling.take_if(|pulling| *pulling == step) {
            Some(step) => self.happen(now, Event::LoadFailed { step }, quiet),
            None => Ok(Vec::new()),
        }
    }

    /// The computation that made it busy is done.
    pub(crate) fn computed(&mut self, now: Duration, quiet: &Quiet) -> Result<Vec<Out>, String> {
        let mut out = Vec::new();
        while let Some(event) = self.pending.pop_front() {
            out.extend(self.happen(now, event, quiet)?);
        }
        Ok(out)
    }

    fn happen(&mut self, now: Duration, event: Event, quiet: &Quiet) -> Result<Vec<Out>, String> {
        let mut out = Vec::new();
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.handle(now, event) {
                events.extend(self.perform(action, quiet, &mut out)?);
            }
        }
        Ok(out)
    }

    fn handle(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let event = match (self.mutation, event) {
            (Some(Mutation::IgnoreTerms), Event::Gradient { step, .. }) => {
                let term = self.computed.as_ref().map_or(Term(0), |computed| computed.at.0);
                Event::Gradient { term, step }
            }
            (_, event) => event,
        };
        match (self.mutation, &event) {
            (Some(Mutation::ApplyAnything), Event::Committed { step }) if self.gradient.is_some() => {
                self.machine.handle(now, event.clone());
                vec![Action::Apply { step: *step }]
            }
            _ => self.machine.handle(now, event),
        }
    }

    fn perform(&mut self, action: Action, quiet: &Quiet, out: &mut Vec<Out>) -> Result<Vec<Event>, String> {
        match action {
            Action::Discard => (self.replica, self.gradient, self.computed) = (None, None, None),
            Action::Load { step, .. } => return Ok(self.load(step, out)),
            Action::TellReady { step } => {
                let replica = self.replica.ok_or("ready without a replica")?;
                out.push(Out::Tell(ToCoordinator::Ready { step, replica }));
            }
            Action::TellLoadFailed { .. } => out.push(Out::Tell(ToCoordinator::LoadFailed)),
            Action::Compute { term, step, lanes, .. } => self.compute((term, step), lanes, out)?,
            Action::HandIn { term, step } => return Ok(self.hand_in((term, step), out)),
            Action::Acknowledge { term, step, .. } => {
                let computed = self.computed.as_ref().filter(|computed| computed.at == (term, step));
                let carries = computed.map_or_else(Vec::new, |computed| computed.carries.clone());
                out.push(Out::Tell(ToCoordinator::Acknowledge { term, step, carries }));
            }
            Action::Apply { step } => self.apply(step, quiet)?,
            Action::Evaluate => out.extend(self.evaluate.take().map(Out::Tell)),
            Action::CopyReplica { step } => {
                let replica = self.replica.ok_or("a copy without a replica")?;
                out.push(Out::Tell(ToCoordinator::Deposit { step, replica }));
            }
            Action::TellDigest { step } => {
                let replica = self.replica.ok_or("a digest without a replica")?;
                out.push(Out::Tell(ToCoordinator::Digest { step, replica }));
            }
            Action::Connect { after } => out.push(Out::Connect(after)),
            Action::Stop => out.push(Out::Exit),
            Action::GiveUp(fault) => return Err(format!("node {} gives up: {fault}", self.node)),
        }
        Ok(Vec::new())
    }

    fn load(&mut self, step: Step, out: &mut Vec<Out>) -> Vec<Event> {
        match &self.load_from {
            Some(LoadFrom::Coordinator(replica)) => self.replica = Some(*replica),
            Some(LoadFrom::Peers(peers)) => {
                let to = self.node;
                self.pulling = Some(step);
                out.extend(peers.first().map(|peer| Out::Peer(*peer, ToPeer::Pull { step, to })));
                return Vec::new();
            }
            _ => self.replica = Some(SEED_REPLICA),
        }
        self.load_from = None;
        vec![Event::Loaded { step }]
    }

    fn compute(&mut self, at: (Term, Step), lanes: Range<u32>, out: &mut Vec<Out>) -> Result<(), String> {
        let replica = self.replica.ok_or("computing without a replica")?;
        let (carry, peers) = self.assigned.clone();
        let before: Vec<(u32, u64)> = match carry {
            Carry::Zero => lanes.clone().map(|lane| (lane, ZERO_CARRY)).collect(),
            Carry::Given(carries) => lanes.clone().zip(carries).collect(),
            Carry::Keep => {
                let kept = |lane: u32| self.carries.get(&lane).map(|carry| (lane, *carry));
                lanes
                    .clone()
                    .map(|lane| kept(lane).ok_or("kept carries are not there"))
                    .collect::<Result<_, _>>()?
            }
        };
        self.carries = before.iter().copied().collect();
        let step = at.1.0;
        let gradient = |&(lane, carry): &(u32, u64)| (lane, lane_gradient(step, lane, replica, carry));
        let next = |&(lane, carry): &(u32, u64)| (lane, next_carry(step, lane, replica, carry));
        self.computed = Some(Computed {
            at,
            gradients: before.iter().map(gradient).collect(),
            carries: before.iter().map(next).collect(),
            took: Duration::from_millis(before.len() as u64),
        });
        let early = std::mem::take(&mut self.mesh.early);
        self.mesh = Mesh { at, peers, ..Mesh::default() };
        for message in early {
            let of = match &message {
                ToPeer::Partial { at, .. } | ToPeer::Reduced { at, .. } => *at,
                ToPeer::Pull { .. } | ToPeer::Pulled { .. } => continue,
            };
            match of.cmp(&at) {
                std::cmp::Ordering::Greater => self.mesh.early.push(message),
                std::cmp::Ordering::Equal => self.take_in(message)?,
                std::cmp::Ordering::Less => {}
            }
        }
        self.pending.push_back(Event::Computed { term: at.0, step: at.1 });
        out.push(Out::Busy(lanes.len()));
        Ok(())
    }

    /// The partial sums go to the peers, or to the coordinator with the report.
    fn hand_in(&mut self, at: (Term, Step), out: &mut Vec<Out>) -> Vec<Event> {
        let Some(computed) = self.computed.as_ref().filter(|computed| computed.at == at) else {
            return Vec::new();
        };
        let (gradients, took) = (computed.gradients.clone(), computed.took);
        for peer in self.mesh.peers.iter().filter(|peer| peer.worker != self.id) {
            let (from, gradients) = (self.id, gradients.clone());
            out.push(Out::Peer(peer.node, ToPeer::Partial { at, from, gradients }));
        }
        if !gradients.is_empty() {
            let gradients = gradients.clone();
            out.push(Out::Tell(ToCoordinator::Report { term: at.0, step: at.1, gradients, took }));
        }
        if self.mesh.peers.is_empty() {
            return Vec::new();
        }
        self.mesh.gradients.extend(gradients);
        self.mesh_progress(out)
    }

    /// Partial sums must be of the lanes that their sender has, as the exchange asks.
    fn take_in(&mut self, message: ToPeer) -> Result<(), String> {
        match message {
            ToPeer::Partial { at, from, gradients } if self.is_now(at) && !self.mesh.peers.is_empty() => {
                let peer = self.mesh.peers.iter().find(|peer| peer.worker == from);
                let lanes = gradients.iter().map(|(lane, _)| *lane);
                if !peer.is_some_and(|peer| lanes.eq(peer.lanes.clone())) {
                    return Err(format!("node {} got partial sums that are not {from}'s", self.node));
                }
                self.mesh.gradients.extend(gradients);
            }
            ToPeer::Reduced { at, from, gradient } if self.is_now(at) => {
                self.mesh.slices.insert(from, gradient);
            }
            _ => {}
        }
        Ok(())
    }

    fn is_now(&self, at: (Term, Step)) -> bool {
        at == self.mesh.at || (self.mutation == Some(Mutation::IgnoreTerms) && at.1 == self.mesh.at.1)
    }

    fn mesh_progress(&mut self, out: &mut Vec<Out>) -> Vec<Event> {
        let at = self.mesh.at;
        let complete = self.mesh.gradients.len() == self.lanes as usize;
        if complete && !self.mesh.peers.is_empty() && !self.mesh.slices.contains_key(&self.id) {
            let gradient = reduced(at.1.0, self.mesh.gradients.values().copied());
            self.mesh.slices.insert(self.id, gradient);
            for peer in self.mesh.peers.iter().filter(|peer| peer.worker != self.id) {
                out.push(Out::Peer(peer.node, ToPeer::Reduced { at, from: self.id, gradient }));
            }
            out.push(Out::Tell(ToCoordinator::Sliced { term: at.0, step: at.1, gradient }));
        }
        let whole = self.mesh.peers.iter().map(|peer| self.mesh.slices.get(&peer.worker).copied());
        let whole: Option<Vec<u64>> = whole.collect();
        match whole.as_deref() {
            Some([first, rest @ ..]) if rest.iter().all(|slice| slice == first) => {
                let gradient = *first;
                self.mesh.peers.clear();
                self.hold(at, gradient).into_iter().collect()
            }
            // Slices of different gradients make none at all.
            Some([_, _, ..]) => {
                self.mesh.peers.clear();
                self.hold(at, 0).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    fn hold(&mut self, at: (Term, Step), gradient: u64) -> Option<Event> {
        let wanted = self.computed.as_ref().is_some_and(|computed| computed.at == at)
            || self.mutation == Some(Mutation::IgnoreTerms);
        wanted.then(|| {
            self.gradient = Some(gradient);
            Event::Gradient { term: at.0, step: at.1 }
        })
    }

    fn apply(&mut self, step: Step, quiet: &Quiet) -> Result<(), String> {
        let (replica, gradient) =
            (self.replica.ok_or("no replica")?, self.gradient.take().ok_or("no gradient")?);
        let updated = next_replica(step.0, replica, gradient);
        if updated != quiet.replicas[step.0 as usize] {
            return Err(format!("node {} has another replica of {step}", self.node));
        }
        self.replica = Some(updated);
        match self.computed.take().filter(|computed| computed.at.1 == step) {
            Some(computed) => self.carries = computed.carries.into_iter().collect(),
            None => self.carries.clear(),
        }
        Ok(())
    }
}
