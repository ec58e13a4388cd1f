//! The driver: does what the protocol's state machine says, and tells it what happened. It owns what the machine does
//! not see: the sessions, the floats, the files. One thread, no reactor; decisions are in `protocol`.

mod evaluation;
mod records;
mod roster;
mod step;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use carousel_proto::digest::Digest;
use carousel_proto::v1::{self, Split};
use carousel_proto::{Step, Term, WorkerId};
use tokio::sync::mpsc;

use crate::append::{Change, News};
use crate::checkpoint::{CheckpointError, Saved};
use crate::committed::Committed;
use crate::intake::{Content, Limits};
use crate::observer::{Observer, Report};
use crate::protocol::{Action, Ending, Event, Exchange, ExpelReason, Machine, Scope};
use crate::replica::{Sections, digest_of};
use crate::run::{RunError, Summary};
use crate::schedule::{Position, ScheduleState};
use crate::server::Notice;
use crate::tokens::TokenSource;
use evaluation::Evaluation;
pub(crate) use records::{Books, Records};
use roster::Roster;
use step::StepWork;

/// Everything the driver starts with.
pub(crate) struct Parts<'a> {
    pub runtime: tokio::runtime::Handle,
    pub machine: Machine,
    pub training: crate::options::Training,
    pub settings: v1::RunSettings,
    pub limits: Arc<Limits>,
    pub exchange: Exchange,
    pub tokens: Arc<TokenSource>,
    pub state: StartState,
    pub records: Records,
    /// What became of the checkpoints that were begun.
    pub saved: mpsc::UnboundedReceiver<Saved>,
    pub observer: &'a mut dyn Observer,
}

/// The committed state a run starts from.
pub(crate) struct StartState {
    pub schedule: ScheduleState,
    pub carries: Vec<f32>,
    pub replica: Option<Sections>,
}

/// How often the protocol looks at the clock while nothing happens.
const TICK: Duration = Duration::from_millis(100);

pub(crate) struct Driver<'a> {
    runtime: tokio::runtime::Handle,
    began: Instant,
    machine: Machine,
    training: crate::options::Training,
    limits: Arc<Limits>,
    exchange: Exchange,
    tokens: Arc<TokenSource>,
    roster: Roster,
    schedule: ScheduleState,
    /// The committed carries: (streams, carry).
    carries: Vec<f32>,
    /// The committed replica, while it is at hand.
    replica: Option<Sections>,
    arriving: BTreeMap<usize, Vec<f32>>,
    step: StepWork,
    evaluation: Evaluation,
    records: Records,
    saved: mpsc::UnboundedReceiver<Saved>,
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
            roster: Roster::new(parts.settings),
            runtime: parts.runtime,
            began: Instant::now(),
            unsaved: None,
            machine: parts.machine,
            training: parts.training,
            limits: parts.limits,
            exchange: parts.exchange,
            tokens: parts.tokens,
            schedule: parts.state.schedule,
            carries: parts.state.carries,
            replica: parts.state.replica,
            arriving: BTreeMap::new(),
            records: parts.records,
            saved: parts.saved,
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
        self.tell_news();
        result
    }

    fn work(&mut self, notices: &mut mpsc::Receiver<Notice>) -> Result<Summary, RunError> {
        while self.ended.is_none() {
            match self.runtime.clone().block_on(wake(notices, &mut self.saved)) {
                Wake::Notice(notice) => self.take(notice)?,
                Wake::Saved(saved) => self.checkpoint_saved(saved),
                Wake::Tick => self.events.push_back(Event::Tick),
            }
            while let Some(event) = self.events.pop_front() {
                for action in self.machine.handle(self.began.elapsed(), event) {
                    self.perform(action)?;
                }
            }
            self.tell_news();
        }
        let ending = self.ended.expect("the loop ends with an ending");
        if ending == Ending::EveryReplicaLost {
            return Err(RunError::EveryReplicaLost {
                step: self.machine.step().0,
                checkpoint: self.records.last_checkpoint(),
            });
        }
        match self.unsaved.take() {
            Some(error) => Err(error.into()),
            None => Ok(self.records.summary(ending, self.machine.step().0)),
        }
    }

    /// Says of each file once that it takes nothing, and once that it does again.
    fn tell_news(&mut self) {
        for News { file, change } in self.records.news() {
            self.observer.observe(match &change {
                Change::Fails(problem) => Report::Unwritten { file, problem },
                Change::Recovered { lost } => Report::Written { file, lost: *lost },
            });
        }
    }

    fn take(&mut self, notice: Notice) -> Result<(), RunError> {
        match notice {
            Notice::Joined { worker, hello, outbox } => {
                self.observer.observe(Report::Joined { worker, hello: &hello });
                self.roster.welcome(worker, outbox, hello.exchange_address);
                self.events.push_back(Event::Joined { worker });
            }
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

    fn remove(&mut self, worker: WorkerId, reason: &str) {
        if self.roster.dismiss(worker, reason, false) {
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
            }
            Content::Report { term, step, losses } => {
                if self.step.report((term, step), &lanes, &losses)? {
                    self.events.push_back(Event::Reported { worker, term, step });
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
            Content::Section { step, index, floats } => {
                if step == self.machine.step() {
                    self.arriving.insert(index, floats);
                }
            }
            Content::ReplicaSent { step, digest } => self.replica_sent(worker, step, digest)?,
            Content::Digest { step, digest } => {
                self.events.push_back(Event::Digested { worker, step, digest })
            }
            Content::Leave => self.events.push_back(Event::Leaving { worker }),
            Content::Failure { message } => return Err(format!("it failed: {message}")),
        }
        Ok(())
    }

    fn part_from(&mut self, worker: WorkerId, reason: &str, rejoin: bool) {
        self.observer.observe(Report::Left { worker, reason });
        self.roster.dismiss(worker, reason, rejoin);
    }

    fn replica_sent(&mut self, worker: WorkerId, step: Step, digest: Digest) -> Result<(), String> {
        let sections: Sections = std::mem::take(&mut self.arriving).into_values().map(Arc::new).collect();
        if step != self.machine.step() {
            return Ok(());
        }
        let expected = self.limits.layout.sections().count();
        if sections.len() != expected {
            return Err(format!("it sent {} replica sections of {expected}", sections.len()));
        }
        let found = digest_of(&self.limits.layout, &sections);
        if found != digest {
            return Err(format!("its replica arrived with digest {found}, it said {digest}"));
        }
        self.replica = Some(sections);
        self.events.push_back(Event::ReplicaReceived { worker, step, digest });
        Ok(())
    }

    fn perform(&mut self, action: Action) -> Result<(), RunError> {
        match action {
            Action::Waiting { joined, needed } => self.observer.observe(Report::Waiting { joined, needed }),
            Action::Load { worker, step } => self.roster.load(worker, step, self.replica.as_ref()),
            Action::Begin { term, step, shares } => {
                self.records.begin_term(term)?;
                let owners = shares.iter().map(|(worker, _)| *worker).collect();
                self.step.begin((term, step), self.exchange, owners);
                self.roster.begin(&shares, self.exchange);
            }
            Action::Assign { worker, term, step, lanes, carry } => {
                let assign = self.assignment(term, step);
                let carries = self.step.carries_of(&self.carries, &lanes);
                self.roster.assign(worker, assign, lanes, (carry, carries));
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
                self.arriving.clear();
                self.roster.send_replica(worker, step);
            }
            Action::WriteCheckpoint { step } => self.write_checkpoint(step),
            Action::AskDigest { worker, .. } => self.roster.ask_digest(worker),
            Action::Release { worker } => self.part_from(worker, "it asked to leave", false),
            Action::Expel { worker, reason } => {
                self.part_from(worker, &reason.to_string(), matches!(reason, ExpelReason::Overdue { .. }));
            }
            Action::Finish { ending } => self.ended = Some(ending),
        }
        Ok(())
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
        self.events.push_back(Event::Reduced { term, step });
        Ok(())
    }

    /// Journal and committed state first: what workers are told to apply is known to whoever starts the coordinator again.
    fn commit(&mut self, term: Term, step: Step) -> Result<(), RunError> {
        let workers = self.machine.active().count();
        let metrics = self.records.commit((term, step), self.step.result(), workers)?;
        self.step.take_carries(&mut self.carries);
        self.save_committed(term, step);
        let result = self.step.result();
        self.roster.commit((term, step), result.clip_scale, result.learning_rate);
        self.replica = None;
        self.observer.observe(Report::Step(&metrics));
        Ok(())
    }

    fn save_committed(&mut self, term: Term, step: Step) {
        let committed = Committed {
            term: term.0,
            step: step.0,
            record: self.records.last_record().cloned(),
            schedule: self.schedule.clone(),
            validation: self.records.validation_of(step),
            step_ms: Vec::new(),
            carries: (&self.carries).into(),
        };
        self.records.save(&committed);
    }

    fn summarize(&mut self, step: Step, scope: Scope) {
        let (tokens, loss) = self.evaluation.mean();
        let seconds = self.evaluation.seconds();
        if scope == Scope::FinalTest {
            let metrics = self.records.test(step, (tokens, loss), seconds);
            self.observer.observe(Report::Test(&metrics));
            return;
        }
        let best = if scope == Scope::Scheduled { self.schedule.validated(loss) } else { false };
        let metrics = self.records.valid((step, scope), (tokens, loss), seconds);
        self.save_committed(self.records.term(), step);
        self.observer.observe(Report::Valid { metrics: &metrics, best });
    }

    fn write_checkpoint(&mut self, step: Step) {
        let sections = self.replica.clone().expect("a checkpoint is written when the replica is at hand");
        let snapshot = crate::checkpoint::Snapshot {
            step: step.0,
            schedule: self.schedule.clone(),
            sections,
            carries: self.carries.clone(),
            valid_loss: self.records.validation_of(step),
        };
        if let Err(error) = self.records.begin_checkpoint(snapshot) {
            self.checkpoint_saved(Saved { step: step.0, result: Err(error) });
        }
    }

    fn checkpoint_saved(&mut self, saved: Saved) {
        self.records.saved(&saved);
        let step = Step(saved.step);
        match saved.result {
            Ok((path, digest)) => {
                self.unsaved = None;
                self.observer.observe(Report::Checkpoint { step: step.0, path: &path, digest });
                self.events.push_back(Event::CheckpointWritten { step });
            }
            Err(error) => {
                self.observer.observe(Report::Unsaved { step: step.0, problem: &error });
                self.unsaved = Some(error);
                self.events.push_back(Event::CheckpointFailed { step });
            }
        }
    }
}

/// What the driver wakes up for.
enum Wake {
    Notice(Notice),
    Saved(Saved),
    Tick,
}

async fn wake(notices: &mut mpsc::Receiver<Notice>, saved: &mut mpsc::UnboundedReceiver<Saved>) -> Wake {
    tokio::select! {
        notice = notices.recv() => Wake::Notice(notice.expect("the driver's owner keeps a sender")),
        saved = saved.recv() => Wake::Saved(saved.expect("the saver, which has the sender, lives in the records")),
        () = tokio::time::sleep(TICK) => Wake::Tick,
    }
}

fn split_of(scope: Scope) -> Split {
    match scope {
        Scope::Scheduled | Scope::FinalValid => Split::Valid,
        Scope::FinalTest => Split::Test,
    }
}
