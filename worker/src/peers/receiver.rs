//! What comes from peers: checks that each message is one, and passes it on. Sizes against the step are the exchange's.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use carousel_proto::bulk::{Assembler, BulkError};
use carousel_proto::gradient::{SEGMENT, TouchedRows};
use carousel_proto::v1::{Bulk, BulkStart, FromPeer, PeerHello, Segment, from_peer::Message};
use carousel_proto::{Node, PROTOCOL_VERSION, Step, Term, WorkerId};
use carousel_security::Allowed;
use tokio::sync::mpsc;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;

use super::{MostBytes, messages::Messages, wire::PATH};
use crate::exchange::{Part, PeerContent, Sum};
use crate::session::Mail;

/// The contract's `service Exchange`, over streams that are read without a copy.
#[derive(Clone)]
pub(super) struct Receiver {
    pub mail: mpsc::Sender<Mail>,
    pub most_bytes: MostBytes,
    pub allowed: Allowed,
}

impl NamedService for Receiver {
    const NAME: &'static str = "carousel.v1.Exchange";
}

impl Service<http::Request<Body>> for Receiver {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let receiver = self.clone();
        Box::pin(async move {
            if request.uri().path() != PATH {
                return Ok(Status::unimplemented("expected Push").into_http());
            }
            if let Err(refused) = receiver.allowed.check_among(request.extensions()) {
                return Ok(refused.into_http());
            }
            let messages = Messages::new(request.into_body());
            Ok(receiver.push(messages).await.map_or_else(|status| status.into_http(), |()| push_end()))
        })
    }
}

impl Receiver {
    /// Passes everything on that one peer sends.
    async fn push(self, mut messages: Messages) -> Result<(), Status> {
        let first = messages.next().await?.and_then(|m| m.message);
        let Some(Message::Hello(PeerHello { protocol: PROTOCOL_VERSION, worker_id })) = first else {
            let expected = format!("expected PeerHello of protocol {PROTOCOL_VERSION} as the first message");
            return Err(Status::failed_precondition(expected));
        };
        let most_bytes = *self.most_bytes.get().ok_or_else(|| Status::unavailable("no run yet"))?;
        let mut assembler = Assembler::default();
        while let Some(message) = messages.next().await? {
            if let Some((at, content)) = accept(&mut assembler, message, most_bytes)? {
                let mail = Mail::Peer { worker: WorkerId(worker_id), at, content };
                self.mail.send(mail).await.map_err(|_| Status::unavailable("the session is over"))?;
            }
        }
        Ok(())
    }
}

/// The answer to a stream that ended well: a `PushEnd`, which is empty, and the status.
fn push_end() -> http::Response<Body> {
    let headers = [(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"))];
    let mut response = http::Response::new(Body::new(PushEnd { sent: 0 }));
    response.headers_mut().extend(headers.map(|(name, value)| (Some(name), value)));
    response
}

struct PushEnd {
    sent: u8,
}

impl http_body::Body for PushEnd {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        self.sent += 1;
        Poll::Ready(match self.sent {
            1 => Some(Ok(http_body::Frame::data(Bytes::from_static(&[0; 5])))),
            2 => {
                let ok = (http::HeaderName::from_static("grpc-status"), http::HeaderValue::from_static("0"));
                Some(Ok(http_body::Frame::trailers([ok].into_iter().collect())))
            }
            _ => None,
        })
    }
}

/// What a peer sent, and for which step.
pub(super) type Dated = ((Term, Step), PeerContent);

pub(super) fn accept(
    assembler: &mut Assembler,
    message: FromPeer,
    most_bytes: u64,
) -> Result<Option<Dated>, Status> {
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
