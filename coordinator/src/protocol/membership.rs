//! Who takes part: joining, leaving, being lost. Every change begins a new term.

use std::time::Duration;

use carousel_proto::WorkerId;

use super::{Action, Ending, ExpelReason, Held, Machine, Member, Phase, Standing};

/// How long a run that has lost its replica waits, from the first worker that comes without it, for one that still has
/// it. Workers try to come back at least every 0.7 s.
const RETURN: Duration = Duration::from_millis(1500);

impl Machine {
    pub(super) fn joined(&mut self, worker: WorkerId, held: Option<Held>, actions: &mut Vec<Action>) {
        self.members.insert(worker, Member { standing: Standing::New, held, heard: self.now });
        if self.phase == Phase::Gathering {
            self.advance(actions);
        }
    }

    pub(super) fn left(&mut self, worker: WorkerId, actions: &mut Vec<Action>) {
        match self.forget(worker) {
            None | Some(Standing::New) => {}
            Some(Standing::Loading) => {
                if matches!(self.phase, Phase::Loading { .. }) {
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
        self.relayed.remove(&worker);
        self.balance.forget(worker);
        if self.fetching.is_some_and(|(from, _)| from == worker) {
            self.fetching = None;
            self.saving.source_lost();
        }
        self.members.remove(&worker).map(|member| member.standing)
    }

    /// Whatever was under way is void; it starts again, in a new term, with those who are left.
    pub(super) fn active_worker_lost(&mut self, actions: &mut Vec<Action>) {
        self.enter_new_term();
        match self.phase {
            Phase::Gathering | Phase::RollingBack => {}
            Phase::Loading { .. } => {
                self.ask_for_the_reference(actions);
                self.loading_progressed(actions);
            }
            _ => self.advance(actions),
        }
    }

    pub(super) fn enter_new_term(&mut self) {
        self.term = self.term.next();
        self.carries_moved = true;
        self.relay.end();
    }

    pub(super) fn expel(&mut self, worker: WorkerId, reason: ExpelReason, actions: &mut Vec<Action>) {
        actions.push(Action::Expel { worker, reason });
        self.left(worker, actions);
    }

    pub(super) fn wait_for_workers(&mut self, actions: &mut Vec<Action>) {
        if self.stopping && self.nothing_to_save() {
            return self.finish(Ending::Interrupted, actions);
        }
        if self.phase != Phase::Gathering {
            self.workers_to_start = 1;
            self.phase = Phase::Gathering;
        }
        self.tell_who_is_awaited(actions);
    }

    fn tell_who_is_awaited(&mut self, actions: &mut Vec<Action>) {
        let (joined, needed) = (self.members.len(), self.workers_to_start);
        if self.told.replace((joined, needed)) != Some((joined, needed)) {
            actions.push(Action::Waiting { joined, needed });
        }
    }

    /// Nobody active holds the committed replica and the driver does not either. A worker that was only cut off brings
    /// it back; when none does, the run goes back to its last checkpoint and comes to the same bits again.
    pub(super) fn await_the_replica(&mut self, actions: &mut Vec<Action>) {
        if self.phase != Phase::Gathering {
            self.workers_to_start = 1;
            self.phase = Phase::Gathering;
        }
        if self.stopping {
            return self.finish(Ending::Interrupted, actions);
        }
        if self.members.is_empty() {
            self.gathering_since = None;
            return self.tell_who_is_awaited(actions);
        }
        let since = *self.gathering_since.get_or_insert(self.now);
        let patient = self.now.saturating_sub(since) < RETURN;
        if patient && self.members.len() < self.workers_to_start {
            return self.tell_who_is_awaited(actions);
        }
        if self.members.values().any(|member| self.brings_the_replica(member)) {
            self.gathering_since = None;
            return self.admit_newcomers(actions);
        }
        if !patient {
            self.gathering_since = None;
            self.phase = Phase::RollingBack;
            actions.push(Action::Rollback);
        }
    }

    /// Time has passed while workers were awaited.
    pub(super) fn gathering_went_on(&mut self, actions: &mut Vec<Action>) {
        if self.gathering_since.is_some_and(|since| self.now.saturating_sub(since) >= RETURN) {
            self.advance(actions);
        }
    }

    pub(super) fn wants_to_leave(&mut self, worker: WorkerId, actions: &mut Vec<Action>) {
        match self.members.get(&worker).map(|member| member.standing) {
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
}
