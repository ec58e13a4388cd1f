//! The keys of `[data]` that say how text becomes tokens: `tokenizer`, `documents`, `eos`.

use std::path::{Path, PathBuf};

use carousel_corpus::{Limits, MAX_VOCABULARY, Subwords, TokenizerConfig};
use serde::{Deserialize, Serialize};
use toml::Value;

use super::{ConfigError, Data};

/// `data.documents`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(crate) enum Documents {
    /// as one text
    #[default]
    Joined,
    /// each by itself, ended by `eos`, those of the training text shuffled by the seed
    Apart,
}

impl From<Documents> for carousel_corpus::Documents {
    fn from(documents: Documents) -> Self {
        match documents {
            Documents::Joined => Self::Joined,
            Documents::Apart => Self::Apart,
        }
    }
}

/// Whether a value need not be written.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// `data.tokenizer`: a name or a path, or a table with `kind`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a name, a path, or a table with `kind`")]
pub(crate) enum TokenizerChoice {
    /// A kind with what is usual for it, or a path.
    Name(String),
    /// A kind with some of it said. Read again by [`TokenizerTable`], which names what it does not know.
    Table(toml::Table),
}

/// `data.tokenizer` as a table.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum TokenizerTable {
    /// Unicode scalar values, `<unk>` first.
    Chars(LimitsTable),
    /// The 256 bytes of UTF-8.
    Bytes {},
    /// What stands between white space; each line end is `<eos>`.
    Words(LimitsTable),
    /// Byte pair encoding, on bytes: Sennrich et al. 2016.
    Bpe(SubwordsTable),
    /// Pieces of bytes by a unigram model: Kudo 2018.
    Unigram(SubwordsTable),
    /// What a Hugging Face tokenizer.json says.
    File {
        /// That file.
        path: String,
    },
}

/// Of `chars` and `words`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(super) struct LimitsTable {
    /// What comes less often is `<unk>`. Unit: occurrences.
    min_count: u64,
    /// The vocabulary at most, `<unk>` and `<eos>` included; none: as large as it comes. Unit: tokens.
    max_vocab: Option<usize>,
    /// Counted at a time: a text with more loses the rarest on the way. Unit: distinct words.
    max_counted: usize,
}

impl Default for LimitsTable {
    fn default() -> Self {
        let Limits { min_count, max_vocab, max_counted } = Limits::default();
        Self { min_count, max_vocab, max_counted }
    }
}

impl From<LimitsTable> for Limits {
    fn from(table: LimitsTable) -> Self {
        let LimitsTable { min_count, max_vocab, max_counted } = table;
        Self { min_count, max_vocab, max_counted }
    }
}

/// Of `bpe` and `unigram`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(super) struct SubwordsTable {
    /// The size to train for, `<eos>` included. Unit: tokens.
    vocabulary: usize,
    /// What comes less often is no token of its own. Unit: occurrences.
    min_count: u64,
    /// It is trained on so much of the beginning of the training text. Unit: bytes.
    max_bytes: u64,
    /// Counted at a time: a text with more loses the rarest on the way. Unit: distinct words.
    max_counted: usize,
}

impl Default for SubwordsTable {
    fn default() -> Self {
        let Subwords { vocabulary, min_count, max_bytes, max_counted } = Subwords::default();
        Self { vocabulary, min_count, max_bytes, max_counted }
    }
}

impl From<SubwordsTable> for Subwords {
    fn from(table: SubwordsTable) -> Self {
        let SubwordsTable { vocabulary, min_count, max_bytes, max_counted } = table;
        Self { vocabulary, min_count, max_bytes, max_counted }
    }
}

/// Names that are no path.
const KINDS: [&str; 5] = ["chars", "bytes", "words", "bpe", "unigram"];

impl TokenizerChoice {
    /// A name or a path.
    pub(crate) fn named(text: &str) -> Self {
        Self::Name(text.into())
    }

    /// The path, when it is one.
    pub(crate) fn path(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name.as_str()).filter(|name| !KINDS.contains(name)),
            Self::Table(table) if table.get("kind")?.as_str()? == "file" => table.get("path")?.as_str(),
            Self::Table(_) => None,
        }
    }

    /// As the corpus wants it.
    pub(crate) fn resolve(&self) -> Result<TokenizerConfig, ConfigError> {
        let table = match self {
            Self::Name(name) => {
                let named: Result<TokenizerConfig, std::convert::Infallible> = name.parse();
                let Ok(tokenizer) = named;
                return Ok(tokenizer);
            }
            Self::Table(table) => table,
        };
        let read: Result<TokenizerTable, toml::de::Error> = Value::Table(table.clone()).try_into();
        let read = read.map_err(|error| ConfigError::Value {
            key: "data.tokenizer",
            found: table.to_string().trim().replace('\n', ", "),
            expected: format!("a tokenizer ({})", error.message().trim()),
        })?;
        Ok(match read {
            TokenizerTable::Chars(limits) => TokenizerConfig::Chars(limits.into()),
            TokenizerTable::Bytes {} => TokenizerConfig::Bytes,
            TokenizerTable::Words(limits) => TokenizerConfig::Words(limits.into()),
            TokenizerTable::Bpe(subwords) => TokenizerConfig::Bpe(subwords.into()),
            TokenizerTable::Unigram(subwords) => TokenizerConfig::Unigram(subwords.into()),
            TokenizerTable::File { path } => TokenizerConfig::File(PathBuf::from(path)),
        })
    }
}

/// Checks the keys of this file.
pub(super) fn validate(data: &Data) -> Result<(), ConfigError> {
    let value = |key, found: String, expected: &str| {
        Err(ConfigError::Value { key, found, expected: expected.to_owned() })
    };
    if data.tokenizer == TokenizerChoice::named("") {
        return value("data.tokenizer", "\"\"".into(), TOKENIZERS);
    }
    if let Some(name) = data.tokenizer.path().filter(|name| is_no_path(name)) {
        return value("data.tokenizer", format!("{name:?}"), TOKENIZERS);
    }
    if data.eos.as_deref() == Some("") {
        return value("data.eos", "\"\"".into(), "the text of a token, as <eos>");
    }
    match data.tokenizer.resolve()? {
        TokenizerConfig::Chars(limits) | TokenizerConfig::Words(limits) => check_limits(&limits),
        TokenizerConfig::Bpe(subwords) | TokenizerConfig::Unigram(subwords) => check_subwords(&subwords),
        _ => Ok(()),
    }
}

const TOKENIZERS: &str = "chars, bytes, words, bpe, unigram, or the path of a tokenizer.json";

/// A word that was meant as a kind: a path has a folder or an ending, or is there.
fn is_no_path(name: &str) -> bool {
    !name.contains(['/', '.', '$', '~']) && !Path::new(name).exists()
}

/// 256 bytes and `<eos>`.
const BYTE_LEVEL: usize = 257;

fn check_subwords(subwords: &Subwords) -> Result<(), ConfigError> {
    let value = |key, found: u64, expected: &str| {
        Err(ConfigError::Value { key, found: found.to_string(), expected: expected.to_owned() })
    };
    match *subwords {
        Subwords { vocabulary: size @ 0..BYTE_LEVEL, .. } => {
            value("data.tokenizer.vocabulary", size as u64, "at least 257: the bytes and <eos>")
        }
        Subwords { vocabulary: size, .. } if size as u64 > MAX_VOCABULARY => {
            value("data.tokenizer.vocabulary", size as u64, "at most 16777216")
        }
        Subwords { min_count: 0, .. } => value("data.tokenizer.min_count", 0, "at least 1"),
        Subwords { max_bytes: 0, .. } => value("data.tokenizer.max_bytes", 0, "at least 1"),
        Subwords { max_counted: size @ 0..1000, .. } => {
            value("data.tokenizer.max_counted", size as u64, "at least 1000")
        }
        _ => Ok(()),
    }
}

fn check_limits(limits: &Limits) -> Result<(), ConfigError> {
    let value = |key, found: usize, expected: &str| {
        Err(ConfigError::Value { key, found: found.to_string(), expected: expected.to_owned() })
    };
    match *limits {
        Limits { min_count: 0, .. } => value("data.tokenizer.min_count", 0, "at least 1"),
        Limits { max_vocab: Some(size @ 0..=2), .. } => {
            value("data.tokenizer.max_vocab", size, "at least 3: <unk>, <eos> and one more")
        }
        Limits { max_counted: size @ 0..1000, .. } => {
            value("data.tokenizer.max_counted", size, "at least 1000")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(value: &str) -> Result<TokenizerConfig, String> {
        let table: toml::Table = toml::from_str(&format!("tokenizer = {value}")).unwrap();
        let choice: TokenizerChoice =
            table["tokenizer"].clone().try_into().map_err(|e: toml::de::Error| e.to_string())?;
        let data = Data { tokenizer: choice.clone(), ..Data::default() };
        validate(&data).and_then(|()| choice.resolve()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_tokenizer_is_a_name_a_path_or_a_table() {
        assert_eq!(resolved("\"words\""), Ok(TokenizerConfig::WORDS));
        assert_eq!(resolved("{ kind = \"words\" }"), Ok(TokenizerConfig::WORDS));
        assert_eq!(resolved("\"a/tokenizer.json\""), Ok(TokenizerConfig::File("a/tokenizer.json".into())));
        let limits = Limits { min_count: 3, max_vocab: Some(10_000), ..Limits::default() };
        let table = "{ kind = \"words\", min_count = 3, max_vocab = 10000 }";
        assert_eq!(resolved(table), Ok(TokenizerConfig::Words(limits)));
    }

    #[test]
    fn what_is_not_known_or_impossible_is_named() {
        for (value, parts) in [
            (
                "{ kind = \"words\", mincount = 3 }",
                &["data.tokenizer", "unknown field `mincount`", "min_count"][..],
            ),
            ("{ kind = \"word\" }", &["data.tokenizer", "unknown variant `word`", "words"]),
            ("{ min_count = 3 }", &["data.tokenizer", "kind"]),
            ("{ kind = \"words\", max_vocab = 2 }", &["data.tokenizer.max_vocab: found 2", "at least 3"]),
            ("{ kind = \"chars\", min_count = 0 }", &["data.tokenizer.min_count: found 0"]),
            (
                "{ kind = \"bpe\", vocabulary = 256 }",
                &["data.tokenizer.vocabulary: found 256", "at least 257"],
            ),
            ("{ kind = \"bpe\", max_vocab = 256 }", &["unknown field `max_vocab`", "vocabulary"]),
            ("\"\"", &["data.tokenizer: found \"\""]),
            ("3", &["a name, a path, or a table with `kind`"]),
        ] {
            let error = resolved(value).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{value}: {error:?} lacks {part:?}");
            }
        }
    }
}
