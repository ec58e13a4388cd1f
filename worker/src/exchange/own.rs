//! A worker's own slice of the gradient: gathers every node's partial sums and reduces segment after segment, each as soon
//! as all of it is here, into its place in the whole gradient.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use carousel_proto::gradient::{
    BLOCK, GradientLayout, Pieces, SEGMENT, Slice, SquareSums, Summation, TouchedRows, segments,
};
use carousel_proto::{LaneTree, Node};

#[derive(Debug)]
pub(super) struct OwnSlice {
    layout: GradientLayout,
    tree: LaneTree,
    slice: Slice,
    summation: Summation,
    segments: Vec<Gathering>,
    /// Segments of which every node is here, in the order in which they became whole.
    complete: VecDeque<usize>,
    unreduced: usize,
    rows: BTreeMap<Node, TouchedRows>,
    reduced_rows: Option<Arc<TouchedRows>>,
    /// Of each block of the slice.
    squares: Vec<f64>,
    not_finite: Option<usize>,
}

/// What is here of one segment.
#[derive(Debug)]
struct Gathering {
    dense: Range<usize>,
    /// In the order of the summation's nodes.
    sources: Vec<Pieces>,
    floats: usize,
}

impl OwnSlice {
    /// `nodes` are disjoint and cover every lane.
    pub(super) fn new(layout: GradientLayout, tree: LaneTree, slice: Slice, nodes: Vec<Node>) -> Self {
        let gathering = |dense| Gathering { dense, sources: vec![Pieces::default(); nodes.len()], floats: 0 };
        let segments: Vec<Gathering> = segments(&slice.dense).map(gathering).collect();
        Self {
            layout,
            tree,
            complete: VecDeque::new(),
            unreduced: segments.len(),
            segments,
            rows: BTreeMap::new(),
            reduced_rows: None,
            squares: vec![0.0; slice.dense.len().div_ceil(BLOCK)],
            not_finite: None,
            slice,
            summation: Summation::new(tree, nodes),
        }
    }

    /// Takes a run of a node's dense floats; `false` when it does not lie in one segment, or lies over what is here.
    pub(super) fn take_piece(&mut self, node: Node, start: usize, data: Bytes) -> bool {
        let Some(source) = self.summation.nodes().iter().position(|n| *n == node) else { return false };
        let Some(index) = start.checked_sub(self.slice.dense.start).map(|at| at / SEGMENT) else {
            return false;
        };
        let Some(segment) = self.segments.get_mut(index) else { return false };
        let (floats, room) = (data.len() / 4, segment.dense.end.saturating_sub(start));
        // A segment that has been reduced has no sources any more.
        let Some(pieces) = segment.sources.get_mut(source) else { return false };
        if floats > room || !pieces.insert(start, data) {
            return false;
        }
        segment.floats += floats;
        if segment.floats == segment.dense.len() * self.summation.nodes().len() {
            self.complete.push_back(index);
        }
        true
    }

    /// Takes the rows that a node touches; `false` when they are none of the slice, or came before.
    pub(super) fn take_rows(&mut self, node: Node, rows: TouchedRows) -> bool {
        let wanted = self.reduced_rows.is_none() && fits(&self.layout, &self.slice, &rows);
        wanted && self.rows.insert(node, rows).is_none()
    }

    /// The reduced rows, once: as soon as every node's are here.
    pub(super) fn reduce_rows(&mut self) -> Option<Arc<TouchedRows>> {
        if self.reduced_rows.is_some() || self.rows.len() < self.summation.nodes().len() {
            return None;
        }
        let rows = Arc::new(self.layout.reduce_rows(self.tree, std::mem::take(&mut self.rows)));
        self.reduced_rows = Some(rows.clone());
        Some(rows)
    }

    /// Reduces a segment that is ready into `whole`, the dense part; gives its place, or `None` when none is ready.
    pub(super) fn reduce_segment(&mut self, whole: &mut [f32]) -> Option<Range<usize>> {
        let index = *self.complete.front()?;
        let segment = &mut self.segments[index];
        let dense = segment.dense.clone();
        // With tied weights the touched rows belong in here, and they are the last to be known.
        if self.layout.folds_over(&dense) && self.reduced_rows.is_none() {
            return None;
        }
        self.complete.pop_front();
        let (sources, rows) = (std::mem::take(&mut segment.sources), self.reduced_rows.clone());
        let (layout, out) = (&self.layout, &mut whole[dense.clone()]);
        let squares = self.summation.run(dense.start, &sources, out, |first, block| {
            rows.iter().for_each(|rows| layout.fold_rows(rows, first, block));
        });
        if squares.iter().any(|sum| !sum.is_finite()) {
            let first = out.iter().position(|x| !x.is_finite()).map(|at| dense.start + at);
            self.not_finite = first.into_iter().chain(self.not_finite).min();
        }
        let first_block = (dense.start - self.slice.dense.start) / BLOCK;
        self.squares[first_block..first_block + squares.len()].copy_from_slice(&squares);
        self.unreduced -= 1;
        Some(dense)
    }

    /// The sums of squares of the whole slice, and the parameter offset of the first NaN or infinity, once all is reduced.
    pub(super) fn report(&self) -> Option<(SquareSums, Option<usize>)> {
        let rows = self.reduced_rows.as_ref().filter(|_| self.unreduced == 0)?;
        let (tokens, values): (&[u32], &[f32]) = match self.layout.rows_fold_into {
            Some(_) => (&[], &[]),
            None => (&rows.tokens, &rows.values),
        };
        let squares = SquareSums { dense: self.squares.clone(), rows: self.layout.row_squares(values) };
        let in_dense = self.not_finite.map(|at| at + self.layout.dense_offset);
        Some((squares, self.layout.first_non_finite_row(tokens, values).or(in_dense)))
    }
}

/// Whether rows are ascending, of the slice, and as wide as they must be.
pub(super) fn fits(layout: &GradientLayout, slice: &Slice, rows: &TouchedRows) -> bool {
    let ascending = rows.tokens.windows(2).all(|pair| pair[0] < pair[1]);
    let inside = rows.tokens.iter().all(|token| slice.rows.contains(token));
    ascending && inside && rows.values.len() == rows.tokens.len() * layout.width
}
