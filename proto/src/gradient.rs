//! The gradient of a step on its way: partial sums over lanes, the lane tree's additions, slices of the parameters, and
//! the sums of squares for the clip. Both ends do exactly these additions: the coordinator for everyone
//! (`exchange = "star"`, one slice), or each worker for its slice (`"mesh"`). The same bits either way. How gradients
//! come about, and how they travel, is not this file's.

use std::collections::BTreeMap;
use std::ops::Range;

use rayon::prelude::*;

use crate::{LaneTree, Node};

mod rows;
mod segment;
pub use rows::TouchedRows;
use rows::merge_rows;
pub use segment::{Pieces, SEGMENT, Summation, cut_at_segments, segments};

/// Floats in one block of the sum of squares; slices begin and end on blocks.
pub const BLOCK: usize = 4096;

/// How a model's gradient is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GradientLayout {
    /// Floats of the dense part.
    pub dense: usize,
    /// The parameter offset at which the dense part begins.
    pub dense_offset: usize,
    /// Rows that can be touched: the embedding's, one for each token of the vocabulary; with a sampled softmax the decoder's as well.
    pub rows: usize,
    /// Floats of one row.
    pub width: usize,
    /// Rows that one step can touch, at most.
    pub most_rows: usize,
    /// Tied weights: where in the dense part the touched rows are added, after the whole lane tree.
    pub rows_fold_into: Option<usize>,
}

/// A gradient, or a slice of one, summed over some lanes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gradient {
    /// The embedding rows it touches, ascending.
    pub rows: Vec<u32>,
    /// The dense part, then the touched rows: (dense + rows x width).
    pub floats: Vec<f32>,
}

impl AsRef<[f32]> for Gradient {
    fn as_ref(&self) -> &[f32] {
        &self.floats
    }
}

/// A part of the parameters: a run of the dense part, and the embedding rows that go with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Floats of the dense part.
    pub dense: Range<usize>,
    /// Embedding rows. With tied weights a row that lies across two slices belongs to both.
    pub rows: Range<u32>,
}

/// The sums of squares of a slice's blocks: of its dense part, then one for each touched row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SquareSums {
    /// Of each block of 4096 floats.
    pub dense: Vec<f64>,
    /// Of each touched row.
    pub rows: Vec<f64>,
}

impl GradientLayout {
    /// The slices of so many owners, in order, as even as whole blocks allow.
    #[must_use]
    pub fn slices(&self, owners: usize) -> Vec<Slice> {
        let blocks = self.dense.div_ceil(BLOCK);
        let bound = |i: usize| (i * blocks / owners * BLOCK).min(self.dense);
        let row_bound = |i: usize| (i * self.rows / owners) as u32;
        let slice = |i: usize| {
            let dense = if i + 1 == owners { bound(i)..self.dense } else { bound(i)..bound(i + 1) };
            let rows = match self.rows_fold_into {
                None => row_bound(i)..row_bound(i + 1),
                Some(offset) => self.rows_over(&dense, offset),
            };
            Slice { dense, rows }
        };
        (0..owners).map(slice).collect()
    }

    /// The rows that, folded in at `offset`, touch a part of the dense floats.
    fn rows_over(&self, dense: &Range<usize>, offset: usize) -> Range<u32> {
        let first = dense.start.saturating_sub(offset) / self.width;
        let end = dense.end.saturating_sub(offset).div_ceil(self.width);
        let clamp = |row: usize| row.min(self.rows) as u32;
        if dense.is_empty() { 0..0 } else { clamp(first)..clamp(end) }
    }

    /// Sums the slices of disjoint nodes that cover every lane; with tied weights the touched rows are then added to
    /// the dense part, which holds the decoder's gradient of the same matrix.
    ///
    /// # Panics
    /// When the partials leave a lane uncovered, or their sizes are not the slice's.
    #[must_use]
    pub fn reduce(&self, tree: LaneTree, mut partials: BTreeMap<Node, Gradient>, slice: &Slice) -> Gradient {
        let (dense, width) = (slice.dense.len(), self.width);
        let sum =
            tree.sum(&mut |node| partials.remove(&node), &mut |left, right| add(left, &right, dense, width));
        if self.rows_fold_into.is_some() { self.folded(sum, slice) } else { sum }
    }

    fn folded(&self, mut sum: Gradient, slice: &Slice) -> Gradient {
        let rows = TouchedRows {
            tokens: std::mem::take(&mut sum.rows),
            values: sum.floats.split_off(slice.dense.len()),
        };
        self.fold_rows(&rows, slice.dense.start, &mut sum.floats);
        sum
    }

    /// The sums of squares of a reduced slice: f64, in 16 partial sums a block.
    #[must_use]
    pub fn square_sums(&self, gradient: &Gradient, slice: &Slice) -> SquareSums {
        let (dense, rows) = gradient.floats.split_at(slice.dense.len());
        let dense = dense.par_chunks(BLOCK).map(sum_of_squares).collect();
        SquareSums { dense, rows: self.row_squares(rows) }
    }

    /// The parameter offset of the first float of a reduced slice that is NaN or infinite.
    #[must_use]
    pub fn first_non_finite(&self, gradient: &Gradient, slice: &Slice) -> Option<usize> {
        let (dense, rows) = gradient.floats.split_at(slice.dense.len());
        let in_dense = || dense.iter().position(|x| !x.is_finite());
        let in_row = self.first_non_finite_row(&gradient.rows, rows);
        in_row.or_else(|| in_dense().map(|at| slice.dense.start + at + self.dense_offset))
    }
}

fn add(mut left: Gradient, right: &Gradient, dense: usize, width: usize) -> Gradient {
    add_floats(&mut left.floats[..dense], &right.floats[..dense]);
    let (rows, values) =
        merge_rows((&left.rows, &left.floats[dense..]), (&right.rows, &right.floats[dense..]), width);
    left.floats.truncate(dense);
    left.floats.extend(values);
    left.rows = rows;
    left
}

/// Adds `right` to `left`, element by element, on the current rayon pool.
pub fn add_floats(left: &mut [f32], right: &[f32]) {
    left.par_chunks_mut(BLOCK).zip(right.par_chunks(BLOCK)).for_each(|(left, right)| {
        for (l, r) in left.iter_mut().zip(right) {
            *l += r;
        }
    });
}

/// 16 partial sums by index mod 16, then a fixed tree (the numerics contract's shape for long sums).
fn sum_of_squares(block: &[f32]) -> f64 {
    let mut partial = [0f64; 16];
    for sixteen in block.chunks(16) {
        for (p, &x) in partial.iter_mut().zip(sixteen) {
            *p += f64::from(x) * f64::from(x);
        }
    }
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            partial[i] += partial[i + width];
        }
    }
    partial[0]
}

/// The global L2 norm from the sums of all slices, in order: every dense block, then every touched row.
#[must_use]
pub fn norm(slices: &[SquareSums]) -> f64 {
    let dense = slices.iter().flat_map(|s| &s.dense);
    let rows = slices.iter().flat_map(|s| &s.rows);
    dense.chain(rows).sum::<f64>().sqrt()
}

/// The factor that brings a gradient of norm `norm` down to `max_norm`, 1 where it is not above (as PyTorch's
/// `clip_grad_norm_`); no limit: 1.
#[must_use]
pub fn clip_scale(norm: f64, max_norm: Option<f64>) -> f32 {
    max_norm.map_or(1.0, |max_norm| (max_norm / (norm + 1e-6)).min(1.0)) as f32
}

#[cfg(test)]
mod tests;
