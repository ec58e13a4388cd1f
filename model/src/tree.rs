//! The lane tree: the one order in which lanes are added. Knows nothing of what is added.

/// Folds leaves in the shape of a left-complete binary tree: `n` leaves split at the largest power of two below `n`, as the hash
/// trees of RFC 6962 section 2.1. Leaves arrive one by one; at most `log2(n) + 1` partial sums are kept.
pub(crate) struct LaneTree<T> {
    stack: Vec<T>,
    pushed: usize,
}

impl<T> LaneTree<T> {
    pub(crate) fn new() -> Self {
        Self { stack: Vec::new(), pushed: 0 }
    }

    /// Adds the next leaf, merging every subtree it completes; `merge(left, right)` gives the sum.
    pub(crate) fn push(&mut self, leaf: T, mut merge: impl FnMut(T, T) -> T) {
        let mut node = leaf;
        for _ in 0..completed(self.pushed) {
            let left = self.stack.pop().expect("each trailing one has a finished subtree");
            node = merge(left, node);
        }
        self.stack.push(node);
        self.pushed += 1;
    }

    /// The sum over all leaves; none without leaves.
    pub(crate) fn finish(mut self, mut merge: impl FnMut(T, T) -> T) -> Option<T> {
        let mut node = self.stack.pop()?;
        while let Some(left) = self.stack.pop() {
            node = merge(left, node);
        }
        Some(node)
    }
}

/// Subtrees that the leaf with this index (from 0) completes: its trailing one bits.
pub(crate) fn completed(index: usize) -> usize {
    index.trailing_ones() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(n: usize) -> String {
        let merge = |a: String, b: String| format!("({a}{b})");
        let mut tree = LaneTree::new();
        for leaf in 0..n {
            tree.push(leaf.to_string(), merge);
        }
        tree.finish(merge).unwrap_or_default()
    }

    fn split(from: usize, to: usize) -> String {
        match to - from {
            0 => String::new(),
            1 => from.to_string(),
            n => {
                let left = n.next_power_of_two() / 2;
                format!("({}{})", split(from, from + left), split(from + left, to))
            }
        }
    }

    #[test]
    fn splits_at_the_largest_power_of_two() {
        assert_eq!(shape(3), "((01)2)");
        assert_eq!(shape(7), "(((01)(23))((45)6))");
        for n in 0..70 {
            assert_eq!(shape(n), split(0, n), "{n} lanes");
        }
    }
}
