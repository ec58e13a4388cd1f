//! The driver: does what the protocol's state machine says, and tells it what happened. It owns what the machine does
//! not see: the sessions, the floats, the files. One thread, no reactor; decisions are in `protocol`.

mod evaluation;
mod perform;
mod records;
mod roster;
mod state;
mod step;
mod windows;
mod wishes;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carousel_proto::v1;
use carousel_proto::{Step, WorkerId};
use tokio::sync::mpsc;

use crate::append::{Change, News};
use crate::board::Board;
use crate::checkpoint::{CheckpointError, Saved};
use crate::deposit::Deposit;
use crate::intake::{Content, Limits};
use crate::observer::{Observer, Report};
use crate::protocol::{Ending, Event, Held, Machine};
use crate::replica::Sections;
use crate::run::{RunError, Summary};
use crate::run_id::RunId;
use crate::schedule::ScheduleState;
use crate::server::Notice;
use crate::tokens::TokenSource;
use evaluation::Evaluation;
pub(crate) use records::{Books, Records};
use roster::{Parting, Roster};
use state::Boundary;
pub(crate) use state::{StartState, start_state};
use step::StepWork;
use windows::Windows;
pub(crate) use windows::ends_of_epochs;
use wishes::Wishes;

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
    /// What became of the checkpoints that were begun.
    pub saved: mpsc::UnboundedReceiver<Saved>,
    pub observer: &'a mut dyn Observer,
    pub board: Arc<Board>,
}

/// How the bucket of a run is called when it takes nothing.
const BUCKET: &str = "bucket";
/// How often the protocol looks at the clock while nothing happens.
const TICK: Duration = Duration::from_millis(100);
/// How long the end of a failed run waits for a checkpoint that is on its way.
const SAVING: Duration = Duration::from_secs(10);

pub(crate) struct Driver<'a> {
    runtime: tokio::runtime::Handle,
    began: Instant,
    ticked: Instant,
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
    windows: Windows,
    evaluation: Evaluation,
    records: Records,
    saved: mpsc::UnboundedReceiver<Saved>,
    observer: &'a mut dyn Observer,
    board: Arc<Board>,
    wishes: Wishes,
    events: VecDeque<Event>,
    /// Why the latest checkpoint is not there.
    unsaved: Option<CheckpointError>,
    ended: Option<Ending>,
}

impl<'a> Driver<'a> {
    pub(crate) fn new(parts: Parts<'a>) -> Self {
        Self {
            step: StepWork::new(parts.limits.clone()),
            windows: Windows::new(parts.training.windows, parts.training.accumulate),
            evaluation: Evaluation::new(parts.limits.lanes),
            roster: Roster::new(parts.settings, parts.run_id),
            run_id: parts.run_id,
            last_commit: parts.state.last_commit,
            asked: None,
            deposited: None,
            boundary: None,
            runtime: parts.runtime,
            began: Instant::now(),
            ticked: Instant::now(),
            unsaved: None,
            machine: parts.machine,
            training: parts.training,
            limits: parts.limits,
            tokens: parts.tokens,
            schedule: parts.state.schedule,
            carries: parts.state.carries,
            replica: parts.state.replica,
            records: parts.records,
            saved: parts.saved,
            observer: parts.observer,
            board: parts.board,
            wishes: Wishes::default(),
            events: VecDeque::new(),
            ended: None,
        }
    }

    /// Works until the run is over.
    pub(crate) fn run(mut self, notices: &mut mpsc::Receiver<Notice>) -> Result<Summary, RunError> {
        self.show();
        let result = self.work(notices);
        self.show();
        let reason = match &result {
            Ok(summary) if summary.ending == Ending::Complete => "the run is over".to_owned(),
            Ok(summary) => format!("the run was stopped after step {}", summary.step),
            Err(error) => format!("the run failed: {error}"),
        };
        let complete = matches!(&result, Ok(summary) if summary.ending == Ending::Complete);
        self.roster.dismiss_all(&reason, !complete);
        self.records.flush()?;
        self.tell_news();
        result
    }

    fn work(&mut self, notices: &mut mpsc::Receiver<Notice>) -> Result<Summary, RunError> {
        while self.ended.is_none() {
            if let Err(error) = self.turn(notices) {
                return Err(self.with_the_last_checkpoint(error, notices));
            }
        }
        let ending = self.ended.expect("the loop ends with an ending");
        match self.unsaved.take() {
            Some(error) => Err(error.into()),
            None => Ok(self.records.summary(ending, self.machine.step().0)),
        }
    }

    /// Takes one thing in and does what the protocol makes of it.
    fn turn(&mut self, notices: &mut mpsc::Receiver<Notice>) -> Result<(), RunError> {
        match self.runtime.clone().block_on(wake(notices, &mut self.saved)) {
            Wake::Notice(notice) => self.take(notice)?,
            Wake::Saved(saved) => self.checkpoint_saved(saved),
            Wake::Tick => {}
        }
        // Also when something happens all the time.
        if self.ticked.elapsed() >= TICK {
            self.ticked = Instant::now();
            self.events.push_back(Event::Tick);
            self.show();
        }
        while let Some(event) = self.events.pop_front() {
            for action in self.machine.handle(self.began.elapsed(), event) {
                self.perform(action)?;
            }
        }
        self.grant_drains();
        self.tell_news();
        Ok(())
    }

    /// A step that is not finite ends the run; a checkpoint of a good step that is on its way is waited for and named.
    fn with_the_last_checkpoint(
        &mut self,
        error: RunError,
        notices: &mut mpsc::Receiver<Notice>,
    ) -> RunError {
        let RunError::NonFinite { step, parameter, .. } = error else { return error };
        let waiting = Instant::now();
        while self.machine.is_saving() && waiting.elapsed() < SAVING {
            if let Err(further) = self.turn(notices) {
                tracing::warn!("{further}");
                break;
            }
        }
        RunError::NonFinite { step, parameter, checkpoint: self.records.last_checkpoint() }
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
                let held = self.held(&hello);
                self.roster.welcome(worker, outbox, hello);
                self.events.push_back(Event::Joined { worker, held });
            }
            Notice::Heard { worker } => self.events.push_back(Event::Heard { worker }),
            Notice::Deposited(deposit) => self.take_deposit(deposit),
            Notice::Gone { worker, reason } => self.remove(worker, &reason),
            Notice::Wish(wish) => self.take_wish(wish),
            Notice::Stop => {
                self.observer.observe(Report::Stopping);
                self.events.push_back(Event::StopRequested);
            }
            Notice::Mirrored(change) => self.records.tell(News { file: BUCKET, change }),
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
                    self.roster.computed(worker, took);
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
            Content::LoadFailed { step } => {
                tracing::warn!("{worker} could not load the replica of {step}; the coordinator sends it");
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
