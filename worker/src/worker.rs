//! A worker through its sessions: what reaches the thread that computes goes to the protocol, and what the protocol wants is
//! done by the trainer. A session that breaks is followed by another, with the replica that is still here.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use carousel_proto::v1::{
    self, Failure, FromCoordinator, PullReply, PullRequest, Welcome, from_worker::Message,
};
use carousel_proto::{Step, WorkerId};
use carousel_security::Door;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tonic::Status;

use crate::departure;
use crate::intake::{Content, Intake, Refusal};
use crate::news::News;
use crate::outbox::Outbox;
use crate::peers::{self, MostBytes, Peers};
use crate::protocol::{Action, Event, Machine};
use crate::session::WorkerOptions;
use crate::session::{Aborting, Mail, Session, WAITING_MESSAGES, WorkerError, read};
use crate::tokens::{TokenClient, TokenOpener};
use crate::trainer::{Link, Trainer, TrainerError};

/// How a session ended.
pub(crate) struct Parted {
    pub event: Event,
    pub reason: String,
    /// The run ended before its end.
    pub unfinished: bool,
}

impl Parted {
    pub(crate) fn lost(reason: &str) -> Self {
        Self { event: Event::SessionLost, reason: reason.into(), unfinished: false }
    }
}

pub(crate) struct Worker {
    began: Instant,
    protocol: Machine,
    /// From the first welcome on.
    trainer: Option<Trainer>,
    opener: TokenOpener,
    door: Door,
    tell: fn(News<'_>),
}

/// What one session needs beside the worker.
struct Desk {
    outbox: Outbox,
    intake: Intake,
    most_bytes: MostBytes,
    tokens: Option<TokenClient>,
    runtime: tokio::runtime::Handle,
    /// Parts of a replica that was asked for before it is here.
    early: Vec<(PullRequest, oneshot::Sender<Option<PullReply>>)>,
}

/// Requests of that kind that are kept: every newcomer has a few under way.
const MOST_EARLY: usize = 256;

impl Worker {
    /// A worker that holds nothing yet.
    pub(crate) fn new(options: &WorkerOptions) -> Self {
        let (opener, door, tell) = (options.tokens.clone(), options.door.clone(), options.tell);
        let protocol = Machine::waiting(options.patience);
        Self { began: Instant::now(), protocol, trainer: None, opener, door, tell }
    }

    /// What the next session's coordinator is told.
    pub(crate) fn held(&self) -> Option<v1::Held> {
        let (held, trainer) = (self.protocol.held()?, self.trainer.as_ref()?);
        let (run_id, gradient) = (trainer.run_id().to_vec().into(), held.gradient.map(|step| step.0));
        Some(v1::Held { run_id, step: held.step.0, gradient })
    }

    /// A session is over: the pause before the next; none when the work is done.
    pub(crate) fn part(&mut self, event: Event) -> Result<Option<Duration>, WorkerError> {
        let mut pause = None;
        for action in self.protocol.handle(self.began.elapsed(), event) {
            match (action, &mut self.trainer) {
                (Action::Connect { after }, _) => pause = Some(after),
                (Action::GiveUp(fault), _) => return Err(TrainerError::from(fault).into()),
                (action, Some(trainer)) => {
                    trainer.perform(action)?;
                }
                (_, None) => {}
            }
        }
        Ok(pause)
    }

    /// Carries one session: a task reads messages, this thread does what they say.
    pub(crate) fn serve(
        &mut self,
        runtime: &Runtime,
        session: Session,
        leaving: watch::Receiver<bool>,
    ) -> Result<Parted, WorkerError> {
        let Session { client, listener, outbox, inbound } = session;
        let (sender, mut messages) = mpsc::channel(WAITING_MESSAGES);
        let most_bytes = MostBytes::default();
        let house = (self.door.clone(), most_bytes.clone());
        let served = peers::serve(runtime.handle(), listener, sender.clone(), house);
        let serving = Aborting(served.map_err(|error| WorkerError::Threads(error.to_string()))?);
        runtime.spawn(read(inbound, sender));
        let leaving = Aborting(runtime.spawn(departure::leave(leaving, outbox.clone())).abort_handle());
        let _until_the_end = (serving, leaving);
        let tokens = Some(TokenClient::new(client, runtime.handle().clone()));
        let runtime = runtime.handle().clone();
        let (intake, early) = (Intake::default(), Vec::new());
        let mut desk = Desk { outbox: outbox.clone(), intake, most_bytes, tokens, runtime, early };
        loop {
            let Some(mail) = messages.blocking_recv() else {
                return Ok(Parted::lost("the coordinator closed the session"));
            };
            match self.open(mail, &mut desk) {
                Ok(None) => {}
                Ok(Some(parted)) => return Ok(parted),
                Err(TrainerError::SessionOver) => return Ok(Parted::lost("the session is over")),
                Err(error) => return Err(give_up(&outbox, error)),
            }
        }
    }

    fn open(&mut self, mail: Mail, desk: &mut Desk) -> Result<Option<Parted>, TrainerError> {
        match mail {
            Mail::Coordinator(message) => {
                return match *message {
                    Ok(message) => self.hear(message, desk),
                    Err(status) => Ok(Some(lost(&status))),
                };
            }
            Mail::Peer { worker, at, content } => {
                if let Some(trainer) = &mut self.trainer {
                    let events = trainer.receive(at, worker, content)?;
                    self.happen(events)?;
                }
            }
            Mail::Pull { request, reply } => self.serve_part(request, reply, desk),
        }
        Ok(None)
    }

    /// A newcomer may ask for a step whose commit is still on its way here, on another stream: it is answered then.
    fn serve_part(&self, request: PullRequest, reply: oneshot::Sender<Option<PullReply>>, desk: &mut Desk) {
        let ahead = self.protocol.step().is_some_and(|own| own.next() == Step(request.step));
        if ahead && desk.early.len() < MOST_EARLY {
            return desk.early.push((request, reply));
        }
        let part = self.trainer.as_ref().and_then(|trainer| trainer.serve(&request));
        // Whoever asked may be gone.
        reply.send(part).unwrap_or_default();
    }

    fn hear(&mut self, message: FromCoordinator, desk: &mut Desk) -> Result<Option<Parted>, TrainerError> {
        let Some(content) = desk.intake.accept(message)? else { return Ok(None) };
        match content {
            Content::Shutdown(v1::Shutdown { reason, rejoin, discard, unfinished }) => {
                tracing::info!("the coordinator ended the session: {reason}");
                return Ok(Some(Parted { event: Event::Dismissed { rejoin, discard }, reason, unfinished }));
            }
            Content::Welcome(welcome) => self.welcome(&welcome, desk)?,
            content => {
                let trainer = self.trainer.as_mut().filter(|_| desk.tokens.is_none());
                let events = trainer.ok_or(Refusal::TooEarly)?.take(content);
                self.happen(events)?;
                for (request, reply) in std::mem::take(&mut desk.early) {
                    self.serve_part(request, reply, desk);
                }
            }
        }
        Ok(None)
    }

    /// The first message of a session: of the run that the replica is of, or of another.
    fn welcome(&mut self, welcome: &Welcome, desk: &mut Desk) -> Result<(), TrainerError> {
        let tokens = desk.tokens.take().ok_or(Refusal::SecondWelcome)?;
        let (own, runtime) = (WorkerId(welcome.worker_id), desk.runtime.clone());
        (self.tell)(News::Joined(own));
        let peers = Peers::new(own, runtime.clone(), self.door.clone());
        let link = Link { own, outbox: desk.outbox.clone(), tokens, peers, runtime };
        let same_run = self.trainer.as_ref().is_some_and(|trainer| trainer.is_of(welcome));
        match self.trainer.as_mut().filter(|_| same_run) {
            Some(trainer) => trainer.relink(link),
            None => self.trainer = Some(Trainer::new(welcome, link, &self.opener)?),
        }
        let settings = self.trainer.as_ref().expect("it was made or kept").settings();
        desk.intake.expect(settings);
        desk.most_bytes.get_or_init(|| settings.most_gradient_bytes());
        self.happen(vec![Event::Welcomed { same_run }])
    }

    /// Events to the protocol, its actions to the trainer, until nothing more comes of it.
    fn happen(&mut self, events: Vec<Event>) -> Result<(), TrainerError> {
        let mut events = VecDeque::from(events);
        while let Some(event) = events.pop_front() {
            for action in self.protocol.handle(self.began.elapsed(), event) {
                let trainer = self.trainer.as_mut().expect("work comes after the welcome");
                events.extend(trainer.perform(action)?);
            }
        }
        Ok(())
    }
}

fn lost(status: &Status) -> Parted {
    Parted::lost(status.message())
}

/// Tells the coordinator why this worker gives up.
fn give_up(outbox: &Outbox, error: TrainerError) -> WorkerError {
    if outbox.send(Message::Failure(Failure { message: error.to_string() })).is_err() {
        tracing::debug!("the coordinator was gone already");
    }
    // The message goes out on the reactor's thread; without this the process could end before it.
    std::thread::sleep(Duration::from_millis(100));
    error.into()
}
