//! The texts of a run as tokens in memory: read, cut, tokenized.

use std::path::PathBuf;

use crate::tokenize::{Encoded, Output, Texts};
use crate::{CorpusError, DataConfig, Documents, Tokenizer};

/// One of the three texts of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Split {
    /// What the weights are fitted to.
    Train,
    /// What decides about the schedule and is reported while training.
    Valid,
    /// What is reported at the end.
    Test,
}

impl Split {
    /// `train`, `valid` or `test`.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Valid => "valid",
            Split::Test => "test",
        }
    }

    /// The key that names its files.
    pub fn setting(self) -> &'static str {
        match self {
            Split::Train => "data.train",
            Split::Valid => "data.valid",
            Split::Test => "data.test",
        }
    }
}

/// The texts of a run as tokens of one vocabulary.
#[derive(Debug)]
pub struct Corpus {
    /// What made the tokens; its vocabulary is that of the training text, or of the file.
    pub tokenizer: Tokenizer,
    /// The training text, at least one token, its documents in the order of the text.
    pub train: Vec<u32>,
    /// The validation text, when files were named or a fraction was cut.
    pub valid: Option<Vec<u32>>,
    /// The test text, when files were named.
    pub test: Option<Vec<u32>>,
    /// With documents apart: behind how many tokens of the training text each document ends.
    pub train_documents: Option<Vec<u64>>,
}

impl Corpus {
    /// Reads what `config` names, cuts the validation part where none is named, and tokenizes.
    ///
    /// The vocabulary of `chars` and `words` comes from the training text alone, after the cut. The cut: the last
    /// `valid_fraction` of the bytes of the training text (of the whole, when it comes from several files),
    /// moved forward to the next character's boundary; with documents apart, to the next document.
    ///
    /// # Errors
    /// Those of [`Source`](crate::Source), of the tokenizer, and of the cut.
    pub fn load(config: &DataConfig) -> Result<Corpus, CorpusError> {
        let mut held = Held::default();
        let made = Texts::new(config, true, &mut |_| {})?.tokenize(&mut held)?;
        let [train, valid, test] = held.splits;
        let train_documents = (config.documents == Documents::Apart).then_some(held.train_documents);
        Ok(Corpus {
            tokenizer: made.tokenizer,
            train: train.unwrap_or_default(),
            valid,
            test,
            train_documents,
        })
    }

    /// The tokens of a split; none when the run has no such text.
    pub fn split(&self, split: Split) -> Option<&[u32]> {
        match split {
            Split::Train => Some(&self.train),
            Split::Valid => self.valid.as_deref(),
            Split::Test => self.test.as_deref(),
        }
    }
}

impl DataConfig {
    /// The files and folders of a split.
    pub fn paths(&self, split: Split) -> &[PathBuf] {
        match split {
            Split::Train => &self.train,
            Split::Valid => &self.valid,
            Split::Test => &self.test,
        }
    }
}

/// Tokens that stay in memory.
#[derive(Default)]
struct Held {
    splits: [Option<Vec<u32>>; 3],
    train_documents: Vec<u64>,
}

impl Output for Held {
    fn begin(&mut self, _: &Tokenizer) -> Result<(), CorpusError> {
        Ok(())
    }

    fn take(&mut self, split: Split, encoded: &Encoded) -> Result<(), CorpusError> {
        let tokens = self.splits[split as usize].get_or_insert_default();
        if split == Split::Train {
            let before = tokens.len() as u64;
            self.train_documents.extend(encoded.ends.iter().map(|&end| before + end as u64));
        }
        tokens.extend_from_slice(&encoded.tokens);
        Ok(())
    }
}
