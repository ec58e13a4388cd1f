//! Many samples side by side: one step of the model for all of them at once. A sample's tokens are a function of weights,
//! prompt, settings, seed and its number alone; who else is in the batch does not show (row independence).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use carousel_corpus::{DecodeStream, Tokenizer};
use rayon::prelude::*;

use super::choice::{log_probability, uniform};
use super::output::Output;
use super::stop::{Passed, StopGuard};
use super::{Ended, Prompt, Settings, WritingError, Written};
use crate::checkpoint_model::CheckpointModel;

/// Samples written at a time, and logits of all of them together: bounds of time to the first text, and of memory.
const MOST_SAMPLES: usize = 64;
const MOST_LOGITS: usize = 1 << 24;

/// One sample under way.
struct Stream<'a> {
    /// Its place in the output, and its number among those of its prompt.
    job: usize,
    sample: u32,
    /// The prompt, and what was written after it.
    history: Vec<u32>,
    prompt: usize,
    /// Tokens of the history that the model has read.
    read: usize,
    carry: Vec<f32>,
    decoder: DecodeStream<'a>,
    guard: StopGuard<'a>,
    text: String,
    log_probability: f64,
}

/// Writes every sample of every prompt, in chunks.
pub(super) fn write(
    model: &mut CheckpointModel,
    tokenizer: &Tokenizer,
    (prompts, settings): (&[Prompt], &Settings),
    (mut output, interrupted): (Output, &AtomicBool),
) -> Result<(), WritingError> {
    let at_once = (MOST_LOGITS / model.vocabulary).clamp(1, MOST_SAMPLES);
    let samples = prompts.iter().flat_map(|prompt| (0..settings.samples).map(move |sample| (prompt, sample)));
    let mut jobs: VecDeque<(usize, (&Prompt, u32))> = samples.enumerate().collect();
    while !jobs.is_empty() && !interrupted.load(Ordering::Relaxed) {
        let chunk = jobs.drain(..at_once.min(jobs.len()));
        let new = |(job, (prompt, sample)): (usize, (&Prompt, u32))| Stream {
            job,
            sample,
            history: prompt.tokens.clone(),
            prompt: prompt.tokens.len(),
            read: 0,
            carry: vec![0.0; model.carry_floats],
            decoder: tokenizer.stream(),
            guard: StopGuard::new(&settings.stops),
            text: String::new(),
            log_probability: 0.0,
        };
        let streams: Vec<Stream<'_>> = chunk.map(new).collect();
        write_together(model, streams, settings, (&mut output, interrupted))?;
    }
    output.finish()
}

fn write_together<'a>(
    model: &mut CheckpointModel,
    mut streams: Vec<Stream<'a>>,
    settings: &Settings,
    (output, interrupted): (&mut Output, &AtomicBool),
) -> Result<(), WritingError> {
    let probabilities = output.wants_probabilities();
    while !streams.is_empty() {
        let stop = interrupted.load(Ordering::Relaxed);
        let logits = step(model, &mut streams)?;
        let chosen: Vec<Option<(u32, f64)>> = streams
            .par_iter()
            .zip(logits.par_chunks(model.vocabulary))
            .map(|(stream, logits)| stream.choose(logits, settings, probabilities))
            .collect();
        let mut going_on = Vec::with_capacity(streams.len());
        for (mut stream, chosen) in streams.into_iter().zip(chosen) {
            let ended = stream.take(chosen, settings, output)?;
            match ended.or(stop.then_some(Ended::Interrupted)) {
                Some(ended) => stream.end(ended, output)?,
                None => going_on.push(stream),
            }
        }
        streams = going_on;
    }
    Ok(())
}

/// The next token of every stream through the model: (streams, V) logits.
fn step(model: &mut CheckpointModel, streams: &mut [Stream<'_>]) -> Result<Vec<f32>, WritingError> {
    let tokens: Vec<u32> = streams.iter().map(|stream| stream.history[stream.read]).collect();
    let mut carries: Vec<f32> = streams.iter().flat_map(|stream| stream.carry.iter().copied()).collect();
    let mut logits = vec![0.0; streams.len() * model.vocabulary];
    model.model.next_logits(&model.parameters, &tokens, &mut carries, &mut logits)?;
    for (stream, carry) in streams.iter_mut().zip(carries.chunks_exact(model.carry_floats)) {
        stream.carry.copy_from_slice(carry);
    }
    Ok(logits)
}

impl Stream<'_> {
    fn written(&self) -> u64 {
        (self.history.len() - self.prompt) as u64
    }

    /// The token after the one that was read, when it is for the model to write; and its log-probability where that is wanted.
    fn choose(&self, logits: &[f32], settings: &Settings, probabilities: bool) -> Option<(u32, f64)> {
        if self.read + 1 < self.history.len() || self.written() == settings.tokens {
            return None;
        }
        let uniform = uniform(settings.seed, self.sample, self.written());
        let token = settings.choice.choose(logits, &self.history, uniform);
        Some((token, if probabilities { log_probability(logits, token) } else { 0.0 }))
    }

    /// Shows what was read of the prompt and takes what was chosen; why the text has ended, if it has.
    fn take(
        &mut self,
        chosen: Option<(u32, f64)>,
        settings: &Settings,
        output: &mut Output,
    ) -> Result<Option<Ended>, WritingError> {
        if self.read < self.prompt {
            let piece = self.decoder.push(self.history[self.read]);
            output.prompt(self.job, &piece)?;
        }
        self.read += 1;
        if let Some((token, log_probability)) = chosen {
            self.log_probability += log_probability;
            self.history.push(token);
            let Passed { text, stop } = self.guard.push(&self.decoder.push(token));
            output.piece(self.job, &text)?;
            self.text.push_str(&text);
            if let Some(stop) = stop {
                return Ok(Some(Ended::Stop(stop)));
            }
        }
        let read_the_prompt = self.read >= self.prompt;
        Ok((read_the_prompt && self.written() == settings.tokens).then_some(Ended::Tokens))
    }

    /// Shows what was held back and hands over the whole.
    fn end(self, mut ended: Ended, output: &mut Output) -> Result<(), WritingError> {
        let Self { job, mut guard, decoder, mut text, mut history, prompt, log_probability, .. } = self;
        if !matches!(ended, Ended::Stop(_)) {
            let Passed { text: mut last, stop } = guard.push(&decoder.finish());
            match stop {
                Some(stop) => ended = Ended::Stop(stop),
                None => last.push_str(&guard.finish()),
            }
            output.piece(job, &last)?;
            text.push_str(&last);
        }
        let tokens = history.split_off(prompt);
        output.ended(job, Written { text, tokens, log_probability, score: None, ended })
    }
}
