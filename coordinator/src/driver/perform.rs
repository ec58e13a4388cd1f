//! What the protocol wants done, done: each action of the state machine in one place, and the decisions that need floats.

use carousel_corpus::{Span, StreamPlan};
use carousel_proto::v1::{self, Split};
use carousel_proto::{Step, Term, WorkerId};

use super::Driver;
use super::roster::Parting;
use super::step::ReducedStep;
use super::windows::Reading;
use crate::failpoint::{FailPoint, reach};
use crate::observer::Report;
use crate::protocol::{Action, Event, ExpelReason, LoadSource, Scope};
use crate::run::RunError;
use crate::schedule::Position;
use crate::tokens::TokenSource;

impl Driver<'_> {
    fn part_from(&mut self, worker: WorkerId, reason: &str, parting: Parting) {
        self.observer.observe(Report::Left { worker, reason });
        self.roster.dismiss(worker, reason, parting);
    }

    pub(super) fn perform(&mut self, action: Action) -> Result<(), RunError> {
        match action {
            Action::Waiting { joined, needed } => self.observer.observe(Report::Waiting { joined, needed }),
            Action::Load { worker, step, source } => self.load(worker, step, source),
            Action::Begin { term, step, exchange, shares } => {
                self.records.begin_term(term)?;
                let owners = shares.iter().map(|(worker, _)| *worker).collect();
                self.step.begin((term, step), exchange, owners);
                self.roster.begin(&shares, exchange);
            }
            Action::Assign { worker, term, step, lanes, carry } => {
                let assign = self.assignment(term, step);
                let carries = self.step.carries_of(&self.carries, &lanes);
                self.roster.assign(worker, assign, lanes, (carry, carries));
                reach(FailPoint::ASSIGNED, step);
            }
            Action::Reduce { term, step } => self.reduce(term, step)?,
            Action::SendReduced { worker, term, step } => {
                self.roster.reduced(worker, (term, step), self.step.result())
            }
            Action::Commit { term, step } => self.commit(term, step)?,
            Action::Evaluate { worker, term, scope, lanes } => {
                self.records.begin_term(term)?;
                let split = split_of(scope);
                self.evaluation.begin(term, scope, split);
                self.evaluation.assign(worker, lanes.clone());
                let windows = self.tokens.split(split).map_or(0, crate::tokens::SplitTokens::windows);
                self.roster.evaluate(worker, term, split, (lanes, windows));
            }
            Action::SummarizeEvaluation { step, scope } => self.summarize(step, scope),
            Action::FetchReplica { worker, step } => {
                self.asked = Some((worker, step));
                self.roster.send_replica(worker, step);
            }
            Action::Snapshot { step } => self.snapshot(step),
            Action::WriteCheckpoint { step } => self.write_checkpoint(step),
            Action::Rollback => {
                self.disappoint();
                self.roll_back()?;
            }
            Action::AskDigest { worker, .. } => self.roster.ask_digest(worker),
            Action::Release { worker } => {
                let drained = self.is_drained(worker);
                let reason = if drained { "an operator drained it" } else { "it asked to leave" };
                self.part_from(worker, reason, Parting::Final);
            }
            Action::Expel { worker, reason } => {
                let parting = match reason {
                    ExpelReason::Overdue { .. } => Parting::Rejoin,
                    _ => Parting::RejoinAnew,
                };
                self.part_from(worker, &reason.to_string(), parting);
            }
            Action::Finish { ending } => self.ended = Some(ending),
        }
        Ok(())
    }

    fn load(&mut self, worker: WorkerId, step: Step, source: LoadSource) {
        match source {
            LoadSource::Coordinator => self.roster.load(worker, step, self.replica.as_ref()),
            LoadSource::Peers { workers } => self.roster.load_from_peers(worker, step, &workers),
            LoadSource::Held { commit } => {
                let commit = self.last_commit.filter(|_| commit);
                self.roster.keep_replica(worker, step, commit);
            }
        }
    }

    fn assignment(&mut self, term: Term, step: Step) -> v1::Assign {
        let Reading { spans, tokens, .. } = self.reading(step);
        let (plan, train) = (self.records.plan(), train_of(&self.tokens));
        let next = self.windows.first(step.0 + 1, plan, train);
        let told = |span: Span| v1::WindowSpan { start: span.start, steps: span.steps };
        v1::Assign {
            term: term.0,
            step: step.0,
            step_tokens: tokens,
            windows: spans.into_iter().map(told).collect(),
            next: Some(told(next)),
            ..v1::Assign::default()
        }
    }

    /// What a step reads.
    fn reading(&mut self, step: Step) -> Reading {
        self.windows.of(step.0, self.records.plan(), train_of(&self.tokens))
    }

    fn reduce(&mut self, term: Term, step: Step) -> Result<(), RunError> {
        let Reading { tokens, stretch, .. } = self.reading(step);
        let plan = self.records.plan();
        let position = Position { step: step.0, epoch: plan.epoch_of(step.0), last_step: plan.last_step() };
        let rate = self.training.rate(position, stretch, &self.schedule);
        self.step.reduce(self.training.clip_norm, rate);
        let result = self.step.result();
        if result.tokens != tokens {
            let reason =
                format!("the workers counted {} targets in {step}, the plan has {tokens}", result.tokens);
            return Err(RunError::Aborted { reason });
        }
        if let Some(parameter) = self.step.non_finite() {
            let checkpoint = self.records.last_checkpoint();
            return Err(RunError::NonFinite { step: step.0, parameter, checkpoint });
        }
        reach(FailPoint::REDUCED, step);
        self.events.push_back(Event::Reduced { term, step });
        Ok(())
    }

    /// Journal and committed state first: what workers are told to apply is known to whoever starts the coordinator again.
    fn commit(&mut self, term: Term, step: Step) -> Result<(), RunError> {
        reach(FailPoint::COMMITTED, step);
        let workers = self.machine.active().count();
        let metrics = self.records.commit((term, step), self.step.result(), workers)?;
        reach(FailPoint::JOURNALLED, step);
        self.step.take_carries(&mut self.carries);
        self.replica = None;
        self.save_committed(term, step);
        reach(FailPoint::SAVED, step);
        let ReducedStep { clip_scale, learning_rate, .. } = *self.step.result();
        let averaged_from = self.schedule.trigger.averaged_from;
        let commit = v1::Commit { term: term.0, step: step.0, clip_scale, learning_rate, averaged_from };
        self.roster.commit(commit);
        self.last_commit = Some(commit);
        self.observer.observe(Report::Step(&metrics));
        Ok(())
    }

    fn summarize(&mut self, step: Step, scope: Scope) {
        let (tokens, loss) = self.evaluation.mean();
        let seconds = self.evaluation.seconds();
        if scope == Scope::FinalTest {
            let metrics = self.records.test(step, (tokens, loss), seconds);
            self.observer.observe(Report::Test(&metrics));
            return;
        }
        let scheduled = scope == Scope::Scheduled;
        let best = scheduled && self.schedule.validated(loss, step.0, self.training.rules());
        let averaged_from = self.schedule.trigger.averaged_from;
        let metrics = self.records.valid((step, scope), (tokens, loss), (seconds, averaged_from));
        self.save_committed(self.records.term(), step);
        self.observer.observe(Report::Valid { metrics: &metrics, best });
    }
}

fn train_of(tokens: &TokenSource) -> &StreamPlan {
    tokens.split(Split::Train).expect("every run has training tokens").plan()
}

fn split_of(scope: Scope) -> Split {
    match scope {
        Scope::Scheduled | Scope::FinalValid => Split::Valid,
        Scope::FinalTest => Split::Test,
    }
}
