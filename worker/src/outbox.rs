//! What a worker says to its coordinator: a queue with a bound, between the thread that computes, which may wait, and the
//! session.

use std::sync::Arc;

use carousel_proto::bulk::chunks;
use carousel_proto::v1::{BulkStart, FromWorker, Leave, from_worker::Message};
use tokio::sync::mpsc;

/// Chunks that may wait to be sent; the computation waits beyond that.
const WAITING_MESSAGES: usize = 64;

/// The session is over; whoever computes may stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session is over")]
pub(crate) struct SessionOver;

#[derive(Clone, Debug)]
pub(crate) struct Outbox(mpsc::Sender<FromWorker>);

impl Outbox {
    pub(crate) fn new() -> (Self, mpsc::Receiver<FromWorker>) {
        let (sender, receiver) = mpsc::channel(WAITING_MESSAGES);
        (Self(sender), receiver)
    }

    /// Sends from a thread that computes (never from a reactor thread: it may wait).
    pub(crate) fn send(&self, message: Message) -> Result<(), SessionOver> {
        self.0.blocking_send(FromWorker { message: Some(message) }).map_err(|_| SessionOver)
    }

    /// Sends what nobody waits for from a reactor thread; when too much waits already it is left unsaid.
    pub(crate) fn send_from_reactor(&self, message: Message) {
        if self.0.try_send(FromWorker { message: Some(message) }).is_err() {
            tracing::trace!("left a sign of life unsaid");
        }
    }

    /// Tells the coordinator, from a reactor thread, that this worker wants to go.
    pub(crate) async fn leave(&self) {
        if self.0.send(FromWorker { message: Some(Message::Leave(Leave {})) }).await.is_err() {
            tracing::debug!("the session was over already");
        }
    }

    /// Sends buffers one after the other as one bulk, sharing their memory.
    pub(crate) fn send_bulk(&self, start: BulkStart, buffers: Vec<Arc<Vec<f32>>>) -> Result<(), SessionOver> {
        let bytes = buffers.iter().map(|b| 4 * b.len() as u64).sum();
        self.send(Message::BulkStart(BulkStart { bytes, ..start }))?;
        buffers.into_iter().flat_map(chunks).try_for_each(|chunk| self.send(Message::BulkChunk(chunk)))
    }
}
