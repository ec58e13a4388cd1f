//! Sessions and the messages in them: a session's streams keep their order, what is sent over a cut line is sent again when
//! it is whole, and both ends give up a connection that is silent for too long.

use std::time::Duration;

use carousel_proto::WorkerId;

use super::{Mail, Process, Session, SessionId, What, World};
use crate::messages::{NodeId, ToCoordinator, ToWorker};

impl World {
    pub(super) fn connect(&mut self, node: NodeId, process: Process) -> Result<(), String> {
        if self.nodes[node].process != process || self.nodes[node].worker.is_none() {
            return Ok(());
        }
        if self.nodes[node].stopped {
            self.after(Duration::from_millis(300), What::Connect { node, process });
            return Ok(());
        }
        if self.coordinator.is_none() || self.nodes[node].cut {
            let now = self.now;
            let worker = self.nodes[node].worker.as_mut().expect("it was just seen");
            let out = worker.session_lost(now, &self.quiet)?;
            return self.carry_out(node, out);
        }
        self.next_session += 1;
        self.next_worker += 1;
        let (id, worker) = (self.next_session, WorkerId(self.next_worker));
        let session = Session {
            node,
            worker_process: process,
            coordinator_process: self.coordinator_process,
            worker,
            last: [self.now; 2],
            open_at_worker: true,
            open_at_coordinator: true,
            held: Vec::new(),
        };
        self.sessions.insert(id, session);
        let now = self.now;
        let place = &mut self.nodes[node];
        place.session = Some(id);
        let hello = place.worker.as_mut().expect("it was just seen").connected(worker, now);
        self.tell(|| format!("node {node} connects as {worker}: {hello:?}"));
        self.send_to_coordinator(id, hello);
        Ok(())
    }

    /// When a message of a stream arrives: after the one before it.
    pub(super) fn arrival(&mut self, session: SessionId, direction: usize) -> Option<Duration> {
        let delay = self.random.between(Duration::from_micros(100), Duration::from_millis(4));
        let session = self.sessions.get_mut(&session)?;
        let at = (self.now + delay).max(session.last[direction] + Duration::from_micros(1));
        session.last[direction] = at;
        Some(at - self.now)
    }

    pub(super) fn send_to_worker(&mut self, session: SessionId, message: ToWorker) {
        if let Some(delay) = self.arrival(session, 0) {
            self.after(delay, What::ToWorker(session, message));
        }
    }

    pub(super) fn send_to_coordinator(&mut self, session: SessionId, message: ToCoordinator) {
        if let Some(delay) = self.arrival(session, 1) {
            self.after(delay, What::ToCoordinator(session, message));
        }
    }

    pub(super) fn arrive_at_coordinator(
        &mut self,
        id: SessionId,
        message: ToCoordinator,
    ) -> Result<(), String> {
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        let (node, worker) = (session.node, session.worker);
        if self.nodes[node].cut {
            session.held.push(What::ToCoordinator(id, message));
            return Ok(());
        }
        let alive = session.open_at_coordinator && session.coordinator_process == self.coordinator_process;
        if let Some(coordinator) = self.coordinator.as_mut().filter(|_| alive) {
            if self.random.once_in(50)
                && !matches!(message, ToCoordinator::Hello { .. } | ToCoordinator::Ready { .. })
            {
                coordinator.hear(worker, node, message.clone());
            }
            coordinator.hear(worker, node, message);
        }
        self.coordinate()
    }

    pub(super) fn arrive_at_worker(&mut self, id: SessionId, message: ToWorker) -> Result<(), String> {
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        let node = session.node;
        if self.nodes[node].cut {
            session.held.push(What::ToWorker(id, message));
            return Ok(());
        }
        if session.open_at_worker && session.worker_process == self.nodes[node].process {
            self.nodes[node].inbox.push_back(Mail::Coordinator(id, message));
        }
        self.work(node)
    }

    /// The coordinator's end is closed; the worker hears of it, unless its line is cut.
    pub(super) fn close_at_coordinator(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.open_at_coordinator = false;
        if let Some(delay) = self.arrival(id, 0) {
            self.after(delay, What::SessionBroke { session: id, at_worker: true });
        }
    }

    pub(super) fn close_at_worker(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.open_at_worker = false;
        if let Some(delay) = self.arrival(id, 1) {
            self.after(delay, What::SessionBroke { session: id, at_worker: false });
        }
    }

    pub(super) fn break_session(&mut self, id: SessionId, at_worker: bool) -> Result<(), String> {
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        let (node, worker) = (session.node, session.worker);
        if self.nodes[node].cut {
            session.held.push(What::SessionBroke { session: id, at_worker });
            return Ok(());
        }
        if at_worker {
            if session.open_at_worker && session.worker_process == self.nodes[node].process {
                self.nodes[node].inbox.push_back(Mail::Broke(id));
            }
            return self.work(node);
        }
        let alive = session.open_at_coordinator && session.coordinator_process == self.coordinator_process;
        if let Some(coordinator) = self.coordinator.as_mut().filter(|_| alive) {
            coordinator.session_lost(worker);
        }
        self.sessions.remove(&id);
        self.coordinate()
    }

    /// Both ends give a connection up that has been silent for too long.
    pub(super) fn keepalive_over(&mut self, id: SessionId) -> Result<(), String> {
        let Some(session) = self.sessions.get(&id) else { return Ok(()) };
        let (node, worker) = (session.node, session.worker);
        if !self.nodes[node].cut {
            return Ok(());
        }
        let process = session.worker_process == self.nodes[node].process;
        let alive = session.open_at_coordinator && session.coordinator_process == self.coordinator_process;
        self.sessions.remove(&id);
        if let Some(coordinator) = self.coordinator.as_mut().filter(|_| alive) {
            coordinator.session_lost(worker);
        }
        if process && self.nodes[node].session == Some(id) {
            self.nodes[node].inbox.push_back(Mail::Broke(id));
            self.work(node)?;
        }
        self.coordinate()
    }
}
