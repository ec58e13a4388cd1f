//! The embedding's side of a gradient: the rows that some lanes touch. A row nobody touches is absent, not zero.

use std::collections::BTreeMap;
use std::ops::Range;

use rayon::prelude::*;

use super::{GradientLayout, Slice, sum_of_squares};
use crate::{LaneTree, Node};

/// Touched embedding rows, of a slice or of the whole embedding.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TouchedRows {
    /// Which, ascending.
    pub tokens: Vec<u32>,
    /// (tokens, width) their values.
    pub values: Vec<f32>,
}

impl AsRef<[f32]> for TouchedRows {
    fn as_ref(&self) -> &[f32] {
        &self.values
    }
}

impl GradientLayout {
    /// The rows that belong to a slice, of all that are touched: (tokens, width) values.
    #[must_use]
    pub fn rows_of(&self, tokens: &[u32], values: &[f32], slice: &Slice) -> TouchedRows {
        let first = tokens.partition_point(|row| *row < slice.rows.start);
        let end = tokens.partition_point(|row| *row < slice.rows.end);
        let values = values[first * self.width..end * self.width].to_vec();
        TouchedRows { tokens: tokens[first..end].to_vec(), values }
    }

    /// Sums the rows of disjoint nodes that cover every lane.
    ///
    /// # Panics
    /// When they leave a lane uncovered.
    #[must_use]
    pub fn reduce_rows(&self, tree: LaneTree, mut partials: BTreeMap<Node, TouchedRows>) -> TouchedRows {
        tree.sum(&mut |node| partials.remove(&node), &mut |left, right| {
            let (tokens, values) =
                merge_rows((&left.tokens, &left.values), (&right.tokens, &right.values), self.width);
            TouchedRows { tokens, values }
        })
    }

    /// The sum of two sets of rows. A row that only one has is taken as it is.
    #[must_use]
    pub fn add_rows(&self, left: &TouchedRows, right: &TouchedRows) -> TouchedRows {
        let (left, right) = ((&left.tokens[..], &left.values[..]), (&right.tokens[..], &right.values[..]));
        let (tokens, values) = merge_rows(left, right, self.width);
        TouchedRows { tokens, values }
    }

    /// Whether touched rows are folded into some of these dense floats.
    #[must_use]
    pub fn folds_over(&self, dense: &Range<usize>) -> bool {
        let folded = |offset| offset..offset + self.rows * self.width;
        let over = |to: Range<usize>| dense.start < to.end && to.start < dense.end;
        self.rows_fold_into.map(folded).is_some_and(over)
    }

    /// Tied weights: adds the reduced rows to a run of the dense part that begins at float `first`. A row that lies across
    /// two runs gives each its own part. Without tied weights it does nothing.
    pub fn fold_rows(&self, rows: &TouchedRows, first: usize, run: &mut [f32]) {
        let Some(offset) = self.rows_fold_into else { return };
        let start_of = |token: u32| offset + token as usize * self.width;
        let begin = rows.tokens.partition_point(|token| start_of(*token) + self.width <= first);
        let (end, rows) = (first + run.len(), rows.tokens.iter().zip(rows.values.chunks_exact(self.width)));
        for (token, row) in rows.skip(begin).take_while(|(token, _)| start_of(**token) < end) {
            let start = start_of(*token);
            for (at, value) in (start..).zip(row) {
                if let Some(place) = at.checked_sub(first).and_then(|at| run.get_mut(at)) {
                    *place += value;
                }
            }
        }
    }

    /// The sum of squares of each row.
    #[must_use]
    pub fn row_squares(&self, values: &[f32]) -> Vec<f64> {
        values.par_chunks(self.width).map(sum_of_squares).collect()
    }

    /// The parameter offset of the first float of touched rows that is NaN or infinite.
    #[must_use]
    pub fn first_non_finite_row(&self, tokens: &[u32], values: &[f32]) -> Option<usize> {
        let at = values.iter().position(|x| !x.is_finite())?;
        Some(tokens[at / self.width] as usize * self.width + at % self.width)
    }
}

type Rows<'a> = (&'a [u32], &'a [f32]);

/// A row only one side touches is taken as it is, not added to zero: that would turn -0 into +0.
pub(super) fn merge_rows(
    (left, left_values): Rows,
    (right, right_values): Rows,
    width: usize,
) -> (Vec<u32>, Vec<f32>) {
    let (mut rows, mut values) = (Vec::new(), Vec::new());
    let (mut l, mut r) = (0, 0);
    while l < left.len() || r < right.len() {
        let token = left.get(l).copied().unwrap_or(u32::MAX).min(right.get(r).copied().unwrap_or(u32::MAX));
        rows.push(token);
        let start = values.len();
        if left.get(l) == Some(&token) {
            values.extend_from_slice(&left_values[l * width..][..width]);
            l += 1;
        }
        if right.get(r) == Some(&token) {
            let row = &right_values[r * width..][..width];
            if values.len() == start {
                values.extend_from_slice(row);
            } else {
                values[start..].iter_mut().zip(row).for_each(|(v, r)| *v += r);
            }
            r += 1;
        }
    }
    (rows, values)
}
