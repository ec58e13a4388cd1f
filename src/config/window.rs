//! `train.random_window` and `train.accumulate`: what an update reads, and what these keys must keep.

use serde::{Deserialize, Serialize};

use super::validate::require;
use super::{ConfigError, Train};

/// `train.random_window`: windows of random lengths (Merity 2017, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RandomWindow {
    /// How often the mean length is `train.window`; else it is half of it. Unit: probability.
    pub probability: f64,
    /// The standard deviation of a length. Unit: time steps.
    pub deviation: f64,
    /// The shortest length. Unit: time steps.
    pub minimum: u32,
}

impl Default for RandomWindow {
    fn default() -> Self {
        Self { probability: 0.95, deviation: 5.0, minimum: 5 }
    }
}

/// Epochs of random windows are counted before the run begins.
const MOST_EPOCHS: u64 = 1_000_000;

/// Checks what an update reads.
pub(super) fn validate(train: &Train) -> Result<(), ConfigError> {
    let accumulate = train.accumulate;
    require((1..=10_000).contains(&accumulate), "train.accumulate", accumulate, "1 to 10000 windows")?;
    let Some(random) = &train.random_window else { return Ok(()) };
    let RandomWindow { probability, deviation, minimum } = *random;
    let fits = (0.0..=1.0).contains(&probability);
    require(fits, "train.random_window.probability", probability, "0 to 1")?;
    let most = format!("0 to train.window, {}", train.window);
    let fits = (0.0..=f64::from(train.window)).contains(&deviation);
    require(fits, "train.random_window.deviation", deviation, &most)?;
    let most = format!("1 to train.window, {}", train.window);
    let fits = (1..=train.window).contains(&minimum);
    require(fits, "train.random_window.minimum", minimum, &most)?;
    let epochs = train.epochs.unwrap_or(1);
    let expected = format!("at most {MOST_EPOCHS} with random windows");
    require(epochs <= MOST_EPOCHS, "train.epochs", epochs, &expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(change: impl Fn(&mut Train)) -> String {
        let mut train = Train { random_window: Some(RandomWindow::default()), ..Train::default() };
        change(&mut train);
        validate(&train).err().map(|error| error.to_string()).unwrap_or_default()
    }

    fn random(change: impl Fn(&mut RandomWindow)) -> impl Fn(&mut Train) {
        move |train| change(train.random_window.as_mut().unwrap())
    }

    #[test]
    fn impossible_windows_are_named_by_their_keys() {
        assert_eq!(problem(|_| ()), "");
        assert!(problem(|train| train.accumulate = 0).contains("train.accumulate: found 0"));
        assert!(problem(random(|r| r.probability = 1.5)).contains("train.random_window.probability"));
        assert!(problem(random(|r| r.deviation = f64::NAN)).contains("train.random_window.deviation"));
        assert!(problem(random(|r| r.deviation = 64.5)).contains("0 to train.window, 64"));
        assert!(problem(random(|r| r.minimum = 65)).contains("train.random_window.minimum: found 65"));
        assert!(problem(random(|r| r.minimum = 0)).contains("train.random_window.minimum: found 0"));
        assert!(problem(|train| train.epochs = Some(u64::MAX)).contains("train.epochs"));
    }
}
