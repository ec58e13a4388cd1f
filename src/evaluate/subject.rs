//! Which tokens are evaluated, and under which name.

use std::path::Path;

use carousel_corpus::{Corpus, SourceOptions, Tokenizer, read_text};

use crate::config::Config;
use crate::failure::Failure;
use crate::launch;

/// A text of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum SplitName {
    Valid,
    Test,
    Train,
}

impl SplitName {
    fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Test => "test",
            Self::Train => "train",
        }
    }
}

/// What is evaluated.
pub(super) struct Subject {
    /// `valid`, `test`, `train` or a path.
    pub name: String,
    /// At least two.
    pub tokens: Vec<u32>,
    /// Of the run's training text, where the run's own texts were read anyway.
    train: Option<Vec<u32>>,
}

impl Subject {
    /// A text in a file.
    pub(super) fn file(path: &Path, tokenizer: &Tokenizer) -> Result<Self, Failure> {
        let text = read_text("--text", &[path.to_owned()], &SourceOptions::default())?;
        Self::new(path.display().to_string(), tokenizer.encode(&text)?, None)
    }

    /// One of the run's texts.
    pub(super) fn split(config: &Config, split: SplitName, tokenizer: &Tokenizer) -> Result<Self, Failure> {
        let name = split.name();
        let Corpus { train, valid, test, .. } = corpus(config, tokenizer)?;
        let (tokens, train) = match split {
            SplitName::Train => (Some(train), None),
            SplitName::Valid => (valid, Some(train)),
            SplitName::Test => (test, Some(train)),
        };
        let missing = || {
            Failure::bad_input(format!(
                "--split {name}: the run has no such text; expected data.{name} in its config.toml"
            ))
        };
        Self::new(name.to_owned(), tokens.ok_or_else(missing)?, train)
    }

    /// The training text's tokens.
    pub(super) fn training_tokens(
        &self,
        config: &Config,
        tokenizer: &Tokenizer,
    ) -> Result<Vec<u32>, Failure> {
        match &self.train {
            Some(tokens) => Ok(tokens.clone()),
            None if self.name == SplitName::Train.name() => Ok(self.tokens.clone()),
            None => Ok(corpus(config, tokenizer)?.train),
        }
    }

    fn new(name: String, tokens: Vec<u32>, train: Option<Vec<u32>>) -> Result<Self, Failure> {
        if tokens.len() < 2 {
            let found = tokens.len();
            return Err(Failure::bad_input(format!(
                "{name}: found {found} tokens, expected at least 2: one to read, one to predict"
            )));
        }
        Ok(Self { name, tokens, train })
    }
}

/// The run's texts, as long as they are what the run was made with: of other texts the tokens would mean something else.
fn corpus(config: &Config, tokenizer: &Tokenizer) -> Result<Corpus, Failure> {
    let corpus = Corpus::load(&launch::data_config(config))?;
    if corpus.tokenizer.identity() != tokenizer.identity() {
        return Err(Failure::bad_input(format!(
            "data.train: found a text whose vocabulary has {} tokens, expected the one the run's tokenizer.json was made from, \
             with {}; --text FILE evaluates another text",
            corpus.tokenizer.vocabulary(),
            tokenizer.vocabulary()
        )));
    }
    Ok(corpus)
}
