//! Places between two changes of the folder. A process may die at any of them; tests do, at each in turn. Outside of
//! tests this is nothing.

use super::CheckpointError;

#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "a test's own version fails")]
pub(super) fn point() -> Result<(), CheckpointError> {
    Ok(())
}

#[cfg(test)]
pub(super) use armed::{after, point};

#[cfg(test)]
mod armed {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    }

    /// Dies at the next point but `points`; `None` lives.
    pub(in crate::checkpoint) fn after(points: Option<usize>) {
        LEFT.set(points);
    }

    pub(in crate::checkpoint) fn point() -> Result<(), CheckpointError> {
        let left = LEFT.get();
        LEFT.set(left.map(|n| n.saturating_sub(1)));
        match left {
            Some(0) => Err(CheckpointError::None { path: "here".into(), problem: "died".into() }),
            _ => Ok(()),
        }
    }
}
