//! The mesh side of a step: each worker reduces one slice of the gradient from everybody's partial sums, and hands the
//! result round. A plain state machine over gradients: no sockets, no clock; `peers` carries what it wants sent.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use carousel_proto::gradient::{Gradient, GradientLayout, Parts, Slice, SquareSums};
use carousel_proto::{LaneTree, Node, Step, Term, WorkerId};

/// Steps ahead of this worker's own of which it keeps what peers send: they may be one commit ahead, and a new term may
/// come between.
const MOST_EARLY: usize = 4096;

/// A worker of the step, in the order of the slices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub worker: WorkerId,
    /// HOST:PORT of its Exchange service.
    pub address: String,
    pub lanes: Range<u32>,
}

/// What a peer sends: a node's partial sum of the receiver's slice, or its own reduced slice.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PeerContent {
    Partial { node: Node, gradient: Gradient },
    Reduced { gradient: Gradient },
}

/// What is to be sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outgoing {
    /// To one peer.
    Partial { to: Peer, node: Node, gradient: Gradient },
    /// To every other peer, and the sums of squares to the coordinator.
    Reduced { to: Vec<Peer>, gradient: Arc<Gradient>, squares: SquareSums, not_finite: Option<usize> },
    /// To nobody: the whole reduced gradient is here.
    Whole(Gradient),
}

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
    /// A slice of another size, or rows outside of it.
    #[error("{worker} sent {floats} floats and {rows} rows for a slice of {dense} floats, width {width}")]
    Size {
        /// The sender.
        worker: WorkerId,
        /// Floats that came.
        floats: usize,
        /// Rows that came.
        rows: usize,
        /// The slice's dense floats.
        dense: usize,
        /// Floats of a row.
        width: usize,
    },
    /// This worker is not among the peers of its own step.
    #[error("the coordinator's peers of {step} do not have this worker")]
    Missing {
        /// The step.
        step: Step,
    },
}

type Early = (WorkerId, PeerContent);

/// The exchange of one step after the other.
#[derive(Debug)]
pub(crate) struct Exchange {
    layout: GradientLayout,
    tree: LaneTree,
    at: (Term, Step),
    peers: Vec<Peer>,
    /// This worker's place among the peers.
    own: usize,
    slices: Vec<Slice>,
    partials: BTreeMap<Node, Gradient>,
    expected: usize,
    reduced: BTreeMap<usize, Arc<Gradient>>,
    early: BTreeMap<(Term, Step), Vec<Early>>,
}

impl Exchange {
    pub(crate) fn new(layout: GradientLayout, lanes: u32) -> Self {
        Self {
            layout,
            tree: LaneTree::new(lanes),
            at: (Term(0), Step(0)),
            peers: Vec::new(),
            own: 0,
            slices: Vec::new(),
            partials: BTreeMap::new(),
            expected: 0,
            reduced: BTreeMap::new(),
            early: BTreeMap::new(),
        }
    }

    /// Begins a step; what was under way is void. What peers have sent ahead of it is taken in.
    pub(crate) fn begin(
        &mut self,
        at: (Term, Step),
        peers: Vec<Peer>,
        own: WorkerId,
    ) -> Result<Vec<Outgoing>, ExchangeError> {
        let place = peers.iter().position(|peer| peer.worker == own);
        self.own = place.ok_or(ExchangeError::Missing { step: at.1 })?;
        self.at = at;
        self.slices = self.layout.slices(peers.len());
        self.expected = peers.iter().map(|peer| self.tree.maximal_nodes(peer.lanes.clone()).len()).sum();
        self.peers = peers;
        self.partials.clear();
        self.reduced.clear();
        let mut ahead = self.early.split_off(&at);
        let now = ahead.remove(&at).unwrap_or_default();
        self.early = ahead;
        let mut outgoing = Vec::new();
        for (worker, content) in now {
            outgoing.extend(self.receive(at, worker, content)?);
        }
        Ok(outgoing)
    }

    /// Takes this worker's partial sums in, cut into everybody's slices.
    pub(crate) fn contribute(&mut self, partials: &[(Node, Parts<'_>)]) -> Vec<Outgoing> {
        let mut outgoing = Vec::new();
        for (place, (to, slice)) in self.peers.iter().zip(&self.slices).enumerate() {
            for (node, whole) in partials {
                let (node, gradient) = (*node, self.layout.cut(*whole, slice));
                if place == self.own {
                    self.partials.insert(node, gradient);
                } else {
                    outgoing.push(Outgoing::Partial { to: to.clone(), node, gradient });
                }
            }
        }
        outgoing.extend(self.progress());
        outgoing
    }

    /// Takes in what a peer sent. What belongs to an earlier step or term is dropped, to a later one kept for it.
    pub(crate) fn receive(
        &mut self,
        at: (Term, Step),
        worker: WorkerId,
        content: PeerContent,
    ) -> Result<Vec<Outgoing>, ExchangeError> {
        if at != self.at {
            if at > self.at && self.early.values().map(Vec::len).sum::<usize>() < MOST_EARLY {
                self.early.entry(at).or_default().push((worker, content));
            }
            return Ok(Vec::new());
        }
        let stranger = ExchangeError::Stranger { worker, step: at.1 };
        let place = self.peers.iter().position(|peer| peer.worker == worker).ok_or(stranger)?;
        match content {
            PeerContent::Partial { node, gradient } => {
                let lanes = self.peers[place].lanes.clone();
                if !self.tree.maximal_nodes(lanes.clone()).contains(&node) {
                    return Err(ExchangeError::Node { worker, node, lanes });
                }
                self.check_size(worker, self.own, &gradient)?;
                self.partials.insert(node, gradient);
            }
            PeerContent::Reduced { gradient } => {
                self.check_size(worker, place, &gradient)?;
                self.reduced.insert(place, Arc::new(gradient));
            }
        }
        Ok(self.progress())
    }

    fn check_size(&self, worker: WorkerId, slice: usize, gradient: &Gradient) -> Result<(), ExchangeError> {
        let (slice, width) = (&self.slices[slice], self.layout.width);
        let (floats, rows, dense) = (gradient.floats.len(), gradient.rows.len(), slice.dense.len());
        let ascending = gradient.rows.windows(2).all(|pair| pair[0] < pair[1]);
        let inside = gradient.rows.iter().all(|row| slice.rows.contains(row));
        let fits = floats == dense + rows * width && ascending && inside;
        if fits { Ok(()) } else { Err(ExchangeError::Size { worker, floats, rows, dense, width }) }
    }

    /// Reduces the own slice once every node is here, and joins the slices once they all are.
    fn progress(&mut self) -> Vec<Outgoing> {
        let mut outgoing = Vec::new();
        if self.partials.len() == self.expected && !self.reduced.contains_key(&self.own) {
            let slice = &self.slices[self.own];
            let gradient = Arc::new(self.layout.reduce(self.tree, std::mem::take(&mut self.partials), slice));
            let squares = self.layout.square_sums(&gradient, slice);
            let not_finite = self.layout.first_non_finite(&gradient, slice);
            let others = self.peers.iter().enumerate().filter(|(place, _)| *place != self.own);
            let to = others.map(|(_, peer)| peer.clone()).collect();
            outgoing.push(Outgoing::Reduced { to, gradient: gradient.clone(), squares, not_finite });
            self.reduced.insert(self.own, gradient);
        }
        if self.reduced.len() == self.peers.len() && !self.peers.is_empty() {
            let slices = std::mem::take(&mut self.reduced).into_values().collect();
            self.expected = usize::MAX;
            outgoing.push(Outgoing::Whole(self.layout.join(slices)));
        }
        outgoing
    }
}

#[cfg(test)]
mod tests;
