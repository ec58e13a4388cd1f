//! Who is too late. Deadlines come from the run's own steps (`patience`); a deadline that everybody has missed is nobody's
//! fault but the machine's under the coordinator.

use std::collections::BTreeSet;
use std::time::Duration;

use carousel_proto::{Step, WorkerId};

use super::{Action, Exchange, ExpelReason, Machine, Phase, Standing};

/// After the mesh has failed with everybody alive, so many steps go through the coordinator; twice as many next time.
const FIRST_RELAY: u64 = 16;
const LONGEST_RELAY: u64 = 4096;

/// Steps of a mesh that go through the coordinator, because two workers cannot reach each other. The same bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Relay {
    until: Step,
    length: u64,
}

impl Default for Relay {
    fn default() -> Self {
        Self { until: Step(0), length: FIRST_RELAY }
    }
}

impl Relay {
    fn begin(&mut self, after: Step) {
        self.until = Step(after.0 + self.length);
        self.length = (self.length * 2).min(LONGEST_RELAY);
    }

    /// Others are here now: the mesh may work again.
    pub(super) fn end(&mut self) {
        self.until = Step(0);
    }

    pub(super) fn covers(&self, step: Step) -> bool {
        step <= self.until
    }
}

/// The driver tells the time ten times a second. When it has not for so long, this process stood still itself, and nobody
/// is to blame for what was not heard meanwhile.
const STOOD_STILL: Duration = Duration::from_millis(500);

impl Machine {
    /// Takes the time of an event; time in which this process stood still is nobody's waiting time.
    pub(super) fn wake(&mut self, now: Duration) {
        let gap = now.saturating_sub(self.now);
        self.now = now;
        if gap > STOOD_STILL {
            self.waiting_since += gap;
            self.assigned_at += gap;
            self.members.values_mut().for_each(|member| member.heard += gap);
        }
    }

    /// How this step's gradients are exchanged.
    pub(super) fn exchange_of(&self, step: Step) -> Exchange {
        if self.relay.covers(step) { Exchange::Star } else { self.exchange }
    }

    /// Time has passed: who keeps the others waiting beyond the deadline is left behind.
    pub(super) fn look_at_the_clock(&mut self, actions: &mut Vec<Action>) {
        let waited = self.now.saturating_sub(self.waiting_since);
        let late = waited > self.patience.deadline();
        let mesh = self.exchange_of(self.step.next()) == Exchange::Mesh;
        match &self.phase {
            Phase::Gathering => self.gathering_went_on(actions),
            Phase::Loading { digests } => {
                let loading = self.standing(Standing::Loading).filter(|worker| !digests.contains_key(worker));
                let silent = self.silent_of(loading.collect());
                self.give_up_loading(silent, actions);
            }
            Phase::FetchingReplica | Phase::Saving => {
                let from = self.fetching.map(|(from, _)| from);
                let silent = self.silent_of(from.into_iter().collect());
                self.leave_behind(silent, actions);
            }
            Phase::Evaluating { waiting, .. } => {
                let silent = self.silent_of(waiting.iter().copied().collect());
                self.leave_behind(silent, actions);
            }
            Phase::Comparing { digests } if late => {
                let missing = self.active().filter(|worker| !digests.contains_key(worker)).collect();
                self.leave_behind(missing, actions);
            }
            Phase::Computing { reports, .. } if late && !reports.is_empty() => {
                let missing = reports.iter().copied().collect();
                self.leave_behind(missing, actions);
            }
            Phase::Acknowledging { waiting } if late && !mesh => {
                let missing = waiting.iter().copied().collect();
                self.leave_behind(missing, actions);
            }
            // In a mesh one silent worker keeps everybody from a whole gradient: those who wait for it are asked, too,
            // and answer.
            Phase::Computing { reports, .. } if mesh && reports.is_empty() => self.probe(waited, actions),
            Phase::Acknowledging { .. } if mesh => self.probe(waited, actions),
            _ => {}
        }
    }

    /// Who of these has given no sign of life for a deadline, since it was last asked for something.
    fn silent_of(&self, workers: Vec<WorkerId>) -> Vec<WorkerId> {
        let deadline = self.patience.deadline();
        let silent = |worker: &WorkerId| {
            let heard = self.members.get(worker).map_or(self.waiting_since, |member| member.heard);
            self.now.saturating_sub(heard.max(self.waiting_since)) > deadline
        };
        workers.into_iter().filter(silent).collect()
    }

    fn give_up_loading(&mut self, silent: Vec<WorkerId>, actions: &mut Vec<Action>) {
        for worker in silent {
            let waited = self.now.saturating_sub(self.waiting_since);
            self.expel(worker, ExpelReason::Overdue { waited }, actions);
        }
    }

    /// Never everybody at once: then nobody would be left to go on with, and the coordinator itself rather was held up.
    fn leave_behind(&mut self, late: Vec<WorkerId>, actions: &mut Vec<Action>) {
        if late.is_empty() || late.len() == self.active().count() {
            return;
        }
        let waited = self.now.saturating_sub(self.waiting_since);
        for worker in late {
            actions.push(Action::Expel { worker, reason: ExpelReason::Overdue { waited } });
            self.forget(worker);
        }
        self.active_worker_lost(actions);
    }

    /// Halfway to the deadline everybody is asked for a sign of life; at the deadline those are left behind who gave
    /// none. When all did, two of them cannot reach each other: the step is run again through the coordinator.
    fn probe(&mut self, waited: Duration, actions: &mut Vec<Action>) {
        let deadline = self.patience.deadline();
        match &self.probed {
            None if waited > deadline / 2 => {
                let asked: BTreeSet<WorkerId> = self.active().collect();
                actions.extend(asked.iter().map(|&worker| Action::AskDigest { worker, step: self.step }));
                self.probed = Some(asked);
            }
            Some(silent) if waited > deadline && silent.is_empty() => {
                self.enter_new_term();
                self.relay.begin(self.step);
                self.advance(actions);
            }
            Some(silent) if waited > deadline => {
                let silent = silent.iter().copied().collect();
                self.leave_behind(silent, actions);
            }
            _ => {}
        }
    }
}
