//! A worker's connection to its coordinator: reach it, introduce itself, carry messages to and from the thread that
//! computes. A session that breaks is followed by a new one, as a newcomer.

use std::time::{Duration, Instant};

use carousel_proto::v1::{Failure, FromCoordinator, Hello, from_worker::Message};
use carousel_proto::{PROTOCOL_VERSION, Step, Term, WorkerId};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use crate::exchange::PeerContent;
use crate::intake::{Content, Intake, Refusal};
use crate::outbox::Outbox;
use crate::peers::{self, Peers};
use crate::settings::Settings;
use crate::tokens::TokenClient;
use crate::trainer::{Trainer, TrainerError};

#[allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated; documented in training.proto"
)]
pub(crate) mod generated {
    include!(concat!(env!("OUT_DIR"), "/carousel.v1.rs"));
}
pub(crate) use generated::training_client::TrainingClient;

pub(crate) const MAX_MESSAGE_BYTES: usize = 4 << 20;
pub(crate) const FLOW_WINDOW_BYTES: u32 = 8 << 20;
/// Messages that may wait for the computation; the connection's flow control holds back the rest.
pub(crate) const WAITING_MESSAGES: usize = 64;
const KEEPALIVE: Duration = Duration::from_secs(10);
/// How long a coordinator may be out of reach before the worker gives up.
const PATIENCE: Duration = Duration::from_secs(300);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What a worker is told by whoever starts it.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// `http://HOST:PORT`.
    pub coordinator: String,
    /// Threads that compute.
    pub threads: usize,
}

/// Why a worker ended.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The address is none.
    #[error("--coordinator {address:?}: {source}; expected http://HOST:PORT")]
    Address {
        /// As given.
        address: String,
        /// What is wrong.
        source: tonic::transport::Error,
    },
    /// Nobody answered.
    #[error("no coordinator at {address} within {} s: {problem}", PATIENCE.as_secs())]
    Unreachable {
        /// Where.
        address: String,
        /// The last failure.
        problem: String,
    },
    /// The coordinator does not want this worker.
    #[error("the coordinator refused this worker: {0}")]
    Refused(String),
    /// The work itself failed.
    #[error(transparent)]
    Trainer(#[from] TrainerError),
    /// The machine gives no threads.
    #[error("starting threads: {0}")]
    Threads(String),
}

enum Outcome {
    Dismissed,
    Broken(String),
}

/// Works for a coordinator until it says that the run is over.
///
/// # Errors
/// When the coordinator cannot be reached for five minutes or refuses this worker, or the work fails.
pub fn work(options: &WorkerOptions) -> Result<(), WorkerError> {
    let threads = |error: &dyn std::fmt::Display| WorkerError::Threads(error.to_string());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|e| threads(&e))?;
    let pool =
        rayon::ThreadPoolBuilder::new().num_threads(options.threads).build().map_err(|e| threads(&e))?;
    let endpoint = endpoint(&options.coordinator)?;
    let (mut pause, mut reached) = (FIRST_PAUSE, Instant::now());
    loop {
        let problem = match connect(&runtime, &endpoint, options.threads) {
            Ok(session) => {
                (pause, reached) = (FIRST_PAUSE, Instant::now());
                match pool.install(|| serve(&runtime, session))? {
                    Outcome::Dismissed => return Ok(()),
                    Outcome::Broken(reason) => reason,
                }
            }
            Err(problem) => problem?,
        };
        if reached.elapsed() > PATIENCE {
            return Err(WorkerError::Unreachable { address: options.coordinator.clone(), problem });
        }
        tracing::info!("{}: {problem}; trying again in {pause:?}", options.coordinator);
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn endpoint(address: &str) -> Result<Endpoint, WorkerError> {
    let endpoint = Endpoint::from_shared(address.to_owned());
    let endpoint = endpoint.map_err(|source| WorkerError::Address { address: address.into(), source })?;
    Ok(endpoint
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(FLOW_WINDOW_BYTES)
        .initial_connection_window_size(FLOW_WINDOW_BYTES))
}

/// What reaches the thread that computes.
pub(crate) enum Mail {
    Coordinator(Result<FromCoordinator, Status>),
    Peer { worker: WorkerId, at: (Term, Step), content: PeerContent },
}

struct Session {
    client: TrainingClient<Channel>,
    listener: std::net::TcpListener,
    outbox: Outbox,
    inbound: Streaming<FromCoordinator>,
}

/// `Err(Ok(problem))`: worth another try; `Err(Err(_))`: not.
fn connect(
    runtime: &Runtime,
    endpoint: &Endpoint,
    threads: usize,
) -> Result<Session, Result<String, WorkerError>> {
    let (outbox, messages) = Outbox::new();
    let listener = peers::bind(endpoint.uri()).map_err(|error| Ok(error.to_string()))?;
    let address = listener.local_addr().map_err(|error| Ok(error.to_string()))?;
    let hello = Hello {
        protocol: PROTOCOL_VERSION,
        program_version: env!("CARGO_PKG_VERSION").into(),
        host: host(),
        process_id: std::process::id(),
        threads: threads as u32,
        exchange_address: address.to_string(),
    };
    outbox.send(Message::Hello(hello)).expect("the receiver is held here");
    let session = runtime.block_on(async {
        let channel = endpoint.connect().await.map_err(|e| Ok(root_cause(&e)))?;
        let mut client = TrainingClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let response = client.session(ReceiverStream::new(messages)).await.map_err(judge)?;
        Ok((client, response.into_inner()))
    });
    session.map(|(client, inbound)| Session { client, listener, outbox, inbound })
}

/// Whether a refusal is for good.
fn judge(status: Status) -> Result<String, WorkerError> {
    match status.code() {
        Code::FailedPrecondition | Code::InvalidArgument | Code::Unimplemented => {
            Err(WorkerError::Refused(status.message().into()))
        }
        _ => Ok(status.message().into()),
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "?".into(), |name| name.trim().into())
}

/// Carries one session: a task reads messages, this thread does what they say.
fn serve(runtime: &Runtime, session: Session) -> Result<Outcome, WorkerError> {
    let Session { client, listener, outbox, inbound } = session;
    let (sender, mut messages) = mpsc::channel(WAITING_MESSAGES);
    let most_bytes = peers::MostBytes::default();
    let served = peers::serve(runtime.handle(), listener, sender.clone(), most_bytes.clone());
    let serving = Aborting(served.map_err(|error| WorkerError::Threads(error.to_string()))?);
    runtime.spawn(read(inbound, sender));
    let leaving = Aborting(runtime.spawn(leave_on_sigterm(outbox.clone())).abort_handle());
    let _until_the_end = (serving, leaving);
    let mut intake = Intake::default();
    let mut tokens = Some(TokenClient::new(client, runtime.handle().clone()));
    let mut trainer: Option<Trainer> = None;
    loop {
        let message = match messages.blocking_recv() {
            Some(Mail::Coordinator(Ok(message))) => message,
            Some(Mail::Coordinator(Err(status))) => return Ok(Outcome::Broken(status.message().into())),
            Some(Mail::Peer { worker, at, content }) => {
                let received =
                    trainer.as_mut().map_or(Ok(()), |trainer| trainer.receive(at, worker, content));
                match received {
                    Ok(()) => continue,
                    Err(TrainerError::SessionOver) => {
                        return Ok(Outcome::Broken("the session is over".into()));
                    }
                    Err(error) => return Err(fail(&outbox, error)),
                }
            }
            None => return Ok(Outcome::Broken("the coordinator closed the session".into())),
        };
        let content = intake.accept(message).map_err(|refusal| fail(&outbox, refusal.into()))?;
        match content {
            None => {}
            Some(Content::Shutdown(shutdown)) if shutdown.rejoin => {
                return Ok(Outcome::Broken(shutdown.reason));
            }
            Some(Content::Shutdown(shutdown)) => {
                tracing::info!("the coordinator ended the session: {}", shutdown.reason);
                return Ok(Outcome::Dismissed);
            }
            Some(Content::Welcome(welcome)) => {
                let tokens = tokens.take().ok_or(WorkerError::Refused("a second Welcome".into()))?;
                let made = welcome.settings.map_or(Err(TrainerError::Refusal(Refusal::Empty)), |settings| {
                    let settings = Settings::try_from(settings)?;
                    intake.expect(&settings);
                    most_bytes.get_or_init(|| settings.most_gradient_bytes());
                    let own = WorkerId(welcome.worker_id);
                    let peers = Peers::new(own, runtime.handle().clone());
                    Trainer::new(settings, outbox.clone(), tokens, (own, peers))
                });
                trainer = Some(made.map_err(|error| fail(&outbox, error))?);
            }
            Some(content) => {
                let trainer = trainer.as_mut().ok_or(WorkerError::Refused("work before Welcome".into()))?;
                match trainer.handle(content) {
                    Ok(()) => {}
                    Err(TrainerError::SessionOver) => {
                        return Ok(Outcome::Broken("the session is over".into()));
                    }
                    Err(error) => return Err(fail(&outbox, error)),
                }
            }
        }
    }
}

/// SIGTERM: the lanes are handed over at the next boundary, and the coordinator then ends the session. A second one ends
/// the process at once.
async fn leave_on_sigterm(outbox: Outbox) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return tracing::warn!("SIGTERM cannot be caught here: it will end this worker at once");
    };
    terminate.recv().await;
    outbox.leave().await;
    terminate.recv().await;
    std::process::exit(143);
}

/// Ends a task with the session.
struct Aborting(tokio::task::AbortHandle);

impl Drop for Aborting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tells the coordinator why this worker gives up.
fn fail(outbox: &Outbox, error: TrainerError) -> WorkerError {
    if outbox.send(Message::Failure(Failure { message: error.to_string() })).is_err() {
        tracing::debug!("the coordinator was gone already");
    }
    // The message goes out on the reactor's thread; without this the process could end before it.
    std::thread::sleep(Duration::from_millis(100));
    error.into()
}

async fn read(mut inbound: Streaming<FromCoordinator>, sender: mpsc::Sender<Mail>) {
    while let Some(message) = inbound.next().await {
        if sender.send(Mail::Coordinator(message)).await.is_err() {
            return;
        }
    }
    let closed = Status::unavailable("the coordinator closed the session");
    if sender.send(Mail::Coordinator(Err(closed))).await.is_err() {
        tracing::debug!("the session was over already");
    }
}
