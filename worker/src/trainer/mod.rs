//! Does what the protocol (`crate::protocol`) says: computes lanes, holds the reduced gradient until the commit, applies it,
//! loads and copies the replica. It runs on a thread of its own; the reactor's threads only carry messages. What it holds
//! outlives a session: a worker that was cut off comes back with its replica.

mod evaluate;
mod laps;
mod reading;
mod replica;
mod step;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carousel_model::{LanguageModel, ModelError};
use carousel_proto::v1::{self, Assign, Commit, Evaluate, WindowReply};
use carousel_proto::{Step, Term, WorkerId};
use tokio::runtime::Handle;

use crate::contribution::Contribution;
use crate::exchange::{Exchange, ExchangeError, PeerContent};
use crate::failpoint::{FailPoint, reach};
use crate::intake::{Content, ReducedGradient, Refusal};
use crate::outbox::{Outbox, SessionOver};
use crate::peers::Peers;
use crate::protocol::{Action, Event, Fault, LoadSource};
use crate::replica::{Replica, ReplicaError};
use crate::settings::{Settings, SettingsError};
use crate::tokens::{TokenClient, TokenOpener, WindowReader};
use laps::Laps;

/// Why a worker could not go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainerError {
    /// The settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The replica.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// A message that does not fit.
    #[error(transparent)]
    Refusal(#[from] Refusal),
    /// The coordinator refused to hand out tokens.
    #[error("tokens: {0}")]
    Tokens(#[from] Box<tonic::Status>),
    /// The run's settings name token files that cannot be used.
    #[error("token files: {0}")]
    TokenFiles(Box<dyn std::error::Error + Send + Sync>),
    /// The window that came has not the size asked for.
    #[error("a window of {found} tokens came, expected {expected}")]
    WindowSize {
        /// As came.
        found: usize,
        /// As asked for.
        expected: usize,
    },
    /// The step reads no window, too many, or longer ones than the run has.
    #[error("a step of {found} windows was assigned, expected 1 to {most} of at most {longest} time steps")]
    Windows {
        /// As assigned.
        found: usize,
        /// As the settings say.
        most: u32,
        /// The longest window.
        longest: u32,
    },
    /// A peer or the coordinator broke the exchange.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The coordinator broke the protocol.
    #[error(transparent)]
    Protocol(#[from] Fault),
    /// The session ended meanwhile.
    #[error("the session is over")]
    SessionOver,
}

impl From<SessionOver> for TrainerError {
    fn from(SessionOver: SessionOver) -> Self {
        Self::SessionOver
    }
}

/// What belongs to one session.
pub(crate) struct Link {
    pub own: WorkerId,
    pub outbox: Outbox,
    pub tokens: TokenClient,
    pub peers: Peers,
    pub runtime: Handle,
}

/// A computed step that is not committed yet.
struct Computed {
    at: (Term, Step),
    lanes: Range<u32>,
    /// At the end of the window.
    carries: Arc<Vec<f32>>,
    losses: Vec<v1::LaneLoss>,
    took: Duration,
}

pub(crate) struct Trainer {
    run_id: Vec<u8>,
    told: v1::RunSettings,
    settings: Settings,
    model: LanguageModel,
    link: Link,
    /// Of the run's windows, where they do not come from the coordinator.
    reader: Option<Arc<dyn WindowReader>>,
    exchange: Exchange,
    contribution: Contribution,
    replica: Option<Replica>,
    gradient: Option<ReducedGradient>,
    computed: Option<Computed>,
    laps: Laps,
    inbox: Inbox,
}

/// What the coordinator has said, until the protocol asks for it.
#[derive(Default)]
struct Inbox {
    sections: Vec<Vec<f32>>,
    peers: Vec<String>,
    carries: Option<Vec<f32>>,
    assign: Assign,
    commit: Commit,
    evaluate: Evaluate,
}

impl Trainer {
    pub(crate) fn new(
        welcome: &v1::Welcome,
        mut link: Link,
        opener: &TokenOpener,
    ) -> Result<Self, TrainerError> {
        let told = welcome.settings.clone().ok_or(Refusal::Empty)?;
        let settings = Settings::try_from(told.clone())?;
        let model = LanguageModel::new(settings.model.clone())?;
        let exchange = Exchange::new(settings.gradient_layout(), settings.lanes);
        let reader = opener.open(&told).map_err(TrainerError::TokenFiles)?;
        link.tokens.read_from(reader.clone());
        Ok(Self {
            run_id: welcome.run_id.to_vec(),
            told,
            settings,
            model,
            link,
            reader,
            exchange,
            contribution: Contribution::default(),
            replica: None,
            gradient: None,
            computed: None,
            laps: Laps::new(),
            inbox: Inbox::default(),
        })
    }

    /// Whether a welcome is to the run that this trainer is of.
    pub(crate) fn is_of(&self, welcome: &v1::Welcome) -> bool {
        self.run_id == welcome.run_id && welcome.settings.as_ref() == Some(&self.told)
    }

    /// Goes on in another session.
    pub(crate) fn relink(&mut self, link: Link) {
        self.link = link;
        self.link.tokens.read_from(self.reader.clone());
        self.inbox = Inbox::default();
        self.computed = None;
        self.exchange = Exchange::new(self.settings.gradient_layout(), self.settings.lanes);
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn run_id(&self) -> &[u8] {
        &self.run_id
    }

    /// Keeps what a message holds and says what it means to the protocol.
    pub(crate) fn take(&mut self, content: Content) -> Vec<Event> {
        match content {
            Content::Section { index, floats } => {
                if index == 0 {
                    self.inbox.sections.clear();
                }
                self.inbox.sections.push(floats);
                reach(FailPoint::HALF_LOADED, Step(0));
                Vec::new()
            }
            Content::LoadReplica(m) => {
                let (step, source) = (Step(m.step), source_of(m.source()));
                self.inbox.peers = m.peers;
                vec![Event::Load { step, source }]
            }
            Content::Carries { floats } => {
                self.inbox.carries = Some(floats);
                Vec::new()
            }
            Content::Assign(m) => {
                let (term, step, carry) = (Term(m.term), Step(m.step), step::carry_of(m.carry()));
                let lanes = m.first_lane..m.first_lane + m.lanes;
                self.inbox.assign = m;
                vec![Event::Assigned { term, step, lanes, carry }]
            }
            Content::Gradient(gradient) => self.hold(gradient).into_iter().collect(),
            Content::Commit(m) => {
                self.inbox.commit = m;
                vec![Event::Committed { step: Step(m.step) }]
            }
            Content::Evaluate(m) => {
                self.inbox.evaluate = m;
                vec![Event::Evaluate]
            }
            Content::SendReplica(m) => vec![Event::CopyReplica { step: Step(m.step) }],
            Content::AskDigest => vec![Event::AskDigest],
            // The session's own.
            Content::Welcome(_) | Content::Shutdown(_) => Vec::new(),
        }
    }

    /// Takes in what a peer sent.
    pub(crate) fn receive(
        &mut self,
        at: (Term, Step),
        worker: WorkerId,
        content: PeerContent,
    ) -> Result<Vec<Event>, TrainerError> {
        let began = Instant::now();
        let outgoing = self.exchange.receive(at, worker, content)?;
        self.laps.received(began.elapsed());
        self.hand_out(at, outgoing)
    }

    /// Does one thing that the protocol wants done; what came of it.
    pub(crate) fn perform(&mut self, action: Action) -> Result<Vec<Event>, TrainerError> {
        match action {
            Action::Discard => (self.replica, self.gradient, self.computed) = (None, None, None),
            Action::Load { step, source } => return Ok(vec![self.load(step, source)?]),
            Action::TellReady { step } => self.tell_ready(step)?,
            Action::TellLoadFailed { step } => self.tell_load_failed(step)?,
            Action::Compute { term, step, lanes, .. } => return self.compute((term, step), lanes),
            // Its parts went out as they were computed.
            Action::HandIn { term, step } => self.report(term, step)?,
            Action::Acknowledge { term, step, .. } => self.acknowledge(term, step)?,
            Action::Apply { .. } => self.apply()?,
            Action::Evaluate => self.evaluate()?,
            Action::CopyReplica { step } => self.deposit(step),
            Action::TellDigest { .. } => self.tell_digest()?,
            // The session's own.
            Action::Connect { .. } | Action::Stop => {}
            Action::GiveUp(fault) => return Err(fault.into()),
        }
        Ok(Vec::new())
    }
}

fn source_of(source: v1::ReplicaSource) -> LoadSource {
    match source {
        v1::ReplicaSource::Seed => LoadSource::Seed,
        v1::ReplicaSource::Peers => LoadSource::Peers,
        v1::ReplicaSource::Held => LoadSource::Held,
        v1::ReplicaSource::Coordinator | v1::ReplicaSource::Unspecified => LoadSource::Coordinator,
    }
}

/// What a window must have as many of as streams and steps.
fn check_size(window: WindowReply, expected: usize) -> Result<WindowReply, TrainerError> {
    let sizes = [window.inputs.len(), window.targets.len()];
    match sizes.into_iter().find(|found| *found != expected) {
        Some(found) => Err(TrainerError::WindowSize { found, expected }),
        None => Ok(window),
    }
}
