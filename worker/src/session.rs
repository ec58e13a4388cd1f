//! A worker's connection to its coordinator: reach it, introduce itself, carry messages to and from the thread that
//! computes. A session that breaks is followed by a new one, as a newcomer.

use std::time::Duration;

use carousel_proto::v1::{
    ChallengeRequest, FromCoordinator, FromWorker, Held, Hello, PullReply, PullRequest, from_worker::Message,
};
use carousel_proto::{MAX_MESSAGE_BYTES, PROTOCOL_VERSION, Step, Term, WorkerId};
use carousel_security::{Connector, Door, FLOW_WINDOW_BYTES, KEEPALIVE, Role, Token, root_cause};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use crate::departure;
use crate::exchange::PeerContent;
use crate::news::News;
use crate::outbox::Outbox;
use crate::peers;
use crate::protocol::Fault;
use crate::tokens::TokenOpener;
use crate::trainer::TrainerError;
use crate::worker::{Parted, Worker};

#[allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::all,
    clippy::too_many_lines,
    clippy::allow_attributes_without_reason,
    reason = "generated; documented in training.proto"
)]
pub(crate) mod generated {
    include!(concat!(env!("OUT_DIR"), "/carousel.v1.rs"));
}
pub(crate) use generated::training_client::TrainingClient;

/// Messages that may wait for the computation, a quarter of a megabyte each at the most but for a few; the connection's flow
/// control holds back the rest.
pub(crate) const WAITING_MESSAGES: usize = 256;

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
    /// Hears what happens to the worker.
    pub tell: fn(News<'_>),
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
    /// Nobody answered for too long.
    #[error(
        "{address}: no coordinator was reached within {} s ({problem}); start it, correct --coordinator, or --wait longer",
        waited.as_secs()
    )]
    Unreachable {
        /// Where.
        address: String,
        /// As long as the options say.
        waited: Duration,
        /// What went wrong the last time.
        problem: String,
    },
    /// The run ended before its end. Whoever keeps workers running starts this one again.
    #[error("{0}; it may go on: start this worker again when it does")]
    Unfinished(String),
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
    let leaving = departure::watch(&runtime);
    let mut has_told = false;
    while !*leaving.borrow() {
        let parted = match connect(&runtime, &endpoint, options, worker.held()) {
            Ok(session) => {
                has_told = false;
                pool.install(|| worker.serve(&runtime, session, leaving.clone()))?
            }
            Err(problem) => Parted::lost(&problem?),
        };
        let Parted { event, reason, unfinished } = parted;
        let pause = worker.part(event).map_err(|error| explained(error, &options.coordinator, &reason))?;
        let Some(pause) = pause else {
            if unfinished {
                return Err(WorkerError::Unfinished(reason));
            }
            (options.tell)(News::Over(&reason));
            return Ok(());
        };
        if !std::mem::replace(&mut has_told, true) {
            (options.tell)(News::Waiting(&reason));
        }
        tracing::info!("{}: {reason}; trying again in {pause:?}", options.coordinator);
        std::thread::sleep(pause);
    }
    Ok(())
}

/// Who waited in vain is told where, and for what.
fn explained(error: WorkerError, address: &str, problem: &str) -> WorkerError {
    match error {
        WorkerError::Trainer(TrainerError::Protocol(Fault::Unreachable(waited))) => {
            WorkerError::Unreachable { address: address.into(), waited, problem: problem.into() }
        }
        error => error,
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
        host: host_name(),
        process_id: std::process::id(),
        threads: options.threads as u32,
        exchange_address: address.to_string(),
        held,
    };
    outbox.send(Message::Hello(hello)).expect("the receiver is held here");
    let session = runtime.block_on(async {
        let connector = Connector::new(options.door.clone(), Role::Coordinator);
        let begun = begin(endpoint, connector.clone(), options.join_token.as_ref(), messages).await;
        // What TLS has against the other side is for good; that nobody is there is not.
        begun.map_err(|problem| connector.fault().map_or(problem, |fault| Err(WorkerError::Refused(fault))))
    });
    session.map(|(client, inbound)| Session { client, listener, outbox, inbound })
}

/// Connects, answers the coordinator's challenge where it makes one, and begins the session.
async fn begin(
    endpoint: &Endpoint,
    connector: Connector,
    token: Option<&Token>,
    messages: mpsc::Receiver<FromWorker>,
) -> Result<(TrainingClient<Channel>, Streaming<FromCoordinator>), Result<String, WorkerError>> {
    let channel = endpoint.connect_with_connector(connector).await.map_err(|e| Ok(root_cause(&e)))?;
    let mut client = TrainingClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let mut session = Request::new(ReceiverStream::new(messages));
    if let Some(token) = token {
        let challenge = client.challenge(ChallengeRequest {}).await.map_err(judge)?.into_inner().nonce;
        if !challenge.is_empty() {
            token.answer_in(&mut session, &challenge).map_err(judge)?;
        }
    }
    let response = client.session(session).await.map_err(judge)?;
    Ok((client, response.into_inner()))
}

/// Whether a refusal is for good.
fn judge(status: Status) -> Result<String, WorkerError> {
    match status.code() {
        Code::FailedPrecondition
        | Code::InvalidArgument
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented => Err(WorkerError::Refused(status.message().into())),
        _ => Ok(status.message().into()),
    }
}

/// How this machine is called: what a worker tells its coordinator.
#[must_use]
pub fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "?".into(), |name| name.trim().into())
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
