//! A slice's dense part in segments, each reduced as soon as every node's partial sum of it is here: one pass over the
//! memory, block by block, that adds the nodes in the lane tree's order and squares the sum. Pieces are bytes as they lie
//! in the sender's gradient or came off the wire; nothing is copied before it is added. Who sends what is not this file's.

use std::ops::Range;

use bytes::Bytes;
use rayon::prelude::*;

use super::{BLOCK, sum_of_squares};
use crate::{LaneTree, Node};

/// Floats in one segment, whole blocks: what a message carries, and small enough for a second-level cache.
pub const SEGMENT: usize = 16 * BLOCK;

/// The segments of a slice's dense part, in order; the last may be shorter.
pub fn segments(dense: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
    let end = dense.end;
    dense.clone().step_by(SEGMENT).map(move |start| start..(start + SEGMENT).min(end))
}

/// The cuts of a run of floats at the bounds of a slice's segments, as far as it lies in the slice.
pub fn cut_at_segments(
    run: &Range<usize>,
    dense: &Range<usize>,
) -> impl Iterator<Item = Range<usize>> + use<> {
    let (start, end, origin) = (run.start.max(dense.start), run.end.min(dense.end), dense.start);
    let bound_after = move |at: usize| origin + ((at - origin) / SEGMENT + 1) * SEGMENT;
    std::iter::successors((start < end).then_some(start), move |&at| Some(bound_after(at)))
        .take_while(move |&at| at < end)
        .map(move |at| at..bound_after(at).min(end))
}

/// What is here of one node's partial sum of a segment: disjoint runs of little-endian floats.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    /// Where each begins, in floats of the whole dense part.
    runs: Vec<(usize, Bytes)>,
    floats: usize,
}

impl Pieces {
    /// Adds a run that begins at float `start`. `false`, and nothing is kept, when it overlaps what is here, is empty or
    /// does not end on a float.
    #[must_use]
    pub fn insert(&mut self, start: usize, data: Bytes) -> bool {
        let floats = data.len() / 4;
        let disjoint = |(at, run): &(usize, Bytes)| start + floats <= *at || at + run.len() / 4 <= start;
        let fits = floats > 0 && data.len().is_multiple_of(4) && self.runs.iter().all(disjoint);
        if fits {
            self.runs.push((start, data));
            self.floats += floats;
        }
        fits
    }

    /// Floats that are here.
    #[must_use]
    pub fn floats(&self) -> usize {
        self.floats
    }

    /// Does `each` for the floats of `range` that are here, with their places in `out`.
    fn visit(&self, range: &Range<usize>, out: &mut [f32], each: impl Fn(&mut f32, f32)) {
        for (start, data) in &self.runs {
            let floats = data.as_chunks::<4>().0;
            let (from, to) = (range.start.max(*start), range.end.min(start + floats.len()));
            if from < to {
                let places = &mut out[from - range.start..to - range.start];
                let values = &floats[from - start..to - start];
                places.iter_mut().zip(values).for_each(|(place, x)| each(place, f32::from_le_bytes(*x)));
            }
        }
    }
}

/// One step of the sum, on a stack of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    /// Puts a node's block on the stack.
    Load(usize),
    /// Adds a node's block to the uppermost.
    Add(usize),
    /// Adds the uppermost to the one below it.
    Merge,
}

/// The lane tree's additions over some nodes, laid out once for every block of a step.
#[derive(Clone, Debug)]
pub struct Summation {
    nodes: Vec<Node>,
    operations: Vec<Operation>,
    /// Blocks on the stack at most.
    depth: usize,
}

impl Summation {
    /// Over disjoint nodes that cover every lane.
    ///
    /// # Panics
    /// When they leave a lane uncovered.
    #[must_use]
    pub fn new(tree: LaneTree, nodes: Vec<Node>) -> Self {
        let place = |node| nodes.iter().position(|n| *n == node);
        let operations =
            tree.sum(&mut |node| place(node).map(|i| vec![Operation::Load(i)]), &mut |mut left, right| {
                match right[..] {
                    [Operation::Load(i)] => left.push(Operation::Add(i)),
                    _ => left.extend(right.into_iter().chain([Operation::Merge])),
                }
                left
            });
        let height = |height: &mut usize, operation: &Operation| {
            match operation {
                Operation::Load(_) => *height += 1,
                Operation::Add(_) => {}
                Operation::Merge => *height -= 1,
            }
            Some(*height)
        };
        let depth = operations.iter().scan(0, height).max().unwrap_or(0);
        Self { nodes, operations, depth }
    }

    /// The nodes, in the order of the sources.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Sums the segment that begins at float `start` into `out`, and gives the sum of squares of each block.
    /// `finish(first float, block)` has the last word on a block before it is squared.
    ///
    /// # Panics
    /// When a source does not cover the segment.
    pub fn run(
        &self,
        start: usize,
        sources: &[Pieces],
        out: &mut [f32],
        finish: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Vec<f64> {
        assert!(sources.iter().all(|source| source.floats >= out.len()), "every node is here");
        let scratch = || vec![vec![0.0; BLOCK]; self.depth.saturating_sub(1)];
        let blocks = out.par_chunks_mut(BLOCK).enumerate();
        blocks
            .map_init(scratch, |scratch, (index, block)| {
                let first = start + index * BLOCK;
                self.sum_block(&(first..first + block.len()), sources, block, scratch);
                finish(first, block);
                sum_of_squares(block)
            })
            .collect()
    }

    fn sum_block(&self, range: &Range<usize>, sources: &[Pieces], out: &mut [f32], scratch: &mut [Vec<f32>]) {
        let mut stack: Vec<&mut [f32]> = Vec::with_capacity(self.depth);
        let len = out.len();
        stack.push(out);
        stack.extend(scratch.iter_mut().map(|block| &mut block[..len]));
        let mut height = 0;
        for operation in &self.operations {
            match *operation {
                Operation::Load(i) => {
                    sources[i].visit(range, stack[height], |place, x| *place = x);
                    height += 1;
                }
                Operation::Add(i) => sources[i].visit(range, stack[height - 1], |place, x| *place += x),
                Operation::Merge => {
                    height -= 1;
                    let (below, above) = stack.split_at_mut(height);
                    below[height - 1].iter_mut().zip(above[0].iter()).for_each(|(l, r)| *l += r);
                }
            }
        }
    }
}
