//! One step: from the assignment of its lanes to its commit.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use carousel_proto::{Step, Term, WorkerId};

use super::{Action, CarryOrigin, Exchange, Machine, Phase};

impl Machine {
    pub(super) fn shares(&mut self) -> Vec<(WorkerId, Range<u32>)> {
        let workers: Vec<WorkerId> = self.active().collect();
        self.balance.cut(self.plan.lanes, &workers)
    }

    pub(super) fn start_step(&mut self, actions: &mut Vec<Action>) {
        let step = self.step.next();
        let (shares, exchange) = (self.shares(), self.exchange_of(step));
        let reports = shares.iter().filter(|(_, lanes)| !lanes.is_empty()).map(|(w, _)| *w).collect();
        actions.push(Action::Begin { term: self.term, step, exchange, shares: shares.clone() });
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
        self.probed = None;
        self.told = None;
        let slices = match exchange {
            Exchange::Star => BTreeSet::new(),
            Exchange::Mesh => self.active().collect(),
        };
        self.phase = Phase::Computing { reports, slices };
        (self.assigned_at, self.waiting_since) = (self.now, self.now);
    }

    pub(super) fn carry_origin(&self, step: Step, worker: WorkerId, lanes: &Range<u32>) -> CarryOrigin {
        if self.plan.place_of(step.0) == 0 {
            CarryOrigin::Zero
        } else if self.carries_moved || self.lanes_of.get(&worker) != Some(lanes) {
            CarryOrigin::Given
        } else {
            CarryOrigin::Keep
        }
    }

    pub(super) fn is_current(&self, term: Term, step: Step) -> bool {
        (term, step) == (self.term, self.step.next())
    }

    pub(super) fn reported(
        &mut self,
        worker: WorkerId,
        (term, step): (Term, Step),
        took: Duration,
        actions: &mut Vec<Action>,
    ) {
        let current = self.is_current(term, step);
        let lanes = self.lanes_of.get(&worker).map_or(0, |lanes| lanes.len() as u32);
        if let Phase::Computing { reports, .. } = &mut self.phase
            && current
            && reports.remove(&worker)
        {
            self.balance.learn(worker, lanes, took);
            self.computing_progressed(actions);
        }
    }

    pub(super) fn sliced(&mut self, worker: WorkerId, term: Term, step: Step, actions: &mut Vec<Action>) {
        let current = self.is_current(term, step);
        if let Phase::Computing { slices, .. } = &mut self.phase
            && current
            && slices.remove(&worker)
        {
            self.computing_progressed(actions);
        }
    }

    pub(super) fn computing_progressed(&mut self, actions: &mut Vec<Action>) {
        self.waiting_since = self.now;
        let Phase::Computing { reports, slices } = &self.phase else { return };
        if reports.is_empty() && slices.is_empty() {
            self.phase = Phase::Reducing;
            actions.push(Action::Reduce { term: self.term, step: self.step.next() });
        }
    }

    pub(super) fn reduced(&mut self, term: Term, step: Step, actions: &mut Vec<Action>) {
        if self.phase != Phase::Reducing || !self.is_current(term, step) {
            return;
        }
        let active = self.active();
        let waiting: BTreeSet<WorkerId> = active.filter(|w| !self.acknowledged.contains(w)).collect();
        if self.exchange_of(step) == Exchange::Star {
            actions.extend(waiting.iter().map(|&worker| Action::SendReduced { worker, term, step }));
        }
        self.phase = Phase::Acknowledging { waiting };
        self.waiting_since = self.now;
        self.acknowledging_progressed(actions);
    }

    pub(super) fn acknowledged(
        &mut self,
        worker: WorkerId,
        term: Term,
        step: Step,
        actions: &mut Vec<Action>,
    ) {
        if !self.is_current(term, step) {
            return;
        }
        let mesh = self.exchange_of(step) == Exchange::Mesh;
        match &mut self.phase {
            Phase::Acknowledging { waiting } => {
                waiting.remove(&worker);
                self.waiting_since = self.now;
                self.acknowledging_progressed(actions);
            }
            // A mesh hands its slices round without the coordinator: whoever has them all says so at once.
            Phase::Computing { .. } | Phase::Reducing if mesh => {
                self.acknowledged.insert(worker);
            }
            _ => {}
        }
    }

    pub(super) fn acknowledging_progressed(&mut self, actions: &mut Vec<Action>) {
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
}
