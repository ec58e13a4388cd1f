//! The messages of a stream, from the frames in which they come: floats stay where the frame brought them. The generated
//! server would copy every byte into a buffer first.

use std::collections::VecDeque;
use std::pin::Pin;

use bytes::{Buf, Bytes};
use carousel_proto::MAX_MESSAGE_BYTES;
use carousel_proto::v1::FromPeer;
use http_body::Body as _;
use prost::Message as _;
use tonic::Status;
use tonic::body::Body;

/// Shorter pieces are joined as they come: a piece costs some 40 bytes beside its own, however short it is.
const SHORT_BYTES: usize = 1024;
/// gRPC's prefix of a message: one byte whether it is compressed, four of its length.
const PREFIX_BYTES: usize = 5;

pub(super) struct Messages {
    body: Body,
    bytes: Rope,
    /// Of the message under way, once its prefix is here.
    length: Option<usize>,
}

impl Messages {
    pub(super) fn new(body: Body) -> Self {
        Self { body, bytes: Rope::default(), length: None }
    }

    /// The next message; `None` at the stream's end.
    ///
    /// # Errors
    /// When the stream breaks, or what comes is no message of the contract.
    pub(super) async fn next(&mut self) -> Result<Option<FromPeer>, Status> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            let frame = std::future::poll_fn(|context| Pin::new(&mut self.body).poll_frame(context)).await;
            match frame.transpose()?.map(http_body::Frame::into_data) {
                Some(Ok(data)) => self.bytes.push(data),
                // Trailers say nothing here.
                Some(Err(_)) => {}
                None if self.bytes.has_remaining() => return Err(Status::invalid_argument("a torn message")),
                None => return Ok(None),
            }
        }
    }

    fn take(&mut self) -> Result<Option<FromPeer>, Status> {
        if self.length.is_none() && self.bytes.remaining() >= PREFIX_BYTES {
            let (compressed, length) = (self.bytes.get_u8() != 0, self.bytes.get_u32() as usize);
            if compressed || length > MAX_MESSAGE_BYTES {
                let expected = format!("expected a plain message of at most {MAX_MESSAGE_BYTES} bytes");
                return Err(Status::out_of_range(format!("{expected}, found one of {length}")));
            }
            self.length = Some(length);
        }
        let Some(length) = self.length.filter(|length| self.bytes.remaining() >= *length) else {
            return Ok(None);
        };
        self.length = None;
        let message = FromPeer::decode(self.bytes.split_to(length));
        message.map(Some).map_err(|error| Status::invalid_argument(error.to_string()))
    }
}

/// Bytes in pieces. What lies in one piece is handed out without a copy, unless it is short.
#[derive(Debug, Default)]
struct Rope {
    /// None is empty.
    pieces: VecDeque<Bytes>,
    bytes: usize,
}

impl Rope {
    fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.bytes += piece.len();
            self.pieces.push_back(piece);
            self.join_short_ones();
        }
    }

    /// Joins the last piece with those before it that are no longer than twice its length, while both are short. So the short
    /// pieces at the end are each less than half of the one before: ten at the most. A byte is copied some twenty times at the most:
    /// each join makes what is before half as long again, and what comes last goes through those ten once.
    fn join_short_ones(&mut self) {
        while let Some(last) = self.pieces.pop_back() {
            let short = |bytes: &Bytes| bytes.len() < SHORT_BYTES;
            let joins = |before: &mut Bytes| before.len() <= 2 * last.len() && short(before) && short(&last);
            let Some(before) = self.pieces.pop_back_if(joins) else {
                return self.pieces.push_back(last);
            };
            self.pieces.push_back([before, last].concat().into());
        }
    }

    /// The first bytes, of which there are enough.
    fn split_to(&mut self, bytes: usize) -> Self {
        let mut first = Self::default();
        while first.bytes < bytes {
            let piece = self.front(bytes - first.bytes);
            first.push(piece);
        }
        first
    }

    /// At most so many bytes of the first piece.
    fn front(&mut self, most: usize) -> Bytes {
        let mut piece = self.pieces.pop_front().expect("there are enough bytes");
        if piece.len() > most {
            self.pieces.push_front(piece.split_off(most));
        }
        self.bytes -= piece.len();
        piece
    }
}

impl Buf for Rope {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn advance(&mut self, bytes: usize) {
        self.split_to(bytes);
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        if self.chunk().len() >= len && len > 0 {
            return self.front(len);
        }
        let pieces: Vec<Bytes> = self.split_to(len).pieces.into();
        pieces.concat().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carousel_proto::v1::{Segment, from_peer::Message};

    /// A body of given frames.
    struct Given(VecDeque<Bytes>);

    impl http_body::Body for Given {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
            std::task::Poll::Ready(self.0.pop_front().map(|data| Ok(http_body::Frame::data(data))))
        }
    }

    fn read(frames: Vec<Bytes>) -> Result<Vec<FromPeer>, Status> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut messages = Messages::new(Body::new(Given(frames.into())));
        let mut all = Vec::new();
        while let Some(message) = runtime.block_on(messages.next())? {
            all.push(message);
        }
        Ok(all)
    }

    fn segment(floats: u32) -> (FromPeer, Vec<u8>) {
        let data: Vec<u8> = (0..floats).flat_map(u32::to_le_bytes).collect();
        let segment = Segment { term: 7, offset: 300, data: data.into(), ..Segment::default() };
        let message = FromPeer { message: Some(Message::Segment(segment)) };
        let mut bytes = vec![0];
        bytes.extend((message.encoded_len() as u32).to_be_bytes());
        bytes.extend(message.encode_to_vec());
        (message, bytes)
    }

    #[test]
    fn messages_come_out_whole_wherever_frames_are_cut() {
        let ((long, long_bytes), (short, short_bytes)) = (segment(50), segment(1));
        let bytes: Bytes = [long_bytes, short_bytes].concat().into();
        for size in 1..bytes.len() {
            let frames = (0..bytes.len()).step_by(size);
            let frames = frames.map(|at| bytes.slice(at..(at + size).min(bytes.len()))).collect();
            assert_eq!(read(frames).unwrap(), [long.clone(), short.clone()], "frames of {size} bytes");
        }
    }

    #[test]
    fn floats_that_come_in_one_frame_are_not_copied() {
        let (_, bytes) = segment(1000);
        let bytes = Bytes::from(bytes);
        let head = bytes.len() - 4000;
        let messages = read(vec![bytes.slice(..head), bytes.slice(head..)]).unwrap();
        let Some(Message::Segment(segment)) = &messages[0].message else { panic!("{messages:?}") };
        assert_eq!(segment.data.as_ptr(), bytes[head..].as_ptr());
    }

    #[test]
    fn bytes_that_come_one_by_one_lie_in_few_pieces() {
        let pattern = |sizes: &[usize]| {
            let (mut rope, mut whole) = (Rope::default(), Vec::new());
            for size in sizes.iter().cycle().take(200_000) {
                let piece: Vec<u8> = (0..*size).map(|i| (whole.len() + i) as u8).collect();
                whole.extend(&piece);
                rope.push(piece.into());
            }
            // 40 bytes a piece are a quarter of the bytes at the most, beside a constant.
            let most = whole.len() / 160 + SHORT_BYTES;
            assert!(rope.pieces.len() <= most, "{} pieces of {sizes:?}", rope.pieces.len());
            assert_eq!(rope.remaining(), whole.len());
            assert!(rope.copy_to_bytes(whole.len()) == whole, "the bytes of {sizes:?}");
        };
        for sizes in [&[1][..], &[3, 2, 1], &[100, 1], &[1, 100], &[500, 3, 2], &[1023, 1], &[1024, 1, 1]] {
            pattern(sizes);
        }
        pattern(&(1..64).rev().collect::<Vec<_>>());
    }

    #[test]
    fn what_is_no_message_is_refused_before_memory_is_taken() {
        let (_, whole) = segment(3);
        let long = [vec![0], (MAX_MESSAGE_BYTES as u32 + 1).to_be_bytes().to_vec()].concat();
        let compressed = [vec![1], whole[1..].to_vec()].concat();
        let garbage = vec![0, 0, 0, 0, 2, 0xff, 0xff];
        for bytes in [long, compressed, garbage, whole[..whole.len() - 1].to_vec()] {
            assert!(read(vec![bytes.clone().into()]).is_err(), "{bytes:?}");
        }
    }
}
