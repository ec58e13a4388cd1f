//! `[sample]`: what `train` prints at its end. The same settings as `carousel generate` has, under the same names.

use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::generation::Choice;

/// `[sample]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sample {
    /// What comes before the text.
    pub prompt: String,
    /// At most so many after the prompt. Unit: tokens.
    pub tokens: u64,
    /// Logits are divided by it; 0: always the likeliest token. Unit: none.
    pub temperature: f64,
    /// The text is a function of it and of the weights. Unit: none.
    pub seed: u64,
    /// Only so many of the likeliest; 0: all. Unit: tokens.
    pub top_k: u64,
    /// Only the fewest of the likeliest tokens that reach it together; 1: all. Unit: probability.
    pub top_p: f64,
    /// Logits of tokens that are there already are divided by it when above 0, else multiplied; 1: no. Unit: none.
    pub repetition_penalty: f64,
    /// The last so many count for that; 0: all. Unit: tokens.
    pub repetition_window: u64,
    /// Strings at which the text ends.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// How many are made. Unit: texts.
    pub samples: u32,
}

impl Default for Sample {
    fn default() -> Self {
        let Choice { top_k, top_p, repetition_penalty, repetition_window, .. } = Choice::default();
        Self {
            prompt: "\n".into(),
            tokens: 400,
            temperature: 0.8,
            seed: 1,
            top_k,
            top_p,
            repetition_penalty,
            repetition_window,
            stop: Vec::new(),
            samples: 1,
        }
    }
}

impl Sample {
    /// How tokens are chosen.
    pub(crate) fn choice(&self) -> Choice {
        let Self { temperature, top_k, top_p, repetition_penalty, repetition_window, .. } = *self;
        Choice { temperature, top_k, top_p, repetition_penalty, repetition_window }
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let refused = |key, found: String, expected: &str| {
            Err(ConfigError::Value { key, found, expected: expected.into() })
        };
        if let Some(problem) = self.choice().problem() {
            return refused(problem.key, problem.found.to_string(), problem.expected);
        }
        if self.stop.iter().any(String::is_empty) {
            return refused("sample.stop", "\"\"".into(), "at least one character");
        }
        if self.samples == 0 {
            return refused("sample.samples", "0".into(), "at least 1");
        }
        Ok(())
    }
}
