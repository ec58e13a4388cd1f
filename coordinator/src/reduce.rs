//! The all-reduce of `exchange = "star"`: the coordinator finishes the lane tree over the workers' partial sums, and
//! takes the gradient's norm. The sums are those of the tree, whoever sent which node; only the work is parallel.

use std::collections::BTreeMap;

use carousel_proto::{LaneTree, Node};
use rayon::prelude::*;

use crate::replica::ReplicaLayout;

/// Floats in one block of the sum of squares.
const BLOCK: usize = 4096;

/// A gradient summed over some lanes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Gradient {
    /// The embedding rows it touches, ascending.
    pub rows: Vec<u32>,
    /// The dense part, then the touched rows: (dense + rows x width).
    pub floats: Vec<f32>,
}

/// Sums the partial gradients of disjoint nodes that cover every lane. With tied weights the touched rows are then
/// added to the dense part, which holds the decoder's gradient of the same matrix.
///
/// # Panics
/// When the partials leave a lane uncovered, or were not checked against `layout`.
#[must_use]
pub(crate) fn reduce(
    tree: LaneTree,
    mut partials: BTreeMap<Node, Gradient>,
    layout: &ReplicaLayout,
) -> Gradient {
    let sum = tree.sum(&mut |node| partials.remove(&node), &mut |left, right| add(left, &right, layout));
    match layout.rows_fold_into {
        Some(offset) => fold_rows(sum, offset, layout),
        None => sum,
    }
}

fn add(mut left: Gradient, right: &Gradient, layout: &ReplicaLayout) -> Gradient {
    let (dense, width) = (layout.dense_floats, layout.row_floats);
    add_floats(&mut left.floats[..dense], &right.floats[..dense]);
    let (rows, values) =
        merge_rows((&left.rows, &left.floats[dense..]), (&right.rows, &right.floats[dense..]), width);
    left.floats.truncate(dense);
    left.floats.extend(values);
    left.rows = rows;
    left
}

fn add_floats(left: &mut [f32], right: &[f32]) {
    left.par_chunks_mut(BLOCK).zip(right.par_chunks(BLOCK)).for_each(|(left, right)| {
        for (l, r) in left.iter_mut().zip(right) {
            *l += r;
        }
    });
}

type Rows<'a> = (&'a [u32], &'a [f32]);

/// A row only one side touches is taken as it is, not added to zero: that would turn -0 into +0.
fn merge_rows((left, left_values): Rows, (right, right_values): Rows, width: usize) -> (Vec<u32>, Vec<f32>) {
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

fn fold_rows(mut sum: Gradient, offset: usize, layout: &ReplicaLayout) -> Gradient {
    let (dense, width) = (layout.dense_floats, layout.row_floats);
    let (dense_part, values) = sum.floats.split_at_mut(dense);
    for (token, row) in sum.rows.iter().zip(values.chunks_exact(width)) {
        let target = &mut dense_part[offset + *token as usize * width..][..width];
        target.iter_mut().zip(row).for_each(|(t, r)| *t += r);
    }
    sum.floats.truncate(dense);
    sum.rows.clear();
    sum
}

/// The global L2 norm of a reduced gradient: f64 sums of squares of fixed blocks (4096 floats of the dense part, or one
/// touched row), added in order.
#[must_use]
pub(crate) fn norm(gradient: &Gradient, layout: &ReplicaLayout) -> f64 {
    let (dense, rows) = gradient.floats.split_at(layout.dense_floats);
    let mut sums: Vec<f64> = dense.par_chunks(BLOCK).map(sum_of_squares).collect();
    sums.par_extend(rows.par_chunks(layout.row_floats).map(sum_of_squares));
    sums.iter().sum::<f64>().sqrt()
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

/// The factor that brings a gradient of norm `norm` down to `max_norm`, 1 where it is not above (as PyTorch's
/// `clip_grad_norm_`); no limit: 1.
#[must_use]
pub(crate) fn clip_scale(norm: f64, max_norm: Option<f64>) -> f32 {
    max_norm.map_or(1.0, |max_norm| (max_norm / (norm + 1e-6)).min(1.0)) as f32
}

/// The name of the first parameter in whose gradient something is NaN or infinite.
#[must_use]
pub(crate) fn first_non_finite<'a>(gradient: &Gradient, layout: &'a ReplicaLayout) -> Option<&'a str> {
    let (dense, rows) = gradient.floats.split_at(layout.dense_floats);
    let bad = |floats: &[f32]| floats.iter().position(|x| !x.is_finite());
    let offset = if bad(rows).is_some() { Some(0) } else { bad(dense).map(|at| at + layout.dense_offset) };
    layout.parameter_at(offset?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layout(rows_fold_into: Option<usize>) -> ReplicaLayout {
        ReplicaLayout { dense_floats: 6, row_floats: 2, rows_fold_into, ..ReplicaLayout::default() }
    }

    fn lane(index: u32) -> Gradient {
        let value = |i: u32| ((index * 31 + i * 17) % 23) as f32 * 0.37 - 3.1;
        let rows: Vec<u32> = (0..3).filter(|r| (index + r).is_multiple_of(2)).collect();
        let floats = (0..6 + 2 * rows.len() as u32).map(value).collect();
        Gradient { rows, floats }
    }

    /// What the holder of a node sends: the tree under it, summed by the same rule.
    fn partial(lanes: std::ops::Range<u32>) -> Gradient {
        let tree = LaneTree::new(lanes.len() as u32);
        let singles =
            (0..tree.lanes()).map(|index| (Node { level: 0, index }, lane(lanes.start + index))).collect();
        reduce(tree, singles, &layout(None))
    }

    #[test]
    fn rows_are_merged_and_untouched_ones_left_alone() {
        let left =
            Gradient { rows: vec![1, 4], floats: vec![0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, -0.0, 4.0] };
        let right =
            Gradient { rows: vec![1, 2], floats: vec![0.5, 0.0, 0.0, 0.0, 0.0, 1.0, 10.0, 20.0, 5.0, 6.0] };
        let sum = add(left, &right, &layout(None));
        assert_eq!(sum.rows, [1, 2, 4]);
        assert_eq!(sum.floats, [0.5, 0.0, 0.0, 0.0, 0.0, 1.0, 11.0, 22.0, 5.0, 6.0, -0.0, 4.0]);
        assert!(sum.floats[10].is_sign_negative(), "an absent row is no zero that is added");
    }

    #[test]
    fn tied_rows_are_folded_into_the_dense_part() {
        let gradient =
            Gradient { rows: vec![0, 2], floats: vec![1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 10.0, 20.0, 30.0, 40.0] };
        let partials = BTreeMap::from([(Node { level: 0, index: 0 }, gradient)]);
        let sum = reduce(LaneTree::new(1), partials, &layout(Some(0)));
        assert_eq!(sum, Gradient { rows: vec![], floats: vec![11.0, 21.0, 1.0, 1.0, 31.0, 41.0] });
    }

    #[test]
    fn norm_and_clip() {
        let gradient = Gradient { rows: vec![7], floats: vec![3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 4.0] };
        assert_eq!(norm(&gradient, &layout(None)), 5.0);
        assert_eq!(clip_scale(5.0, Some(1.0)), (1.0 / (5.0 + 1e-6)) as f32);
        assert_eq!((clip_scale(5.0, Some(6.0)), clip_scale(5.0, None)), (1.0, 1.0));
        assert!(
            clip_scale(f64::NAN, None) == 1.0
                && !norm(&Gradient { rows: vec![], floats: vec![f32::NAN; 6] }, &layout(None)).is_finite()
        );
    }

    #[test]
    fn the_parameter_of_a_non_finite_gradient_is_named() {
        let shape =
            |name: &str, floats| crate::replica::TensorShape { name: name.into(), shape: vec![floats] };
        let parameters =
            vec![shape("encoder.weight", 8), shape("rnn.weight_hh_l0", 4), shape("decoder.bias", 2)];
        let layout = ReplicaLayout { parameters, dense_offset: 8, ..layout(None) };
        let with = |at: usize, value: f32| {
            let mut floats = vec![1.0; 8];
            floats[at] = value;
            first_non_finite(&Gradient { rows: vec![3], floats }, &layout)
        };
        assert_eq!(with(0, 1.0), None);
        assert_eq!(with(3, f32::NAN), Some("rnn.weight_hh_l0"));
        assert_eq!(with(4, f32::INFINITY), Some("decoder.bias"));
        assert_eq!(with(7, f32::NEG_INFINITY), Some("encoder.weight"));
    }

    proptest! {
        #[test]
        fn the_sum_does_not_depend_on_who_holds_which_lanes(lanes in 1u32..12, cuts in proptest::collection::vec(0u32..12, 0..4)) {
            let tree = LaneTree::new(lanes);
            let mut bounds: Vec<u32> = cuts.into_iter().map(|c| c.min(lanes)).chain([0, lanes]).collect();
            bounds.sort_unstable();
            let nodes = bounds.windows(2).flat_map(|w| tree.maximal_nodes(w[0]..w[1]));
            let sum = reduce(tree, nodes.map(|n| (n, partial(tree.lanes_under(n).unwrap()))).collect(), &layout(None));
            let bits = |g: &Gradient| g.floats.iter().map(|f| f.to_bits()).collect::<Vec<_>>();
            let whole = partial(0..lanes);
            prop_assert_eq!(&sum.rows, &whole.rows);
            prop_assert_eq!(bits(&sum), bits(&whole));
        }
    }
}
