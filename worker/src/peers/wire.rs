//! What goes to a peer, as gRPC bytes: every message is a few bytes of its own, then floats that are sent from where they
//! lie. The generated client would copy them into a buffer first.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use carousel_proto::bulk::chunks;
use carousel_proto::gradient::TouchedRows;
use carousel_proto::v1::{Bulk, BulkStart, FromPeer, PeerHello, Segment, from_peer::Message};
use carousel_proto::{Node, PROTOCOL_VERSION, Step, Term, WorkerId};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tokio::sync::mpsc;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, StdError, http};
use tonic::transport::Channel;

use crate::exchange::{Part, PeerContent, Sum};

/// The path of the contract's `rpc Push`.
pub(super) const PATH: &str = "/carousel.v1.Exchange/Push";
/// The numbers of `FromPeer.segment` and `Segment.data` in the contract.
const SEGMENT_FIELD: u32 = 4;
const DATA_FIELD: u32 = 7;

/// The first message of a stream.
pub(super) fn hello(own: WorkerId) -> Bytes {
    framed(Message::Hello(PeerHello { protocol: PROTOCOL_VERSION, worker_id: own.0 }))
}

/// The bytes of a message, in pieces.
pub(super) fn frames((term, step): (Term, Step), content: &PeerContent) -> Vec<Bytes> {
    let (kind, node) = match content.sum {
        Sum::Partial(node) => (Bulk::Partial, node),
        Sum::Reduced => (Bulk::Reduced, Node { level: 0, index: 0 }),
    };
    let (kind, term, step) = (kind.into(), term.0, step.0);
    match &content.part {
        Part::Dense { start, data } => {
            let (level, index, offset) = (node.level, node.index, *start as u64);
            let head = Segment { kind, term, step, level, index, offset, data: Bytes::new() };
            vec![segment_head(&head, data.len()), data.clone()]
        }
        Part::Rows(rows) => {
            let (level, index, bytes) = (node.level, node.index, 4 * rows.values.len() as u64);
            let start = BulkStart { kind, term, step, level, index, bytes, rows: rows.tokens.clone() };
            bulk(start, rows.clone())
        }
    }
}

fn bulk(start: BulkStart, rows: Arc<TouchedRows>) -> Vec<Bytes> {
    let messages = std::iter::once(Message::BulkStart(start)).chain(chunks(rows).map(Message::BulkChunk));
    messages.map(framed).collect()
}

fn framed(message: Message) -> Bytes {
    let message = FromPeer { message: Some(message) };
    let mut bytes = prefixed(message.encoded_len(), 0);
    message.encode(&mut bytes).expect("the buffer grows");
    bytes.freeze()
}

/// A message of a segment up to its floats, which are the last field of the last field.
fn segment_head(head: &Segment, floats: usize) -> Bytes {
    let inner = head.encoded_len() + key_len(DATA_FIELD) + encoded_len_varint(floats as u64);
    let outer = key_len(SEGMENT_FIELD) + encoded_len_varint((inner + floats) as u64);
    let mut bytes = prefixed(outer + inner + floats, floats);
    encode_key(SEGMENT_FIELD, WireType::LengthDelimited, &mut bytes);
    encode_varint((inner + floats) as u64, &mut bytes);
    head.encode(&mut bytes).expect("the buffer grows");
    encode_key(DATA_FIELD, WireType::LengthDelimited, &mut bytes);
    encode_varint(floats as u64, &mut bytes);
    bytes.freeze()
}

/// gRPC's five bytes before a message of `len` bytes, of which the last `apart` go into another buffer.
fn prefixed(len: usize, apart: usize) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(5 + len - apart);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(len).expect("a message is far under 4 GiB"));
    bytes
}

/// The stream of a request, as long as its sender lives.
struct Frames(mpsc::UnboundedReceiver<Bytes>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        let bytes = ready!(self.0.poll_recv(context));
        Poll::Ready(bytes.map(|bytes| Ok(http_body::Frame::data(bytes))))
    }
}

/// Sends until the sender is dropped or the peer ends the call.
pub(super) async fn push(
    mut channel: Channel,
    frames: mpsc::UnboundedReceiver<Bytes>,
) -> Result<(), StdError> {
    let request = http::Request::post(PATH)
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header(http::header::TE, "trailers")
        .body(Body::new(Frames(frames)))?;
    std::future::poll_fn(|context| channel.poll_ready(context)).await?;
    let response = channel.call(request).await?;
    // An orderly end of the call has its status in the trailers, and nobody waits for it; a refusal has it here.
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != tonic::Code::Ok => Err(status.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_s_pieces_are_the_message_that_the_contract_s_encoder_makes() {
        let at = (Term(300), Step(70_000));
        let data = Bytes::from((0..200_000u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
        let node = Node { level: 2, index: 1 };
        let part = Part::Dense { start: 1 << 40, data: data.clone() };
        let pieces = frames(at, &PeerContent { sum: Sum::Partial(node), part });
        assert_eq!(pieces[1].as_ptr(), data.as_ptr(), "the floats are not copied");
        let segment = Segment {
            kind: Bulk::Partial.into(),
            term: 300,
            step: 70_000,
            level: 2,
            index: 1,
            offset: 1 << 40,
            data,
        };
        assert_eq!(pieces.concat(), framed(Message::Segment(segment)));
    }

    #[test]
    fn rows_are_one_bulk() {
        let rows = TouchedRows { tokens: vec![3, 9], values: vec![1.0, 2.0, 3.0, 4.0] };
        let content = PeerContent { sum: Sum::Reduced, part: Part::Rows(Arc::new(rows)) };
        let pieces = frames((Term(1), Step(2)), &content);
        let decoded: Vec<Message> =
            pieces.iter().map(|piece| FromPeer::decode(&piece[5..]).unwrap().message.unwrap()).collect();
        let [Message::BulkStart(start), Message::BulkChunk(chunk)] = &decoded[..] else {
            panic!("{decoded:?}")
        };
        assert_eq!((start.bytes, &start.rows[..], start.kind()), (16, &[3, 9][..], Bulk::Reduced));
        assert_eq!(chunk.data.len(), 16);
        assert_eq!(pieces[1][..5], [0, 0, 0, 0, pieces[1].len() as u8 - 5]);
    }
}
