//! The driver: does what the protocol's state machine says, and tells it what happened. It owns what the machine does
//! not see: the sessions, the floats, the files. One thread, no reactor; decisions are in `protocol`.

mod evaluation;
mod records;
mod roster;
mod step;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carousel_proto::v1::{self, Split};
use carousel_proto::{Step, Term, WorkerId};
use tokio::sync::mpsc;

use crate::checkpoint::{Checkpoint, CheckpointError, Snapshot};
use crate::deposit::Deposit;
use crate::failpoint::{FailPoint, reach};
use crate::intake::{Content, Limits};
use crate::observer::{Observer, Report};
use crate::protocol::{Action, Ending, Event, ExpelReason, Held, LoadSource, Machine, Origin, Scope};
use crate::replica::Sections;
use crate::run::{RunError, Summary};
use crate::run_id::RunId;
use crate::schedule::{Position, ScheduleState};
use crate::server::Notice;
use crate::tokens::TokenSource;
use evaluation::Evaluation;
pub(crate) use records::Records;
use roster::{Parting, Roster};
use step::{ReducedStep, StepWork};

/// Everything the driver starts with.
pub(crate) struct Parts<'a> {
    pub runtime: tokio::runtime::Handle,
    pub machine: Machine,
    pub training: crate::options::Training,
    pub settings: v1::RunSettings,
    pub limits: Arc<Limits>,
    pub tokens: Arc<TokenSource>,
    pub state: StartState,
    pub records: Records,
    pub run_id: RunId,
    pub observer: &'a mut dyn Observer,
}

/// The committed state a run starts from.
pub(crate) struct StartState {
    pub schedule: ScheduleState,
    pub carries: Vec<f32>,
    pub replica: Option<Sections>,
    /// What the last step's commit said, for a worker that missed it.
    pub last_commit: Option<v1::Commit>,
}

/// What a checkpoint takes along at its boundary.
struct Boundary {
    step: Step,
    schedule: ScheduleState,
    carries: Vec<f32>,
}

/// How often the protocol looks at the clock while nothing happens.
const TICK: Duration = Duration::from_millis(100);

pub(crate) struct Driver<'a> {
    runtime: tokio::runtime::Handle,
    began: Instant,
    machine: Machine,
    training: crate::options::Training,
    limits: Arc<Limits>,
    tokens: Arc<TokenSource>,
    roster: Roster,
    schedule: ScheduleState,
    /// The committed carries: (streams, carry).
    carries: Vec<f32>,
    last_commit: Option<v1::Commit>,
    /// The committed replica, while it is at hand.
    replica: Option<Sections>,
    /// Of whom a copy of its replica was asked, and the last that came.
    asked: Option<(WorkerId, Step)>,
    deposited: Option<(Step, Sections)>,
    boundary: Option<Boundary>,
    run_id: RunId,
    step: StepWork,
    evaluation: Evaluation,
    records: Records,
    observer: &'a mut dyn Observer,
    events: VecDeque<Event>,
    /// Why the latest checkpoint is not there.
    unsaved: Option<CheckpointError>,
    ended: Option<Ending>,
}

impl<'a> Driver<'a> {
    pub(crate) fn new(parts: Parts<'a>) -> Self {
        Self {
            step: StepWork::new(parts.limits.clone()),
            evaluation: Evaluation::new(parts.limits.lanes),
            roster: Roster::new(parts.settings, parts.run_id),
            run_id: parts.run_id,
            last_commit: parts.state.last_commit,
            asked: None,
            deposited: None,
            boundary: None,
            runtime: parts.runtime,
            began: Instant::now(),
            unsaved: None,
            machine: parts.machine,
            training: parts.training,
            limits: parts.limits,
            tokens: parts.tokens,
            schedule: parts.state.schedule,
            carries: parts.state.carries,
            replica: parts.state.replica,
            records: parts.records,
            observer: parts.observer,
            events: VecDeque::new(),
            ended: None,
        }
    }

    /// Works until the run is over.
    pub(crate) fn run(mut self, notices: &mut mpsc::Receiver<Notice>) -> Result<Summary, RunError> {
        let result = self.work(notices);
        let reason = match &result {
            Ok(_) => "the run is over".to_owned(),
            Err(error) => format!("the run failed: {error}"),
        };
        self.roster.dismiss_all(&reason);
        self.records.flush()?;
        result
    }

    fn work(&mut self, notices: &mut mpsc::Receiver<Notice>) -> Result<Summary, RunError> {
        while self.ended.is_none() {
            let next = async { tokio::time::timeout(TICK, notices.recv()).await };
            match self.runtime.block_on(next) {
                Ok(notice) => self.take(notice.expect("the driver's owner keeps a sender"))?,
                Err(_) => self.events.push_back(Event::Tick),
            }
            while let Some(event) = self.events.pop_front() {
                for action in self.machine.handle(self.began.elapsed(), event) {
                    self.perform(action)?;
                }
            }
        }
        let ending = self.ended.expect("the loop ends with an ending");
        match self.unsaved.take() {
            Some(error) => Err(error.into()),
            None => Ok(self.records.summary(ending, self.machine.step().0)),
        }
    }

    fn take(&mut self, notice: Notice) -> Result<(), RunError> {
        match notice {
            Notice::Joined { worker, hello, outbox } => {
                self.observer.observe(Report::Joined { worker, hello: &hello });
                let held = self.held(&hello);
                self.roster.welcome(worker, outbox, hello.exchange_address);
                self.events.push_back(Event::Joined { worker, held });
            }
            Notice::Heard { worker } => self.events.push_back(Event::Heard { worker }),
            Notice::Deposited(deposit) => self.take_deposit(deposit),
            Notice::Gone { worker, reason } => self.remove(worker, &reason),
            Notice::Stop => {
                self.observer.observe(Report::Stopping);
                self.events.push_back(Event::StopRequested);
            }
            Notice::Abort { reason } => return Err(RunError::Aborted { reason }),
            // What a removed worker still had under way no longer counts.
            Notice::Said { worker, .. } if !self.roster.knows(worker) => {}
            Notice::Said { worker, content } => {
                if let Err(fault) = self.hear(worker, content) {
                    self.remove(worker, &fault);
                }
            }
        }
        Ok(())
    }

    /// What a worker brings along of this very run.
    fn held(&self, hello: &v1::Hello) -> Option<Held> {
        let held = hello.held.as_ref().filter(|held| held.run_id[..] == self.run_id.as_bytes()[..])?;
        Some(Held { step: Step(held.step), gradient: held.gradient.map(Step) })
    }

    fn take_deposit(&mut self, deposit: Deposit) {
        let Deposit { worker, step, sections, digest } = deposit;
        if self.asked.take_if(|asked| *asked == (worker, step)).is_none() {
            return;
        }
        if step == self.machine.step() {
            self.replica = Some(sections.clone());
        }
        self.deposited = Some((step, sections));
        self.events.push_back(Event::ReplicaReceived { worker, step, digest });
    }

    fn remove(&mut self, worker: WorkerId, reason: &str) {
        if self.roster.dismiss(worker, reason, Parting::Final) {
            self.observer.observe(Report::Left { worker, reason });
            self.events.push_back(Event::Left { worker });
        }
    }

    /// Takes in what a worker said; `Err` says how it broke the protocol.
    fn hear(&mut self, worker: WorkerId, content: Content) -> Result<(), String> {
        let lanes = self.roster.lanes(worker);
        match content {
            Content::Ready { step, digest } => self.events.push_back(Event::Ready { worker, step, digest }),
            Content::Partial { term, step, node, gradient } => {
                self.step.partial((term, step), &lanes, node, gradient)?;
                self.events.push_back(Event::Heard { worker });
            }
            Content::Report { term, step, losses, took } => {
                if self.step.report((term, step), &lanes, &losses)? {
                    self.events.push_back(Event::Reported { worker, term, step, took });
                }
            }
            Content::Slice { term, step, slice } => {
                if self.step.slice((term, step), worker, slice)? {
                    self.events.push_back(Event::Sliced { worker, term, step });
                }
            }
            Content::Carries { term, step, lanes: of, floats } => {
                self.step.carries((term, step), &lanes, of, floats)?;
            }
            Content::Acknowledge { term, step } => {
                if self.step.acknowledge((term, step), &lanes)? {
                    self.events.push_back(Event::Acknowledged { worker, term, step });
                }
            }
            Content::Evaluation { term, split, losses } => {
                let evaluating = self.evaluation.lanes_of(worker);
                if self.evaluation.report((term, split), &evaluating, &losses)? {
                    self.events.push_back(Event::Evaluated { worker, term, scope: self.evaluation.scope() });
                }
            }
            Content::LoadFailed { reason } => {
                tracing::warn!("{worker} could not load the replica from its peers: {reason}");
                self.events.push_back(Event::LoadFailed { worker });
            }
            Content::Progress => self.events.push_back(Event::Heard { worker }),
            Content::Digest { step, digest } => {
                self.events.push_back(Event::Digested { worker, step, digest })
            }
            Content::Leave => self.events.push_back(Event::Leaving { worker }),
            Content::Failure { message } => return Err(format!("it failed: {message}")),
        }
        Ok(())
    }

    fn part_from(&mut self, worker: WorkerId, reason: &str, parting: Parting) {
        self.observer.observe(Report::Left { worker, reason });
        self.roster.dismiss(worker, reason, parting);
    }

    fn perform(&mut self, action: Action) -> Result<(), RunError> {
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
                let split = split_of(scope);
                self.evaluation.begin(term, scope, split);
                self.evaluation.assign(worker, lanes.clone());
                let windows = self.tokens.split(split).map_or(0, crate::tokens::SplitTokens::windows);
                self.roster.evaluate(worker, term, split, (lanes, windows));
            }
            Action::SummarizeEvaluation { step, scope } => self.summarize(step, scope)?,
            Action::FetchReplica { worker, step } => {
                self.asked = Some((worker, step));
                self.roster.send_replica(worker, step);
            }
            Action::Snapshot { step } => {
                let (schedule, carries) = (self.schedule.clone(), self.carries.clone());
                self.boundary = Some(Boundary { step, schedule, carries });
            }
            Action::WriteCheckpoint { step } => self.write_checkpoint(step)?,
            Action::Rollback => self.roll_back()?,
            Action::AskDigest { worker, .. } => self.roster.ask_digest(worker),
            Action::Release { worker } => self.part_from(worker, "it asked to leave", Parting::Final),
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

    fn assignment(&self, term: Term, step: Step) -> v1::Assign {
        let plan = self.records.plan();
        let window = plan.window_of(step.0);
        let (step_tokens, next_window) = (self.train_tokens(window), plan.window_of(step.0 + 1));
        v1::Assign { term: term.0, step: step.0, window, step_tokens, next_window, ..v1::Assign::default() }
    }

    fn train_tokens(&self, window: u64) -> u64 {
        let train = self.tokens.split(Split::Train).expect("every run has training tokens");
        train.tokens_in_window(window)
    }

    fn reduce(&mut self, term: Term, step: Step) -> Result<(), RunError> {
        let plan = self.records.plan();
        let position = Position { step: step.0, epoch: plan.epoch_of(step.0), last_step: plan.last_step() };
        let rate =
            self.training.schedule.learning_rate(self.training.learning_rate, position, &self.schedule);
        let tokens = self.train_tokens(plan.window_of(step.0));
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

    fn commit(&mut self, term: Term, step: Step) -> Result<(), RunError> {
        reach(FailPoint::COMMITTED, step);
        self.step.take_carries(&mut self.carries);
        self.replica = None;
        let workers = self.machine.active().count();
        // What a worker applies is in the journal before: a coordinator that is lost in between goes on from it.
        let metrics = self.records.commit((term, step), self.step.result(), workers)?;
        self.remember(false);
        reach(FailPoint::JOURNALLED, step);
        let ReducedStep { clip_scale, learning_rate, .. } = *self.step.result();
        let commit = v1::Commit { term: term.0, step: step.0, clip_scale, learning_rate };
        self.roster.commit(commit);
        self.last_commit = Some(commit);
        self.observer.observe(Report::Step(&metrics));
        Ok(())
    }

    fn summarize(&mut self, step: Step, scope: Scope) -> Result<(), RunError> {
        let (tokens, loss) = self.evaluation.mean();
        let seconds = self.evaluation.seconds();
        if scope == Scope::FinalTest {
            let metrics = self.records.test(step, (tokens, loss), seconds)?;
            self.observer.observe(Report::Test(&metrics));
            return Ok(());
        }
        let mut best = false;
        if scope == Scope::Scheduled {
            best = self.schedule.validated(loss);
            self.remember(true);
        }
        let metrics = self.records.valid(step, (tokens, loss), seconds)?;
        self.observer.observe(Report::Valid { metrics: &metrics, best });
        Ok(())
    }

    /// Keeps what no replica holds, for a coordinator that is started after this one was lost.
    fn remember(&mut self, validated: bool) {
        let _ = validated;
    }

    fn write_checkpoint(&mut self, step: Step) -> Result<(), RunError> {
        let boundary = self.boundary.take().filter(|boundary| boundary.step == step);
        let Boundary { schedule, carries, .. } = boundary.expect("a checkpoint begins with its snapshot");
        let deposited = self.deposited.take().filter(|(of, _)| *of == step).map(|(_, sections)| sections);
        let sections = deposited.or_else(|| self.replica.clone());
        let sections = sections.expect("a checkpoint is written when its replica is here");
        let snapshot = Snapshot { step: step.0, schedule, sections, carries };
        let (path, digest) = match self.records.checkpoint(&snapshot) {
            Ok(written) => written,
            Err(RunError::Checkpoint(error)) => {
                self.observer.observe(Report::Unsaved { step: step.0, problem: &error });
                self.unsaved = Some(error);
                self.events.push_back(Event::CheckpointFailed { step });
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.unsaved = None;
        self.observer.observe(Report::Checkpoint { step: step.0, path: &path, digest });
        self.events.push_back(Event::CheckpointWritten { step });
        Ok(())
    }

    /// Every replica of the committed state is gone: back to the last checkpoint, and to the same bits again.
    fn roll_back(&mut self) -> Result<(), RunError> {
        let found = self.records.roll_back()?;
        let (origin, state) = start_state(found.as_deref(), &self.limits);
        (self.schedule, self.carries, self.replica) = (state.schedule, state.carries, state.replica);
        (self.last_commit, self.asked, self.deposited) = (None, None, None);
        let step = Step(found.map_or(0, |checkpoint| checkpoint.state.step));
        let digest = match origin {
            Origin::Checkpoint(digest) => Some(digest),
            Origin::Seed | Origin::Workers { .. } => None,
        };
        self.observer.observe(Report::RolledBack { step: step.0 });
        self.events.push_back(Event::RolledBack { step, digest });
        Ok(())
    }
}

/// The committed state of a checkpoint, or of a run that has none.
pub(crate) fn start_state(checkpoint: Option<&Checkpoint>, limits: &Limits) -> (Origin, StartState) {
    let Some(checkpoint) = checkpoint else {
        let carries = vec![0.0; limits.streams as usize * limits.layout.carry_floats()];
        let (schedule, replica, last_commit) = (ScheduleState::new(), None, None);
        return (Origin::Seed, StartState { schedule, carries, replica, last_commit });
    };
    let Snapshot { schedule, carries, sections, .. } = checkpoint.snapshot.clone();
    let state = StartState { schedule, carries, replica: Some(sections), last_commit: None };
    (Origin::Checkpoint(checkpoint.replica_digest()), state)
}

fn split_of(scope: Scope) -> Split {
    match scope {
        Scope::Scheduled | Scope::FinalValid => Split::Valid,
        Scope::FinalTest => Split::Test,
    }
}
