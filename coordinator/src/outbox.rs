//! What waits to be sent to one worker: a queue with a bound, between the driver, which never waits, and a worker that may
//! not read. It does not know what the messages mean, nor who is dismissed; it says when somebody must be.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use carousel_proto::v1::FromCoordinator;
use prost::Message as _;
use tokio::sync::Notify;
use tokio_stream::Stream;
use tonic::Status;

use crate::intake::Limits;

/// Who was dismissed has so long to hear it and go; then its connection is closed.
pub(crate) const PARTING: Duration = Duration::from_secs(10);
/// Messages without floats: each takes its struct and a list of peers at the most, and few are said between two answers.
const CONTROL_BYTES: usize = 1 << 20;
/// The struct of a message, whatever it holds: so that many small ones count as well.
const MESSAGE_BYTES: usize = 256;
/// What a replica or a gradient counts for its chunks of 1 MiB.
const FLOATS_A_MESSAGE_BYTE: usize = carousel_proto::bulk::CHUNK_BYTES / MESSAGE_BYTES;

/// Bytes that may wait for a worker of a run. A worker is sent a replica once before it says that it is ready, a reduced
/// gradient once before it acknowledges it or reports on the next assignment, and its carries with an assignment. A new
/// term can put the same again behind what is on its way: so twice all of it, and the messages between. Nobody who reads
/// comes near it, since no further bulk follows before the answer to the last.
pub(crate) fn most_waiting(limits: &Limits) -> usize {
    let layout = &limits.layout;
    let replica = layout.sections().count() * layout.parameter_floats();
    let rows = layout.gradient.most_rows;
    let gradient = layout.gradient.dense + rows * layout.gradient.width;
    let carries = limits.streams as usize * layout.carry_floats();
    let bulk = 4 * (replica + gradient + carries);
    let row_numbers = 5 * rows;
    2 * (bulk + bulk / FLOATS_A_MESSAGE_BYTE + row_numbers) + CONTROL_BYTES
}

/// A queue's three ends.
pub(crate) fn outbox(most_bytes: usize) -> (Outbox, Messages, Watch) {
    let state = State { standing: Standing::Open, ..State::default() };
    let queue = Arc::new(Queue { most_bytes, state: Mutex::new(state), changed: Notify::new() });
    (Outbox(queue.clone()), Messages(queue.clone()), Watch(queue))
}

#[derive(Debug)]
struct Queue {
    most_bytes: usize,
    state: Mutex<State>,
    /// For the watch, the only one who waits for it.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<FromCoordinator>,
    bytes: usize,
    standing: Standing,
    /// Nobody takes messages any more: the stream or its connection has ended.
    gone: bool,
    reader: Option<Waker>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    #[default]
    Open,
    /// It ends after what waits.
    Closed,
    /// It ends after what waits, which is the reason alone.
    Dismissed,
    /// So many bytes waited, and were dropped.
    Overfull(usize),
}

fn cost(message: &FromCoordinator) -> usize {
    MESSAGE_BYTES + message.encoded_len()
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state; then the stream and the watch look again. What is dropped is dropped outside of the lock.
    fn change(&self, change: impl FnOnce(&mut State) -> VecDeque<FromCoordinator>) {
        let mut state = self.lock();
        let dropped = change(&mut state);
        let reader = state.reader.take();
        drop(state);
        drop(dropped);
        self.changed.notify_one();
        reader.into_iter().for_each(Waker::wake);
    }
}

impl State {
    fn empty(&mut self) -> VecDeque<FromCoordinator> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting)
    }

    fn push(&mut self, message: FromCoordinator) {
        self.bytes += cost(&message);
        self.waiting.push_back(message);
    }
}

/// The driver's end. Dropping it ends the session after what was sent.
#[derive(Debug)]
pub(crate) struct Outbox(Arc<Queue>);

impl Outbox {
    /// Puts a message behind the others; it is lost when the worker is gone or too much waits for it already.
    pub(crate) fn send(&self, message: FromCoordinator) {
        let most = self.0.most_bytes;
        self.0.change(|state| {
            if state.gone || state.standing != Standing::Open {
                return VecDeque::from([message]);
            }
            state.push(message);
            if state.bytes <= most {
                return VecDeque::new();
            }
            state.standing = Standing::Overfull(state.bytes);
            state.empty()
        });
    }

    /// Drops what waits, and ends the session with this alone.
    pub(crate) fn dismiss(self, last: FromCoordinator) {
        self.0.change(|state| {
            let dropped = state.empty();
            if state.standing == Standing::Open && !state.gone {
                state.standing = Standing::Dismissed;
                state.push(last);
            }
            dropped
        });
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.0.change(|state| {
            if state.standing == Standing::Open {
                state.standing = Standing::Closed;
            }
            VecDeque::new()
        });
    }
}

/// The stream's end, for tonic to send from. Dropping it drops what waits.
#[derive(Debug)]
pub(crate) struct Messages(Arc<Queue>);

impl Stream for Messages {
    type Item = Result<FromCoordinator, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.0.lock();
        if let Some(message) = state.waiting.pop_front() {
            state.bytes -= cost(&message);
            return Poll::Ready(Some(Ok(message)));
        }
        if state.standing == Standing::Open {
            state.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(None)
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.0.change(|state| {
            state.gone = true;
            state.empty()
        });
    }
}

/// The session's end: whether its worker must be cut off.
#[derive(Debug)]
pub(crate) struct Watch(Arc<Queue>);

impl Watch {
    /// Waits until the worker has to go, and says why: at once when too much waits for it, and some time after it was
    /// dismissed when it still is here.
    pub(crate) async fn overstays(&self) -> String {
        loop {
            let standing = self.0.lock().standing;
            match standing {
                Standing::Overfull(bytes) => {
                    let most = self.0.most_bytes;
                    return format!("it does not read: {bytes} bytes waited for it, at most {most} may");
                }
                Standing::Dismissed => {
                    tokio::time::sleep(PARTING).await;
                    return format!("it was still here {} s after it was dismissed", PARTING.as_secs());
                }
                Standing::Open | Standing::Closed => self.0.changed.notified().await,
            }
        }
    }

    /// Waits until nobody takes messages any more.
    pub(crate) async fn ended(&self) {
        while !self.0.lock().gone {
            self.0.changed.notified().await;
        }
    }
}

#[cfg(test)]
mod tests;
