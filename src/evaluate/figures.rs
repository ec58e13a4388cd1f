//! What an evaluation says, and of how much text. The loss is of every token but the first, which nothing is asked about; so
//! characters, bytes and words are counted from the text that the tokens after it stand for, decoded.

use std::f64::consts::LN_2;
use std::io::{self, Write};

use carousel_corpus::{Tokenizer, TokenizerKind};
use serde::Serialize;

use super::Method;
use super::subject::Subject;
use crate::failure::Failure;

/// Targets, and their cross-entropy added.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sum {
    pub tokens: u64,
    pub nats: f64,
}

impl Sum {
    /// As a run reports it: the mean is what is kept.
    pub(super) fn mean(self) -> Mean {
        Mean { tokens: self.tokens, loss: self.nats / self.tokens as f64 }
    }

    pub(super) fn add(&mut self, tokens: u64, nats: f64) {
        self.tokens += tokens;
        self.nats += nats;
    }
}

/// Targets, and their mean cross-entropy in nats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Mean {
    pub tokens: u64,
    pub loss: f64,
}

/// The figures of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Figures {
    /// What was evaluated: `valid`, `test`, `train` or a path.
    text: String,
    #[serde(flatten)]
    method: Method,
    /// Mean cross-entropy, nats a token.
    loss: f64,
    /// `exp(loss)`.
    perplexity: f64,
    /// `loss / ln 2`.
    bits_per_token: f64,
    /// All the bits over the characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    bits_per_character: Option<f64>,
    /// All the bits over the bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    bits_per_byte: Option<f64>,
    /// `exp` of all the nats over the words; where tokens are words it is the perplexity.
    #[serde(skip_serializing_if = "Option::is_none")]
    word_perplexity: Option<f64>,
    /// Targets: every token but the first.
    tokens: u64,
    /// Targets that are `<unk>`: what they stand for is not told apart. Of a file's tokenizer not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown_tokens: Option<u64>,
    #[serde(flatten)]
    extent: Extent,
}

/// How much text the targets stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Extent {
    /// Unicode scalar values; an unknown character is one, an unknown word is the five of `<unk>`.
    characters: u64,
    /// Of UTF-8.
    bytes: u64,
    /// Runs of characters that are not white space, and line ends.
    words: u64,
}

impl Figures {
    pub(super) fn new(
        subject: &Subject,
        method: Method,
        Mean { tokens, loss }: Mean,
        tokenizer: &Tokenizer,
    ) -> Result<Self, Failure> {
        let extent = Extent::of(&subject.tokens, tokenizer);
        let nats = loss * tokens as f64;
        let over = |count: u64| (count > 0).then(|| nats / count as f64);
        let unknown = unknown_token(tokenizer)?;
        let count = |unknown| subject.tokens[1..].iter().filter(|&&token| token == unknown).count() as u64;
        Ok(Self {
            text: subject.name.clone(),
            method,
            loss,
            perplexity: libm::exp(loss),
            bits_per_token: loss / LN_2,
            bits_per_character: over(extent.characters).map(|nats| nats / LN_2),
            bits_per_byte: over(extent.bytes).map(|nats| nats / LN_2),
            word_perplexity: over(extent.words).map(libm::exp),
            tokens,
            unknown_tokens: unknown.map(count),
            extent,
        })
    }

    /// On standard output; nobody who reads it is no error.
    pub(super) fn print(&self, json: bool) -> Result<(), Failure> {
        let text =
            if json { serde_json::to_string(self).map_err(Failure::failed)? + "\n" } else { self.to_text() };
        match io::stdout().lock().write_all(text.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::failed(error)),
            _ => Ok(()),
        }
    }

    fn to_text(&self) -> String {
        let Method { method, streams, window, dynamic, cache, .. } = &self.method;
        let how = match (dynamic, cache) {
            (Some(settings), _) => format!("{method}: {}", settings.told()),
            (_, Some(settings)) => format!("{method}: {}; windows of {window}", settings.told()),
            _ => format!("{method} state, windows of {window}"),
        };
        let streams = match streams {
            1 => "1: the text is read from its beginning to its end".to_owned(),
            many => format!("{many}: parts of the text side by side, each from an empty state"),
        };
        let mut lines = vec![
            ("text", self.text.clone()),
            ("method", how),
            ("streams", streams),
            ("loss", format!("{:.6} nats a token", self.loss)),
            ("perplexity", format!("{:.4}", self.perplexity)),
            ("bits per token", format!("{:.6}", self.bits_per_token)),
        ];
        let figure = |figure: f64, count: u64, what: &str| format!("{figure:.6} of {count} {what}");
        let Extent { characters, bytes, words } = self.extent;
        lines.extend(
            self.bits_per_character.map(|bits| ("bits per char", figure(bits, characters, "characters"))),
        );
        lines.extend(self.bits_per_byte.map(|bits| ("bits per byte", figure(bits, bytes, "bytes"))));
        lines.extend(self.word_perplexity.map(|perplexity| {
            ("word perplexity", format!("{perplexity:.4} of {words} words and line ends"))
        }));
        let unknown = self.unknown_tokens.filter(|&unknown| unknown > 0);
        let unknown = unknown.map_or_else(String::new, |unknown| format!(", {unknown} of them unknown"));
        lines.push(("tokens", format!("{}{unknown}", self.tokens)));
        lines.into_iter().map(|(name, value)| format!("{name:<16}{value}\n")).collect()
    }
}

/// The token that stands for what the vocabulary has not.
fn unknown_token(tokenizer: &Tokenizer) -> Result<Option<u32>, Failure> {
    Ok(match tokenizer.kind() {
        TokenizerKind::Chars => Some(0),
        TokenizerKind::Words => tokenizer.encode("<unk>")?.first().copied(),
        TokenizerKind::Bytes | TokenizerKind::File => None,
    })
}

impl Extent {
    /// Of the tokens after the first.
    fn of(tokens: &[u32], tokenizer: &Tokenizer) -> Self {
        let mut text = tokenizer.stream();
        let first = text.push(tokens[0]);
        let mut counted = Self::default();
        let mut in_word = first.chars().next_back().is_some_and(|c| !c.is_whitespace());
        for &token in &tokens[1..] {
            counted.add(&text.push(token), &mut in_word);
        }
        counted.add(&text.finish(), &mut in_word);
        if tokenizer.kind() == TokenizerKind::Bytes {
            // A character that the first byte begins counts as a character of its rest.
            counted.bytes = tokens.len() as u64 - 1;
        }
        counted
    }

    fn add(&mut self, piece: &str, in_word: &mut bool) {
        for char in piece.chars() {
            self.characters += 1;
            self.bytes += char.len_utf8() as u64;
            let begins = !char.is_whitespace() && !*in_word;
            self.words += u64::from(begins || char == '\n');
            *in_word = !char.is_whitespace();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carousel_corpus::TokenizerConfig;

    fn extent(config: TokenizerConfig, training: &str, text: &str) -> (u64, u64, u64) {
        let tokenizer = Tokenizer::for_text(&config, training).unwrap();
        let Extent { characters, bytes, words } = Extent::of(&tokenizer.encode(text).unwrap(), &tokenizer);
        (characters, bytes, words)
    }

    #[test]
    fn what_is_counted_is_the_text_after_the_first_token() {
        let text = "één two\nthree  four\n";
        // Characters: all but the first é; "één" begins before what is counted.
        assert_eq!(extent(TokenizerConfig::CHARS, text, text), (19, 20, 5));
        // Bytes: the second one completes the first é, and with it the first word begins.
        assert_eq!(extent(TokenizerConfig::Bytes, text, text), (20, 21, 6));
        // Words: " two\nthree four\n", the two spaces are one.
        assert_eq!(extent(TokenizerConfig::WORDS, text, text), (16, 16, 5));
        // An unknown word is "<unk>", an unknown character U+FFFD.
        assert_eq!(extent(TokenizerConfig::WORDS, text, "two 五六\n"), (7, 7, 2));
        assert_eq!(extent(TokenizerConfig::CHARS, text, "t五"), (1, 3, 0));
    }

    #[test]
    fn words_are_the_targets_of_a_words_tokenizer() {
        let text = "a b  c\n\n d <unk> e\nlast";
        let tokenizer = Tokenizer::for_text(&TokenizerConfig::WORDS, text).unwrap();
        let tokens = tokenizer.encode(text).unwrap();
        assert_eq!(Extent::of(&tokens, &tokenizer).words, tokens.len() as u64 - 1);
    }
}
