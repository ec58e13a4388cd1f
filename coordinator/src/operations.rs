//! The gRPC side for operators. Looking is answered from the board; a wish goes to the driver, which answers it between two
//! events. Nobody waits for ever, and few wait at once.
//!
//! Who may call: `Status` everybody with a certificate; `Drain`, `CheckpointNow` and `Stop` operators alone.

use std::sync::Arc;
use std::time::Duration;

use carousel_proto::v1::{
    CheckpointReply, CheckpointRequest, Client, DrainReply, DrainRequest, LastCheckpoint, RunStatus,
    StatusRequest, StopReply, StopRequest,
};
use carousel_security::{Allowed, Role};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tonic::{Request, Response, Status};

use crate::board::Board;
use crate::server::generated::operations_server::Operations;
pub(crate) use crate::server::generated::operations_server::OperationsServer;
use crate::server::{Notice, check_version};

/// Longer than a boundary, or a checkpoint, ever takes to come.
const PATIENCE: Duration = Duration::from_secs(600);
/// Wishes under way at once; further ones are refused.
pub(crate) const MOST_WISHES: usize = 32;
/// No request is larger.
pub(crate) const MAX_REQUEST_BYTES: usize = 4096;

/// Where the answer to a wish goes; `Err` says why not.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, Refusal>>;

/// Why a wish is not granted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Refusal {
    /// There is no such worker.
    #[error("no worker {asked:?} is here; {}", those_here(.present))]
    UnknownWorker { asked: String, present: Vec<String> },
    /// Nobody would be left.
    #[error(
        "draining {asked:?} would leave no worker, and the run would stand still until one joins; \
         start another worker first, or give --force"
    )]
    LastWorker { asked: String },
    /// Nobody holds the state that a checkpoint is made of.
    #[error("nothing to save: {0}")]
    NothingToSave(&'static str),
    /// The disk, most likely.
    #[error("the checkpoint of step {step} could not be written: {problem}")]
    Unsaved { step: u64, problem: String },
    /// The run went back.
    #[error("every replica was lost and the run goes back to its last checkpoint")]
    WentBack,
}

fn those_here(present: &[String]) -> String {
    match present {
        [] => "none is".into(),
        present => format!("those here are {}", present.join(", ")),
    }
}

/// What an operator wants of the driver.
#[derive(Debug)]
pub(crate) enum Wish {
    Drain { worker: String, even_the_last: bool, answer: Answer<DrainReply> },
    Checkpoint { answer: Answer<LastCheckpoint> },
}

/// The service behind [`OperationsServer`].
#[derive(Debug)]
pub(crate) struct Desk {
    notices: mpsc::Sender<Notice>,
    board: Arc<Board>,
    room: Semaphore,
}

impl Desk {
    pub(crate) fn new(notices: mpsc::Sender<Notice>, board: Arc<Board>) -> Self {
        Self { notices, board, room: Semaphore::new(MOST_WISHES) }
    }

    async fn notify(&self, notice: Notice) -> Result<(), Status> {
        self.notices.send(notice).await.map_err(|_| over())
    }

    /// Passes a wish on and waits for the answer, within limits.
    async fn ask<T>(&self, wish: impl FnOnce(Answer<T>) -> Wish) -> Result<T, Status> {
        let full = |_| Status::resource_exhausted(format!("{MOST_WISHES} requests wait already"));
        let _place = self.room.try_acquire().map_err(full)?;
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.notify(Notice::Wish(wish(answer))).await?;
            answered.await.map_err(|_| over())
        };
        let answered = tokio::time::timeout(PATIENCE, asked).await;
        let late = || {
            Status::deadline_exceeded(format!(
                "not done within {} s; it is still under way",
                PATIENCE.as_secs()
            ))
        };
        answered.map_err(|_| late())??.map_err(|refusal| Status::failed_precondition(refusal.to_string()))
    }
}

fn over() -> Status {
    Status::unavailable("the run is over")
}

fn check(client: Option<Client>) -> Result<(), Status> {
    let Client { protocol, program_version } = client.unwrap_or_default();
    check_version("client", &program_version, protocol)
}

#[tonic::async_trait]
impl Operations for Desk {
    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<RunStatus>, Status> {
        Allowed::roles(&Role::ALL).check(&request)?;
        check(request.into_inner().client)?;
        Ok(Response::new(self.board.read().status()))
    }

    async fn drain(&self, request: Request<DrainRequest>) -> Result<Response<DrainReply>, Status> {
        Allowed::roles(&[Role::Operator]).check(&request)?;
        let DrainRequest { client, worker, even_the_last } = request.into_inner();
        check(client)?;
        self.ask(|answer| Wish::Drain { worker, even_the_last, answer }).await.map(Response::new)
    }

    async fn checkpoint_now(
        &self,
        request: Request<CheckpointRequest>,
    ) -> Result<Response<CheckpointReply>, Status> {
        Allowed::roles(&[Role::Operator]).check(&request)?;
        check(request.into_inner().client)?;
        let checkpoint = self.ask(|answer| Wish::Checkpoint { answer }).await?;
        Ok(Response::new(CheckpointReply { checkpoint: Some(checkpoint) }))
    }

    async fn stop(&self, request: Request<StopRequest>) -> Result<Response<StopReply>, Status> {
        Allowed::roles(&[Role::Operator]).check(&request)?;
        check(request.into_inner().client)?;
        let step = self.board.read().step;
        let passed_on = tokio::time::timeout(Duration::from_secs(30), self.notify(Notice::Stop)).await;
        passed_on.map_err(|_| Status::deadline_exceeded("the coordinator does not come round"))??;
        Ok(Response::new(StopReply { step }))
    }
}

#[cfg(test)]
mod tests {
    use carousel_proto::PROTOCOL_VERSION;

    use super::*;

    #[test]
    fn a_client_of_another_protocol_is_told_both_versions_and_nothing_it_made_up() {
        let client = |protocol, version: &str| Some(Client { protocol, program_version: version.into() });
        assert!(check(client(PROTOCOL_VERSION, "9.9.9")).is_ok(), "the program's version does not matter");
        let refused = check(client(
            PROTOCOL_VERSION + 1,
            "9.9.9\u{1b}[2J and that is all that fits, and so on and so on",
        ))
        .unwrap_err();
        let told = refused.message();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        assert!(
            told.contains(&format!("speaks protocol {PROTOCOL_VERSION}, the client (carousel 9.9.9")),
            "{told}"
        );
        assert!(told.contains(&format!("speaks {}; ", PROTOCOL_VERSION + 1)), "{told}");
        assert!(!told.contains('\u{1b}') && !told.contains("so on and so on"), "{told}");
        assert!(check(None).is_err(), "who says nothing is of no protocol");
    }

    #[test]
    fn refusals_name_those_who_are_here() {
        let refusal = |present| Refusal::UnknownWorker { asked: "7".into(), present }.to_string();
        assert_eq!(refusal(vec![]), "no worker \"7\" is here; none is");
        assert_eq!(
            refusal(vec!["1 on a".into(), "2 on b".into()]),
            "no worker \"7\" is here; those here are 1 on a, 2 on b"
        );
    }
}
