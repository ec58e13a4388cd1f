//! What a tokenizer takes from a training text: gathered piece by piece, then made into a vocabulary. It reads no
//! files, and does not know who counts which piece.

use super::chars::{CharCounts, Chars};
use super::counts::{PieceCounts, WordCounts};
use super::words::{Words, places};
use super::{Kind, Limits, Tokenizer, TokenizerConfig};
use super::{bpe, unigram};
use crate::{CorpusError, EOS};

/// A tokenizer that is being made.
pub(crate) struct Training {
    config: TokenizerConfig,
    /// Whether it must have a token for the end of a document.
    eos: bool,
    seen: Seen,
}

/// What was seen of the text so far.
enum Seen {
    /// Nothing is needed of it.
    Nothing,
    Chars(Box<CharCounts>),
    Words(WordCounts),
    /// Pieces that merges do not cross.
    Subwords(WordCounts),
}

/// What one piece of text adds; made on any thread.
pub(crate) enum Counts {
    Nothing,
    Chars(Vec<(char, u64)>),
    Words(PieceCounts, LineEnds),
    Subwords(PieceCounts),
}

/// Line ends of a piece: each is `<eos>`.
pub(crate) struct LineEnds(u64);

impl Training {
    /// Of `config`; with `eos`, its vocabulary is to have a token for the end of a document.
    pub(crate) fn new(config: &TokenizerConfig, eos: bool) -> Self {
        let seen = match config {
            TokenizerConfig::Chars(_) => Seen::Chars(Box::new(CharCounts::new())),
            TokenizerConfig::Words(limits) => Seen::Words(WordCounts::new(limits.max_counted)),
            TokenizerConfig::Bpe(subwords) | TokenizerConfig::Unigram(subwords) => {
                Seen::Subwords(WordCounts::new(subwords.max_counted))
            }
            TokenizerConfig::Bytes | TokenizerConfig::File(_) => Seen::Nothing,
        };
        Training { config: config.clone(), eos, seen }
    }

    /// Whether the text must be counted at all.
    pub(crate) fn needs_text(&self) -> bool {
        !matches!(self.seen, Seen::Nothing)
    }

    /// Bytes of the training text, from its beginning, that are counted.
    pub(crate) fn bytes(&self) -> u64 {
        match &self.config {
            TokenizerConfig::Bpe(subwords) | TokenizerConfig::Unigram(subwords) => subwords.max_bytes,
            _ => u64::MAX,
        }
    }

    /// Counts a piece of text that ends between two words.
    pub(crate) fn count(&self, text: &str) -> Counts {
        match self.seen {
            Seen::Nothing => Counts::Nothing,
            Seen::Chars(_) => Counts::Chars(CharCounts::of(text)),
            Seen::Words(_) => {
                let line_ends = text.bytes().filter(|&byte| byte == b'\n').count() as u64;
                Counts::Words(PieceCounts::of(text, places(text).flatten()), LineEnds(line_ends))
            }
            Seen::Subwords(_) => Counts::Subwords(PieceCounts::of(text, bpe::places(text))),
        }
    }

    /// Adds what was counted in `text`. In the order of the text, always.
    pub(crate) fn add(&mut self, text: &str, counts: &Counts) {
        match (&mut self.seen, counts) {
            (Seen::Chars(seen), Counts::Chars(counts)) => seen.add(counts),
            (Seen::Words(seen), Counts::Words(counts, line_ends)) => {
                seen.add(text, counts);
                seen.add_word(EOS, line_ends.0);
            }
            (Seen::Subwords(seen), Counts::Subwords(counts)) => seen.add(text, counts),
            _ => {}
        }
    }

    /// Adds ends of documents.
    pub(crate) fn add_document_ends(&mut self, count: u64) {
        if let Seen::Words(seen) = &mut self.seen {
            seen.add_word(EOS, count);
        }
    }

    /// Words that came at most so often may be missing from the counts; 0: none are.
    pub(crate) fn forgotten_to(&self) -> u64 {
        match &self.seen {
            Seen::Words(seen) | Seen::Subwords(seen) => seen.forgotten_to(),
            Seen::Nothing | Seen::Chars(_) => 0,
        }
    }

    /// The tokenizer of what was added.
    pub(crate) fn finish(self) -> Result<Tokenizer, CorpusError> {
        let limits = match &self.config {
            TokenizerConfig::Chars(limits) | TokenizerConfig::Words(limits) => *limits,
            _ => Limits::default(),
        };
        Ok(Tokenizer(match (self.seen, &self.config) {
            (Seen::Chars(counts), _) => Kind::Chars(Chars::of_counts(&counts, &limits, self.eos)),
            (Seen::Words(counts), _) => Kind::Words(Words::of_counts(counts.into_counted(), &limits)),
            (Seen::Subwords(counts), TokenizerConfig::Bpe(subwords)) => {
                return Tokenizer::from_json(&bpe::train(counts.into_counted(), subwords));
            }
            (Seen::Subwords(counts), TokenizerConfig::Unigram(subwords)) => {
                return Tokenizer::from_json(&unigram::train(counts.into_counted(), subwords));
            }
            (Seen::Nothing, TokenizerConfig::File(path)) => return Tokenizer::from_file(path),
            (Seen::Nothing | Seen::Subwords(_), _) => Kind::Bytes { eos: self.eos },
        }))
    }
}
