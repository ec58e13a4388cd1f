//! Unicode scalar values as tokens. No graphemes, no normalisation.

use super::Limits;
use crate::EOS;

/// The text of id 0: a character that the training text has not.
pub(super) const UNK: &str = "<unk>";
pub(super) const UNK_ID: u32 = 0;

/// A character vocabulary.
#[derive(Clone)]
pub(super) struct Chars {
    /// The character of id `i + 1`; ordered by code point when it comes from a text.
    chars: Vec<char>,
    /// The id of a code point, for all up to the largest of the vocabulary.
    ids: Vec<u32>,
    /// Whether the last id is `<eos>`, the end of a document.
    eos: bool,
}

/// How often each code point of a text comes.
#[derive(Debug, Clone)]
pub(super) struct CharCounts(Vec<u64>);

impl CharCounts {
    pub(super) fn new() -> Self {
        CharCounts(vec![0; char::MAX as usize + 1])
    }

    /// The code points of `text` and how often each comes.
    pub(super) fn of(text: &str) -> Vec<(char, u64)> {
        let mut counts = Self::new();
        text.chars().for_each(|char| counts.0[char as usize] += 1);
        counts.found().collect()
    }

    pub(super) fn add(&mut self, counted: &[(char, u64)]) {
        counted.iter().for_each(|&(char, count)| self.0[char as usize] += count);
    }

    /// By code point.
    fn found(&self) -> impl Iterator<Item = (char, u64)> {
        let coded = (0u32..).zip(&self.0).filter(|(_, count)| **count > 0);
        coded.filter_map(|(code, count)| Some((char::from_u32(code)?, *count)))
    }
}

impl Chars {
    /// The counted characters that `limits` leave, ordered by code point.
    pub(super) fn of_counts(counts: &CharCounts, limits: &Limits, eos: bool) -> Self {
        let mut found: Vec<_> = counts.found().filter(|(_, count)| *count >= limits.min_count).collect();
        found.sort_unstable_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then(a.cmp(b)));
        found.truncate(limits.max_vocab.unwrap_or(usize::MAX).saturating_sub(1 + usize::from(eos)));
        let mut chars: Vec<char> = found.into_iter().map(|(char, _)| char).collect();
        chars.sort_unstable();
        Self::new(chars, eos)
    }

    /// The vocabulary of distinct characters with ids from 1, in this order, and perhaps `<eos>` behind them.
    pub(super) fn new(chars: Vec<char>, eos: bool) -> Self {
        let largest = chars.iter().max().map_or(0, |&char| char as usize + 1);
        let mut ids = vec![UNK_ID; largest];
        for (id, &char) in (1..).zip(&chars) {
            ids[char as usize] = id;
        }
        Chars { chars, ids, eos }
    }

    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        let mut tokens = Vec::with_capacity(text.len());
        tokens.extend(text.chars().map(|char| self.ids.get(char as usize).copied().unwrap_or(UNK_ID)));
        tokens.shrink_to_fit();
        tokens
    }

    pub(super) fn decode(&self, tokens: &[u32]) -> String {
        let mut text = String::with_capacity(tokens.len());
        tokens.iter().for_each(|&token| self.push(token, &mut text));
        text
    }

    /// Adds the text of a token; U+FFFD for `<unk>` and for numbers that are no token.
    pub(super) fn push(&self, token: u32, text: &mut String) {
        if self.eos() == Some(token) {
            return text.push_str(EOS);
        }
        let index = (token as usize).checked_sub(1);
        let char = index.and_then(|index| self.chars.get(index)).copied();
        text.push(char.unwrap_or(char::REPLACEMENT_CHARACTER));
    }

    pub(super) fn vocabulary(&self) -> usize {
        self.chars.len() + 1 + usize::from(self.eos)
    }

    pub(super) fn eos(&self) -> Option<u32> {
        self.eos.then_some(self.chars.len() as u32 + 1)
    }

    /// The text of every id, in order.
    pub(super) fn tokens(&self) -> impl Iterator<Item = String> {
        let eos = self.eos.then(|| EOS.to_owned());
        std::iter::once(UNK.to_owned()).chain(self.chars.iter().map(char::to_string)).chain(eos)
    }
}
