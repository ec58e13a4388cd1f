//! The texts of a run as tokens: read, cut, tokenized.

use std::path::PathBuf;

use crate::{CorpusError, DataConfig, SourceOptions, Tokenizer, read_text};

/// One of the three texts of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Split {
    /// What the weights are fitted to.
    Train,
    /// What decides about the schedule and is reported while training.
    Valid,
    /// What is reported at the end.
    Test,
}

/// The texts of a run as tokens of one vocabulary.
#[derive(Debug)]
pub struct Corpus {
    /// What made the tokens; its vocabulary is that of the training text, or of the file.
    pub tokenizer: Tokenizer,
    /// The training text, at least one token.
    pub train: Vec<u32>,
    /// The validation text, when files were named or a fraction was cut.
    pub valid: Option<Vec<u32>>,
    /// The test text, when files were named.
    pub test: Option<Vec<u32>>,
}

impl Corpus {
    /// Reads what `config` names, cuts the validation part where none is named, and tokenizes.
    ///
    /// The vocabulary of `chars` and `words` comes from the training text alone, after the cut. The cut: the last
    /// `valid_fraction` of the bytes of the training text (of the whole, when it comes from several files),
    /// moved forward to the next character's boundary.
    ///
    /// # Errors
    /// Those of [`read_text`], [`Tokenizer::for_text`] and [`Tokenizer::encode`];
    /// [`CorpusError::ValidFractionOutOfRange`] before anything is read, and
    /// [`CorpusError::ValidFractionTooSmall`] when the text is too short to be cut.
    pub fn load(config: &DataConfig) -> Result<Corpus, CorpusError> {
        if !(0.0..1.0).contains(&config.valid_fraction) {
            return Err(CorpusError::ValidFractionOutOfRange { fraction: config.valid_fraction });
        }
        let mut train = read_text("data.train", &config.train, &config.source_options(Split::Train))?;
        let mut valid = read_named("data.valid", &config.valid, &config.source_options(Split::Valid))?;
        let test = read_named("data.test", &config.test, &config.source_options(Split::Test))?;
        if valid.is_none() && config.valid_fraction > 0.0 {
            valid = Some(cut_valid(&mut train, config.valid_fraction)?);
        }
        let tokenizer = Tokenizer::for_text(&config.tokenizer, &train)?;
        let encode = |text: Option<String>| text.map(|text| tokenizer.encode(&text)).transpose();
        let (train, valid, test) = (tokenizer.encode(&train)?, encode(valid)?, encode(test)?);
        Ok(Corpus { tokenizer, train, valid, test })
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

fn read_named(
    setting: &str,
    paths: &[PathBuf],
    options: &SourceOptions,
) -> Result<Option<String>, CorpusError> {
    if paths.is_empty() { Ok(None) } else { read_text(setting, paths, options).map(Some) }
}

/// Takes the last `fraction` of `text` away from it and returns that part.
fn cut_valid(text: &mut String, fraction: f64) -> Result<String, CorpusError> {
    let bytes = text.len();
    let mut at = bytes - (bytes as f64 * fraction) as usize;
    while !text.is_char_boundary(at) {
        at += 1;
    }
    if at == bytes {
        Err(CorpusError::ValidFractionTooSmall { fraction, bytes })
    } else {
        Ok(text.split_off(at))
    }
}
