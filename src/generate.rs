//! `carousel generate`: a trained model writes.

use std::path::PathBuf;

use crate::checkpoint_model::CheckpointModel;
use crate::failure::Failure;
use crate::sampler;

/// Let a trained model write, token by token
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  carousel generate runs/rust-source --prompt 'fn main() {' --tokens 300 --temperature 0.7 --seed 3"
)]
pub(crate) struct Arguments {
    /// A run's folder or a checkpoint in one
    #[arg(value_name = "RUN_OR_CHECKPOINT")]
    path: PathBuf,
    /// What comes before
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// How many tokens to write
    #[arg(long, value_name = "N")]
    tokens: u64,
    /// Below 1: safer; above: wilder; 0: always the likeliest token
    #[arg(long, value_name = "T", default_value_t = 1.0)]
    temperature: f64,
    /// The same seed writes the same
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let temperature = arguments.temperature;
    if !temperature.is_finite() || temperature < 0.0 {
        return Err(Failure::bad_input(format!(
            "--temperature: found {temperature}, expected a finite number that is not negative"
        )));
    }
    let mut model = CheckpointModel::open(&arguments.path)?;
    let settings = sampler::Settings { tokens: arguments.tokens, temperature, seed: arguments.seed };
    sampler::print(&mut model, &arguments.prompt, settings)
}
