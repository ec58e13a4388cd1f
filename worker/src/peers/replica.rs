//! Hands parts of this worker's replica out to newcomers. It checks and passes on: the thread that computes has the replica.

use carousel_proto::MAX_MESSAGE_BYTES;
use carousel_proto::v1::{PullReply, PullRequest};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status};

use crate::session::Mail;
use crate::session::generated::replica_server;

pub(super) struct Server {
    pub mail: mpsc::Sender<Mail>,
}

#[tonic::async_trait]
impl replica_server::Replica for Server {
    async fn pull(&self, request: Request<PullRequest>) -> Result<Response<PullReply>, Status> {
        let request = request.into_inner();
        if request.floats as usize > MAX_MESSAGE_BYTES / 8 {
            return Err(Status::invalid_argument(format!("{} floats at once are too many", request.floats)));
        }
        let (reply, served) = oneshot::channel();
        let over = |_| Status::unavailable("the session is over");
        self.mail.send(Mail::Pull { request, reply }).await.map_err(over)?;
        let part = served.await.map_err(|_| Status::unavailable("the session is over"))?;
        part.map(Response::new).ok_or_else(|| Status::out_of_range("no such part of a replica of this step"))
    }
}
