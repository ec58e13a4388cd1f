//! The fixed balanced binary tree over lanes in which every gradient of the project is summed.
//!
//! The tree is the left-complete one (a subtree of n lanes splits at the largest power of two below n), so node
//! `(level, index)` covers the lanes `[index << level, (index + 1) << level)` as far as they exist. A node whose right
//! child covers no lane is its left child: it adds nothing and is never sent. Who holds which lanes never changes what is
//! added to what; that is why the bits do not depend on the workers.

use std::ops::Range;

/// A subtree: the sum over the lanes it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// Height above the lanes; a lane is level 0.
    pub level: u32,
    /// Position among the nodes of its level.
    pub index: u32,
}

/// The tree over `lanes` lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneTree {
    lanes: u32,
}

impl LaneTree {
    /// # Panics
    /// When there is no lane.
    #[must_use]
    pub fn new(lanes: u32) -> Self {
        assert!(lanes > 0, "a run has at least one lane");
        Self { lanes }
    }

    /// The number of lanes.
    #[must_use]
    pub fn lanes(&self) -> u32 {
        self.lanes
    }

    /// The node that covers every lane.
    #[must_use]
    pub fn root(&self) -> Node {
        Node { level: self.lanes.next_power_of_two().trailing_zeros(), index: 0 }
    }

    /// The lanes under a node, or `None` where the tree has no such node.
    #[must_use]
    pub fn lanes_under(&self, node: Node) -> Option<Range<u32>> {
        if node.level > self.root().level {
            return None;
        }
        let start = u64::from(node.index) << node.level;
        let end = (start + (1u64 << node.level)).min(u64::from(self.lanes));
        (start < end).then_some(start as u32..end as u32)
    }

    /// The children whose sum, left + right, a node is; a node whose right child is empty has only its left one.
    fn children(&self, node: Node) -> Option<(Node, Option<Node>)> {
        let level = node.level.checked_sub(1)?;
        let left = Node { level, index: node.index * 2 };
        let right = Node { level, index: node.index * 2 + 1 };
        Some((left, self.lanes_under(right).map(|_| right)))
    }

    /// The largest subtrees that lie completely in a run of lanes, in lane order: what the holder of these lanes sums
    /// and sends. At most two for each level.
    ///
    /// ```
    /// use carousel_proto::{LaneTree, Node};
    /// let tree = LaneTree::new(7);
    /// let nodes = tree.maximal_nodes(1..7);
    /// assert_eq!(nodes, [Node { level: 0, index: 1 }, Node { level: 1, index: 1 }, Node { level: 2, index: 1 }]);
    /// ```
    #[must_use]
    pub fn maximal_nodes(&self, held: Range<u32>) -> Vec<Node> {
        let mut nodes = Vec::new();
        self.collect_maximal(self.root(), &held, &mut nodes);
        nodes
    }

    fn collect_maximal(&self, node: Node, held: &Range<u32>, nodes: &mut Vec<Node>) {
        let Some(covered) = self.lanes_under(node) else { return };
        if covered.end <= held.start || held.end <= covered.start {
            return;
        }
        if held.start <= covered.start && covered.end <= held.end {
            return nodes.push(node);
        }
        let (left, right) =
            self.children(node).expect("a lane lies either inside or outside of a run of lanes");
        self.collect_maximal(left, held, nodes);
        if let Some(right) = right {
            self.collect_maximal(right, held, nodes);
        }
    }

    /// Sums a value over all lanes in the tree's order from the values of disjoint nodes that cover every lane.
    /// `take` hands out a given node's value, or `None` where that node was not given and is to be built from below.
    ///
    /// # Panics
    /// When the given nodes leave a lane uncovered.
    pub fn sum<T>(&self, take: &mut impl FnMut(Node) -> Option<T>, add: &mut impl FnMut(T, T) -> T) -> T {
        self.sum_under(self.root(), take, add)
    }

    fn sum_under<T>(
        &self,
        node: Node,
        take: &mut impl FnMut(Node) -> Option<T>,
        add: &mut impl FnMut(T, T) -> T,
    ) -> T {
        if let Some(value) = take(node) {
            return value;
        }
        let (left, right) = self.children(node).expect("the given nodes cover every lane");
        let left = self.sum_under(left, take, add);
        match right {
            Some(right) => {
                let right = self.sum_under(right, take, add);
                add(left, right)
            }
            None => left,
        }
    }
}

/// The streams of a lane: lane i of n holds streams `[i * streams / n, (i + 1) * streams / n)`.
#[must_use]
pub fn lane_streams(streams: u32, lanes: u32, lane: u32) -> Range<u32> {
    let bound = |lane: u32| (u64::from(lane) * u64::from(streams) / u64::from(lanes)) as u32;
    bound(lane)..bound(lane + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The order of additions written out as text shows the shape of the tree.
    fn shape(lanes: u32, given: &[Node]) -> String {
        let tree = LaneTree::new(lanes);
        let name = |node: Node| {
            let covered = tree.lanes_under(node).unwrap();
            LaneTree::new(covered.len() as u32)
                .sum(&mut |n| (n.level == 0).then(|| (covered.start + n.index).to_string()), &mut |a, b| {
                    format!("({a}+{b})")
                })
        };
        tree.sum(&mut |node| given.contains(&node).then(|| name(node)), &mut |a, b| format!("({a}+{b})"))
    }

    #[test]
    fn the_tree_is_left_complete() {
        let lanes = |n: u32| (0..n).map(|index| Node { level: 0, index }).collect::<Vec<_>>();
        assert_eq!(shape(1, &lanes(1)), "0");
        assert_eq!(shape(3, &lanes(3)), "((0+1)+2)");
        assert_eq!(shape(7, &lanes(7)), "(((0+1)+(2+3))+((4+5)+6))");
    }

    #[test]
    fn nodes_outside_the_tree_are_none() {
        let tree = LaneTree::new(5);
        assert_eq!(tree.lanes_under(Node { level: 2, index: 1 }), Some(4..5));
        assert_eq!(tree.lanes_under(Node { level: 1, index: 3 }), None);
        assert_eq!(tree.lanes_under(Node { level: 4, index: 0 }), None);
        assert_eq!(tree.lanes_under(Node { level: 31, index: u32::MAX }), None);
    }

    #[test]
    fn every_stream_has_one_lane() {
        let runs: Vec<_> = (0..3).map(|lane| lane_streams(7, 3, lane)).collect();
        assert_eq!(runs, [0..2, 2..4, 4..7]);
    }

    proptest! {
        /// However the lanes are cut into consecutive holders, the additions are the same.
        #[test]
        fn grouping_does_not_change_the_sum(lanes in 1u32..40, cuts in proptest::collection::vec(0u32..40, 0..6)) {
            let mut bounds: Vec<u32> = cuts.into_iter().map(|c| c.min(lanes)).chain([0, lanes]).collect();
            bounds.sort_unstable();
            let tree = LaneTree::new(lanes);
            let given: Vec<Node> = bounds.windows(2).flat_map(|w| tree.maximal_nodes(w[0]..w[1])).collect();
            let single: Vec<Node> = (0..lanes).map(|index| Node { level: 0, index }).collect();
            prop_assert_eq!(shape(lanes, &given), shape(lanes, &single));
        }
    }
}
