//! What goes wrong, when, and for how long: all drawn from the seed.

use std::time::Duration;

use super::{KEEPALIVE, Node, SessionId, TROUBLED, What, World};
use crate::coordinator::Coordinator;
use crate::messages::{NodeId, ToCoordinator};

impl World {
    pub(super) fn is_troubled(&self) -> bool {
        self.now < TROUBLED
    }

    pub(super) fn count(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    pub(super) fn heal(&mut self, node: NodeId, other: Option<NodeId>) -> Result<(), String> {
        match other {
            None => {
                self.nodes[node].cut = false;
                let held = self.sessions.values_mut().filter(|session| session.node == node);
                let held: Vec<What> = held.flat_map(|session| std::mem::take(&mut session.held)).collect();
                held.into_iter().for_each(|what| self.after(Duration::ZERO, what));
                self.tell(|| format!("node {node} reaches the coordinator again"));
            }
            Some(other) => {
                self.parted.remove(&(node.min(other), node.max(other)));
                self.tell(|| format!("nodes {node} and {other} reach each other again"));
            }
        }
        Ok(())
    }

    pub(super) fn fault(&mut self) -> Result<(), String> {
        if !self.is_troubled() {
            return Ok(());
        }
        let pause = self.random.between(Duration::from_millis(50), Duration::from_millis(1500));
        self.after(pause, What::Fault);
        let node = self.random.below(self.nodes.len() as u64) as usize;
        let long = self.random.between(Duration::from_millis(20), Duration::from_millis(4000));
        match self.random.below(12) {
            0..3 => {
                self.count("worker killed");
                self.kill_worker(node);
            }
            3..5 => {
                self.count("worker stopped");
                self.tell(|| format!("node {node} is stopped"));
                self.nodes[node].stopped = true;
                self.after(long, What::Resume(node));
            }
            5 => self.cut(node, long),
            6 => self.part(node, long),
            7..9 if self.coordinator.is_some() => {
                self.count("coordinator killed");
                self.kill_coordinator();
            }
            9 => self.leave(node),
            10 => self.join(),
            11 => {
                self.count("all workers killed");
                (0..self.nodes.len()).for_each(|node| self.kill_worker(node));
            }
            _ => {}
        }
        // A broken rule is looked for among the faults that bring it out; operators' wishes would thin them.
        if self.mutation.is_none() {
            self.wish(node);
        }
        Ok(())
    }

    pub(super) fn cut(&mut self, node: NodeId, long: Duration) {
        self.count("cut off from the coordinator");
        self.tell(|| format!("node {node} is cut off from the coordinator"));
        let long = if self.random.once_in(4) { long + KEEPALIVE } else { long };
        self.nodes[node].cut = true;
        self.after(long, What::Heal(node, None));
        let sessions: Vec<SessionId> =
            self.sessions.iter().filter(|(_, session)| session.node == node).map(|(id, _)| *id).collect();
        sessions.into_iter().for_each(|id| self.after(KEEPALIVE, What::KeepaliveOver(id)));
    }

    pub(super) fn part(&mut self, node: NodeId, long: Duration) {
        let other = (node + 1) % self.nodes.len();
        if node == other {
            return;
        }
        self.count("two workers parted");
        self.tell(|| format!("nodes {node} and {other} are parted"));
        self.parted.insert((node.min(other), node.max(other)));
        self.after(long, What::Heal(node, Some(other)));
    }

    pub(super) fn leave(&mut self, node: NodeId) {
        if let (Some(session), false) = (self.nodes[node].session, self.nodes[node].stopped) {
            self.count("worker leaves");
            self.tell(|| format!("the worker of node {node} wants to leave"));
            self.send_to_coordinator(session, ToCoordinator::Leave);
        }
    }

    fn wish(&mut self, node: NodeId) {
        match self.random.below(6) {
            0 => self.drain(node),
            1 => self.want_checkpoint(),
            _ => {}
        }
    }

    /// An operator drains the worker of a node, which need not be there to hear of it.
    fn drain(&mut self, node: NodeId) {
        let worker =
            self.nodes[node].session.and_then(|session| self.sessions.get(&session)).map(|s| s.worker);
        if let (Some(worker), Some(coordinator)) = (worker, &mut self.coordinator)
            && coordinator.drain(worker)
        {
            self.count("worker drained");
            self.tell(|| format!("an operator drains {worker} of node {node}"));
        }
    }

    fn want_checkpoint(&mut self) {
        if self.coordinator.as_mut().is_some_and(Coordinator::want_checkpoint) {
            self.count("checkpoint wanted");
            self.tell(|| "an operator wants a checkpoint".into());
        }
    }

    pub(super) fn join(&mut self) {
        if self.nodes.len() < 6 {
            self.count("worker joins");
            let pace = 3 + self.random.below(9);
            self.nodes.push(Node { pace, ..Node::default() });
            self.after(Duration::ZERO, What::StartWorker(self.nodes.len() - 1));
        }
    }
}
