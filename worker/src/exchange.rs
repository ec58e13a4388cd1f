//! The mesh side of a step: each worker reduces one slice of the gradient from everybody's partial sums, and hands the
//! result round, segment by segment, as soon as each is ready. A plain state machine over gradients: no sockets, no clock;
//! `peers` carries what it wants sent.

mod error;
mod own;
mod whole;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use carousel_proto::bulk::bytes_of;
use carousel_proto::gradient::{
    Gradient, GradientLayout, SEGMENT, Slice, SquareSums, TouchedRows, cut_at_segments,
};
use carousel_proto::{LaneTree, Node, Step, Term, WorkerId};

pub(crate) use error::ExchangeError;
use own::{OwnSlice, fits};
use whole::Whole;

/// A worker of the step, in the order of the slices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub worker: WorkerId,
    /// HOST:PORT of its Exchange service.
    pub address: String,
    pub lanes: Range<u32>,
}

/// A sum over some lanes, or over all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sum {
    /// A node's, of the receiver's slice.
    Partial(Node),
    /// The whole tree's, of the sender's slice.
    Reduced,
}

/// What of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Part {
    /// A run of little-endian floats that begins at float `start` of the dense part.
    Dense { start: usize, data: Bytes },
    /// Every touched row of the slice.
    Rows(Arc<TouchedRows>),
}

/// What one worker sends another.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PeerContent {
    pub sum: Sum,
    pub part: Part,
}

impl PeerContent {
    fn bytes(&self) -> usize {
        match &self.part {
            Part::Dense { data, .. } => data.len(),
            Part::Rows(rows) => 4 * (rows.tokens.len() + rows.values.len()),
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outgoing {
    Send {
        to: Arc<Peer>,
        content: PeerContent,
    },
    /// The own slice is reduced: for the coordinator.
    Report {
        squares: SquareSums,
        not_finite: Option<usize>,
    },
    /// The whole reduced gradient is here.
    Whole(Gradient),
}

/// The exchange of one step after the other.
#[derive(Debug)]
pub(crate) struct Exchange {
    layout: GradientLayout,
    tree: LaneTree,
    at: (Term, Step),
    peers: Vec<Arc<Peer>>,
    /// This worker's place among the peers.
    own: usize,
    slices: Vec<Slice>,
    own_slice: Option<OwnSlice>,
    whole: Whole,
    reported: bool,
    early: Early,
    spare: Vec<f32>,
    lent: Lent,
}

impl Exchange {
    pub(crate) fn new(layout: GradientLayout, lanes: u32) -> Self {
        let tree = LaneTree::new(lanes);
        // Each lane's gradient, cut in slices: nobody honest is further ahead than that.
        let most = 4 * (layout.dense + layout.most_rows * (layout.width + 1));
        Self {
            layout,
            tree,
            at: (Term(0), Step(0)),
            peers: Vec::new(),
            own: 0,
            slices: Vec::new(),
            own_slice: None,
            whole: Whole::default(),
            reported: false,
            early: Early { most_bytes: most.saturating_mul(lanes as usize), ..Early::default() },
            spare: Vec::new(),
            lent: Lent::default(),
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
        self.check_lanes(at.1, &peers)?;
        self.at = at;
        self.reported = false;
        self.slices = self.layout.slices(peers.len());
        let nodes = peers.iter().flat_map(|peer| self.tree.maximal_nodes(peer.lanes.clone())).collect();
        self.own_slice = Some(OwnSlice::new(self.layout, self.tree, self.slices[self.own].clone(), nodes));
        let spare = std::mem::take(&mut self.spare);
        self.whole = Whole::new(&self.layout, &self.slices, spare);
        self.peers = peers.into_iter().map(Arc::new).collect();
        let mut outgoing = Vec::new();
        for (worker, content) in self.early.take(at) {
            outgoing.extend(self.receive(at, worker, content)?);
        }
        Ok(outgoing)
    }

    /// Takes in a run of this worker's own partial sum of a node: the floats from `start` of the dense part. The peers' and
    /// the own slice's parts share its memory.
    pub(crate) fn contribute(&mut self, node: Node, start: usize, floats: Arc<Vec<f32>>) -> Vec<Outgoing> {
        let run = start..start + floats.len();
        let bytes = bytes_of(floats);
        let mut outgoing = Vec::new();
        for place in self.in_turn() {
            for cut in cut_at_segments(&run, &self.slices[place].dense) {
                let data = bytes.slice(4 * (cut.start - start)..4 * (cut.end - start));
                if place == self.own {
                    let own = self.own_slice.as_mut().expect("a step has begun");
                    assert!(own.take_piece(node, cut.start, data), "each run is contributed once");
                } else {
                    let part = Part::Dense { start: cut.start, data };
                    outgoing.push(self.to(place, Sum::Partial(node), part));
                }
            }
        }
        outgoing.extend(self.progress());
        outgoing
    }

    /// Takes in the rows that this worker's own node touches: (tokens, width) values.
    pub(crate) fn contribute_rows(&mut self, node: Node, tokens: &[u32], values: &[f32]) -> Vec<Outgoing> {
        let mut outgoing = Vec::new();
        for place in self.in_turn() {
            let rows = self.layout.rows_of(tokens, values, &self.slices[place]);
            if place == self.own {
                let own = self.own_slice.as_mut().expect("a step has begun");
                assert!(own.take_rows(node, rows), "each node's rows are contributed once");
            } else {
                outgoing.push(self.to(place, Sum::Partial(node), Part::Rows(Arc::new(rows))));
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
            if at > self.at {
                self.early.keep(at, worker, content);
            }
            return Ok(Vec::new());
        }
        let stranger = ExchangeError::Stranger { worker, step: at.1 };
        let place = self.peers.iter().position(|peer| peer.worker == worker).ok_or(stranger)?;
        match content.sum {
            Sum::Partial(node) => self.receive_partial((place, worker), node, content.part)?,
            Sum::Reduced => self.receive_reduced((place, worker), content.part)?,
        }
        Ok(self.progress())
    }

    /// Gives the memory of a whole gradient back that is done with.
    pub(crate) fn recycle(&mut self, floats: Vec<f32>) {
        self.spare = floats;
    }

    fn receive_partial(
        &mut self,
        (place, worker): (usize, WorkerId),
        node: Node,
        part: Part,
    ) -> Result<(), ExchangeError> {
        let lanes = self.peers[place].lanes.clone();
        if place == self.own || !self.tree.maximal_nodes(lanes.clone()).contains(&node) {
            return Err(ExchangeError::Node { worker, node, lanes });
        }
        let (own, slice) = (self.own_slice.as_mut().expect("a step has begun"), &self.slices[self.own]);
        match part {
            Part::Dense { start, data } => {
                let misfit = misplaced(worker, slice, (start, data.len()));
                if own.take_piece(node, start, data) { Ok(()) } else { Err(misfit) }
            }
            Part::Rows(rows) => {
                let misfit = foreign_rows(worker, &self.layout, slice, &rows);
                if own.take_rows(node, Arc::unwrap_or_clone(rows)) { Ok(()) } else { Err(misfit) }
            }
        }
    }

    fn receive_reduced(
        &mut self,
        (place, worker): (usize, WorkerId),
        part: Part,
    ) -> Result<(), ExchangeError> {
        let slice = &self.slices[place];
        match part {
            Part::Dense { start, data } => {
                let taken = place != self.own && self.whole.take(place, slice, (start, &data));
                if taken { Ok(()) } else { Err(misplaced(worker, slice, (start, data.len()))) }
            }
            Part::Rows(rows) => {
                let misfit = foreign_rows(worker, &self.layout, slice, &rows);
                let wanted = place != self.own && self.layout.rows_fold_into.is_none();
                let taken = wanted && fits(&self.layout, slice, &rows) && self.whole.take_rows(place, rows);
                if taken { Ok(()) } else { Err(misfit) }
            }
        }
    }

    /// Reduces what is ready and hands it round; reports the own slice and hands the whole gradient out when they are done.
    fn progress(&mut self) -> Vec<Outgoing> {
        let mut outgoing = Vec::new();
        let Some(mut own) = self.own_slice.take() else { return outgoing };
        if let Some(rows) = own.reduce_rows().filter(|_| self.layout.rows_fold_into.is_none()) {
            self.whole.take_rows(self.own, rows.clone());
            outgoing.extend(self.to_others(&Part::Rows(rows)));
        }
        while let Some(dense) = own.reduce_segment(self.whole.dense_mut()) {
            self.whole.mark(self.own, &self.slices[self.own], &dense);
            if self.peers.len() > 1 {
                let data = self.lent.copy(&self.whole.dense()[dense.clone()]);
                outgoing.extend(self.to_others(&Part::Dense { start: dense.start, data }));
            }
        }
        // Once is enough: it looks at every touched row.
        let report = if self.reported { None } else { own.report() };
        if let Some((squares, not_finite)) = report {
            self.reported = true;
            outgoing.push(Outgoing::Report { squares, not_finite });
        }
        let whole = if self.reported { self.whole.finish() } else { None };
        outgoing.extend(whole.map(Outgoing::Whole));
        self.own_slice = Some(own);
        outgoing
    }

    /// Every place, the next one first: so that not everybody sends to the same peer at a time.
    fn in_turn(&self) -> impl Iterator<Item = usize> + use<> {
        let (own, count) = (self.own, self.peers.len());
        (1..=count).map(move |step| (own + step) % count)
    }

    fn to(&self, place: usize, sum: Sum, part: Part) -> Outgoing {
        Outgoing::Send { to: self.peers[place].clone(), content: PeerContent { sum, part } }
    }

    fn to_others(&self, part: &Part) -> Vec<Outgoing> {
        let others = self.in_turn().filter(|place| *place != self.own);
        others.map(|place| self.to(place, Sum::Reduced, part.clone())).collect()
    }

    fn check_lanes(&self, step: Step, peers: &[Peer]) -> Result<(), ExchangeError> {
        let mut next = 0;
        for peer in peers.iter().filter(|peer| !peer.lanes.is_empty()) {
            if peer.lanes.start != next || peer.lanes.end > self.tree.lanes() {
                return Err(ExchangeError::Lanes { step, found: peer.lanes.clone(), expected: next });
            }
            next = peer.lanes.end;
        }
        let past = self.tree.lanes()..self.tree.lanes();
        if past.start == next {
            Ok(())
        } else {
            Err(ExchangeError::Lanes { step, found: past, expected: next })
        }
    }
}

fn misplaced(worker: WorkerId, slice: &Slice, (start, bytes): (usize, usize)) -> ExchangeError {
    ExchangeError::Segment { worker, bytes, start, dense: slice.dense.clone() }
}

fn foreign_rows(
    worker: WorkerId,
    layout: &GradientLayout,
    slice: &Slice,
    rows: &TouchedRows,
) -> ExchangeError {
    let (floats, rows) = (rows.values.len(), rows.tokens.len());
    ExchangeError::Rows { worker, floats, rows, expected: slice.rows.clone(), width: layout.width }
}

/// What peers have sent ahead of this worker's own step: they may be one commit ahead, and a new term may come between.
#[derive(Debug, Default)]
struct Early {
    kept: BTreeMap<(Term, Step), Vec<(WorkerId, PeerContent)>>,
    bytes: usize,
    most_bytes: usize,
}

impl Early {
    /// Beyond `most_bytes` nothing is kept: the step then fails, and the coordinator begins it again.
    fn keep(&mut self, at: (Term, Step), worker: WorkerId, content: PeerContent) {
        let bytes = content.bytes();
        if self.bytes + bytes <= self.most_bytes {
            self.bytes += bytes;
            self.kept.entry(at).or_default().push((worker, content));
        }
    }

    /// What was kept for a step; what was kept for earlier ones is dropped.
    fn take(&mut self, at: (Term, Step)) -> Vec<(WorkerId, PeerContent)> {
        let mut ahead = self.kept.split_off(&at);
        let now = ahead.remove(&at).unwrap_or_default();
        self.kept = ahead;
        self.bytes = self.kept.values().flatten().map(|(_, content)| content.bytes()).sum();
        now
    }
}

/// Copies of reduced segments on their way to peers; their memory is used again once it is sent.
#[derive(Debug, Default)]
struct Lent(VecDeque<Arc<Vec<f32>>>);

impl Lent {
    fn copy(&mut self, floats: &[f32]) -> Bytes {
        let back = self.0.front().is_some_and(|oldest| Arc::strong_count(oldest) == 1);
        let oldest = if back { self.0.pop_front() } else { None };
        let mut buffer = oldest.and_then(Arc::into_inner).unwrap_or_else(|| Vec::with_capacity(SEGMENT));
        buffer.clear();
        buffer.extend_from_slice(floats);
        let buffer = Arc::new(buffer);
        self.0.push_back(buffer.clone());
        bytes_of(buffer)
    }
}

#[cfg(test)]
mod tests;
