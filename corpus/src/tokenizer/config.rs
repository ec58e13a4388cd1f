//! `data.tokenizer`: which tokenizer, and how large its vocabulary may become. What is impossible is refused here;
//! parsing TOML is the program's work.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// How text becomes tokens: by a kind that takes its vocabulary from the training text, by one that has none to
/// take, or by a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenizerConfig {
    /// Unicode scalar values.
    Chars(Limits),
    /// The 256 bytes of UTF-8.
    Bytes,
    /// What stands between white space.
    Words(Limits),
    /// Byte pair encoding on bytes, in GPT-2's form.
    Bpe(Subwords),
    /// A unigram language model of pieces (Kudo 2018) on bytes.
    Unigram(Subwords),
    /// A Hugging Face `tokenizer.json`.
    File(PathBuf),
}

/// What of a text becomes a vocabulary of characters or words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// What comes less often than this is `<unk>`. 1 keeps everything.
    pub min_count: u64,
    /// Size of the vocabulary at most, `<unk>` and `<eos>` included: the most frequent stay.
    pub max_vocab: Option<usize>,
    /// Distinct words that are counted at the same time. When a text has more, the rarest are forgotten on the way
    /// and what remains is an approximation.
    pub max_counted: usize,
}

/// How a subword vocabulary is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subwords {
    /// Size of the vocabulary, `<eos>` included; smaller when the text does not give so much.
    pub vocabulary: usize,
    /// What comes less often than this becomes no token of its own.
    pub min_count: u64,
    /// It is trained on the beginning of the training text, so many bytes of it.
    pub max_bytes: u64,
    /// As in [`Limits`].
    pub max_counted: usize,
}

/// Eight million words are about half a GiB.
const MAX_COUNTED: usize = 8_000_000;

impl Default for Limits {
    fn default() -> Self {
        Limits { min_count: 1, max_vocab: None, max_counted: MAX_COUNTED }
    }
}

impl Default for Subwords {
    fn default() -> Self {
        Subwords { vocabulary: 8000, min_count: 2, max_bytes: 1 << 30, max_counted: MAX_COUNTED }
    }
}

impl TokenizerConfig {
    /// Every character of the training text.
    pub const CHARS: Self = Self::Chars(Limits { min_count: 1, max_vocab: None, max_counted: MAX_COUNTED });
    /// Every word of the training text.
    pub const WORDS: Self = Self::Words(Limits { min_count: 1, max_vocab: None, max_counted: MAX_COUNTED });
}

impl FromStr for TokenizerConfig {
    type Err = Infallible;

    /// A kind by its name, with what is usual for it; anything else is a path (a file of one of these names is
    /// `./chars`).
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "chars" => TokenizerConfig::CHARS,
            "bytes" => TokenizerConfig::Bytes,
            "words" => TokenizerConfig::WORDS,
            "bpe" => TokenizerConfig::Bpe(Subwords::default()),
            "unigram" => TokenizerConfig::Unigram(Subwords::default()),
            path => TokenizerConfig::File(PathBuf::from(path)),
        })
    }
}

impl fmt::Display for TokenizerConfig {
    /// As a configuration writes it: the name alone where nothing but what is usual was asked for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenizerConfig::Chars(limits) => limits.write(f, "chars"),
            TokenizerConfig::Bytes => f.write_str("bytes"),
            TokenizerConfig::Words(limits) => limits.write(f, "words"),
            TokenizerConfig::Bpe(subwords) => subwords.write(f, "bpe"),
            TokenizerConfig::Unigram(subwords) => subwords.write(f, "unigram"),
            TokenizerConfig::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Limits {
    fn write(&self, f: &mut fmt::Formatter<'_>, kind: &str) -> fmt::Result {
        let usual = Limits::default();
        if *self == usual {
            return f.write_str(kind);
        }
        write!(f, "{{ kind = \"{kind}\"")?;
        if self.min_count != usual.min_count {
            write!(f, ", min_count = {}", self.min_count)?;
        }
        if let Some(max_vocab) = self.max_vocab {
            write!(f, ", max_vocab = {max_vocab}")?;
        }
        if self.max_counted != usual.max_counted {
            write!(f, ", max_counted = {}", self.max_counted)?;
        }
        f.write_str(" }")
    }
}

impl Subwords {
    fn write(&self, f: &mut fmt::Formatter<'_>, kind: &str) -> fmt::Result {
        if *self == Subwords::default() {
            return f.write_str(kind);
        }
        let Subwords { vocabulary, min_count, max_bytes, max_counted } = self;
        write!(
            f,
            "{{ kind = \"{kind}\", vocabulary = {vocabulary}, min_count = {min_count}, max_bytes = {max_bytes}, \
             max_counted = {max_counted} }}"
        )
    }
}
