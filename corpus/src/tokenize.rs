//! From the texts of a configuration to tokens, in as many passes as that takes, in parallel and in bounded memory:
//! the tokens go to an [`Output`]. They are the same for any number of threads: a thread works on a batch alone, and
//! what it found is taken in the order of the batches.

use rayon::prelude::*;

use crate::batches::{Batch, Batches, Fingerprint};
use crate::tokenizer::Training;
use crate::{CorpusError, DataConfig, Documents, Piece, Source, Split, Tokenizer};

/// What is being done, for a progress bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is done with the text.
    pub stage: Stage,
    /// Which text.
    pub split: Split,
    /// Stored bytes of it that are done.
    pub done: u64,
    /// Stored bytes of it; none when a server does not tell.
    pub total: Option<u64>,
}

/// A pass over a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// How long is it? Needed to cut a fraction off.
    Measure,
    /// Which words are in it? Needed for a vocabulary.
    Count,
    /// Into tokens.
    Encode,
    /// Is it the text that a prepared folder was made from?
    Compare,
}

/// Hears of every batch that is done.
pub type Watch<'a> = &'a mut dyn FnMut(Progress);

/// Where tokens go.
pub(crate) trait Output {
    /// What makes the tokens is known now.
    fn begin(&mut self, tokenizer: &Tokenizer) -> Result<(), CorpusError>;

    /// The next tokens of a split.
    fn take(&mut self, split: Split, encoded: &Encoded) -> Result<(), CorpusError>;
}

/// The tokens of a batch.
#[derive(Debug, Default)]
pub(crate) struct Encoded {
    pub tokens: Vec<u32>,
    /// With documents apart: behind how many of these tokens a document ends.
    pub ends: Vec<usize>,
    /// Bytes of text.
    pub bytes: u64,
    /// How many of the tokens are the one for everything unknown.
    pub unknown: u64,
}

/// A configuration's texts, read once or several times.
pub(crate) struct Texts<'a> {
    config: &'a DataConfig,
    /// The training text, when it is kept in memory between passes.
    kept: Option<Vec<Piece>>,
    watch: Watch<'a>,
}

/// What came of it.
pub(crate) struct Tokenized {
    pub tokenizer: Tokenizer,
    /// Of every text that was named.
    pub texts: Vec<(Split, Fingerprint)>,
    /// Words that came at most so often may be missing from the vocabulary's counts; 0: none are.
    pub forgotten_to: u64,
}

type Pieces = Box<dyn Iterator<Item = Result<Piece, CorpusError>> + Send>;

impl<'a> Texts<'a> {
    /// Of `config`. With `keep`, the training text is read once and held in memory for all passes.
    pub(crate) fn new(config: &'a DataConfig, keep: bool, watch: Watch<'a>) -> Result<Self, CorpusError> {
        if !(0.0..1.0).contains(&config.valid_fraction) {
            return Err(CorpusError::ValidFractionOutOfRange { fraction: config.valid_fraction });
        }
        let mut texts = Texts { config, kept: None, watch };
        if keep {
            texts.kept = Some(texts.open(Split::Train)?.0.collect::<Result<_, _>>()?);
        }
        Ok(texts)
    }

    /// Makes the tokenizer, and the tokens of every split.
    pub(crate) fn tokenize(&mut self, output: &mut impl Output) -> Result<Tokenized, CorpusError> {
        let measured = self.measure()?;
        let cut = measured.as_ref().map(|text| self.cut_of(text));
        let (tokenizer, counted, forgotten_to) = self.make_tokenizer(cut)?;
        output.begin(&tokenizer)?;
        let mut texts = Vec::new();
        for split in [Split::Train, Split::Valid, Split::Test] {
            if !self.config.paths(split).is_empty() {
                let cut = cut.filter(|_| split == Split::Train);
                texts.push((split, self.encode(split, cut, &tokenizer, output)?));
            }
        }
        let before = measured.or(counted);
        if before.is_some_and(|before| before != texts[0].1) {
            return Err(CorpusError::TextChanged { setting: "data.train".into() });
        }
        Ok(Tokenized { tokenizer, texts, forgotten_to })
    }

    /// The pieces of a text and its stored bytes.
    fn open(&self, split: Split) -> Result<(Pieces, Option<u64>), CorpusError> {
        if let Some(kept) = self.kept.as_ref().filter(|_| split == Split::Train) {
            return Ok((Box::new(kept.clone().into_iter().map(Ok)), None));
        }
        let options = self.config.source_options(split);
        let source = Source::open(split.setting(), self.config.paths(split), &options)?;
        let total = source.total_bytes();
        Ok((Box::new(source), total))
    }

    /// The length of the training text, when a part of it must be cut off.
    fn measure(&mut self) -> Result<Option<Fingerprint>, CorpusError> {
        if !self.config.valid.is_empty() || self.config.valid_fraction <= 0.0 {
            return Ok(None);
        }
        let (pieces, total) = self.open(Split::Train)?;
        let mut batches = Batches::new(pieces, Documents::Joined, None);
        for batch in batches.by_ref() {
            report(self.watch, Stage::Measure, Split::Train, (batch?.consumed, total));
        }
        Ok(Some(batches.fingerprint()))
    }

    /// Bytes of the training text before its validation part.
    fn cut_of(&self, text: &Fingerprint) -> u64 {
        text.bytes - (text.bytes as f64 * self.config.valid_fraction) as u64
    }

    /// The tokenizer, and the training text's fingerprint if all of it was read for that.
    fn make_tokenizer(
        &mut self,
        cut: Option<u64>,
    ) -> Result<(Tokenizer, Option<Fingerprint>, u64), CorpusError> {
        let apart = self.config.documents == Documents::Apart;
        let mut training = Training::new(&self.config.tokenizer, apart);
        let mut read = None;
        if training.needs_text() {
            read = self.count(cut, &mut training)?;
        }
        let forgotten_to = training.forgotten_to();
        Ok((training.finish()?, read, forgotten_to))
    }

    fn count(
        &mut self,
        cut: Option<u64>,
        training: &mut Training,
    ) -> Result<Option<Fingerprint>, CorpusError> {
        let (pieces, total) = self.open(Split::Train)?;
        let mut batches = Batches::new(pieces, self.config.documents, cut);
        let mut left = training.bytes();
        let watch = &mut *self.watch;
        let complete = in_order(
            &mut batches,
            training,
            |training, batch| {
                Ok(batch.parts.iter().map(|part| training.count(&part.text)).collect::<Vec<_>>())
            },
            |training, batch, counts| {
                if batch.behind_cut || left == 0 {
                    return Ok(false);
                }
                left = left.saturating_sub(batch.bytes() as u64);
                for (part, counts) in batch.parts.iter().zip(&counts) {
                    training.add(&part.text, counts);
                    training.add_document_ends(u64::from(part.ends_document));
                }
                report(watch, Stage::Count, Split::Train, (batch.consumed, total));
                Ok(true)
            },
        )?;
        Ok(complete.then(|| batches.fingerprint()))
    }

    fn encode(
        &mut self,
        split: Split,
        cut: Option<u64>,
        tokenizer: &Tokenizer,
        output: &mut impl Output,
    ) -> Result<Fingerprint, CorpusError> {
        let eos = self.eos(tokenizer)?;
        let (pieces, total) = self.open(split)?;
        let mut batches = Batches::new(pieces, self.config.documents, cut);
        let (watch, mut behind) = (&mut *self.watch, false);
        in_order(
            &mut batches,
            &mut (),
            |(), batch| encode(tokenizer, eos, batch),
            |(), batch, encoded| {
                behind |= batch.behind_cut;
                report(watch, Stage::Encode, split, (batch.consumed, total));
                output.take(if batch.behind_cut { Split::Valid } else { split }, &encoded)?;
                Ok(true)
            },
        )?;
        let text = batches.fingerprint();
        if cut.is_some() && !behind {
            let (fraction, documents) = (self.config.valid_fraction, text.documents);
            return Err(match self.config.documents {
                Documents::Joined => {
                    CorpusError::ValidFractionTooSmall { fraction, bytes: text.bytes as usize }
                }
                Documents::Apart => CorpusError::NoDocumentToValidate { fraction, documents },
            });
        }
        Ok(text)
    }

    /// The token behind each document, when they are apart.
    fn eos(&self, tokenizer: &Tokenizer) -> Result<Option<u32>, CorpusError> {
        if self.config.documents == Documents::Joined {
            return Ok(None);
        }
        let eos = &self.config.eos;
        let found = tokenizer.mark(eos).map(Some);
        found.ok_or_else(|| CorpusError::NoEos {
            eos: eos.clone(),
            tokenizer: self.config.tokenizer.to_string(),
        })
    }
}

fn report(watch: &mut dyn FnMut(Progress), stage: Stage, split: Split, (done, total): (u64, Option<u64>)) {
    watch(Progress { stage, split, done: done.min(total.unwrap_or(done)), total });
}

fn encode(tokenizer: &Tokenizer, eos: Option<u32>, batch: &Batch) -> Result<Encoded, CorpusError> {
    let mut encoded = Encoded { bytes: batch.bytes() as u64, ..Encoded::default() };
    for part in &batch.parts {
        let tokens = tokenizer.encode(&part.text)?;
        match encoded.tokens.is_empty() {
            true => encoded.tokens = tokens,
            false => encoded.tokens.extend(tokens),
        }
        if let Some(eos) = eos.filter(|_| part.ends_document) {
            encoded.tokens.push(eos);
            encoded.ends.push(encoded.tokens.len());
        }
    }
    if let Some(unknown) = tokenizer.unknown() {
        encoded.unknown = encoded.tokens.iter().filter(|&&token| token == unknown).count() as u64;
    }
    Ok(encoded)
}

/// Works on batches in parallel, and gives what came of each to `take`, in order; `take` says whether to go on. No more
/// than a few batches for each thread are in memory. Whether all was taken.
fn in_order<S: Sync, T: Send>(
    batches: &mut (impl Iterator<Item = Result<Batch, CorpusError>> + Send),
    state: &mut S,
    work: impl Fn(&S, &Batch) -> Result<T, CorpusError> + Sync,
    mut take: impl FnMut(&mut S, &Batch, T) -> Result<bool, CorpusError>,
) -> Result<bool, CorpusError> {
    let mut group = next_group(batches)?;
    while !group.is_empty() {
        let shared = &*state;
        let (next, done) = rayon::join(
            || next_group(batches),
            || group.par_iter().map(|batch| work(shared, batch)).collect::<Result<Vec<T>, CorpusError>>(),
        );
        for (batch, done) in group.iter().zip(done?) {
            if !take(state, batch, done)? {
                return Ok(false);
            }
        }
        group = next?;
    }
    Ok(true)
}

fn next_group(
    batches: &mut impl Iterator<Item = Result<Batch, CorpusError>>,
) -> Result<Vec<Batch>, CorpusError> {
    batches.take(2 * rayon::current_num_threads()).collect()
}
