//! What a run shows of itself to those who look at it from outside: the driver writes it, status and metrics read it. Looking
//! never waits for the driver and never holds it up. Nothing here is ever read back into the run.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use carousel_proto::v1::{self, Hello, LastCheckpoint, RunStatus, WorkerStatus};
use carousel_proto::{PROTOCOL_VERSION, WorkerId};

use crate::metrics::{StepMetrics, ValidMetrics};
use crate::observer::{Observer, Report};
use crate::protocol::{Presence, Stage};

/// A driver that has not come round for this long hangs: it comes round ten times a second.
const STANDSTILL: Duration = Duration::from_secs(30);
/// Steps that the rate is taken over.
const RATED_STEPS: usize = 20;

/// The run's figures, shared by the threads that write and read them.
#[derive(Debug)]
pub(crate) struct Board(Mutex<Figures>);

/// A worker as it is shown.
#[derive(Clone, Debug)]
struct Shown {
    host: String,
    process_id: u32,
    threads: u32,
    program_version: String,
    since: Instant,
    lanes: std::ops::Range<u32>,
    presence: Presence,
    took: Option<Duration>,
}

/// What is shown.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub folder: String,
    pub run_id: String,
    pub last_step: u64,
    pub step: u64,
    pub term: u64,
    pub stage: Stage,
    pub stopping: bool,
    pub last: Option<StepMetrics>,
    pub valid: Option<ValidMetrics>,
    pub checkpoint: Option<LastCheckpoint>,
    pub counts: Counts,
    began: Instant,
    turned: Instant,
    recent: VecDeque<(u64, f64)>,
    workers: BTreeMap<WorkerId, Shown>,
}

/// What has happened since this process began.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    pub steps: u64,
    pub tokens: u64,
    pub step_seconds: f64,
    pub joined: u64,
    pub left: u64,
    pub checkpoints: u64,
    pub checkpoint_failures: u64,
    pub rollbacks: u64,
}

/// What the driver tells each time it comes round: where the protocol stands.
pub(crate) struct Turn<'a> {
    pub stage: Stage,
    pub step: u64,
    pub term: u64,
    pub workers: &'a mut dyn Iterator<Item = (WorkerId, Presence, std::ops::Range<u32>, Option<Duration>)>,
}

impl Board {
    pub(crate) fn new(folder: String, run_id: String, (step, last_step): (u64, u64)) -> Self {
        let now = Instant::now();
        Self(Mutex::new(Figures {
            folder,
            run_id,
            last_step,
            step,
            term: 0,
            stage: Stage::Waiting { needed: 0 },
            stopping: false,
            last: None,
            valid: None,
            checkpoint: None,
            counts: Counts::default(),
            began: now,
            turned: now,
            recent: VecDeque::new(),
            workers: BTreeMap::new(),
        }))
    }

    /// Figures hold no invariant that a panic in between could break.
    fn lock(&self) -> MutexGuard<'_, Figures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn read(&self) -> Figures {
        self.lock().clone()
    }

    pub(crate) fn set_checkpoint(&self, checkpoint: Option<LastCheckpoint>) {
        self.lock().checkpoint = checkpoint;
    }

    pub(crate) fn turn(&self, turn: Turn<'_>) {
        let mut figures = self.lock();
        (figures.stage, figures.step, figures.term) = (turn.stage, turn.step, turn.term);
        figures.turned = Instant::now();
        for (worker, presence, lanes, took) in turn.workers {
            if let Some(shown) = figures.workers.get_mut(&worker) {
                (shown.presence, shown.lanes, shown.took) = (presence, lanes, took);
            }
        }
    }

    fn hear(&self, report: &Report<'_>) {
        let mut figures = self.lock();
        match report {
            Report::Joined { worker, hello } => figures.joined(*worker, hello),
            Report::Left { worker, .. } => {
                figures.counts.left += u64::from(figures.workers.remove(worker).is_some());
            }
            Report::Step(metrics) => figures.stepped(metrics),
            Report::Valid { metrics, .. } => figures.valid = Some((*metrics).clone()),
            Report::Checkpoint { step, path, digest } => {
                figures.counts.checkpoints += 1;
                let (path, digest) = (path.display().to_string(), digest.to_string());
                figures.checkpoint = Some(LastCheckpoint { step: *step, path, digest });
            }
            Report::Unsaved { .. } => figures.counts.checkpoint_failures += 1,
            Report::RolledBack { .. } => figures.counts.rollbacks += 1,
            Report::Stopping => figures.stopping = true,
            Report::Waiting { .. } | Report::Test(_) | Report::Unwritten { .. } | Report::Written { .. } => {}
        }
    }
}

impl Figures {
    fn joined(&mut self, worker: WorkerId, hello: &Hello) {
        self.counts.joined += 1;
        let shown = Shown {
            host: fit(&hello.host),
            process_id: hello.process_id,
            threads: hello.threads,
            program_version: fit(&hello.program_version),
            since: Instant::now(),
            lanes: 0..0,
            presence: Presence::Joined,
            took: None,
        };
        self.workers.insert(worker, shown);
    }

    fn stepped(&mut self, metrics: &StepMetrics) {
        self.counts.steps += 1;
        self.counts.tokens += metrics.tokens;
        self.counts.step_seconds += metrics.seconds;
        self.step = metrics.step;
        if self.recent.len() == RATED_STEPS {
            self.recent.pop_front();
        }
        self.recent.push_back((metrics.tokens, metrics.seconds));
        self.last = Some(metrics.clone());
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn tokens_per_second(&self) -> Option<f64> {
        let (tokens, seconds) =
            self.recent.iter().fold((0, 0.0), |(t, s), (tokens, took)| (t + tokens, s + took));
        (seconds > 0.0).then(|| tokens as f64 / seconds)
    }

    /// Workers by their presence.
    pub(crate) fn present(&self, presence: Presence) -> usize {
        self.workers.values().filter(|shown| shown.presence == presence).count()
    }

    /// Whether the coordinator does its work, and a line that says so.
    pub(crate) fn health(&self) -> (bool, String) {
        let stands = self.turned.elapsed();
        if stands > STANDSTILL {
            return (false, format!("the coordinator has stood still for {} s", stands.as_secs()));
        }
        let workers = match self.workers.len() {
            1 => "1 worker".into(),
            many => format!("{many} workers"),
        };
        let (state, step, last) = (self.state(), self.step, self.last_step);
        (self.stage != Stage::Ended, format!("{state}, step {step} of {last}, {workers}"))
    }

    fn state(&self) -> &'static str {
        match self.stage {
            Stage::Ended => "ended",
            _ if self.stopping => "stopping",
            stage => stage.name(),
        }
    }

    pub(crate) fn status(&self) -> RunStatus {
        let (healthy, health) = self.health();
        RunStatus {
            protocol: PROTOCOL_VERSION,
            program_version: env!("CARGO_PKG_VERSION").into(),
            folder: self.folder.clone(),
            run_id: self.run_id.clone(),
            state: self.state().into(),
            workers_awaited: self.stage.workers_awaited(),
            healthy,
            health,
            step: self.step,
            last_step: self.last_step,
            epoch: self.last.as_ref().map_or(0, |last| last.epoch),
            term: self.term,
            loss: self.last.as_ref().map(|last| last.loss),
            learning_rate: self.last.as_ref().map(|last| last.learning_rate),
            tokens_per_second: self.tokens_per_second(),
            checkpoint: self.checkpoint.clone(),
            uptime_seconds: self.uptime().as_secs_f64(),
            workers: self.workers.iter().map(|(worker, shown)| shown.status(*worker)).collect(),
        }
    }
}

impl Shown {
    fn status(&self, worker: WorkerId) -> v1::WorkerStatus {
        WorkerStatus {
            worker_id: worker.0,
            host: self.host.clone(),
            process_id: self.process_id,
            threads: self.threads,
            program_version: self.program_version.clone(),
            first_lane: self.lanes.start,
            lanes: self.lanes.len() as u32,
            state: self.presence.name().into(),
            present_seconds: self.since.elapsed().as_secs_f64(),
            step_seconds: self.took.map(|took| took.as_secs_f64()),
        }
    }
}

/// What a worker says of itself is shown in part, and without what a terminal would obey.
fn fit(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Notes on the board what the user is told, and tells the user.
pub(crate) struct Noting<'a> {
    pub board: &'a Board,
    pub told: &'a mut dyn Observer,
}

impl Observer for Noting<'_> {
    fn observe(&mut self, report: Report<'_>) {
        self.board.hear(&report);
        self.told.observe(report);
    }
}
