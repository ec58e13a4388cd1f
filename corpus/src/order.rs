//! The order in which documents are read: a permutation of ranges of tokens, and where a place of the permuted text
//! lies in the text as it is stored.

use std::ops::Range;

/// Documents in another order than they are stored in. 16 bytes of memory a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentOrder {
    /// Where the n-th document that is read begins in the text as it is read; then the length of the text.
    begins: Vec<u64>,
    /// Where it begins in the text as it is stored.
    stored: Vec<u64>,
}

impl DocumentOrder {
    /// Documents that end behind these places of the stored text, shuffled (Fisher and Yates): the n-th draw, from the
    /// last document down, takes `random(n)`, 64 random bits, times what is left, divided by 2^64.
    pub fn shuffled(ends: &[u64], random: impl Fn(u64) -> u64) -> Self {
        let mut order: Vec<usize> = (0..ends.len()).collect();
        for (draw, last) in (0u64..).zip((1..order.len()).rev()) {
            let chosen = (u128::from(random(draw)) * (last as u128 + 1)) >> 64;
            order.swap(last, chosen as usize);
        }
        let (mut begins, mut stored) = (vec![0], Vec::with_capacity(ends.len()));
        let mut at = 0;
        for document in order {
            let begin = document.checked_sub(1).map_or(0, |before| ends[before]);
            at += ends[document] - begin;
            stored.push(begin);
            begins.push(at);
        }
        DocumentOrder { begins, stored }
    }

    /// Tokens of all documents.
    pub fn tokens(&self) -> u64 {
        self.begins.last().copied().unwrap_or(0)
    }

    /// BLAKE3 of the order: where each document is stored, as eight bytes, the lowest first, and then where it is read.
    pub(crate) fn hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for places in [&self.stored, &self.begins] {
            places.iter().for_each(|place| {
                hasher.update(&place.to_le_bytes());
            });
        }
        *hasher.finalize().as_bytes()
    }

    /// The stored ranges that are read as `range`, in order.
    ///
    /// # Panics
    /// When `range` goes beyond the text.
    pub(crate) fn stored(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        assert!(range.end <= self.tokens(), "{range:?} of a text of {} tokens", self.tokens());
        let mut at = range.start;
        let mut document = self.begins.partition_point(|&begin| begin <= at).saturating_sub(1);
        std::iter::from_fn(move || {
            (at < range.end).then(|| {
                let (begin, end) = (self.begins[document], self.begins[document + 1].min(range.end));
                let from = self.stored[document] + (at - begin);
                let part = from..from + (end - at);
                (at, document) = (end, document + 1);
                part
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_draws_decide_the_order() {
        // Four documents of 1, 2, 3, 4 tokens. Half of 4 is 2, of 3 is 1, of 2 is 1: swaps (3,2), (2,1), (1,1).
        let order = DocumentOrder::shuffled(&[1, 3, 6, 10], |_| 1 << 63);
        assert_eq!(order.stored, [0, 6, 1, 3]);
        assert_eq!(order.begins, [0, 1, 5, 7, 10]);
        let kept = DocumentOrder::shuffled(&[1, 3, 6, 10], |_| u64::MAX);
        assert_eq!(kept.stored, [0, 1, 3, 6]);
        let draws = std::cell::RefCell::new(Vec::new());
        let log = |draw| {
            draws.borrow_mut().push(draw);
            0
        };
        DocumentOrder::shuffled(&[1, 3, 6, 10], log);
        assert_eq!(*draws.borrow(), [0, 1, 2]);
    }

    #[test]
    fn every_range_reads_as_the_permuted_text() {
        let text = "abbccc\u{7f}ddd".as_bytes();
        let ends = [1, 3, 6, 7, 10];
        for seed in 0..20u64 {
            let random = |draw: u64| (seed * 31 + draw + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let order = DocumentOrder::shuffled(&ends, random);
            let read = |range: Range<u64>| -> Vec<u8> {
                order.stored(range).flat_map(|r| text[r.start as usize..r.end as usize].to_vec()).collect()
            };
            let whole = read(0..10);
            let mut sorted = whole.clone();
            sorted.sort_unstable();
            let mut expected = text.to_vec();
            expected.sort_unstable();
            assert_eq!(sorted, expected, "nothing is lost and nothing comes twice");
            for start in 0..=10 {
                for end in start..=10 {
                    assert_eq!(read(start..end), whole[start as usize..end as usize]);
                }
            }
        }
    }
}
