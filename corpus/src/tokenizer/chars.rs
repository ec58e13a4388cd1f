//! Unicode scalar values as tokens. No graphemes, no normalisation.

/// The text of id 0: a character that the training text has not.
pub(super) const UNK: &str = "<unk>";
const UNK_ID: u32 = 0;

/// A character vocabulary.
#[derive(Clone)]
pub(super) struct Chars {
    /// The character of id `i + 1`; ordered by code point when it comes from a text.
    chars: Vec<char>,
    /// The id of a code point, for all up to the largest of the vocabulary.
    ids: Vec<u32>,
}

impl Chars {
    /// The characters of a training text, ordered by code point.
    pub(super) fn of_text(text: &str) -> Self {
        let mut seen = vec![false; char::MAX as usize + 1];
        for char in text.chars() {
            seen[char as usize] = true;
        }
        let chars = (0..=char::MAX as u32).filter(|&code| seen[code as usize]).filter_map(char::from_u32);
        Self::new(chars.collect())
    }

    /// The vocabulary of distinct characters with ids from 1, in this order.
    pub(super) fn new(chars: Vec<char>) -> Self {
        let largest = chars.iter().max().map_or(0, |&char| char as usize + 1);
        let mut ids = vec![UNK_ID; largest];
        for (id, &char) in (1..).zip(&chars) {
            ids[char as usize] = id;
        }
        Chars { chars, ids }
    }

    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        let mut tokens = Vec::with_capacity(text.len());
        tokens.extend(text.chars().map(|char| self.ids.get(char as usize).copied().unwrap_or(UNK_ID)));
        tokens.shrink_to_fit();
        tokens
    }

    pub(super) fn decode(&self, tokens: &[u32]) -> String {
        tokens.iter().map(|&token| self.char(token)).collect()
    }

    /// The character of a token; U+FFFD for `<unk>` and for numbers that are no token.
    pub(super) fn char(&self, token: u32) -> char {
        let index = (token as usize).checked_sub(1);
        index.and_then(|index| self.chars.get(index)).copied().unwrap_or(char::REPLACEMENT_CHARACTER)
    }

    pub(super) fn vocabulary(&self) -> usize {
        self.chars.len() + 1
    }

    /// The text of every id, in order.
    pub(super) fn tokens(&self) -> impl Iterator<Item = String> {
        std::iter::once(UNK.to_owned()).chain(self.chars.iter().map(char::to_string))
    }
}
