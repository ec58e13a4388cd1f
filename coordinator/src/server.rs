//! The gRPC side: a session for each worker and the token service. It checks and passes on; it decides nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use carousel_proto::v1::{
    ChallengeReply, ChallengeRequest, DepositEnd, FromCoordinator, FromDepositor, FromWorker, Hello,
    WindowReply, WindowRequest, from_worker,
};
use carousel_proto::{PROTOCOL_VERSION, WorkerId};
use carousel_security::{Gate, Peer};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::admission::{Admission, Place};
use crate::append::Change;
use crate::deposit::{Deposit, DepositError, Depositor};
use crate::intake::{Content, Intake, Limits};
use crate::operations::Wish;
use crate::outbox::{Outbox, PARTING, Watch, most_waiting, outbox};
use crate::tokens::{TokenSource, WindowError};

#[allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::all,
    clippy::too_many_lines,
    clippy::allow_attributes_without_reason,
    reason = "generated; documented in the proto files"
)]
pub(crate) mod generated {
    include!(concat!(env!("OUT_DIR"), "/carousel.v1.rs"));
}
use generated::training_server::Training;
pub(crate) use generated::training_server::TrainingServer;

/// A client that connects and says nothing is cut off after this long.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);

/// What the sessions and the user tell the driver.
#[derive(Debug)]
pub(crate) enum Notice {
    Joined {
        worker: WorkerId,
        hello: Hello,
        outbox: Outbox,
    },
    Said {
        worker: WorkerId,
        content: Content,
    },
    Gone {
        worker: WorkerId,
        reason: String,
    },
    /// Something of a replica's copy has come.
    Heard {
        worker: WorkerId,
    },
    Deposited(Deposit),
    /// An operator's wish, with who waits for the answer.
    Wish(Wish),
    /// Something of the bucket that the run is kept in.
    Mirrored(Change),
    Stop,
    Abort {
        reason: String,
    },
}

/// The service behind [`TrainingServer`].
#[derive(Debug)]
pub(crate) struct Service {
    pub notices: mpsc::Sender<Notice>,
    pub tokens: Arc<TokenSource>,
    pub limits: Arc<Limits>,
    pub next_worker: AtomicU64,
    /// Who joins.
    pub gate: Gate,
    /// How much at once.
    pub admission: Admission,
}

#[tonic::async_trait]
impl Training for Service {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<FromCoordinator, Status>> + Send>>;

    async fn challenge(&self, _: Request<ChallengeRequest>) -> Result<Response<ChallengeReply>, Status> {
        let nonce = self.gate.challenge().map(|nonce| nonce.to_vec().into());
        Ok(Response::new(ChallengeReply { nonce: nonce.unwrap_or_default() }))
    }

    async fn session(
        &self,
        request: Request<Streaming<FromWorker>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        self.gate.join(&request)?;
        let peer = Peer::of(&request)?;
        let place = self.admission.session(&peer)?;
        let mut inbound = request.into_inner();
        let hello = hello(&mut inbound).await?;
        let worker = WorkerId(self.next_worker.fetch_add(1, Ordering::Relaxed));
        let (outbox, messages, watch) = outbox(most_waiting(&self.limits));
        let joined = Notice::Joined { worker, hello, outbox };
        self.notices.send(joined).await.map_err(|_| Status::unavailable("the run is over"))?;
        let session = Session { worker, peer, watch, notices: self.notices.clone(), _place: place };
        tokio::spawn(session.listen(inbound, Intake::new(self.limits.clone())));
        Ok(Response::new(Box::pin(messages)))
    }

    async fn deposit(
        &self,
        request: Request<Streaming<FromDepositor>>,
    ) -> Result<Response<DepositEnd>, Status> {
        self.gate.beside(&request)?;
        let _place = self.admission.deposit(&Peer::of(&request)?)?;
        let refuse = |error: DepositError| Status::invalid_argument(error.to_string());
        let over = |_| Status::unavailable("the run is over");
        let mut inbound = request.into_inner();
        let mut depositor = Depositor::new(inbound.next().await.transpose()?).map_err(refuse)?;
        let said = loop {
            let message =
                inbound.next().await.ok_or_else(|| Status::invalid_argument("no end of the replica"))??;
            if let Some(said) = depositor.accept(message, &self.limits.layout).map_err(refuse)? {
                break said;
            }
            self.notices.send(Notice::Heard { worker: depositor.worker }).await.map_err(over)?;
        };
        let limits = self.limits.clone();
        let checked = tokio::task::spawn_blocking(move || depositor.finish(said, &limits.layout)).await;
        let deposit = checked.map_err(|error| Status::internal(error.to_string()))?.map_err(refuse)?;
        self.notices.send(Notice::Deposited(deposit)).await.map_err(over)?;
        Ok(Response::new(DepositEnd {}))
    }

    async fn fetch_windows(&self, request: Request<WindowRequest>) -> Result<Response<WindowReply>, Status> {
        self.gate.beside(&request)?;
        let _turn = self.admission.request().await?;
        let (tokens, request) = (self.tokens.clone(), request.into_inner());
        let reply = if tokens.is_on_disk() {
            let read = tokio::task::spawn_blocking(move || tokens.windows(&request)).await;
            read.map_err(|error| Status::internal(error.to_string()))?
        } else {
            tokens.windows(&request)
        };
        reply.map(Response::new).map_err(|error| match error {
            WindowError::Read(_) => Status::data_loss(error.to_string()),
            _ => Status::out_of_range(error.to_string()),
        })
    }
}

/// Whether the other end speaks this program's protocol; else both versions are named: what it says might mean something else
/// here.
pub(crate) fn check_version(who: &str, program_version: &str, protocol: u32) -> Result<(), Status> {
    if protocol == PROTOCOL_VERSION {
        return Ok(());
    }
    let (ours, theirs) = (env!("CARGO_PKG_VERSION"), program_version.chars().filter(|c| !c.is_control()));
    let theirs: String = theirs.take(40).collect();
    Err(Status::failed_precondition(format!(
        "this coordinator (carousel {ours}) speaks protocol {PROTOCOL_VERSION}, the {who} (carousel {theirs}) speaks {protocol}; \
         run the same program at both ends"
    )))
}

/// The first message, which must be a Hello of this program's protocol.
async fn hello(inbound: &mut Streaming<FromWorker>) -> Result<Hello, Status> {
    let first = tokio::time::timeout(HELLO_PATIENCE, inbound.next()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("expected Hello within 10 s, found nothing"))?;
    checked_hello(first.ok_or_else(|| Status::invalid_argument("expected Hello, found the end"))??)
}

/// A longer name of a host or an address is none: it would be kept, shown, and told to every worker.
const MOST_NAME_BYTES: usize = 300;

/// The Hello that a first message must be.
pub(crate) fn checked_hello(message: FromWorker) -> Result<Hello, Status> {
    let Some(from_worker::Message::Hello(hello)) = message.message else {
        return Err(Status::invalid_argument("expected Hello as the first message"));
    };
    check_version("worker", &hello.program_version, hello.protocol)?;
    for (name, text) in [("host", &hello.host), ("exchange_address", &hello.exchange_address)] {
        if text.len() > MOST_NAME_BYTES || text.chars().any(char::is_control) {
            let found = format!("{name} of {} bytes in Hello", text.len());
            return Err(Status::invalid_argument(format!(
                "{found}, expected at most {MOST_NAME_BYTES} and no control characters"
            )));
        }
    }
    Ok(hello)
}

/// A worker's session after its Hello.
struct Session {
    worker: WorkerId,
    peer: Peer,
    watch: Watch,
    notices: mpsc::Sender<Notice>,
    _place: Place,
}

impl Session {
    /// Passes what the worker says on until its stream ends, a message is refused, or it has to go. A worker that does not
    /// take its leave is cut off: HTTP/2 would keep the stream of who does not read for as long as the connection lives.
    async fn listen(self, inbound: Streaming<FromWorker>, intake: Intake) {
        let worker = self.worker;
        let reason = tokio::select! {
            reason = self.take_in(inbound, intake) => reason,
            reason = self.watch.overstays() => {
                self.peer.hang_up();
                reason
            }
        };
        if self.notices.send(Notice::Gone { worker, reason }).await.is_err() {
            tracing::debug!("{worker} left after the run was over");
        }
        if tokio::time::timeout(PARTING, self.watch.ended()).await.is_err() {
            self.peer.hang_up();
        }
    }

    /// Takes in checked messages until there are no more; gives the reason.
    async fn take_in(&self, mut inbound: Streaming<FromWorker>, mut intake: Intake) -> String {
        loop {
            let message = match inbound.next().await {
                None => return "it left".to_owned(),
                Some(Err(status)) => return format!("the connection broke: {}", status.message()),
                Some(Ok(message)) => message,
            };
            match intake.accept(message) {
                Ok(None) => {}
                Ok(Some(content)) => {
                    let said = Notice::Said { worker: self.worker, content };
                    if self.notices.send(said).await.is_err() {
                        return "the run is over".to_owned();
                    }
                }
                Err(refusal) => return format!("it sent what does not fit: {refusal}"),
            }
        }
    }
}

#[cfg(test)]
mod sessions;
#[cfg(test)]
mod tests {
    use super::*;

    fn refused(hello: Hello) -> Option<String> {
        let message = FromWorker { message: Some(from_worker::Message::Hello(hello)) };
        checked_hello(message).err().map(|status| status.message().to_owned())
    }

    #[test]
    fn names_in_a_hello_are_short_and_plain() {
        let hello = || Hello { protocol: PROTOCOL_VERSION, host: "here".into(), ..Hello::default() };
        let address = |address: String| Hello { exchange_address: address, ..hello() };
        assert_eq!(refused(address("10.0.0.1:7700".into())), None);
        assert_eq!(refused(Hello { host: "h".repeat(MOST_NAME_BYTES), ..hello() }), None);
        let long = refused(Hello { host: "h".repeat(MOST_NAME_BYTES + 1), ..hello() });
        assert!(long.is_some_and(|why| why.contains("host of 301 bytes")));
        let torn = refused(address("10.0.0.1:7700\nrefused".into()));
        assert!(torn.is_some_and(|why| why.contains("exchange_address of 21 bytes")));
    }
}
