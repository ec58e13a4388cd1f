//! A peer's stream of bytes, through the reader of messages and the check of each.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use carousel_proto::bulk::Assembler;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;

use super::messages::Messages;
use super::receiver::accept;

/// The most bytes of a bulk here.
const MOST_BYTES: u64 = 1 << 16;

/// What a peer pushes: `bytes` in frames of `frame` bytes.
///
/// # Panics
/// When a frame has no bytes.
pub fn push(bytes: &[u8], frame: usize) {
    let frames = bytes.chunks(frame).map(Bytes::copy_from_slice).collect();
    let mut messages = Messages::new(Body::new(Frames(frames)));
    let mut assembler = Assembler::default();
    let mut context = Context::from_waker(std::task::Waker::noop());
    loop {
        // Frames are always there, so the reader is never found waiting.
        let Poll::Ready(Ok(Some(message))) = std::pin::pin!(messages.next()).poll(&mut context) else {
            return;
        };
        if accept(&mut assembler, message, MOST_BYTES).is_err() {
            return;
        }
    }
}

struct Frames(VecDeque<Bytes>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
    }
}
