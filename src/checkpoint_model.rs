//! A trained model, ready to be evaluated or sampled from: a checkpoint with the configuration and tokenizer of its run.

use std::path::Path;

use carousel_coordinator::checkpoint::{Checkpoint, RunFolder};
use carousel_corpus::Tokenizer;
use carousel_model::{AVERAGE, LanguageModel, Parameters};

use crate::config::{self, Config};
use crate::failure::Failure;
use crate::launch;

pub(crate) struct CheckpointModel {
    pub config: Config,
    pub tokenizer: Tokenizer,
    pub model: LanguageModel,
    pub parameters: Parameters,
    /// Whether the parameters are an average, and not the last ones.
    pub averaged: bool,
    /// Floats of one stream's carry.
    pub carry_floats: usize,
    pub vocabulary: usize,
}

impl CheckpointModel {
    /// Opens a run's latest whole checkpoint, or a checkpoint inside a run's folder.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let found = RunFolder::open_any(path)?;
        for passed_over in &found.passed_over {
            eprintln!("warning: passed over a checkpoint: {passed_over}");
        }
        let folder = RunFolder::containing(path)?;
        let config = config::read_resolved(&folder.config())?;
        let tokenizer = launch::tokenizer_of(&folder)?;
        let vocabulary = tokenizer.vocabulary();
        let model_config = launch::model_config(&config, vocabulary)?;
        let (weights, averaged) = weights_of(&found.checkpoint);
        if averaged {
            eprintln!("note: the weights are the average that the optimizer keeps, not the last ones");
        }
        let parameters = Parameters::from_flat(&model_config, weights.to_vec())?;
        let carry_floats = model_config.carry_len();
        let model = LanguageModel::new(model_config)?;
        Ok(Self { config, tokenizer, model, parameters, averaged, carry_floats, vocabulary })
    }
}

/// The weights an evaluation uses, and whether they are an average: where the optimizer keeps one, that, which is the last
/// weights themselves until averaging begins. Before the first step there is none yet.
pub(crate) fn weights_of(checkpoint: &Checkpoint) -> (&[f32], bool) {
    let sections = &checkpoint.snapshot.sections;
    let average = checkpoint.state.optimizer_state.iter().position(|name| name == AVERAGE);
    match average.filter(|_| checkpoint.state.step > 0) {
        Some(state) => (&sections[1 + state], sections[1 + state] != sections[0]),
        None => (&sections[0], false),
    }
}
