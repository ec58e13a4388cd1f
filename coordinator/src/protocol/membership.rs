//! Who takes part: joining, loading a replica, leaving, being lost, being too late. Every change begins a new term.

use std::collections::BTreeSet;
use std::time::Duration;

use carousel_proto::digest::Digest;
use carousel_proto::{Step, WorkerId};

use super::{Action, Ending, Exchange, ExpelReason, Machine, Phase, Standing};

impl Machine {
    pub(super) fn joined(&mut self, worker: WorkerId, actions: &mut Vec<Action>) {
        self.members.insert(worker, Standing::New);
        if self.phase == Phase::Gathering {
            self.advance(actions);
        }
    }

    pub(super) fn left(&mut self, worker: WorkerId, actions: &mut Vec<Action>) {
        match self.forget(worker) {
            None | Some(Standing::New) => {}
            Some(Standing::Loading) => {
                if self.phase == Phase::Loading {
                    self.loading_progressed(actions);
                }
            }
            Some(Standing::Active) => self.active_worker_lost(actions),
        }
    }

    /// Strikes a worker off every list.
    pub(super) fn forget(&mut self, worker: WorkerId) -> Option<Standing> {
        self.lanes_of.remove(&worker);
        self.leaving.remove(&worker);
        self.members.remove(&worker)
    }

    /// Whatever was under way is void; it starts again, in a new term, with those who are left.
    pub(super) fn active_worker_lost(&mut self, actions: &mut Vec<Action>) {
        self.enter_new_term();
        if matches!(self.phase, Phase::Gathering | Phase::Loading | Phase::WritingCheckpoint) {
            return;
        }
        self.advance(actions);
    }

    pub(super) fn enter_new_term(&mut self) {
        self.term = self.term.next();
        self.carries_moved = true;
    }

    pub(super) fn ready(&mut self, worker: WorkerId, step: Step, digest: Digest, actions: &mut Vec<Action>) {
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

    pub(super) fn expel(&mut self, worker: WorkerId, reason: ExpelReason, actions: &mut Vec<Action>) {
        actions.push(Action::Expel { worker, reason });
        self.left(worker, actions);
    }

    pub(super) fn loading_progressed(&mut self, actions: &mut Vec<Action>) {
        if self.members.values().all(|s| *s != Standing::Loading) {
            self.advance(actions);
        }
    }

    pub(super) fn wait_for_workers(&mut self, actions: &mut Vec<Action>) {
        if self.stopping && self.nothing_to_save() {
            return self.finish(Ending::Interrupted, actions);
        }
        if self.phase != Phase::Gathering {
            self.workers_to_start = 1;
            self.phase = Phase::Gathering;
        }
        actions.push(Action::Waiting { joined: self.members.len(), needed: self.workers_to_start });
    }

    pub(super) fn admit_newcomers(&mut self, actions: &mut Vec<Action>) {
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

    pub(super) fn fetch_replica(&mut self, actions: &mut Vec<Action>) {
        let from = self.active().next().expect("a replica that is not at hand is held by an active worker");
        self.phase = Phase::FetchingReplica { from };
        actions.push(Action::FetchReplica { worker: from, step: self.step });
    }

    pub(super) fn replica_received(
        &mut self,
        worker: WorkerId,
        step: Step,
        digest: Digest,
        actions: &mut Vec<Action>,
    ) {
        if self.phase != (Phase::FetchingReplica { from: worker }) || step != self.step {
            return;
        }
        self.reference = Some(digest);
        self.replica_at_hand = true;
        self.advance(actions);
    }

    pub(super) fn wants_to_leave(&mut self, worker: WorkerId, actions: &mut Vec<Action>) {
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
    pub(super) fn release(&mut self, worker: WorkerId, actions: &mut Vec<Action>) {
        let others = self.active().any(|other| !self.leaving.contains(&other));
        if !others && !self.replica_at_hand {
            return self.fetch_replica(actions);
        }
        self.forget(worker);
        self.enter_new_term();
        actions.push(Action::Release { worker });
        self.advance(actions);
    }

    /// Time has passed: who keeps the others waiting beyond the deadline is left behind. When that is everybody there
    /// is nobody to go on with, and the coordinator rather was held up itself: it waits.
    pub(super) fn look_at_the_clock(&mut self, actions: &mut Vec<Action>) {
        let waited = self.now.saturating_sub(self.waiting_since);
        if waited <= self.patience.deadline() {
            return;
        }
        match &self.phase {
            Phase::Computing { reports, .. } if !reports.is_empty() => {
                let late = reports.iter().copied().collect();
                self.leave_behind(late, waited, actions);
            }
            Phase::Comparing { digests } => {
                let late = self.active().filter(|worker| !digests.contains_key(worker)).collect();
                self.leave_behind(late, waited, actions);
            }
            Phase::Acknowledging { waiting } if self.exchange == Exchange::Star => {
                let late = waiting.iter().copied().collect();
                self.leave_behind(late, waited, actions);
            }
            // In a mesh one silent worker keeps everybody from a whole gradient: those who wait for it are asked, too,
            // and answer.
            Phase::Computing { .. } | Phase::Acknowledging { .. } => self.probe(waited, actions),
            _ => {}
        }
    }

    fn leave_behind(&mut self, late: Vec<WorkerId>, waited: Duration, actions: &mut Vec<Action>) {
        if late.is_empty() || late.len() == self.active().count() {
            return;
        }
        for worker in late {
            actions.push(Action::Expel { worker, reason: ExpelReason::Overdue { waited } });
            self.forget(worker);
        }
        self.active_worker_lost(actions);
    }

    /// Asks everybody for a sign of life, and a deadline later leaves those behind who gave none. When all did, what is
    /// missing was lost on the way: the step is run again.
    fn probe(&mut self, waited: Duration, actions: &mut Vec<Action>) {
        self.waiting_since = self.now;
        match self.probed.take() {
            None => {
                let asked: BTreeSet<WorkerId> = self.active().collect();
                actions.extend(asked.iter().map(|&worker| Action::AskDigest { worker, step: self.step }));
                self.probed = Some(asked);
            }
            Some(silent) if silent.is_empty() => self.active_worker_lost(actions),
            Some(silent) => self.leave_behind(silent.into_iter().collect(), waited, actions),
        }
    }
}
