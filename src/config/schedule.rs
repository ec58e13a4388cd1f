//! `train.schedule`: what its options must keep. What a schedule is stands in `coordinator/src/schedule.rs`.

use carousel_coordinator::Schedule;

use super::ConfigError;
use super::validate::require;

/// Checks the options. `validated`: whether there is a validation text; `warmup`: `train.warmup`.
pub(super) fn validate(schedule: &Schedule, validated: bool, warmup: u64) -> Result<(), ConfigError> {
    let divisor = |divide: f64| {
        require(divide.is_finite() && divide >= 1.0, "train.schedule.divide", divide, "at least 1")
    };
    let expected = "one warm-up: train.warmup, or train.schedule.warmup";
    match schedule {
        Schedule::Constant => Ok(()),
        Schedule::Cosine { floor, warmup: own } | Schedule::Linear { floor, warmup: own } => {
            require((0.0..=1.0).contains(floor), "train.schedule.floor", floor, "0 to 1")?;
            require(warmup == 0 || *own == 0, "train.warmup", warmup, expected)
        }
        Schedule::InverseSqrt { warmup: own } => {
            require(*own > 0, "train.schedule.warmup", own, "at least 1")?;
            require(warmup == 0, "train.warmup", warmup, expected)
        }
        Schedule::Zaremba { divide, .. } => divisor(*divide),
        Schedule::Plateau { divide, .. } => {
            let expected = "a validation text (data.valid or data.valid_fraction) to compare by";
            require(validated, "train.schedule", "plateau without one", expected)?;
            divisor(*divide)
        }
        Schedule::Steps { milestones, factor, .. } => {
            let ascending = milestones.windows(2).all(|pair| pair[0] < pair[1]) && !milestones.is_empty();
            let found = format!("{milestones:?}");
            require(ascending, "train.schedule.milestones", found, "ascending numbers, one at least")?;
            let fits = *factor > 0.0 && *factor <= 1.0;
            require(fits, "train.schedule.factor", factor, "above 0 and at most 1")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        let table: toml::Table = toml::from_str(&format!("schedule = {text}")).unwrap();
        let schedule = table["schedule"].clone().try_into::<Schedule>();
        let checked = schedule.map_err(|error| error.to_string());
        let checked = checked.and_then(|s| validate(&s, true, 5).map_err(|error| error.to_string()));
        checked.err().unwrap_or_default()
    }

    #[test]
    fn impossible_options_are_named_by_their_keys() {
        for (text, part) in [
            ("{ kind = \"linear\", floor = 1.5 }", "train.schedule.floor"),
            ("{ kind = \"linear\", warmup = 5 }", "train.warmup: found 5, expected one warm-up"),
            ("{ kind = \"cosine\", warmup = 5 }", "train.warmup: found 5, expected one warm-up"),
            ("{ kind = \"inverse_sqrt\", warmup = 5 }", "train.warmup: found 5, expected one warm-up"),
            (
                "{ kind = \"inverse_sqrt\", warmup = 0 }",
                "train.schedule.warmup: found 0, expected at least 1",
            ),
            ("{ kind = \"inverse_sqrt\" }", "missing field `warmup`"),
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
