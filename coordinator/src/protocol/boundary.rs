//! What happens between two steps: comparing replicas, validation, the end; and a user's wish to stop.

use std::collections::{BTreeMap, BTreeSet};

use carousel_proto::digest::Digest;
use carousel_proto::{Step, Term, WorkerId};

use super::loading::majority;
use super::{Action, Ending, ExpelReason, Machine, Phase, Scope, Task};

impl Machine {
    pub(super) fn start_comparison(&mut self, actions: &mut Vec<Action>) {
        self.phase = Phase::Comparing { digests: BTreeMap::new() };
        self.waiting_since = self.now;
        actions.extend(self.active().map(|worker| Action::AskDigest { worker, step: self.step }));
    }

    pub(super) fn digested(
        &mut self,
        worker: WorkerId,
        step: Step,
        digest: Digest,
        actions: &mut Vec<Action>,
    ) {
        if let Some(silent) = &mut self.probed {
            silent.remove(&worker);
        }
        let active: BTreeSet<WorkerId> = self.active().collect();
        if matches!(self.phase, Phase::Loading { .. }) && step == self.step && active.contains(&worker) {
            self.reference.get_or_insert(digest);
            return self.loading_progressed(actions);
        }
        let Phase::Comparing { digests } = &mut self.phase else { return };
        if step != self.step || !active.contains(&worker) {
            return;
        }
        digests.insert(worker, digest);
        if digests.len() < active.len() {
            return;
        }
        let expected = majority(digests).expect("every active worker has told its digest");
        let differing: Vec<(WorkerId, Digest)> =
            digests.iter().filter(|(_, found)| **found != expected).map(|(w, found)| (*w, *found)).collect();
        self.reference = Some(expected);
        self.tasks.pop_front();
        for (worker, found) in &differing {
            let reason = ExpelReason::DigestDiffers { step, expected, found: *found };
            actions.push(Action::Expel { worker: *worker, reason });
            self.forget(*worker);
        }
        if differing.is_empty() { self.advance(actions) } else { self.active_worker_lost(actions) }
    }

    pub(super) fn start_evaluation(&mut self, scope: Scope, actions: &mut Vec<Action>) {
        let shares = self.shares();
        let waiting = shares.iter().filter(|(_, lanes)| !lanes.is_empty()).map(|(w, _)| *w).collect();
        self.phase = Phase::Evaluating { scope, waiting };
        self.waiting_since = self.now;
        for (worker, lanes) in shares {
            if !lanes.is_empty() {
                actions.push(Action::Evaluate { worker, term: self.term, scope, lanes });
            }
        }
    }

    pub(super) fn evaluated(
        &mut self,
        worker: WorkerId,
        term: Term,
        scope: Scope,
        actions: &mut Vec<Action>,
    ) {
        let current = self.term;
        let Phase::Evaluating { scope: asked, waiting } = &mut self.phase else { return };
        if term != current || *asked != scope || !waiting.remove(&worker) || !waiting.is_empty() {
            return;
        }
        actions.push(Action::SummarizeEvaluation { step: self.step, scope });
        self.tasks.pop_front();
        self.advance(actions);
    }

    /// Validation comes before the checkpoint, so that a checkpoint knows every validation up to its step.
    pub(super) fn plan_boundary(&mut self) {
        let step = self.step.0;
        // First of all: nothing is evaluated or written from a replica that differs.
        if self.plan.digest_due(step) {
            self.tasks.push_back(Task::CompareDigests);
        }
        if self.plan.validation_due(step) {
            self.tasks.push_back(Task::Evaluate(Scope::Scheduled));
        }
        if step >= self.plan.last_step() {
            return self.plan_the_end();
        }
        if self.stopping {
            self.tasks.extend([Task::Checkpoint, Task::AwaitCheckpoint, Task::Finish(Ending::Interrupted)]);
        } else if self.plan.checkpoint_due(step) {
            self.tasks.push_back(Task::Checkpoint);
        }
    }

    /// Figures of the end that no schedule asked for leave the state alone: a run that is later extended must go on
    /// as if it had never ended here.
    pub(super) fn plan_the_end(&mut self) {
        self.tasks.push_back(Task::Checkpoint);
        if self.plan.has_valid && !self.plan.validation_due(self.step.0) {
            self.tasks.push_back(Task::Evaluate(Scope::FinalValid));
        }
        if self.plan.has_test {
            self.tasks.push_back(Task::Evaluate(Scope::FinalTest));
        }
        self.tasks.extend([Task::AwaitCheckpoint, Task::Finish(Ending::Complete)]);
    }

    pub(super) fn stop_requested(&mut self, actions: &mut Vec<Action>) {
        if self.stopping {
            return;
        }
        self.stopping = true;
        match self.phase {
            // Nobody computes, and a state that could be written is either the seed's or already on disk.
            Phase::Gathering | Phase::RollingBack => self.finish(Ending::Interrupted, actions),
            Phase::Loading { .. } if self.active().next().is_none() => {
                self.finish(Ending::Interrupted, actions)
            }
            // The step under way is committed first; then `plan_boundary` ends the run.
            Phase::Computing { .. } | Phase::Reducing | Phase::Acknowledging { .. } => {}
            _ => self.stop_after_pending_tasks(),
        }
    }

    pub(super) fn stop_after_pending_tasks(&mut self) {
        if self.tasks.iter().any(|t| matches!(t, Task::Finish(_))) {
            return;
        }
        if !self.nothing_to_save() {
            self.tasks.extend([Task::Checkpoint, Task::AwaitCheckpoint]);
        }
        self.tasks.push_back(Task::Finish(Ending::Interrupted));
    }

    pub(super) fn finish(&mut self, ending: Ending, actions: &mut Vec<Action>) {
        self.phase = Phase::Over;
        actions.push(Action::Finish { ending });
    }
}
