//! How a peer, or the coordinator, breaks the exchange.

use std::ops::Range;

use carousel_proto::{Node, Step, WorkerId};

/// A message of the current step that does not fit it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ExchangeError {
    /// From a worker that is none of the step's peers.
    #[error("{worker} takes no part in {step}")]
    Stranger {
        /// The sender.
        worker: WorkerId,
        /// The step.
        step: Step,
    },
    /// A node that is not the sender's.
    #[error("{worker} sent {node:?} of the lane tree, it has lanes {lanes:?}")]
    Node {
        /// The sender.
        worker: WorkerId,
        /// The node.
        node: Node,
        /// The sender's lanes.
        lanes: Range<u32>,
    },
    /// A run of floats that does not lie in one segment of the slice, or over floats that were here.
    #[error("{worker} sent {bytes} bytes at float {start} for the dense slice {dense:?}")]
    Segment {
        /// The sender.
        worker: WorkerId,
        /// Bytes that came.
        bytes: usize,
        /// Where they begin in the dense part.
        start: usize,
        /// The slice.
        dense: Range<usize>,
    },
    /// Rows outside of the slice, of another width, out of order or sent twice.
    #[error("{worker} sent {floats} floats of {rows} rows for the rows {expected:?} of width {width}")]
    Rows {
        /// The sender.
        worker: WorkerId,
        /// Floats that came.
        floats: usize,
        /// Rows that came.
        rows: usize,
        /// The slice's rows.
        expected: Range<u32>,
        /// Floats of a row.
        width: usize,
    },
    /// This worker is not among the peers of its own step.
    #[error("the coordinator's peers of {step} do not have this worker")]
    Missing {
        /// The step.
        step: Step,
    },
    /// The peers' lanes are not all lanes, in order.
    #[error("the coordinator's peers of {step} have lanes {found:?} where {expected} comes next")]
    Lanes {
        /// The step.
        step: Step,
        /// Of the first peer that is out of order, or past the last.
        found: Range<u32>,
        /// The lane that nobody has.
        expected: u32,
    },
}
