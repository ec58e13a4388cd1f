//! A client of a running coordinator, for whoever looks after the run. It blocks, and gives up within seconds where nobody
//! answers. It prints nothing.

use std::error::Error;
use std::time::Duration;

use carousel_proto::PROTOCOL_VERSION;
use carousel_proto::v1::{
    CheckpointRequest, Client, DrainReply, DrainRequest, LastCheckpoint, RunStatus, StatusRequest,
    StopRequest,
};
use carousel_security::{Connector, Door, Role, root_cause};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::server::generated::operations_client::OperationsClient;

/// How long the way to the coordinator may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take that needs nobody's work.
const ANSWER: Duration = Duration::from_secs(5);
/// Longer than the coordinator's own patience: it says itself what was not done.
const WORK: Duration = Duration::from_secs(630);
/// A status of ten thousand workers is smaller.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// Why an operator did not get what was asked.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The address is none.
    #[error("{address:?} is no address: {problem}; expected HOST:PORT")]
    Address {
        /// As given.
        address: String,
        /// What is wrong.
        problem: String,
    },
    /// Nobody is there.
    #[error(
        "{address}: no coordinator can be reached there: {problem}; expected the address that it printed as \"listening\""
    )]
    Unreachable {
        /// Where.
        address: String,
        /// What went wrong.
        problem: String,
    },
    /// Somebody is there who does not speak as a coordinator does.
    #[error("{address}: what answers there is no Carousel coordinator ({problem})")]
    NotACoordinator {
        /// Where.
        address: String,
        /// What went wrong.
        problem: String,
    },
    /// Nobody answers in time.
    #[error("{address}: no answer within {} s; what listens there is no Carousel coordinator, or hangs", waited.as_secs())]
    Silent {
        /// Where.
        address: String,
        /// For how long it was waited.
        waited: Duration,
    },
    /// The coordinator does not grant it.
    #[error("{address}: {reason}")]
    Refused {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
    /// It may be granted another time.
    #[error("{address}: {reason}")]
    NotNow {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
    /// The machine gives no threads.
    #[error("starting the client: {0}")]
    Threads(#[source] std::io::Error),
}

/// A connection to a coordinator.
#[derive(Debug)]
pub struct Operator {
    runtime: Runtime,
    client: OperationsClient<Channel>,
    connector: Connector,
    address: String,
}

impl Operator {
    /// Connects to a coordinator, `HOST:PORT`, through a door.
    ///
    /// # Errors
    /// When the address is none, or nobody listens there.
    pub fn connect(address: &str, door: Door) -> Result<Self, OperatorError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(OperatorError::Threads)?;
        let connector = Connector::new(door, Role::Coordinator);
        let channel = runtime.block_on(open(address, &connector))?;
        let client = OperationsClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        Ok(Self { runtime, client, connector, address: address.into() })
    }

    /// How the run is.
    ///
    /// # Errors
    /// When the coordinator does not answer.
    pub fn status(&mut self) -> Result<RunStatus, OperatorError> {
        let request = Request::new(StatusRequest { client: introduction() });
        self.finish(ANSWER, async |client| client.status(request).await)
    }

    /// Has a worker, by number, or all of a host, hand their lanes over and go; waits until they have.
    ///
    /// # Errors
    /// When there is no such worker, or it is the last and `even_the_last` is not given.
    pub fn drain(&mut self, worker: &str, even_the_last: bool) -> Result<DrainReply, OperatorError> {
        let request =
            Request::new(DrainRequest { client: introduction(), worker: worker.into(), even_the_last });
        self.finish(WORK, async |client| client.drain(request).await)
    }

    /// Has the run save a checkpoint at the next boundary; waits until it is on disk.
    ///
    /// # Errors
    /// When it cannot be made or written.
    pub fn checkpoint(&mut self) -> Result<LastCheckpoint, OperatorError> {
        let request = Request::new(CheckpointRequest { client: introduction() });
        let reply = self.finish(WORK, async |client| client.checkpoint_now(request).await)?;
        Ok(reply.checkpoint.unwrap_or_default())
    }

    /// Ends the run after the step under way, at a checkpoint. Gives the step at which the wish was passed on.
    ///
    /// # Errors
    /// When the coordinator does not answer.
    pub fn stop(&mut self) -> Result<u64, OperatorError> {
        let request = Request::new(StopRequest { client: introduction() });
        Ok(self.finish(WORK, async |client| client.stop(request).await)?.step)
    }

    fn finish<T>(
        &mut self,
        patience: Duration,
        ask: impl AsyncFnOnce(&mut OperationsClient<Channel>) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T, OperatorError> {
        let Self { runtime, client, connector, address } = self;
        let asked = runtime.block_on(async { tokio::time::timeout(patience, ask(client)).await });
        let silent = |_| OperatorError::Silent { address: address.clone(), waited: patience };
        let answered = asked.map_err(silent)?.map(tonic::Response::into_inner);
        answered.map_err(|status| match connector.fault() {
            Some(reason) => OperatorError::Refused { address: address.clone(), reason },
            None => judge(address, &status),
        })
    }
}

fn introduction() -> Option<Client> {
    Some(Client { protocol: PROTOCOL_VERSION, program_version: env!("CARGO_PKG_VERSION").into() })
}

/// The one place where an operator's connection is opened.
async fn open(address: &str, connector: &Connector) -> Result<Channel, OperatorError> {
    let wrong = |problem: String| OperatorError::Address { address: address.into(), problem };
    // The door decides whether there is TLS; tonic only wants an address.
    let bare = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://"));
    let url = format!("http://{}", bare.unwrap_or(address));
    let endpoint = Endpoint::from_shared(url).map_err(|error| wrong(root_cause(&error)))?;
    let uri = endpoint.uri();
    if uri.host().is_none_or(str::is_empty) || uri.port_u16().is_none() {
        return Err(wrong("host or port is missing".into()));
    }
    let endpoint = endpoint.tcp_nodelay(true).connect_timeout(CONNECT);
    let connecting = endpoint.connect_with_connector(connector.clone());
    let unreachable = |problem| OperatorError::Unreachable { address: address.into(), problem };
    match tokio::time::timeout(CONNECT, connecting).await {
        Ok(connected) => {
            connected.map_err(|error| unreachable(connector.fault().unwrap_or_else(|| root_cause(&error))))
        }
        Err(_) => Err(unreachable(format!("no connection within {} s", CONNECT.as_secs()))),
    }
}

/// What a refusal means.
fn judge(address: &str, status: &Status) -> OperatorError {
    let (address, reason) = (address.to_owned(), status.message().to_owned());
    match status.code() {
        Code::FailedPrecondition | Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument => {
            OperatorError::Refused { address, reason }
        }
        Code::Unavailable if status.source().is_none() => OperatorError::NotNow { address, reason },
        Code::DeadlineExceeded | Code::ResourceExhausted => OperatorError::NotNow { address, reason },
        Code::Unimplemented => OperatorError::NotACoordinator {
            address,
            problem: "it knows no such request: another service, or a coordinator of an older version".into(),
        },
        _ => {
            let problem = status.source().map_or(reason, root_cause);
            OperatorError::NotACoordinator { address, problem }
        }
    }
}
