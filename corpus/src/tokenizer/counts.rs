//! How often each word of a text comes, counted piece by piece in bounded memory. The counts are sums, and pieces are
//! added in their order: no thread and no hash order can be seen in them.

use std::collections::HashMap;
use std::ops::Range;

use foldhash::fast::FixedState;

/// Words and how often each came, in no order that means anything.
pub(super) type Counted = Vec<(Box<str>, u64)>;

/// Two seeds: filling one table in another's order would be slow if both hashed alike.
const PIECE_SEED: u64 = 0x9_1ece;
const WHOLE_SEED: u64 = 0x3_401e;

/// The words of one piece of text: where each first stands in it, and how often it comes.
#[derive(Debug, Default)]
pub(crate) struct PieceCounts(Vec<(Range<usize>, u64)>);

impl PieceCounts {
    /// Counts the words that stand at `places` of `text`.
    pub(super) fn of(text: &str, places: impl Iterator<Item = Range<usize>>) -> Self {
        let mut numbers: HashMap<&str, u32, FixedState> =
            HashMap::with_capacity_and_hasher(1 << 12, FixedState::with_seed(PIECE_SEED));
        let mut words: Vec<(Range<usize>, u64)> = Vec::with_capacity(1 << 12);
        for place in places {
            let next = words.len() as u32;
            let number = *numbers.entry(&text[place.clone()]).or_insert(next);
            if number == next {
                words.push((place, 0));
            }
            words[number as usize].1 += 1;
        }
        PieceCounts(words)
    }
}

/// The words of a text so far.
#[derive(Debug)]
pub(super) struct WordCounts {
    counts: HashMap<Box<str>, u64, FixedState>,
    /// Distinct words that may be held between two pieces.
    limit: usize,
    /// Words that had come at most so often were forgotten; 0: none were.
    forgotten_to: u64,
}

impl WordCounts {
    /// None yet, and never more than `limit` distinct ones after a piece.
    pub(super) fn new(limit: usize) -> Self {
        let counts = HashMap::with_hasher(FixedState::with_seed(WHOLE_SEED));
        WordCounts { counts, limit, forgotten_to: 0 }
    }

    /// Adds what [`PieceCounts::of`] has counted in `text`.
    pub(super) fn add(&mut self, text: &str, piece: &PieceCounts) {
        for (place, count) in &piece.0 {
            self.add_word(&text[place.clone()], *count);
        }
        if self.counts.len() > self.limit {
            self.forget();
        }
    }

    /// Forgets the rarest until a quarter of the room is free: not again after the next piece.
    fn forget(&mut self) {
        let mut rare = 0;
        while self.counts.len() > self.limit / 4 * 3 {
            rare += 1;
            self.counts.retain(|_, count| *count > rare);
        }
        self.forgotten_to = self.forgotten_to.max(rare);
    }

    /// Adds one word.
    pub(super) fn add_word(&mut self, word: &str, count: u64) {
        match self.counts.get_mut(word) {
            Some(known) => *known += count,
            None => {
                self.counts.insert(word.into(), count);
            }
        }
    }

    /// Words that came at most so often may have been forgotten; 0: the counts are exact.
    pub(super) fn forgotten_to(&self) -> u64 {
        self.forgotten_to
    }

    pub(super) fn into_counted(self) -> Counted {
        self.counts.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(limit: usize, pieces: &[&str]) -> (Vec<(String, u64)>, u64) {
        let mut counts = WordCounts::new(limit);
        for piece in pieces {
            let letters = (0..piece.len()).step_by(2).map(|at| at..at + 1);
            counts.add(piece, &PieceCounts::of(piece, letters));
        }
        let forgotten = counts.forgotten_to();
        let mut counted: Vec<_> =
            counts.into_counted().into_iter().map(|(word, count)| (word.into(), count)).collect();
        counted.sort();
        (counted, forgotten)
    }

    #[test]
    fn every_word_is_counted_in_every_piece() {
        let (counts, forgotten) = counted(9, &["a b a", "c", "a b"]);
        assert_eq!(counts, [("a".into(), 3), ("b".into(), 2), ("c".into(), 1)]);
        assert_eq!(forgotten, 0);
    }

    #[test]
    fn the_rarest_are_forgotten_when_there_are_too_many() {
        let (counts, forgotten) = counted(4, &["a a b b c", "b d d e", "a f f f"]);
        // Five words after the second piece: c and e go, and a, b, d are three quarters of four.
        assert_eq!(counts, [("a".into(), 3), ("b".into(), 3), ("d".into(), 2), ("f".into(), 3)]);
        assert_eq!(forgotten, 1);
        let (counts, forgotten) = counted(4, &["a a b b c", "b d d e", "a f f f", "b g"]);
        assert_eq!(counts, [("a".into(), 3), ("b".into(), 4), ("f".into(), 3)], "g goes, and then d");
        assert_eq!(forgotten, 2);
    }
}
