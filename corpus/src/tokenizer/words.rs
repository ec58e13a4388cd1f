//! Words between white space as tokens, and line ends. No punctuation rules: the text is expected to be tokenized.

use std::collections::HashMap;
use std::ops::Range;

use foldhash::fast::FixedState;

use super::Limits;
use super::counts::Counted;
use crate::EOS;

pub(super) const UNK: &str = "<unk>";

/// Seeds the table of a vocabulary; another than those of the counts, from whose order it is filled.
const SEED: u64 = 0x7ab1e;

/// A word vocabulary.
#[derive(Clone)]
pub(super) struct Words {
    /// The word of every id.
    words: Vec<String>,
    /// Looked up, never iterated.
    ids: HashMap<Box<str>, u32, FixedState>,
    eos: u32,
    unk: u32,
}

impl Words {
    /// The counted words, `<eos>` and `<unk>`, ordered by falling count, then by text; those that `limits` leave.
    pub(super) fn of_counts(mut counted: Counted, limits: &Limits) -> Self {
        for special in [EOS, UNK] {
            if !counted.iter().any(|(word, _)| &**word == special) {
                counted.push((special.into(), 0));
            }
        }
        counted.sort_unstable_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then(a.cmp(b)));
        let special = |word: &str| word == EOS || word == UNK;
        let mut room = limits.max_vocab.unwrap_or(usize::MAX).saturating_sub(2);
        counted.retain(|(word, count)| {
            let stays = special(word) || (*count >= limits.min_count && room > 0);
            room -= usize::from(stays && !special(word));
            stays
        });
        Self::new(counted.into_iter().map(|(word, _)| word.into()).collect())
    }

    /// The vocabulary of distinct words in this order, `<eos>` and `<unk>` among them.
    pub(super) fn new(words: Vec<String>) -> Self {
        let mut ids = HashMap::with_capacity_and_hasher(words.len(), FixedState::with_seed(SEED));
        ids.extend(words.iter().map(|word| word.as_str().into()).zip(0..));
        let special = |word| *ids.get(word).expect("both special words are in every word vocabulary");
        let (eos, unk) = (special(EOS), special(UNK));
        Words { words, ids, eos, unk }
    }

    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        // Six bytes of text for each word and its space: a guess that saves most of the growth.
        let mut tokens = Vec::with_capacity(text.len() / 5);
        tokens.extend(places(text).map(|place| match place {
            Some(place) => self.ids.get(&text[place]).copied().unwrap_or(self.unk),
            None => self.eos,
        }));
        tokens
    }

    /// The word of a token; none for a line end; U+FFFD for numbers that are no token.
    pub(super) fn word(&self, token: u32) -> Option<&str> {
        let word = self.words.get(token as usize).map_or("\u{FFFD}", String::as_str);
        (token != self.eos).then_some(word)
    }

    pub(super) fn vocabulary(&self) -> usize {
        self.words.len()
    }

    pub(super) fn eos(&self) -> u32 {
        self.eos
    }

    pub(super) fn unk(&self) -> u32 {
        self.unk
    }

    /// The text of every id, in order.
    pub(super) fn tokens(&self) -> impl Iterator<Item = String> {
        self.words.iter().cloned()
    }
}

/// Where the words of a text stand, in order; none for every `\n`.
pub(super) fn places(text: &str) -> Places<'_> {
    Places { text, at: 0 }
}

/// See [`places`]. By bytes: only four bytes begin a white space character that is not ASCII.
pub(super) struct Places<'a> {
    text: &'a str,
    at: usize,
}

impl Places<'_> {
    /// Length of the white space character here; none when there is another one, or none.
    fn white(&self) -> Option<usize> {
        match *self.text.as_bytes().get(self.at)? {
            b'\t'..=b'\r' | b' ' => Some(1),
            0xC2 | 0xE1..=0xE3 => {
                let char = self.text[self.at..].chars().next()?;
                char.is_whitespace().then(|| char.len_utf8())
            }
            _ => None,
        }
    }
}

impl Iterator for Places<'_> {
    type Item = Option<Range<usize>>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(width) = self.white() {
            let line_end = self.text.as_bytes()[self.at] == b'\n';
            self.at += width;
            if line_end {
                return Some(None);
            }
        }
        let start = self.at;
        while self.at < self.text.len() && self.white().is_none() {
            self.at += 1;
        }
        (start < self.at).then_some(Some(start..self.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_standard_library() {
        let every: String = (0..=0x3100).chain(0xFE00..=0xFFFF).filter_map(char::from_u32).collect();
        let apart: String = every.chars().flat_map(|char| ['x', char, 'y']).collect();
        for text in [&every, &apart, " a\u{3000}b \n\n c", "", "\n", "\r\n\u{85}\u{a0}é\u{2028}龍\u{1680}"]
        {
            let lines = text.split_inclusive('\n');
            let expected: Vec<&str> = lines
                .flat_map(|line| line.split_whitespace().chain(line.ends_with('\n').then_some(EOS)))
                .collect();
            let words = places(text).map(|place| place.map_or(EOS, |place| &text[place]));
            assert_eq!(words.collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn limits_keep_the_most_frequent_and_both_special_words() {
        let kept = |min_count, max_vocab| {
            let counted = [("a", 5), ("b", 3), ("d", 3), ("c", 3), ("e", 1)];
            let counted = counted.map(|(word, count)| (word.into(), count)).to_vec();
            let limits = Limits { min_count, max_vocab, ..Limits::default() };
            Words::of_counts(counted, &limits).tokens().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(kept(1, None), "a b c d e <eos> <unk>");
        assert_eq!(kept(3, None), "a b c d <eos> <unk>");
        assert_eq!(kept(1, Some(5)), "a b c <eos> <unk>");
        assert_eq!(kept(4, Some(5)), "a <eos> <unk>");
        assert_eq!(kept(1, Some(2)), "<eos> <unk>");
    }
}
