//! Training of a byte-level byte pair encoding (Sennrich, Haddow, Birch 2016, in the form of GPT-2): the most frequent
//! pair of neighbouring tokens becomes a token, again and again. Among equally frequent pairs the one with the lowest
//! ids is taken, so that nothing but the counts decides. All arithmetic is in whole numbers. It encodes nothing: what
//! comes out is a `tokenizer.json`.
//!
//! The `tokenizers` crate has such a trainer. It counts in 32 bits, which a text of some ten GB overflows, wants every
//! word once for each time it comes, and draws at random the order in which its tables are walked; a test holds its
//! merges against these.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::LazyLock;

use foldhash::fast::FixedState;
use regex::Regex;

use super::counts::Counted;
use super::{Subwords, json};
use crate::EOS;

/// Two neighbouring tokens.
type Pair = (u32, u32);

/// As GPT-2 splits a text, but for white space before a word: see [`places`].
static SPLIT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+")
        .expect("the pattern is a constant")
});

/// Where the pieces of a text stand that merges do not cross. The pattern of GPT-2 leaves the last of several white space
/// characters to the word behind them (`\s+(?!\S)|\s+`); without looking ahead, that one is given back here.
pub(super) fn places(text: &str) -> impl Iterator<Item = std::ops::Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let found = SPLIT.find_at(text, at)?;
        let mut end = found.end();
        let last = found.as_str().char_indices().next_back().filter(|(_, last)| last.is_whitespace());
        if let Some((before, _)) = last.filter(|&(before, _)| before > 0 && end < text.len()) {
            end = found.start() + before;
        }
        at = end;
        Some(found.start()..end)
    })
}

/// The `tokenizer.json` for the counted pieces of a text.
pub(super) fn train(counted: Counted, config: &Subwords) -> String {
    let mut merging = Merging::new(counted);
    while merging.tokens.len() < config.vocabulary {
        if !merging.merge(config.min_count.max(1)) {
            break;
        }
    }
    let text = |id: u32| merging.tokens[id as usize].clone();
    let merges = merging.merges.iter().map(|&(first, second)| (text(first), text(second)));
    json::bpe(merging.tokens.iter().cloned(), merges)
}

/// A distinct piece of the text, as tokens.
struct Word {
    tokens: Vec<u32>,
    count: u64,
}

struct Merging {
    /// The text of every id, in the byte alphabet.
    tokens: Vec<String>,
    ids: HashMap<String, u32, FixedState>,
    merges: Vec<Pair>,
    words: Vec<Word>,
    /// How often each pair comes now.
    counts: HashMap<Pair, u64, FixedState>,
    /// Words that have, or had, the pair.
    places: HashMap<Pair, Vec<u32>, FixedState>,
    /// Pairs by a count that they had when they were put in, the most frequent first, then the lowest ids.
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
    /// Pairs that would be the token that ends a document.
    refused: HashSet<Pair>,
}

impl Merging {
    fn new(mut counted: Counted) -> Self {
        counted.sort_unstable();
        let alphabet = json::byte_alphabet();
        let mut letters = alphabet.to_vec();
        letters.sort_unstable();
        let tokens: Vec<String> =
            std::iter::once(EOS.to_owned()).chain(letters.iter().map(char::to_string)).collect();
        let mut ids = HashMap::with_hasher(FixedState::with_seed(1));
        ids.extend(tokens.iter().cloned().zip(0..));
        let id = alphabet.map(|letter| ids[&letter.to_string()]);
        let words = counted.iter().map(|(text, count)| Word {
            tokens: text.bytes().map(|byte| id[usize::from(byte)]).collect(),
            count: *count,
        });
        let mut merging = Merging {
            tokens,
            ids,
            merges: Vec::new(),
            words: words.collect(),
            counts: HashMap::with_hasher(FixedState::with_seed(2)),
            places: HashMap::with_hasher(FixedState::with_seed(3)),
            queue: BinaryHeap::new(),
            refused: HashSet::new(),
        };
        for word in 0..merging.words.len() as u32 {
            merging.count(word, None);
        }
        merging.queue = merging.counts.iter().map(|(&pair, &count)| (count, Reverse(pair))).collect();
        merging
    }

    /// Merges the most frequent pair, when it comes so often; whether there was one.
    fn merge(&mut self, min_count: u64) -> bool {
        let Some(pair) = self.most_frequent(min_count) else { return false };
        let text = format!("{}{}", self.tokens[pair.0 as usize], self.tokens[pair.1 as usize]);
        if text == EOS {
            self.refused.insert(pair);
            return true;
        }
        let merged = *self.ids.entry(text.clone()).or_insert(self.tokens.len() as u32);
        if merged as usize == self.tokens.len() {
            self.tokens.push(text);
        }
        self.merges.push(pair);
        let mut words = self.places.remove(&pair).unwrap_or_default();
        words.sort_unstable();
        words.dedup();
        let mut changed = HashSet::new();
        for word in words {
            self.discount(word);
            let tokens = &mut self.words[word as usize].tokens;
            join(tokens, pair, merged);
            changed.extend(
                tokens
                    .windows(2)
                    .map(|next| (next[0], next[1]))
                    .filter(|next| next.0 == merged || next.1 == merged),
            );
            self.count(word, Some(merged));
        }
        let counts = &self.counts;
        self.queue.extend(changed.into_iter().map(|pair| (counts[&pair], Reverse(pair))));
        true
    }

    fn most_frequent(&mut self, min_count: u64) -> Option<Pair> {
        while let Some((count, Reverse(pair))) = self.queue.pop() {
            let now = self.counts.get(&pair).copied().unwrap_or(0);
            if self.refused.contains(&pair) || now == 0 {
                continue;
            }
            if now == count {
                return (count >= min_count).then_some(pair);
            }
            if now < count {
                self.queue.push((now, Reverse(pair)));
            }
        }
        None
    }

    /// Adds the pairs of a word; with `only`, those that have this token are new in it, and the others known to be there.
    fn count(&mut self, word: u32, only: Option<u32>) {
        let Word { tokens, count } = &self.words[word as usize];
        for next in tokens.windows(2) {
            let pair = (next[0], next[1]);
            *self.counts.entry(pair).or_default() += count;
            if only.is_none_or(|token| pair.0 == token || pair.1 == token) {
                self.places.entry(pair).or_default().push(word);
            }
        }
    }

    /// Takes the pairs of a word away; where they were is not forgotten, and found out when it is looked at.
    fn discount(&mut self, word: u32) {
        let Word { tokens, count } = &self.words[word as usize];
        for next in tokens.windows(2) {
            *self.counts.get_mut(&(next[0], next[1])).expect("it was counted") -= count;
        }
    }
}

/// Puts `merged` where the pair stands, from the left.
fn join(tokens: &mut Vec<u32>, pair: Pair, merged: u32) {
    let (mut read, mut write) = (0, 0);
    while read < tokens.len() {
        let here = tokens.get(read + 1).is_some_and(|&next| (tokens[read], next) == pair);
        tokens[write] = if here { merged } else { tokens[read] };
        read += if here { 2 } else { 1 };
        write += 1;
    }
    tokens.truncate(write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_left_pair_is_joined_first() {
        let joined = |tokens: &[u32]| {
            let mut tokens = tokens.to_vec();
            join(&mut tokens, (1, 1), 9);
            tokens
        };
        assert_eq!(joined(&[1, 1, 1]), [9, 1]);
        assert_eq!(joined(&[1, 1, 1, 1]), [9, 9]);
        assert_eq!(joined(&[0, 1, 2, 1, 1]), [0, 1, 2, 9]);
    }

    #[test]
    fn the_most_frequent_pair_becomes_a_token_and_ties_go_to_the_lowest_ids() {
        // ab comes 5 times, bc 5 times, cd 2 times: ab first; then abc (3) before bc (2) and cd (2), of which bc is lower.
        let counted = vec![("abc".into(), 3), ("ab".into(), 2), ("bcd".into(), 2)];
        let mut merging = Merging::new(counted);
        while merging.merge(2) {}
        let text = |id: u32| merging.tokens[id as usize].as_str();
        let merges: Vec<_> = merging.merges.iter().map(|&(a, b)| (text(a), text(b))).collect();
        assert_eq!(merges, [("a", "b"), ("ab", "c"), ("b", "c"), ("bc", "d")]);
    }

    #[test]
    fn no_merge_makes_the_end_of_a_document() {
        let mut merging = Merging::new(vec![("<eos>".into(), 100)]);
        while merging.merge(1) {}
        assert_eq!(merging.tokens.iter().filter(|token| *token == EOS).count(), 1);
        assert!(merging.words[0].tokens.len() == 2, "all but the last merge is made");
    }
}
