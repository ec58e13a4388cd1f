//! The undisturbed runs that the others are compared with, each made once for the whole suite.

use std::sync::OnceLock;

use crate::program::Workshop;

/// Some steps in a fraction of a second: with a checkpoint every 20 steps, a validation every 40.
pub(super) const SHORT: &[&str] = &["train.steps=100", "train.evaluate_every=40"];
/// Steps for a few seconds: long enough for somebody to come back.
pub(super) const LONG: &[&str] = &["train.steps=3000", "train.evaluate_every=1000"];

/// The digest at the end of [`SHORT`].
pub(super) fn short() -> &'static str {
    static DIGEST: OnceLock<String> = OnceLock::new();
    DIGEST.get_or_init(|| undisturbed(SHORT))
}

/// The digest at the end of [`LONG`].
pub(super) fn long() -> &'static str {
    static DIGEST: OnceLock<String> = OnceLock::new();
    DIGEST.get_or_init(|| undisturbed(LONG))
}

fn undisturbed(sets: &[&str]) -> String {
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    Workshop::new().trained("quiet", &sets)
}
