//! The workers' sessions and what is said to them. A worker that no longer listens is noticed by its session, not here.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use carousel_proto::bulk::chunks;
use carousel_proto::v1::{
    self, AskDigest, Assign, Bulk, BulkStart, CarrySource, Commit, Evaluate, FromCoordinator, Hello,
    LoadReplica, Peer, ReplicaSource, SendReplica, Shutdown, Split, Welcome, from_coordinator::Message,
};
use carousel_proto::{Step, Term, WorkerId};

use super::step::ReducedStep;
use crate::failpoint::{FailPoint, reach};
use crate::outbox::Outbox;
use crate::protocol::{CarryOrigin, Exchange};
use crate::replica::Sections;
use crate::run_id::RunId;

struct Session {
    outbox: Outbox,
    exchange_address: String,
    /// As the worker calls its machine; shown, and never relied on.
    host: String,
    lanes: Range<u32>,
    /// Its computation of the last step.
    took: Option<Duration>,
}

impl Session {
    fn send(&self, message: Message) {
        // A worker that is gone, or does not read, is noticed by its session, which tells the driver.
        self.outbox.send(FromCoordinator { message: Some(message) });
    }

    fn send_bulk(&self, start: BulkStart, floats: &Arc<Vec<f32>>) {
        let bytes = 4 * floats.len() as u64;
        self.send(Message::BulkStart(BulkStart { bytes, ..start }));
        chunks(floats.clone()).for_each(|chunk| self.send(Message::BulkChunk(chunk)));
    }
}

/// What a worker may do after its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parting {
    /// End.
    Final,
    /// Come back with the replica it has.
    Rejoin,
    /// Come back without it.
    RejoinAnew,
}

pub(super) struct Roster {
    settings: v1::RunSettings,
    run_id: RunId,
    sessions: BTreeMap<WorkerId, Session>,
    /// Mesh: the workers of the step under way; star: none.
    peers: Vec<Peer>,
}

impl Roster {
    pub(super) fn new(settings: v1::RunSettings, run_id: RunId) -> Self {
        Self { settings, run_id, sessions: BTreeMap::new(), peers: Vec::new() }
    }

    pub(super) fn knows(&self, worker: WorkerId) -> bool {
        self.sessions.contains_key(&worker)
    }

    /// The lanes a worker was last assigned.
    pub(super) fn lanes(&self, worker: WorkerId) -> Range<u32> {
        self.sessions.get(&worker).map_or(0..0, |s| s.lanes.clone())
    }

    /// How long it computed the last step.
    pub(super) fn took(&self, worker: WorkerId) -> Option<Duration> {
        self.sessions.get(&worker).and_then(|session| session.took)
    }

    pub(super) fn computed(&mut self, worker: WorkerId, took: Duration) {
        if let Some(session) = self.sessions.get_mut(&worker) {
            session.took = Some(took);
        }
    }

    /// Everybody who is here, and the machine that each says it is on.
    pub(super) fn hosts(&self) -> impl Iterator<Item = (WorkerId, &str)> {
        self.sessions.iter().map(|(worker, session)| (*worker, session.host.as_str()))
    }

    pub(super) fn welcome(&mut self, worker: WorkerId, outbox: Outbox, hello: Hello) {
        let Hello { exchange_address, host, .. } = hello;
        let session = Session { outbox, exchange_address, host, lanes: 0..0, took: None };
        let (settings, run_id) = (Some(self.settings.clone()), self.run_id.as_bytes().to_vec().into());
        session.send(Message::Welcome(Welcome { worker_id: worker.0, settings, run_id }));
        self.sessions.insert(worker, session);
    }

    /// Ends a session, with nothing more than the reason; whether there was one.
    pub(super) fn dismiss(&mut self, worker: WorkerId, reason: &str, parting: Parting) -> bool {
        let Some(session) = self.sessions.remove(&worker) else { return false };
        let (rejoin, discard) = (parting != Parting::Final, parting == Parting::RejoinAnew);
        let (reason, unfinished) = (reason.into(), false);
        let shutdown = Message::Shutdown(Shutdown { reason, rejoin, discard, unfinished });
        session.outbox.dismiss(FromCoordinator { message: Some(shutdown) });
        true
    }

    /// The run is over; `unfinished`: it may go on another time, and whoever started the workers should know.
    pub(super) fn dismiss_all(&mut self, reason: &str, unfinished: bool) {
        for session in std::mem::take(&mut self.sessions).into_values() {
            let shutdown = Shutdown { reason: reason.into(), unfinished, ..Shutdown::default() };
            session.send(Message::Shutdown(shutdown));
        }
    }

    fn to(&self, worker: WorkerId, message: Message) {
        if let Some(session) = self.sessions.get(&worker) {
            session.send(message);
        }
    }

    pub(super) fn load(&self, worker: WorkerId, step: Step, replica: Option<&Sections>) {
        let Some(session) = self.sessions.get(&worker) else { return };
        for (index, floats) in replica.into_iter().flatten().enumerate() {
            let start = BulkStart {
                kind: Bulk::Replica.into(),
                step: step.0,
                index: index as u32,
                ..BulkStart::default()
            };
            session.send_bulk(start, floats);
        }
        let source = if replica.is_none() { ReplicaSource::Seed } else { ReplicaSource::Coordinator };
        session.send(load_replica(step, source, Vec::new()));
    }

    pub(super) fn load_from_peers(&self, worker: WorkerId, step: Step, peers: &[WorkerId]) {
        let session = |peer| self.sessions.get(peer).map(|session| session.exchange_address.clone());
        let peers = peers.iter().filter_map(session).collect();
        self.to(worker, load_replica(step, ReplicaSource::Peers, peers));
    }

    /// The worker's own replica is the run's, after the commit that it may have missed.
    pub(super) fn keep_replica(&self, worker: WorkerId, step: Step, missed: Option<Commit>) {
        missed.into_iter().for_each(|commit| self.to(worker, Message::Commit(commit)));
        self.to(worker, load_replica(step, ReplicaSource::Held, Vec::new()));
    }

    /// A step begins with these workers.
    pub(super) fn begin(&mut self, shares: &[(WorkerId, Range<u32>)], exchange: Exchange) {
        let peer = |(worker, lanes): &(WorkerId, Range<u32>)| Peer {
            worker_id: worker.0,
            exchange_address: self
                .sessions
                .get(worker)
                .map_or_else(String::new, |s| s.exchange_address.clone()),
            first_lane: lanes.start,
            lanes: lanes.len() as u32,
        };
        self.peers = match exchange {
            Exchange::Star => Vec::new(),
            Exchange::Mesh => shares.iter().map(peer).collect(),
        };
    }

    /// `carry` is where the carries come from, and the committed ones of the lanes, sent only when they are given.
    pub(super) fn assign(
        &mut self,
        worker: WorkerId,
        assign: Assign,
        lanes: Range<u32>,
        carry: (CarryOrigin, Vec<f32>),
    ) {
        let Some(session) = self.sessions.get_mut(&worker) else { return };
        session.lanes = lanes.clone();
        let (first_lane, count) = (lanes.start, lanes.len() as u32);
        let source = match carry.0 {
            CarryOrigin::Keep => CarrySource::Keep,
            CarryOrigin::Zero => CarrySource::Zero,
            CarryOrigin::Given if lanes.is_empty() => CarrySource::Zero,
            CarryOrigin::Given => {
                let start = BulkStart {
                    kind: Bulk::Carries.into(),
                    term: assign.term,
                    step: assign.step,
                    level: count,
                    index: first_lane,
                    ..BulkStart::default()
                };
                session.send_bulk(start, &Arc::new(carry.1));
                CarrySource::Given
            }
        };
        let (carry, peers) = (source.into(), self.peers.clone());
        session.send(Message::Assign(Assign { first_lane, lanes: count, carry, peers, ..assign }));
    }

    pub(super) fn reduced(&self, worker: WorkerId, (term, step): (Term, Step), result: &ReducedStep) {
        let Some(session) = self.sessions.get(&worker) else { return };
        let start = BulkStart {
            kind: Bulk::Reduced.into(),
            term: term.0,
            step: step.0,
            rows: result.rows.clone(),
            ..BulkStart::default()
        };
        session.send_bulk(start, &result.floats);
    }

    /// Goes to everyone: who holds no reduced gradient of this step has no replica to apply it to and skips it.
    pub(super) fn commit(&self, commit: Commit) {
        for session in self.sessions.values() {
            session.send(Message::Commit(commit));
            reach(FailPoint::HALF_TOLD, Step(commit.step));
        }
    }

    pub(super) fn evaluate(
        &self,
        worker: WorkerId,
        term: Term,
        split: Split,
        (lanes, windows): (Range<u32>, u64),
    ) {
        let (first_lane, lanes) = (lanes.start, lanes.len() as u32);
        let evaluate = Evaluate { term: term.0, split: split.into(), first_lane, lanes, windows };
        self.to(worker, Message::Evaluate(evaluate));
    }

    pub(super) fn ask_digest(&self, worker: WorkerId) {
        self.to(worker, Message::AskDigest(AskDigest {}));
    }

    pub(super) fn send_replica(&self, worker: WorkerId, step: Step) {
        self.to(worker, Message::SendReplica(SendReplica { step: step.0 }));
    }
}

fn load_replica(step: Step, source: ReplicaSource, peers: Vec<String>) -> Message {
    Message::LoadReplica(LoadReplica { step: step.0, source: source.into(), peers })
}
