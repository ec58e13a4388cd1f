//! Text to token ids and back. Four kinds behind one type; whatever the kind, it can be written as a Hugging Face
//! `tokenizer.json` that gives the same ids elsewhere.

mod bpe;
mod bytes;
mod chars;
mod config;
mod counts;
mod file;
mod json;
mod stream;
mod training;
mod unigram;
mod words;

use std::fmt;
use std::io;
use std::path::Path;

use self::chars::Chars;
pub use self::config::{Limits, Subwords, TokenizerConfig};
use self::file::FileTokenizer;
pub use self::file::MAX_VOCABULARY;
pub use self::stream::DecodeStream;
pub(crate) use self::training::Training;
use self::words::Words;
use crate::whole::read_whole_with;
use crate::{CorpusError, LocalOnly, Storage};

/// A larger `tokenizer.json` is none: the largest that are published, with a quarter of a million tokens, have a tenth of it.
const MOST_FILE_BYTES: u64 = 256 << 20;

/// How a tokenizer makes tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenizerKind {
    /// Unicode scalar values of the training text, ordered by code point from id 1; id 0 is `<unk>`, for others.
    Chars,
    /// The bytes of UTF-8: the id is the byte.
    Bytes,
    /// Runs of characters that are not white space; each line end (`\n`) is `<eos>`, and what the training text
    /// has not is `<unk>`. Ordered by falling count in the training text, then by text. A last line without
    /// line end has no `<eos>`. The words `<eos>` and `<unk>` of a text are these same tokens.
    Words,
    /// What a `tokenizer.json` says.
    File,
}

impl fmt::Display for TokenizerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TokenizerKind::Chars => "chars",
            TokenizerKind::Bytes => "bytes",
            TokenizerKind::Words => "words",
            TokenizerKind::File => "file",
        })
    }
}

/// Text to token ids and back.
#[derive(Clone)]
pub struct Tokenizer(Kind);

#[derive(Clone)]
enum Kind {
    Chars(Chars),
    Bytes {
        /// Whether the id 256 is `<eos>`.
        eos: bool,
    },
    Words(Words),
    File(Box<FileTokenizer>),
}

impl Tokenizer {
    /// The tokenizer that `config` asks for; all but `bytes` and a file take their vocabulary from `training_text`.
    ///
    /// # Errors
    /// For a file, those of [`Tokenizer::from_file`].
    pub fn for_text(config: &TokenizerConfig, training_text: &str) -> Result<Self, CorpusError> {
        let mut training = Training::new(config, false);
        let counts = training.count(training_text);
        training.add(training_text, &counts);
        training.finish()
    }

    /// Reads a Hugging Face `tokenizer.json`.
    ///
    /// # Errors
    /// [`CorpusError::NotFound`], [`CorpusError::Unreadable`], and [`CorpusError::BadTokenizer`] with the path.
    pub fn from_file(path: &Path) -> Result<Self, CorpusError> {
        Self::from_file_in(path, &LocalOnly)
    }

    /// The same, and from an object where the path is an address.
    pub(crate) fn from_file_in(path: &Path, storage: &dyn Storage) -> Result<Self, CorpusError> {
        let json =
            read_whole_with(path, MOST_FILE_BYTES, storage).map_err(|source| unreadable(path, source))?;
        parse(&json).map_err(|reason| CorpusError::BadTokenizer { path: Some(path.into()), reason })
    }

    /// Reads the text of a Hugging Face `tokenizer.json`. What [`Tokenizer::to_json`] has written for `chars`,
    /// `bytes` and `words` is recognised by its structure and becomes that kind again.
    ///
    /// # Errors
    /// [`CorpusError::BadTokenizer`]: not such a file, without vocabulary, or one whose tokens are drawn at
    /// random (BPE dropout), which no run could repeat.
    pub fn from_json(json: &str) -> Result<Self, CorpusError> {
        parse(json).map_err(|reason| CorpusError::BadTokenizer { path: None, reason })
    }

    /// The tokens of `text`. For the kinds of this crate `encode(a) ++ encode(b) == encode(a ++ b)` wherever `a`
    /// ends with a line end. A file's tokenizer sees the text in pieces of whole lines of about 1 MiB, in
    /// parallel; it adds no special tokens, truncates nothing and pads nothing.
    ///
    /// # Errors
    /// [`CorpusError::Encode`], only from a file's tokenizer (one without a token for something unknown).
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, CorpusError> {
        match &self.0 {
            Kind::Chars(chars) => Ok(chars.encode(text)),
            Kind::Bytes { .. } => Ok(bytes::encode(text)),
            Kind::Words(words) => Ok(words.encode(text)),
            Kind::File(file) => file.encode(text),
        }
    }

    /// The text of `tokens`. Words are joined by one space, and none at a line end. Bytes that are not UTF-8, the
    /// `<unk>` of `chars`, and numbers that are no token are U+FFFD (a file's tokenizer leaves the last out).
    pub fn decode(&self, tokens: &[u32]) -> String {
        match &self.0 {
            Kind::Chars(chars) => chars.decode(tokens),
            Kind::Bytes { eos } => bytes::decode(tokens, *eos),
            Kind::File(file) => file.decode(tokens),
            Kind::Words(_) => {
                let mut stream = self.stream();
                tokens.iter().map(|&token| stream.push(token)).collect()
            }
        }
    }

    /// A decoder for tokens that come one at a time.
    pub fn stream(&self) -> DecodeStream<'_> {
        DecodeStream::new(self)
    }

    /// Size of the vocabulary: every id is below it. At least 1.
    pub fn vocabulary(&self) -> usize {
        match &self.0 {
            Kind::Chars(chars) => chars.vocabulary(),
            Kind::Bytes { eos } => bytes::BYTES + usize::from(*eos),
            Kind::Words(words) => words.vocabulary(),
            Kind::File(file) => file.vocabulary(),
        }
    }

    /// The token whose text in the vocabulary is `text`, when that is a mark such as `<eos>` and no part of a text:
    /// `chars`, `bytes` and `words` know [`EOS`](crate::EOS) alone.
    pub fn mark(&self, text: &str) -> Option<u32> {
        let own = |id: Option<u32>| id.filter(|_| text == crate::EOS);
        match &self.0 {
            Kind::Chars(chars) => own(chars.eos()),
            Kind::Bytes { eos } => own(eos.then_some(bytes::BYTES as u32)),
            Kind::Words(words) => own(Some(words.eos())),
            Kind::File(file) => file.id(text),
        }
    }

    /// The token of everything that the vocabulary has not, where there is one.
    pub fn unknown(&self) -> Option<u32> {
        match &self.0 {
            Kind::Chars(_) => Some(chars::UNK_ID),
            Kind::Bytes { .. } => None,
            Kind::Words(words) => Some(words.unk()),
            Kind::File(file) => file.unknown(),
        }
    }

    /// How it makes tokens.
    pub fn kind(&self) -> TokenizerKind {
        match &self.0 {
            Kind::Chars(_) => TokenizerKind::Chars,
            Kind::Bytes { .. } => TokenizerKind::Bytes,
            Kind::Words(_) => TokenizerKind::Words,
            Kind::File(_) => TokenizerKind::File,
        }
    }

    /// The Hugging Face `tokenizer.json` of this tokenizer; for one from a file, the file's own text. The same
    /// tokenizer gives the same bytes, always.
    pub fn to_json(&self) -> String {
        match &self.0 {
            Kind::Chars(chars) => json::chars(chars.tokens()),
            Kind::Bytes { eos } => json::bytes(*eos),
            Kind::Words(words) => json::words(words.tokens()),
            Kind::File(file) => file.json().to_owned(),
        }
    }

    /// BLAKE3 of [`Tokenizer::to_json`]: tokens of two texts belong together if and only if this is equal.
    pub fn identity(&self) -> [u8; 32] {
        *blake3::hash(self.to_json().as_bytes()).as_bytes()
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokenizer({}, vocabulary of {})", self.kind(), self.vocabulary())
    }
}

fn parse(json: &str) -> Result<Tokenizer, String> {
    let value: serde_json::Value = serde_json::from_str(json).map_err(|error| error.to_string())?;
    Ok(Tokenizer(match json::recognise(&value) {
        Some(json::Own::Chars { chars, eos }) => Kind::Chars(Chars::new(chars, eos)),
        Some(json::Own::Bytes { eos }) => Kind::Bytes { eos },
        Some(json::Own::Words(tokens)) => Kind::Words(Words::new(tokens)),
        None => Kind::File(Box::new(FileTokenizer::parse(json, &value)?)),
    }))
}

fn unreadable(path: &Path, source: io::Error) -> CorpusError {
    let (setting, path) = ("data.tokenizer".to_owned(), path.to_owned());
    match source.kind() {
        io::ErrorKind::NotFound => CorpusError::NotFound { setting, path },
        io::ErrorKind::InvalidData => {
            CorpusError::BadTokenizer { path: Some(path), reason: "not UTF-8".into() }
        }
        _ => CorpusError::Unreadable { setting, path, source },
    }
}
