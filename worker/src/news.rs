//! What a worker tells whoever started it. It only tells: nothing is decided here.

use carousel_proto::WorkerId;

/// A turn in a worker's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News<'a> {
    /// The coordinator has let it in, under this number.
    Joined(WorkerId),
    /// It has no coordinator, for this reason, and goes on trying.
    Waiting(&'a str),
    /// Its work is done, in the coordinator's words.
    Over(&'a str),
}
