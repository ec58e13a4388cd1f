//! Decoding token by token, for text that is shown while it is sampled.

use super::{Kind, Tokenizer, bytes};

/// A decoder for tokens that come one at a time.
///
/// The pieces of [`push`](DecodeStream::push) and [`finish`](DecodeStream::finish), joined, are
/// [`Tokenizer::decode`] of all the tokens (of a file's tokenizer: if its decoder looks at neighbours only). A
/// prompt is pushed too, or the first word after it would lack its space.
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    /// Bytes of a character that is not complete.
    held: Vec<u8>,
    /// Whether a word would need a space before it.
    after_word: bool,
    /// Of a file's tokenizer: tokens whose text may still change, and how many of them are shown already.
    tail: Vec<u32>,
    shown: usize,
}

impl<'a> DecodeStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        DecodeStream { tokenizer, held: Vec::new(), after_word: false, tail: Vec::new(), shown: 0 }
    }

    /// The text that is certain now: empty while a character is incomplete.
    pub fn push(&mut self, token: u32) -> String {
        match &self.tokenizer.0 {
            Kind::Chars(chars) => chars.decode(&[token]),
            Kind::Bytes { eos } => self.push_bytes(token, *eos),
            Kind::Words(words) => self.push_word(words.word(token)),
            Kind::File(_) => self.push_to_tail(token),
        }
    }

    /// What is still held back: an incomplete character, as U+FFFD.
    pub fn finish(self) -> String {
        match self.tokenizer.0 {
            Kind::File(_) => self.tail_text(),
            _ => String::from_utf8_lossy(&self.held).into_owned(),
        }
    }

    fn push_bytes(&mut self, token: u32, eos: bool) -> String {
        bytes::push(token, eos, &mut self.held);
        let certain = complete(&self.held);
        let text = String::from_utf8_lossy(&self.held[..certain]).into_owned();
        self.held.drain(..certain);
        text
    }

    fn push_word(&mut self, word: Option<&str>) -> String {
        let space = if self.after_word { " " } else { "" };
        self.after_word = word.is_some();
        word.map_or_else(|| "\n".to_owned(), |word| format!("{space}{word}"))
    }

    fn push_to_tail(&mut self, token: u32) -> String {
        self.tail.push(token);
        let text = self.tail_text();
        if text.ends_with(char::REPLACEMENT_CHARACTER) {
            return String::new();
        }
        self.tail.drain(..self.shown);
        self.shown = self.tail.len();
        text
    }

    /// Text of the tokens of the tail that are not shown, as it reads behind those that are.
    fn tail_text(&self) -> String {
        let shown = self.tokenizer.decode(&self.tail[..self.shown]);
        let all = self.tokenizer.decode(&self.tail);
        let text = all.strip_prefix(&shown).map(str::to_owned);
        text.unwrap_or_else(|| self.tokenizer.decode(&self.tail[self.shown..]))
    }
}

/// Length of the part of `bytes` before a character that further bytes could complete.
fn complete(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Err(error) = std::str::from_utf8(&bytes[at..]) {
        at += error.valid_up_to();
        match error.error_len() {
            Some(bad) => at += bad,
            None => return at,
        }
    }
    bytes.len()
}
