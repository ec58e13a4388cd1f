//! Dynamic evaluation over a text: the model follows what it reads. The mathematics is the model crate's; here are the
//! options, the statistics over the training text, and the walk through the segments.

use carousel_model::{
    DynamicEvaluation, DynamicRule, GradientStatistics, LaneStreams, LanguageModel, Parameters, Softmax,
    Window,
};
use serde::Serialize;

use super::figures::Sum;
use super::subject::Subject;
use super::windows::Windows;
use crate::checkpoint_model::CheckpointModel;
use crate::failure::Failure;

/// Streams side by side in the statistics, where the training text is long enough.
const STATISTICS_STREAMS: usize = 100;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Dynamic evaluation (Krause et al. 2018)")]
pub(super) struct Options {
    /// Let the weights follow the text, segment by segment, by this rule
    #[arg(long, value_name = "RULE", num_args = 0..=1, require_equals = true, default_missing_value = "rms")]
    #[arg(conflicts_with = "cache")]
    dynamic: Option<Rule>,
    /// Tokens of a segment
    #[arg(long, value_name = "N", default_value_t = 5, requires = "dynamic")]
    segment: usize,
    /// Rate (eta) [default: 0.002 for rms, 0.1 for sgd]
    #[arg(long, value_name = "RATE", requires = "dynamic")]
    dynamic_lr: Option<f32>,
    /// Decay towards the trained weights (lambda) [default: 0.02 for rms, 0 for sgd]
    #[arg(long, value_name = "DECAY", requires = "dynamic")]
    dynamic_decay: Option<f32>,
    /// rms: added to the root mean square of a gradient (epsilon)
    #[arg(long, value_name = "E", default_value_t = 0.001, requires = "dynamic")]
    dynamic_epsilon: f32,
    /// rms: segments of the training text whose gradients are measured
    #[arg(long, value_name = "N", default_value_t = 500, requires = "dynamic")]
    statistics: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(super) enum Rule {
    /// Scaled by the size of the training text's gradients, with decay in the same measure
    Rms,
    /// The same rate for every weight
    Sgd,
}

/// The options in force.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Settings {
    rule: Rule,
    pub(super) segment: usize,
    learning_rate: f32,
    decay: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    epsilon: Option<f32>,
    /// Segments measured, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    statistics: Option<u64>,
}

impl Options {
    /// What was asked for, checked.
    pub(super) fn settings(&self) -> Result<Option<Settings>, Failure> {
        let Some(rule) = self.dynamic else { return Ok(None) };
        let (rate, decay) = match rule {
            Rule::Rms => (0.002, 0.02),
            Rule::Sgd => (0.1, 0.0),
        };
        let is_rms = rule == Rule::Rms;
        let settings = Settings {
            rule,
            segment: self.segment,
            learning_rate: self.dynamic_lr.unwrap_or(rate),
            decay: self.dynamic_decay.unwrap_or(decay),
            epsilon: is_rms.then_some(self.dynamic_epsilon),
            statistics: is_rms.then_some(self.statistics),
        };
        settings.check()?;
        Ok(Some(settings))
    }
}

impl Settings {
    fn check(&self) -> Result<(), Failure> {
        let positive = |x: f32| x.is_finite() && x > 0.0;
        let above_0 = "a finite number above 0";
        Failure::unless(self.segment > 0, "--segment", self.segment, "at least 1")?;
        Failure::unless(positive(self.learning_rate), "--dynamic-lr", self.learning_rate, above_0)?;
        Failure::unless((0.0..=1.0).contains(&self.decay), "--dynamic-decay", self.decay, "0 to 1")?;
        if let Some(epsilon) = self.epsilon {
            Failure::unless(positive(epsilon), "--dynamic-epsilon", epsilon, above_0)?;
        }
        Failure::unless(self.statistics != Some(0), "--statistics", 0, "at least 1")
    }

    /// For people.
    pub(super) fn told(&self) -> String {
        let Self { segment, learning_rate, decay, .. } = self;
        let rule = match self.rule {
            Rule::Rms => "rms",
            Rule::Sgd => "sgd",
        };
        format!("{rule}, segments of {segment}, rate {learning_rate}, decay {decay}")
    }
}

/// The loss of every segment before the weights follow it.
pub(super) fn evaluate(
    model: &mut CheckpointModel,
    subject: &Subject,
    streams: usize,
    settings: Settings,
) -> Result<Sum, Failure> {
    let (mut learner, trained) = learner(model)?;
    let statistics = match settings.statistics {
        Some(at_most) => {
            let training = subject.training_tokens(&model.config, &model.tokenizer)?;
            Some(statistics(
                (&mut learner, &trained),
                model.carry_floats,
                &training,
                (settings.segment, at_most),
            )?)
        }
        None => None,
    };
    let rule = match (&statistics, settings.epsilon) {
        (Some(statistics), Some(epsilon)) => DynamicRule::Rms { statistics, epsilon },
        _ => DynamicRule::Sgd,
    };
    let rates = (settings.learning_rate, settings.decay);
    let mut dynamic = DynamicEvaluation::new(trained, rule, rates)?;
    let lanes = [LaneStreams { lane: 0, first_stream: 0, streams }];
    let mut windows = Windows::evaluation(&subject.tokens, streams, settings.segment)?;
    let mut carries = vec![0.0; streams * model.carry_floats];
    let mut sum = Sum::default();
    for index in 0..windows.count() {
        let window = segment(&mut windows, index, (settings.segment, &lanes));
        for loss in dynamic.segment(&mut learner, &window, &mut carries)? {
            sum.add(loss.tokens, loss.sum);
        }
        if !sum.nats.is_finite() {
            return Err(Failure::failed(format!(
                "dynamic evaluation diverged at token {} with --dynamic-lr {}: the loss is not finite",
                sum.tokens, settings.learning_rate
            )));
        }
    }
    Ok(sum)
}

/// The model without anything that belongs to training alone, and its weights: a sampled softmax has those of a full one, in
/// another order.
fn learner(model: &CheckpointModel) -> Result<(LanguageModel, Parameters), Failure> {
    let mut config = model.model.config().without_regularisation();
    if matches!(config.softmax, Softmax::Sampled { .. }) {
        config.softmax = Softmax::Full;
    }
    let tensors = config.parameter_layout().tensors;
    let tensor = |name: &str| model.parameters.tensor(name).expect("both softmaxes have the same tensors");
    let flat = tensors.iter().flat_map(|spec| tensor(&spec.name)).copied().collect();
    let trained = Parameters::from_flat(&config, flat)?;
    Ok((LanguageModel::new(config)?, trained))
}

/// Mean squares of the gradients over the beginning of every stream of the training text.
fn statistics(
    (learner, trained): (&mut LanguageModel, &Parameters),
    carry_floats: usize,
    training: &[u32],
    (steps, at_most): (usize, u64),
) -> Result<GradientStatistics, Failure> {
    let streams = STATISTICS_STREAMS.min((training.len() - 1) / steps).max(1);
    let lanes = [LaneStreams { lane: 0, first_stream: 0, streams }];
    let mut windows = Windows::training(training, streams, steps)?;
    let count = windows.count().min(at_most);
    windows = windows.at_most(count);
    let mut statistics = GradientStatistics::new(trained.as_slice().len());
    let mut carries = vec![0.0; streams * carry_floats];
    for index in 0..count {
        let window = segment(&mut windows, index, (steps, &lanes));
        statistics.add(learner, trained, &window, &mut carries)?;
    }
    Ok(statistics)
}

/// A window whose gradient is that of the mean loss of its own targets.
fn segment<'a>(
    windows: &'a mut Windows<'_>,
    index: u64,
    (steps, lanes): (usize, &'a [LaneStreams]),
) -> Window<'a> {
    let tokens = windows.get(index);
    Window {
        seed: 0,
        step: 0,
        steps,
        lanes,
        inputs: tokens.inputs,
        targets: tokens.targets,
        step_tokens: tokens.counted,
    }
}
