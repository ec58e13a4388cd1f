//! What comes from peers: checks that each message is one, and passes it on. Sizes against the step are the exchange's.

use std::sync::Arc;

use carousel_proto::bulk::{Assembler, BulkError};
use carousel_proto::gradient::{SEGMENT, TouchedRows};
use carousel_proto::v1::{
    Bulk, BulkStart, FromPeer, PeerHello, PullReply, PullRequest, PushEnd, Segment, from_peer::Message,
};
use carousel_proto::{Node, PROTOCOL_VERSION, Step, Term, WorkerId};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status, Streaming};

use super::MostBytes;
use crate::exchange::{Part, PeerContent, Sum};
use crate::session::{MAX_MESSAGE_BYTES, Mail, generated::exchange_server};

/// The service to add to a server.
pub(super) fn service(
    mail: mpsc::Sender<Mail>,
    most_bytes: MostBytes,
) -> exchange_server::ExchangeServer<Receiver> {
    exchange_server::ExchangeServer::new(Receiver { mail, most_bytes })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
}

pub(super) struct Receiver {
    mail: mpsc::Sender<Mail>,
    most_bytes: MostBytes,
}

#[tonic::async_trait]
impl exchange_server::Exchange for Receiver {
    async fn push(&self, request: Request<Streaming<FromPeer>>) -> Result<Response<PushEnd>, Status> {
        let mut inbound = request.into_inner();
        let first = inbound.next().await.transpose()?.and_then(|m| m.message);
        let Some(Message::Hello(PeerHello { protocol: PROTOCOL_VERSION, worker_id })) = first else {
            let expected = format!("expected PeerHello of protocol {PROTOCOL_VERSION} as the first message");
            return Err(Status::failed_precondition(expected));
        };
        let most_bytes = *self.most_bytes.get().ok_or_else(|| Status::unavailable("no run yet"))?;
        let mut assembler = Assembler::default();
        while let Some(message) = inbound.next().await.transpose()? {
            if let Some((at, content)) = accept(&mut assembler, message, most_bytes)? {
                let mail = Mail::Peer { worker: WorkerId(worker_id), at, content };
                self.mail.send(mail).await.map_err(|_| Status::unavailable("the session is over"))?;
            }
        }
        Ok(Response::new(PushEnd {}))
    }

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

/// What a peer sent, and for which step.
type Dated = ((Term, Step), PeerContent);

fn accept(assembler: &mut Assembler, message: FromPeer, most_bytes: u64) -> Result<Option<Dated>, Status> {
    let misfit = |error: BulkError| Status::invalid_argument(error.to_string());
    let whole = match message.message {
        Some(Message::Segment(segment)) => return dense(segment).map(Some),
        Some(Message::BulkStart(start)) if start.bytes <= most_bytes => {
            let floats = usize::try_from(start.bytes / 4).map_err(|_| Status::out_of_range("too large"))?;
            assembler.start(start, floats).map_err(misfit)?
        }
        Some(Message::BulkChunk(chunk)) => assembler.chunk(&chunk).map_err(misfit)?,
        _ => return Err(Status::invalid_argument("expected a segment, or a bulk of a possible size")),
    };
    whole.map(rows).transpose()
}

fn dense(segment: Segment) -> Result<Dated, Status> {
    let (bytes, offset) = (segment.data.len(), segment.offset);
    let start = usize::try_from(offset).ok().filter(|_| bytes <= 4 * SEGMENT && bytes.is_multiple_of(4));
    let start = start.ok_or_else(|| {
        Status::invalid_argument(format!("a segment of {bytes} bytes at float {offset} does not fit"))
    })?;
    let sum = sum_of(segment.kind(), Node { level: segment.level, index: segment.index })?;
    let part = Part::Dense { start, data: segment.data };
    Ok(((Term(segment.term), Step(segment.step)), PeerContent { sum, part }))
}

fn rows((start, values): (BulkStart, Vec<f32>)) -> Result<Dated, Status> {
    let sum = sum_of(start.kind(), Node { level: start.level, index: start.index })?;
    let part = Part::Rows(Arc::new(TouchedRows { tokens: start.rows, values }));
    Ok(((Term(start.term), Step(start.step)), PeerContent { sum, part }))
}

fn sum_of(kind: Bulk, node: Node) -> Result<Sum, Status> {
    match kind {
        Bulk::Partial => Ok(Sum::Partial(node)),
        Bulk::Reduced => Ok(Sum::Reduced),
        other => Err(Status::invalid_argument(format!("a peer does not send {}", other.as_str_name()))),
    }
}
