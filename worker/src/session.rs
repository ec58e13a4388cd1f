//! A worker's connection to its coordinator: reach it, introduce itself, carry messages to and from the thread that
//! computes. A session that breaks is followed by a new one, as a newcomer.

use std::time::Duration;

use carousel_proto::v1::ChallengeRequest;
use carousel_proto::v1::{FromCoordinator, Held, Hello, PullReply, PullRequest, from_worker::Message};
use carousel_proto::{PROTOCOL_VERSION, Step, Term, WorkerId};
use carousel_security::{Connector, Door, Role, Token, refusal};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use crate::exchange::PeerContent;
use crate::outbox::Outbox;
use crate::peers;
use crate::protocol::Event;
use crate::tokens::TokenOpener;
use crate::trainer::TrainerError;
use crate::worker::{Parted, Worker};

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
/// Messages that may wait for the computation, a quarter of a megabyte each at the most but for a few; the connection's flow
/// control holds back the rest.
pub(crate) const WAITING_MESSAGES: usize = 256;
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Where a session carries a challenge and its answer.
const JOIN_METADATA: &str = "carousel-join-bin";

/// What a worker is told by whoever starts it.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// `http://HOST:PORT`.
    pub coordinator: String,
    /// Threads that compute.
    pub threads: usize,
    /// What opens token files, for runs whose workers read them by themselves.
    pub tokens: TokenOpener,
    /// How the coordinator and other workers are reached, and let in.
    pub door: Door,
    /// Shown to a coordinator that asks for it.
    pub join_token: Option<Token>,
    /// How long no coordinator may answer before the worker gives up.
    pub patience: Duration,
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

/// Works for a coordinator until it says that the run is over.
///
/// # Errors
/// When the coordinator cannot be reached for as long as the options say, or refuses this worker, or the work fails.
pub fn work(options: &WorkerOptions) -> Result<(), WorkerError> {
    let threads = |error: &dyn std::fmt::Display| WorkerError::Threads(error.to_string());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|e| threads(&e))?;
    let pool =
        rayon::ThreadPoolBuilder::new().num_threads(options.threads).build().map_err(|e| threads(&e))?;
    let endpoint = endpoint(&options.coordinator)?;
    let mut worker = Worker::new(options);
    loop {
        let parted = match connect(&runtime, &endpoint, options, worker.held()) {
            Ok(session) => pool.install(|| worker.serve(&runtime, session))?,
            Err(problem) => Parted { event: Event::SessionLost, reason: problem? },
        };
        let Some(pause) = worker.part(parted.event)? else { return Ok(()) };
        tracing::info!("{}: {}; trying again in {pause:?}", options.coordinator, parted.reason);
        std::thread::sleep(pause);
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
    Coordinator(Box<Result<FromCoordinator, Status>>),
    /// A newcomer wants a part of the replica.
    Pull {
        request: PullRequest,
        reply: oneshot::Sender<Option<PullReply>>,
    },
    Peer {
        worker: WorkerId,
        at: (Term, Step),
        content: PeerContent,
    },
}

pub(crate) struct Session {
    pub client: TrainingClient<Channel>,
    pub listener: std::net::TcpListener,
    pub outbox: Outbox,
    pub inbound: Streaming<FromCoordinator>,
}

/// `Err(Ok(problem))`: worth another try; `Err(Err(_))`: not.
fn connect(
    runtime: &Runtime,
    endpoint: &Endpoint,
    options: &WorkerOptions,
    held: Option<Held>,
) -> Result<Session, Result<String, WorkerError>> {
    let (outbox, messages) = Outbox::new();
    let listener = peers::bind(endpoint.uri()).map_err(|error| Ok(error.to_string()))?;
    let address = listener.local_addr().map_err(|error| Ok(error.to_string()))?;
    let hello = Hello {
        protocol: PROTOCOL_VERSION,
        program_version: env!("CARGO_PKG_VERSION").into(),
        host: host(),
        process_id: std::process::id(),
        threads: options.threads as u32,
        exchange_address: address.to_string(),
        held,
    };
    outbox.send(Message::Hello(hello)).expect("the receiver is held here");
    let connector = Connector::new(options.door.clone(), Role::Coordinator);
    let session = runtime.block_on(async {
        let channel =
            endpoint.connect_with_connector(connector.clone()).await.map_err(|e| judge_error(&e))?;
        let mut client = TrainingClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let mut request = Request::new(ReceiverStream::new(messages));
        answer(&mut client, options.join_token.as_ref(), &mut request).await?;
        let response = client.session(request).await.map_err(judge)?;
        Ok((client, response.into_inner()))
    });
    let session = session.map_err(|problem| match connector.refusal() {
        Some(refused) => Err(WorkerError::Refused(refused)),
        None => problem,
    });
    session.map(|(client, inbound)| Session { client, listener, outbox, inbound })
}

/// Answers the coordinator's challenge, where it makes one.
async fn answer<T>(
    client: &mut TrainingClient<Channel>,
    token: Option<&Token>,
    request: &mut Request<T>,
) -> Result<(), Result<String, WorkerError>> {
    let Some(token) = token else { return Ok(()) };
    let challenge = client.challenge(ChallengeRequest {}).await.map_err(judge)?.into_inner();
    let Ok(nonce) = challenge.nonce[..].try_into() else { return Ok(()) };
    let proof = MetadataValue::from_bytes(&[nonce, token.answer(&nonce)].concat());
    request.metadata_mut().insert_bin(JOIN_METADATA, proof);
    Ok(())
}

/// What TLS has against the other side is for good; that nobody is there is not.
fn judge_error(error: &(dyn std::error::Error + 'static)) -> Result<String, WorkerError> {
    match refusal(error) {
        Some(refusal) => Err(WorkerError::Refused(refusal)),
        None => Ok(root_cause(error)),
    }
}

/// Whether a refusal is for good.
fn judge(status: Status) -> Result<String, WorkerError> {
    if let Some(refusal) = refusal(&status) {
        return Err(WorkerError::Refused(refusal));
    }
    match status.code() {
        Code::FailedPrecondition
        | Code::InvalidArgument
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented => Err(WorkerError::Refused(status.message().into())),
        _ => Ok(std::error::Error::source(&status).map_or_else(|| status.message().into(), root_cause)),
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

/// SIGTERM: the lanes are handed over at the next boundary, and the coordinator then ends the session. A second one ends
/// the process at once.
pub(crate) async fn leave_on_sigterm(outbox: Outbox) {
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
pub(crate) struct Aborting(pub tokio::task::AbortHandle);

impl Drop for Aborting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) async fn read(mut inbound: Streaming<FromCoordinator>, sender: mpsc::Sender<Mail>) {
    while let Some(message) = inbound.next().await {
        if sender.send(Mail::Coordinator(message.into())).await.is_err() {
            return;
        }
    }
    let closed = Status::unavailable("the coordinator closed the session");
    if sender.send(Mail::Coordinator(Box::new(Err(closed)))).await.is_err() {
        tracing::debug!("the session was over already");
    }
}
