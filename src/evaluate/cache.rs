//! Evaluation with a neural cache: what came lately is likelier. The mathematics is the model crate's.

use carousel_model::{CacheOptions, LaneStreams, NeuralCache, Scores, Window};
use serde::Serialize;

use super::figures::Sum;
use super::subject::Subject;
use super::windows::Windows;
use crate::checkpoint_model::CheckpointModel;
use crate::failure::Failure;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Neural cache (Grave et al. 2017)")]
pub(super) struct Options {
    /// Mix in what followed the last N outputs of the stream
    #[arg(long, value_name = "N", conflicts_with = "dynamic")]
    cache: Option<usize>,
    /// Sharpness: 0 counts words, above it prefers places like this one
    #[arg(long, value_name = "T", default_value_t = 0.3, requires = "cache")]
    cache_theta: f64,
    /// Share of the cache in the mixture
    #[arg(long, value_name = "L", default_value_t = 0.1, requires = "cache")]
    cache_lambda: f64,
}

/// The options in force.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Settings {
    size: usize,
    theta: f64,
    lambda: f64,
}

impl Options {
    /// What was asked for, checked.
    pub(super) fn settings(&self) -> Result<Option<Settings>, Failure> {
        let Some(size) = self.cache else { return Ok(None) };
        let (theta, lambda) = (self.cache_theta, self.cache_lambda);
        let not_negative = theta.is_finite() && theta >= 0.0;
        Failure::unless(size > 0, "--cache", size, "at least 1")?;
        Failure::unless(not_negative, "--cache-theta", theta, "a finite number that is not negative")?;
        let share = (0.0..1.0).contains(&lambda);
        Failure::unless(share, "--cache-lambda", lambda, "at least 0 and below 1")?;
        Ok(Some(Settings { size, theta, lambda }))
    }
}

impl Settings {
    /// For people.
    pub(super) fn told(&self) -> String {
        format!("the last {} places, theta {}, lambda {}", self.size, self.theta, self.lambda)
    }
}

pub(super) fn evaluate(
    model: &mut CheckpointModel,
    subject: &Subject,
    (streams, steps): (usize, usize),
    Settings { size, theta, lambda }: Settings,
) -> Result<Sum, Failure> {
    let width = model.model.config().hidden;
    let mut cache = NeuralCache::new(CacheOptions { size, theta, lambda }, streams, width)?;
    let lanes = [LaneStreams { lane: 0, first_stream: 0, streams }];
    let mut windows = Windows::evaluation(&subject.tokens, streams, steps)?;
    let mut carries = vec![0.0; streams * model.carry_floats];
    let (mut scores, mut sum) = (Scores::default(), Sum::default());
    for index in 0..windows.count() {
        let tokens = windows.get(index);
        let (inputs, targets) = (tokens.inputs, tokens.targets);
        let window = Window { seed: 0, step: 0, steps, lanes: &lanes, inputs, targets, step_tokens: 1 };
        model.model.score(&model.parameters, &window, &mut carries, &mut scores)?;
        cache.mix(targets, &mut scores)?;
        sum.add(tokens.counted, scores.losses.iter().sum());
    }
    Ok(sum)
}
