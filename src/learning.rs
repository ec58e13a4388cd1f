//! How a run learns: the `[train]` part of a configuration as the model, the workers and the coordinator want it.

use carousel_coordinator::{Length, Schedule, Training, Unit};
use carousel_corpus::{RandomWindow, WindowLengths};
use carousel_model::OptimizerConfig;
use carousel_proto::v1::{self, optimizer_settings::Kind};

use crate::config::{self, Config, ScheduleConfig, optimizer as table};

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
        schedule: schedule(&train.schedule.0),
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

fn schedule(schedule: &ScheduleConfig) -> Schedule {
    match schedule.clone() {
        ScheduleConfig::Constant => Schedule::Constant,
        ScheduleConfig::Cosine { warmup, floor } => Schedule::Cosine { warmup, floor },
        ScheduleConfig::Linear { warmup, floor } => Schedule::Linear { warmup, floor },
        ScheduleConfig::Zaremba { after, divide } => Schedule::Zaremba { after, divide },
        ScheduleConfig::Plateau { divide, patience } => Schedule::Plateau { divide, patience },
        ScheduleConfig::Steps { milestones, factor, unit } => {
            let unit = match unit {
                config::Unit::Epochs => Unit::Epochs,
                config::Unit::Steps => Unit::Steps,
            };
            Schedule::Steps { milestones, factor, unit }
        }
    }
}

/// The optimizer as the model makes it.
pub(crate) fn optimizer(optimizer: &config::Optimizer) -> OptimizerConfig {
    use config::Optimizer as Named;
    match optimizer.clone() {
        Named::Sgd(table::Sgd { weight_decay }) => OptimizerConfig::Sgd { weight_decay },
        Named::Momentum(table::Momentum { momentum, weight_decay }) => {
            OptimizerConfig::Momentum { momentum, nesterov: false, weight_decay }
        }
        Named::Nesterov(table::Momentum { momentum, weight_decay }) => {
            OptimizerConfig::Momentum { momentum, nesterov: true, weight_decay }
        }
        Named::Adam(table::Adam { beta1, beta2, epsilon, weight_decay }) => {
            OptimizerConfig::Adam { beta1, beta2, epsilon, weight_decay }
        }
        Named::AdamW(table::AdamW { beta1, beta2, epsilon, weight_decay }) => {
            OptimizerConfig::AdamW { beta1, beta2, epsilon, weight_decay }
        }
        Named::RmsProp(table::RmsProp { alpha, epsilon, momentum, centered, weight_decay }) => {
            OptimizerConfig::RmsProp { alpha, epsilon, momentum, centered, weight_decay }
        }
        Named::AdaGrad(table::AdaGrad { lr_decay, initial_accumulator_value, epsilon, weight_decay }) => {
            OptimizerConfig::AdaGrad { lr_decay, initial_accumulator_value, epsilon, weight_decay }
        }
        Named::Asgd(table::Asgd { lambd, alpha, t0, weight_decay }) => {
            OptimizerConfig::Asgd { lambd, alpha, t0, weight_decay }
        }
        Named::NtAsgd(table::NtAsgd { weight_decay, .. }) => OptimizerConfig::NtAsgd { weight_decay },
    }
}

/// The optimizer as workers are told of it.
pub(crate) fn optimizer_settings(optimizer: OptimizerConfig) -> v1::OptimizerSettings {
    let kind = match optimizer {
        OptimizerConfig::Sgd { weight_decay } => Kind::Sgd(v1::Sgd { weight_decay }),
        OptimizerConfig::Momentum { momentum, nesterov, weight_decay } => {
            Kind::Momentum(v1::Momentum { momentum, nesterov, weight_decay })
        }
        OptimizerConfig::Adam { beta1, beta2, epsilon, weight_decay } => {
            Kind::Adam(v1::Adam { beta1, beta2, epsilon, weight_decay })
        }
        OptimizerConfig::AdamW { beta1, beta2, epsilon, weight_decay } => {
            Kind::Adamw(v1::Adam { beta1, beta2, epsilon, weight_decay })
        }
        OptimizerConfig::RmsProp { alpha, epsilon, momentum, centered, weight_decay } => {
            Kind::Rmsprop(v1::RmsProp { alpha, epsilon, momentum, centered, weight_decay })
        }
        OptimizerConfig::AdaGrad { lr_decay, initial_accumulator_value, epsilon, weight_decay } => {
            Kind::Adagrad(v1::AdaGrad { lr_decay, initial_accumulator_value, epsilon, weight_decay })
        }
        OptimizerConfig::Asgd { lambd, alpha, t0, weight_decay } => {
            Kind::Asgd(v1::Asgd { lambd, alpha, t0, weight_decay })
        }
        OptimizerConfig::NtAsgd { weight_decay } => Kind::NtAsgd(v1::NtAsgd { weight_decay }),
    };
    v1::OptimizerSettings { kind: Some(kind) }
}
