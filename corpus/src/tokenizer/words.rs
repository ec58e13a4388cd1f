//! Words between white space as tokens, and line ends. No punctuation rules: the text is expected to be tokenized.

use std::collections::HashMap;

pub(super) const EOS: &str = "<eos>";
pub(super) const UNK: &str = "<unk>";

/// A word vocabulary.
#[derive(Clone)]
pub(super) struct Words {
    /// The word of every id.
    words: Vec<String>,
    /// Looked up, never iterated: its order is not ours.
    ids: HashMap<String, u32>,
    eos: u32,
    unk: u32,
}

impl Words {
    /// The words of a training text, `<eos>` and `<unk>`, ordered by falling count, then by text.
    pub(super) fn of_text(text: &str) -> Self {
        let mut counts: HashMap<&str, u64> = HashMap::from([(EOS, 0), (UNK, 0)]);
        for word in pieces(text) {
            *counts.entry(word).or_default() += 1;
        }
        let mut counted: Vec<(&str, u64)> = counts.into_iter().collect();
        counted.sort_unstable_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then(a.cmp(b)));
        Self::new(counted.into_iter().map(|(word, _)| word.to_owned()).collect())
    }

    /// The vocabulary of distinct words in this order, `<eos>` and `<unk>` among them.
    pub(super) fn new(words: Vec<String>) -> Self {
        let ids: HashMap<String, u32> = words.iter().cloned().zip(0..).collect();
        let special = |word| *ids.get(word).expect("both special words are in every word vocabulary");
        let (eos, unk) = (special(EOS), special(UNK));
        Words { words, ids, eos, unk }
    }

    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        pieces(text).map(|word| self.ids.get(word).copied().unwrap_or(self.unk)).collect()
    }

    /// The word of a token; none for a line end; U+FFFD for numbers that are no token.
    pub(super) fn word(&self, token: u32) -> Option<&str> {
        let word = self.words.get(token as usize).map_or("\u{FFFD}", String::as_str);
        (token != self.eos).then_some(word)
    }

    pub(super) fn vocabulary(&self) -> usize {
        self.words.len()
    }

    /// The text of every id, in order.
    pub(super) fn tokens(&self) -> impl Iterator<Item = String> {
        self.words.iter().cloned()
    }
}

/// The words of a text in order, with `<eos>` for every `\n`.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n').flat_map(|line| {
        let end = line.ends_with('\n').then_some(EOS);
        line.split_whitespace().chain(end)
    })
}
