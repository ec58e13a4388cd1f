//! How a run learns: the `[train]` part of a configuration as the model, the workers and the coordinator want it.

use carousel_coordinator::{Length, Training};
use carousel_corpus::{RandomWindow, WindowLengths};

use crate::config::{self, Config};

/// What the coordinator decides by.
pub(crate) fn training(config: &Config) -> Training {
    let train = &config.train;
    let length = match (train.epochs, train.steps) {
        (Some(epochs), _) => Length::Epochs(epochs),
        (None, steps) => Length::Steps(steps.expect("a validated configuration has epochs or steps")),
    };
    let nonmonotone = match &train.optimizer.0 {
        config::Optimizer::NtAsgd(nt_asgd) => Some(nt_asgd.nonmonotone),
        _ => None,
    };
    Training {
        length,
        learning_rate: train.learning_rate,
        schedule: train.schedule.0.clone(),
        warmup: train.warmup,
        nonmonotone,
        windows: window_lengths(config),
        accumulate: train.accumulate,
        clip_norm: (train.clip_norm > 0.0).then_some(train.clip_norm),
        evaluate_every: train.evaluate_every,
        checkpoint_every: train.checkpoint_every,
        keep_checkpoints: train.keep_checkpoints,
        digest_every: (config.cluster.digest_every > 0).then_some(config.cluster.digest_every),
    }
}

/// The lengths of the run's windows.
pub(crate) fn window_lengths(config: &Config) -> WindowLengths {
    let random = config.train.random_window.map(|random| RandomWindow {
        probability: random.probability,
        deviation: random.deviation,
        minimum: random.minimum,
        seed: config.seed,
    });
    WindowLengths { window: config.train.window, random }
}
