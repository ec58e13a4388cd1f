//! The gradient of an update over several windows: each lane's gradients are added in the order of the windows, and only then
//! are lanes folded by the lane tree. So who holds which lanes decides who adds, never what is added to what.

use std::collections::BTreeMap;
use std::ops::Range;

use carousel_model::Partial;
use carousel_proto::gradient::{GradientLayout, TouchedRows, add_floats};
use carousel_proto::{LaneTree, Node};

/// The gradients of a worker's lanes, added over the windows so far.
#[derive(Debug)]
pub(crate) struct Accumulation {
    layout: GradientLayout,
    lanes: Vec<Lane>,
}

#[derive(Debug)]
struct Lane {
    dense: Vec<f32>,
    rows: TouchedRows,
}

impl Lane {
    fn of(partial: Partial) -> Self {
        let rows = TouchedRows { tokens: partial.rows, values: partial.row_values };
        Self { dense: partial.dense, rows }
    }
}

impl Accumulation {
    pub(crate) fn new(layout: GradientLayout) -> Self {
        Self { layout, lanes: Vec::new() }
    }

    /// Adds the next window: one partial a lane. Gives those back whose memory is free again.
    pub(crate) fn add(&mut self, window: Vec<Partial>) -> Vec<Partial> {
        if self.lanes.is_empty() {
            // Nothing is added to zero: that would turn -0 into +0.
            self.lanes = window.into_iter().map(Lane::of).collect();
            return Vec::new();
        }
        let mut spent = Vec::new();
        for (lane, mut partial) in self.lanes.iter_mut().zip(window) {
            add_floats(&mut lane.dense, &partial.dense);
            let further =
                TouchedRows { tokens: partial.rows.split_off(0), values: partial.row_values.split_off(0) };
            lane.rows = self.layout.add_rows(&lane.rows, &further);
            spent.push(partial);
        }
        spent
    }

    /// Folds the lanes to nodes of the lane tree, each given by its lanes as indices among the worker's own.
    pub(crate) fn fold(self, nodes: &[Range<usize>]) -> Vec<Partial> {
        let layout = self.layout;
        let mut lanes: Vec<Option<Lane>> = self.lanes.into_iter().map(Some).collect();
        let fold = |node: &Range<usize>| fold_node(&layout, &mut lanes[node.clone()]);
        nodes.iter().map(fold).collect()
    }
}

/// A node's lanes have the tree of as many lanes.
fn fold_node(layout: &GradientLayout, lanes: &mut [Option<Lane>]) -> Partial {
    let tree = LaneTree::new(lanes.len() as u32);
    let mut rows = BTreeMap::new();
    for (index, lane) in (0..).zip(lanes.iter_mut()) {
        let lane = lane.as_mut().expect("a lane is of one node");
        rows.insert(Node { level: 0, index }, std::mem::take(&mut lane.rows));
    }
    let mut take = |node: Node| (node.level == 0).then(|| lanes[node.index as usize].take()).flatten();
    let sum = tree.sum(&mut take, &mut |mut left: Lane, right| {
        add_floats(&mut left.dense, &right.dense);
        left
    });
    let rows = layout.reduce_rows(tree, rows);
    Partial { dense: sum.dense, rows: rows.tokens, row_values: rows.values }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: GradientLayout =
        GradientLayout { dense: 1, dense_offset: 9, rows: 9, width: 1, most_rows: 9, rows_fold_into: None };

    /// One dense float and one touched row.
    fn partial(dense: f32, row: u32, value: f32) -> Partial {
        Partial { dense: vec![dense], rows: vec![row], row_values: vec![value] }
    }

    /// In f32, (1 + 2^-24) + 2^-24 = 1 and 1 + (2^-24 + 2^-24) is above 1: the order of the additions shows.
    const TINY: f32 = 1.0 / (1 << 24) as f32;

    #[test]
    fn windows_are_added_in_each_lane_and_lanes_by_the_tree() {
        let mut sum = Accumulation::new(LAYOUT);
        assert_eq!(
            sum.add(vec![partial(1.0, 3, -0.0), partial(TINY, 3, 1.0), partial(TINY, 4, 1.0)]).len(),
            0
        );
        let spent = sum.add(vec![partial(TINY, 5, 2.0), partial(TINY, 3, 1.0), partial(TINY, 4, 1.0)]);
        assert_eq!(spent.len(), 3, "their memory can be used again");
        let nodes = sum.fold(&[0..2, 2..3]);
        // Lane 0: 1 + tiny = 1; lane 1: 2 tiny; together above 1. Tree before lanes would give 1.
        assert_eq!(nodes[0].dense, [1.0 + 2.0 * TINY]);
        assert_eq!((&nodes[0].rows[..], &nodes[0].row_values[..]), (&[3, 5][..], &[2.0, 2.0][..]));
        assert_eq!((&nodes[1].dense[..], &nodes[1].rows[..]), (&[2.0 * TINY][..], &[4][..]));
    }

    #[test]
    fn a_row_that_one_window_touches_is_taken_as_it_is() {
        let mut sum = Accumulation::new(LAYOUT);
        sum.add(vec![partial(0.0, 3, -0.0)]);
        sum.add(vec![partial(0.0, 4, -0.0)]);
        let node = sum.fold(std::slice::from_ref(&(0..1))).remove(0);
        assert_eq!(node.row_values.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), [0x8000_0000; 2]);
    }
}
