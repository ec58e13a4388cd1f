//! The embedding: rows looked up forward, and a gradient of touched rows only backward.

use std::ops::Range;

use rayon::prelude::*;

use crate::{
    IGNORED_TARGET, LaneStreams,
    kernels::{LANES, Panels, Team},
    tree::LaneTree,
};

/// Fills (T·B, E) with the tokens' rows of `weight` (V, E).
pub(crate) fn look_up(team: &Team, weight: &[f32], width: usize, tokens: &[u32], out: &mut Panels) {
    let (data, panel_len) = out.data_mut();
    team.run_pieces(data, panel_len, |_, panel, data| {
        let columns = (width - panel * LANES).min(LANES);
        for (row, &token) in data.chunks_exact_mut(LANES).zip(tokens) {
            let from = token as usize * width + panel * LANES;
            row[..columns].copy_from_slice(&weight[from..from + columns]);
        }
    });
}

/// Multiplies each row by its factor: the mask of embeddings that are dropped whole, forward and backward.
pub(crate) fn scale_rows(team: &Team, factors: &[f32], rows: &mut Panels) {
    let (data, panel_len) = rows.data_mut();
    team.run_pieces(data, panel_len, |_, _, data| {
        for (row, factor) in data.chunks_exact_mut(LANES).zip(factors) {
            row.iter_mut().for_each(|value| *value *= factor);
        }
    });
}

/// The touched rows' gradients of one group of lanes: sorted tokens, and (rows, E) values.
///
/// A row is one chain of additions a lane, over time steps outside and streams inside, from the first one; lanes are added by the lane
/// tree, in which a lane that did not touch the row is left out. A position without a token (ignored) touches nothing.
pub(crate) fn row_gradients(
    gradient: &Panels,
    width: usize,
    tokens: &[u32],
    lanes: &[LaneStreams],
    group: Range<usize>,
) -> (Vec<u32>, Vec<f32>) {
    let mut touches = touches(tokens, lanes, group);
    touches.sort_unstable();
    let runs: Vec<&[Touch]> = touches.chunk_by(|a, b| a.token == b.token).collect();
    let rows = runs.iter().map(|run| run[0].token).collect();
    let mut values = vec![0.0; runs.len() * width];
    values.par_chunks_mut(width).zip(runs).for_each(|(row, run)| sum_row(gradient, run, row));
    (rows, values)
}

/// One use of a token; sorts by token, then lane, then position in the window.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Touch {
    token: u32,
    lane: usize,
    position: usize,
}

fn touches(tokens: &[u32], lanes: &[LaneStreams], group: Range<usize>) -> Vec<Touch> {
    let streams: usize = lanes.iter().map(|lane| lane.streams).sum();
    let mut first: usize = lanes[..group.start].iter().map(|lane| lane.streams).sum();
    let mut touches = Vec::new();
    for (lane, of) in lanes[group].iter().enumerate() {
        for step in (0..tokens.len()).step_by(streams) {
            let positions = step + first..step + first + of.streams;
            let touched = positions.filter(|&position| tokens[position] != IGNORED_TARGET);
            touches.extend(touched.map(|position| Touch { token: tokens[position], lane, position }));
        }
        first += of.streams;
    }
    touches
}

/// Adds one token's gradients in the shape of the lane tree.
fn sum_row(gradient: &Panels, run: &[Touch], out: &mut [f32]) {
    let width = out.len();
    let mut row = vec![0.0; width];
    let lanes = run.chunk_by(|a, b| a.lane == b.lane).map(|lane| {
        let mut sum = vec![0.0; width];
        gradient.get_row(lane[0].position, &mut sum);
        for touch in &lane[1..] {
            gradient.get_row(touch.position, &mut row);
            add(&mut sum, &row);
        }
        (lane[0].lane, sum)
    });
    let sum = fold_present(lanes);
    out.copy_from_slice(&sum);
}

fn add(sum: &mut [f32], row: &[f32]) {
    for (sum, x) in sum.iter_mut().zip(row) {
        *sum += x;
    }
}

/// The lane tree over lanes of which most are absent: absent is the identity, never an added zero.
fn fold_present(lanes: impl Iterator<Item = (usize, Vec<f32>)>) -> Vec<f32> {
    let merge = |left: Option<Vec<f32>>, right: Option<Vec<f32>>| match (left, right) {
        (Some(mut left), Some(right)) => {
            add(&mut left, &right);
            Some(left)
        }
        (left, right) => left.or(right),
    };
    let mut tree = LaneTree::new();
    let mut next = 0;
    for (lane, sum) in lanes {
        for _ in next..lane {
            tree.push(None, merge);
        }
        tree.push(Some(sum), merge);
        next = lane + 1;
    }
    // Lanes after the last present one add nothing: leaving them out gives the same additions in the same order.
    tree.finish(merge).flatten().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_lanes_change_no_bit_and_no_order() {
        // Sums whose rounding shows the order: ((a+b)+c) and (a+(b+c)) differ.
        let (a, b, c) = (1.0f32, 1e8, -1e8);
        let fold = |lanes: &[(usize, f32)]| fold_present(lanes.iter().map(|&(l, x)| (l, vec![x])))[0];
        assert_eq!(fold(&[(0, a), (2, b), (3, c)]), a + (b + c));
        assert_eq!(fold(&[(0, a), (1, b), (5, c)]), (a + b) + c);
        assert!(fold(&[(3, -0.0)]).is_sign_negative());
    }
}
