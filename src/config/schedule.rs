//! `train.schedule`: how the learning rate changes over a run, and what its options must keep.

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::validate::require;

/// `train.schedule`: a name, or a table with `kind`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ScheduleConfig {
    /// As it is.
    Constant,
    /// Half a cosine down to the floor: Loshchilov and Hutter 2017.
    Cosine {
        /// A linear rise before it. Unit: steps.
        #[serde(default)]
        warmup: u64,
        /// What is left of the rate at the end. Unit: share.
        #[serde(default)]
        floor: f64,
    },
    /// A line down to the floor.
    Linear {
        /// A linear rise before it. Unit: steps.
        #[serde(default)]
        warmup: u64,
        /// What is left of the rate at the end; 1: all. Unit: share.
        #[serde(default)]
        floor: f64,
    },
    /// Divided at each epoch beyond one: Zaremba et al. 2014.
    Zaremba {
        /// The last at the full rate. Unit: epochs.
        after: u64,
        /// The divisor, for each epoch beyond it. Unit: none.
        divide: f64,
    },
    /// Divided when validations get no better.
    Plateau {
        /// The divisor, when a validation is not better than the best before it. Unit: none.
        divide: f64,
        /// So many without improvement, in a row, are put up with. Unit: validations.
        #[serde(default)]
        patience: u32,
    },
    /// Multiplied at milestones.
    Steps {
        /// The last epochs (or steps) before a change, ascending. Unit: `unit`.
        milestones: Vec<u64>,
        /// What the rate is multiplied by after each. Unit: share.
        #[serde(default = "tenth")]
        factor: f64,
        /// What milestones count.
        #[serde(default)]
        unit: Unit,
    },
}

/// What milestones count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    #[default]
    Epochs,
    Steps,
}

fn tenth() -> f64 {
    0.1
}

impl ScheduleConfig {
    /// Checks the options. `validated`: whether there is a validation text; `warmup`: `train.warmup`.
    pub(super) fn validate(&self, validated: bool, warmup: u64) -> Result<(), ConfigError> {
        let divisor = |divide: f64| {
            require(divide.is_finite() && divide >= 1.0, "train.schedule.divide", divide, "at least 1")
        };
        match self {
            Self::Constant => Ok(()),
            Self::Cosine { floor, warmup: own } | Self::Linear { floor, warmup: own } => {
                require((0.0..=1.0).contains(floor), "train.schedule.floor", floor, "0 to 1")?;
                let expected = "one warm-up: train.warmup, or train.schedule.warmup";
                require(warmup == 0 || *own == 0, "train.warmup", warmup, expected)
            }
            Self::Zaremba { divide, .. } => divisor(*divide),
            Self::Plateau { divide, .. } => {
                let expected = "a validation text (data.valid or data.valid_fraction) to compare by";
                require(validated, "train.schedule", "plateau without one", expected)?;
                divisor(*divide)
            }
            Self::Steps { milestones, factor, .. } => {
                let ascending = milestones.windows(2).all(|pair| pair[0] < pair[1]) && !milestones.is_empty();
                let found = format!("{milestones:?}");
                require(ascending, "train.schedule.milestones", found, "ascending numbers, one at least")?;
                let fits = *factor > 0.0 && *factor <= 1.0;
                require(fits, "train.schedule.factor", factor, "above 0 and at most 1")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        let table: toml::Table = toml::from_str(&format!("schedule = {text}")).unwrap();
        let schedule = table["schedule"].clone().try_into::<ScheduleConfig>();
        let checked = schedule.map_err(|error| error.to_string());
        let checked = checked.and_then(|s| s.validate(true, 5).map_err(|error| error.to_string()));
        checked.err().unwrap_or_default()
    }

    #[test]
    fn impossible_options_are_named_by_their_keys() {
        for (text, part) in [
            ("{ kind = \"linear\", floor = 1.5 }", "train.schedule.floor"),
            ("{ kind = \"linear\", warmup = 5 }", "train.warmup: found 5, expected one warm-up"),
            ("{ kind = \"cosine\", warmup = 5 }", "train.warmup: found 5, expected one warm-up"),
            ("{ kind = \"plateau\", divide = 0.5 }", "train.schedule.divide"),
            ("{ kind = \"steps\", milestones = [] }", "train.schedule.milestones: found []"),
            ("{ kind = \"steps\", milestones = [3, 3] }", "train.schedule.milestones: found [3, 3]"),
            ("{ kind = \"steps\", milestones = [3], factor = 0.0 }", "train.schedule.factor"),
            ("{ kind = \"steps\", milestones = [3], unit = \"days\" }", "unknown variant `days`"),
            ("{ kind = \"steps\" }", "missing field `milestones`"),
            ("{ kind = \"plateau\", divide = 4.0, patients = 1 }", "unknown field `patients`"),
        ] {
            assert!(problem(text).contains(part), "{text}: {:?}", problem(text));
        }
        for text in [
            "{ kind = \"steps\", milestones = [3, 5], unit = \"steps\" }",
            "{ kind = \"plateau\", divide = 4.0, patience = 2 }",
            "{ kind = \"linear\" }",
            "{ kind = \"constant\" }",
        ] {
            assert_eq!(problem(text), "");
        }
    }
}
