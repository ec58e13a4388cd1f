//! The wire contract of Carousel and what both ends must agree on: the messages, ids, the lane tree, bulk transfer and
//! digests. It knows neither sockets nor clocks, nor how a gradient is computed or a checkpoint is written.

pub mod bulk;
pub mod digest;
pub mod gradient;
mod ids;
mod lane_tree;

pub use ids::{LaneIndex, Step, StreamIndex, Term, WorkerId};
pub use lane_tree::{LaneTree, Node, lane_streams};

/// Raised with every change of the messages or of their meaning; both ends must have the same.
pub const PROTOCOL_VERSION: u32 = 4;

/// Bulk is one BulkStart with the touched rows and chunks of 1 MiB; no message is larger.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// The messages of package `carousel.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::too_many_lines,
    clippy::allow_attributes_without_reason,
    reason = "generated; documented in training.proto"
)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/carousel.v1.rs"));
}
