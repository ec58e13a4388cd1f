//! Which tokens are evaluated, and under which name.

use std::path::Path;

use carousel_corpus::{CorpusError, Tokenizer, Tokens, read_text};

use crate::config::Config;
use crate::failure::Failure;
use crate::launch;
use crate::prepare::{self, RunTokens};

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
    train: Option<Tokens>,
}

impl Subject {
    /// A text in a file.
    pub(super) fn file(config: &Config, path: &Path, tokenizer: &Tokenizer) -> Result<Self, Failure> {
        let text = read_text("--text", &[path.to_owned()], &launch::text_options(config))?;
        Self::new(path.display().to_string(), tokenizer.encode(&text)?, None)
    }

    /// One of the run's texts.
    pub(super) fn split(config: &Config, split: SplitName, tokenizer: &Tokenizer) -> Result<Self, Failure> {
        let name = split.name();
        let RunTokens { train, valid, test, .. } = prepare::tokens_of_run(config, tokenizer)?;
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
        Self::new(name.to_owned(), all(&tokens.ok_or_else(missing)?)?, train)
    }

    /// The training text's tokens.
    pub(super) fn training_tokens(
        &self,
        config: &Config,
        tokenizer: &Tokenizer,
    ) -> Result<Vec<u32>, Failure> {
        match &self.train {
            Some(tokens) => all(tokens),
            None if self.name == SplitName::Train.name() => Ok(self.tokens.clone()),
            None => all(&prepare::tokens_of_run(config, tokenizer)?.train),
        }
    }

    fn new(name: String, tokens: Vec<u32>, train: Option<Tokens>) -> Result<Self, Failure> {
        if tokens.len() < 2 {
            let found = tokens.len();
            return Err(Failure::bad_input(format!(
                "{name}: found {found} tokens, expected at least 2: one to read, one to predict"
            )));
        }
        Ok(Self { name, tokens, train })
    }
}

/// All of a text's tokens, in memory.
fn all(tokens: &Tokens) -> Result<Vec<u32>, Failure> {
    let mut all = Vec::new();
    tokens.read(0..tokens.len(), &mut all).map_err(CorpusError::from)?;
    Ok(all)
}
