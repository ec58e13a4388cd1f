//! What a configuration must keep, checked before anything is read or started.

use super::regularisation::{check_regularisation, check_widths};
use super::{Config, ConfigError, Sample, initialisation::check_forget_bias};

/// Checks every value by itself and those that must go together.
pub(crate) fn validate(config: &Config) -> Result<(), ConfigError> {
    check_data(config)?;
    check_model(config)?;
    super::softmax::check(config)?;
    check_sizes(config)?;
    check_length(config)?;
    super::window::validate(&config.train)?;
    check_rates(config)?;
    config.output.validate()?;
    check_schedule(config)
}

pub(super) fn require(
    holds: bool,
    key: &'static str,
    found: impl ToString,
    expected: &str,
) -> Result<(), ConfigError> {
    if holds {
        Ok(())
    } else {
        Err(ConfigError::Value { key, found: found.to_string(), expected: expected.into() })
    }
}

fn check_data(config: &Config) -> Result<(), ConfigError> {
    let data = &config.data;
    require(!data.train.is_empty(), "data.train", "nothing", "a file, a list of files or a folder")?;
    let fraction = data.valid_fraction;
    require((0.0..1.0).contains(&fraction), "data.valid_fraction", fraction, "at least 0 and below 1")?;
    require(data.max_bytes != Some(0), "data.max_bytes", 0, "at least 1")?;
    let format = data.format.parse::<carousel_corpus::Format>();
    require(format.is_ok(), "data.format", format!("{:?}", data.format), carousel_corpus::Format::NAMES)?;
    require(!data.field.is_empty(), "data.field", "\"\"", "the name of a field or a column")?;
    super::tokens::validate(data)
}

fn check_model(config: &Config) -> Result<(), ConfigError> {
    let model = &config.model;
    require(
        model.cell.parse::<carousel_model::Cell>().is_ok(),
        "model.cell",
        format!("{:?}", model.cell),
        &carousel_model::Cell::names(|_| true),
    )?;
    require(model.layers > 0, "model.layers", 0, "at least 1")?;
    require(model.embedding > 0, "model.embedding", 0, "at least 1")?;
    check_widths(model)?;
    check_regularisation(model)?;
    let (init, key) = (model.init.0.range(), model.init.0.range_key());
    require(init.is_finite() && init >= 0.0, key, init, "a finite number that is not negative")?;
    check_forget_bias(model)?;
    super::weights::check(model.weights.as_ref())
}

fn check_sizes(config: &Config) -> Result<(), ConfigError> {
    let train = &config.train;
    require(train.streams > 0, "train.streams", 0, "at least 1")?;
    require(train.window > 0, "train.window", 0, "at least 1")?;
    require(train.lanes > 0, "train.lanes", 0, "at least 1")?;
    let most = format!("at most train.streams, {}", train.streams);
    require(train.lanes <= train.streams, "train.lanes", train.lanes, &most)?;
    require(
        (1..=1024).contains(&config.cluster.workers),
        "cluster.workers",
        config.cluster.workers,
        "1 to 1024",
    )?;
    require(
        (1..=1024).contains(&config.cluster.threads),
        "cluster.threads",
        config.cluster.threads,
        "1 to 1024",
    )?;
    let tokens = &config.cluster.tokens;
    require(
        !tokens.is_empty(),
        "cluster.tokens",
        "\"\"",
        "coordinator, or a folder that every worker can open",
    )
}

fn check_length(config: &Config) -> Result<(), ConfigError> {
    let train = &config.train;
    match (train.epochs, train.steps) {
        (None, None) => require(false, "train.epochs", "neither epochs nor steps", "one of them"),
        (Some(_), Some(_)) => require(false, "train.epochs", "both epochs and steps", "one of them"),
        (Some(0), _) => require(false, "train.epochs", 0, "at least 1"),
        (_, Some(0)) => require(false, "train.steps", 0, "at least 1"),
        _ => Ok(()),
    }?;
    require(train.evaluate_every != Some(0), "train.evaluate_every", 0, "at least 1")?;
    require(train.checkpoint_every != Some(0), "train.checkpoint_every", 0, "at least 1")?;
    let expected = "at least 2, for when the newest is damaged, or 0 to keep all";
    require(train.keep_checkpoints != 1, "train.keep_checkpoints", 1, expected)
}

fn check_rates(config: &Config) -> Result<(), ConfigError> {
    let train = &config.train;
    let rate = train.learning_rate;
    let fits = rate > 0.0 && rate <= f64::from(f32::MAX);
    require(fits, "train.learning_rate", rate, "a finite number above 0")?;
    let clip = train.clip_norm;
    require(
        clip.is_finite() && clip >= 0.0,
        "train.clip_norm",
        clip,
        "a finite number above 0, or 0 for no clip",
    )?;
    let clip = train.clip_value;
    let fits = clip.is_finite() && clip >= 0.0;
    require(fits, "train.clip_value", clip, "a finite number above 0, or 0 for no clip")?;
    train.optimizer.0.validate(is_validated(config))?;
    config.sample.as_ref().map_or(Ok(()), Sample::validate)
}

fn check_schedule(config: &Config) -> Result<(), ConfigError> {
    super::schedule::validate(&config.train.schedule.0, is_validated(config), config.train.warmup)
}

/// Whether there is a validation text.
fn is_validated(config: &Config) -> bool {
    !config.data.valid.is_empty() || config.data.valid_fraction > 0.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use carousel_coordinator::Schedule;

    use crate::config::{Init, KindOr, NumberOrKind, OneOrMany, Range, Widths};

    /// One way to spoil a configuration, and the key that must be named.
    type Spoiling = (&'static str, fn(&mut Config));

    const DATA_AND_MODEL: &[Spoiling] = &[
        ("data.train", |c| c.data.train = OneOrMany::default()),
        ("data.valid_fraction", |c| c.data.valid_fraction = 1.0),
        ("data.valid_fraction", |c| c.data.valid_fraction = f64::NAN),
        ("data.max_bytes", |c| c.data.max_bytes = Some(0)),
        ("data.format", |c| c.data.format = "csv".into()),
        ("data.field", |c| c.data.field = String::new()),
        ("model.cell", |c| c.model.cell = "lstn".into()),
        ("model.layers", |c| c.model.layers = 0),
        ("model.hidden", |c| c.model.hidden = 0.into()),
        ("model.embedding", |c| c.model.embedding = 0),
        ("model.tied", |c| c.model.tied = true),
        ("model.dropout", |c| c.model.dropout = 1.0),
        ("model.init", |c| c.model.init = NumberOrKind(Init::Uniform(Range { range: f32::INFINITY }))),
        ("model.init.range", |c| c.model.init = NumberOrKind(Init::Glorot(Range { range: -1.0 }))),
        ("model.forget_bias", |c| c.model.forget_bias = f32::NAN),
        ("model.hidden", |c| c.model.hidden = Widths(vec![4, 0])),
        ("model.hidden", |c| c.model.hidden = Widths(vec![4, 5])),
        ("model.hidden", |c| c.model.hidden = Widths(Vec::new())),
        ("model.dropout_input", |c| c.model.dropout_input = Some(1.0)),
        ("model.dropout_hidden", |c| c.model.dropout_hidden = Some(-0.5)),
        ("model.dropout_output", |c| c.model.dropout_output = Some(f32::NAN)),
        ("model.dropout_embedding", |c| c.model.dropout_embedding = 1.0),
        ("model.weight_drop", |c| c.model.weight_drop = 1.0),
        ("model.activation_regularisation", |c| c.model.activation_regularisation = -1.0),
        ("model.temporal_activation_regularisation", |c| {
            c.model.temporal_activation_regularisation = f32::INFINITY
        }),
        ("model.label_smoothing", |c| c.model.label_smoothing = 1.0),
    ];

    const TRAINING_AND_THE_REST: &[Spoiling] = &[
        ("train.streams", |c| c.train.streams = 0),
        ("train.window", |c| c.train.window = 0),
        ("train.lanes", |c| c.train.lanes = 0),
        ("train.lanes", |c| c.train.lanes = 33),
        ("train.epochs", |c| c.train.epochs = None),
        ("train.epochs", |c| c.train.steps = Some(3)),
        ("train.epochs", |c| c.train.epochs = Some(0)),
        ("train.evaluate_every", |c| c.train.evaluate_every = Some(0)),
        ("train.checkpoint_every", |c| c.train.checkpoint_every = Some(0)),
        ("train.keep_checkpoints", |c| c.train.keep_checkpoints = 1),
        ("train.learning_rate", |c| c.train.learning_rate = 0.0),
        ("train.clip_norm", |c| c.train.clip_norm = -1.0),
        ("train.schedule.divide", |c| {
            c.train.schedule = KindOr(Schedule::Plateau { divide: 0.5, patience: 0 })
        }),
        ("train.schedule.floor", |c| c.train.schedule = KindOr(Schedule::Cosine { warmup: 0, floor: 2.0 })),
        ("sample.temperature", |c| c.sample = Some(Sample { temperature: -1.0, ..Sample::default() })),
        ("sample.top_p", |c| c.sample = Some(Sample { top_p: 0.0, ..Sample::default() })),
        ("sample.repetition_penalty", |c| {
            c.sample = Some(Sample { repetition_penalty: 0.0, ..Sample::default() })
        }),
        ("sample.stop", |c| c.sample = Some(Sample { stop: vec![String::new()], ..Sample::default() })),
        ("sample.samples", |c| c.sample = Some(Sample { samples: 0, ..Sample::default() })),
        ("cluster.workers", |c| c.cluster.workers = 0),
        ("cluster.threads", |c| c.cluster.threads = 0),
        ("cluster.tokens", |c| c.cluster.tokens = String::new()),
    ];

    #[test]
    fn every_impossible_value_is_named_by_its_key() {
        let mut good = Config {
            data: super::super::Data { train: OneOrMany(vec!["x".into()]), ..Default::default() },
            ..Config::default()
        };
        good.train.epochs = Some(1);
        validate(&good).unwrap();
        for (key, spoil) in DATA_AND_MODEL.iter().chain(TRAINING_AND_THE_REST) {
            let mut config = good.clone();
            spoil(&mut config);
            let error = validate(&config).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("{key}: found ")) && error.contains(", expected "),
                "{key}: {error}"
            );
        }
    }
}
