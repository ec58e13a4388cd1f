//! The way to end a connection from outside of it. HTTP/2 asks nothing of a stream whose other end does not read, so only
//! the connection itself can be given up.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

/// A connection's cord; its clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cord(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    cut: bool,
    /// Who reads or writes the connection; it is one task.
    user: Option<Waker>,
}

impl Cord {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the connection fails, also where it waits.
    pub(crate) fn cut(&self) {
        let mut state = self.lock();
        state.cut = true;
        let user = state.user.take();
        drop(state);
        user.into_iter().for_each(Waker::wake);
    }

    /// Before the connection is read or written, with the task that does.
    ///
    /// # Errors
    /// When it was cut.
    pub(crate) fn check(&self, context: &Context<'_>) -> io::Result<()> {
        let mut state = self.lock();
        if state.cut {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "this side hung up"));
        }
        match &mut state.user {
            Some(user) => user.clone_from(context.waker()),
            user => *user = Some(context.waker().clone()),
        }
        Ok(())
    }
}
