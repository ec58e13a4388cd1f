//! `[output]`: where a run is kept, and how it is owned there. Nothing of it reaches the weights.

use serde::{Deserialize, Serialize};

use super::ConfigError;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Output {
    /// The run's folder, or its address in a bucket; none: runs/ and the configuration's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The folder that a coordinator works in while the run is kept in a bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scratch: Option<String>,
    /// A coordinator of a run in a bucket that has been silent for so long may be taken for dead. Unit: seconds.
    pub lease_seconds: u64,
    /// How long the end of a run in a bucket waits for its upload. Unit: seconds.
    pub patience_seconds: u64,
}

impl Default for Output {
    fn default() -> Self {
        Self { run: None, scratch: None, lease_seconds: 20, patience_seconds: 120 }
    }
}

impl Output {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        within("output.lease_seconds", self.lease_seconds, 4..=600)?;
        within("output.patience_seconds", self.patience_seconds, 1..=86_400)
    }
}

fn within(key: &'static str, found: u64, range: std::ops::RangeInclusive<u64>) -> Result<(), ConfigError> {
    if range.contains(&found) {
        return Ok(());
    }
    let expected = format!("{} to {} seconds", range.start(), range.end());
    Err(ConfigError::Value { key, found: found.to_string(), expected })
}
