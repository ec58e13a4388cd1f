//! What to make of predictions: where more workers stop paying, and what to use. Pure.

use super::cost::Prediction;

/// A further worker must add at least this share of one worker's speed, or it does not pay.
pub(super) const PAYS: f64 = 0.5;

/// Speed for each worker, over that of one alone.
pub(super) fn efficiency(alone: &Prediction, with: &Prediction) -> f64 {
    with.tokens_per_second / alone.tokens_per_second / f64::from(with.workers)
}

/// What each worker between two counts adds, over the speed of one alone.
pub(super) fn marginal(alone: &Prediction, before: &Prediction, after: &Prediction) -> f64 {
    let more = f64::from(after.workers - before.workers);
    (after.tokens_per_second - before.tokens_per_second) / alone.tokens_per_second / more
}

/// The largest of ascending counts up to which each further worker paid, and the first that did not. One alone always pays.
pub(super) fn up_to(alone: &Prediction, line: &[Prediction]) -> (Prediction, Option<Prediction>) {
    let mut last = *alone;
    for next in line.iter().filter(|next| next.workers > 1) {
        if marginal(alone, &last, next) < PAYS {
            return (last, Some(*next));
        }
        last = *next;
    }
    (last, None)
}
