//! When the average of NT-ASGD begins: Merity, Keskar, Socher, "Regularizing and optimizing LSTM language models", ICLR 2018,
//! algorithm 1. A decision of the coordinator, from the validation losses alone; workers learn of it with the commits.
//!
//! The average begins at the first validation whose loss is above the lowest of those more than n validations back, as in the
//! authors' program (`val_loss > min(best_val_loss[:-nonmono])`).

use serde::{Deserialize, Serialize};

/// What the trigger remembers between validations; of a fixed size for a given n.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trigger {
    /// The lowest loss of the validations before the recent ones, nats a token.
    pub older_best: Option<f64>,
    /// The losses of the last n validations, oldest first.
    pub recent: Vec<f64>,
    /// The step whose weights are the first of the average, once it has begun.
    pub averaged_from: Option<u64>,
}

impl Trigger {
    /// Takes notice of the validation after `step`. Once the average has begun nothing changes any more.
    pub fn validated(&mut self, loss: f64, step: u64, nonmonotone: usize) {
        if self.averaged_from.is_some() {
            return;
        }
        if self.older_best.is_some_and(|best| loss > best) {
            self.averaged_from = Some(step);
        }
        self.recent.push(loss);
        if self.recent.len() > nonmonotone {
            let oldest = self.recent.remove(0);
            self.older_best = Some(self.older_best.map_or(oldest, |best| best.min(oldest)));
        }
    }

    /// Bytes that tell states apart, for the digest.
    pub(crate) fn canonical_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.older_best.is_some()), u8::from(self.averaged_from.is_some())];
        bytes.extend(self.older_best.map_or(0, f64::to_bits).to_le_bytes());
        bytes.extend(self.averaged_from.unwrap_or(0).to_le_bytes());
        bytes.extend((self.recent.len() as u64).to_le_bytes());
        bytes.extend(self.recent.iter().flat_map(|loss| loss.to_bits().to_le_bytes()));
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The step at which the average begins, when a validation follows every tenth step.
    fn begins(losses: &[f64], nonmonotone: usize) -> Option<u64> {
        let mut trigger = Trigger::default();
        (1..).zip(losses).for_each(|(at, loss)| trigger.validated(*loss, 10 * at, nonmonotone));
        assert!(trigger.recent.len() <= nonmonotone);
        trigger.averaged_from
    }

    /// By hand: before validation t, those up to t - n - 1 count, each from 0.
    #[test]
    fn the_average_begins_when_a_loss_is_above_the_lowest_more_than_n_back() {
        assert_eq!(begins(&[5.0, 4.0, 3.0, 2.0, 1.0], 2), None, "always better");
        assert_eq!(begins(&[3.0, 4.0, 4.0], 2), None, "two validations are not more than two back");
        assert_eq!(begins(&[3.0, 4.0, 4.0, 4.0], 2), Some(40));
        assert_eq!(begins(&[3.0, 4.0, 4.0, 2.5, 2.9], 2), None, "better than what counts: 3, then min(3, 4)");
        assert_eq!(begins(&[3.0, 4.0, 4.0, 2.5, 2.9, 2.7, 2.6], 2), Some(70), "above 2.5");
        assert_eq!(begins(&[3.0, 3.0, 3.0, 3.0], 2), None, "equal is not above");
        assert_eq!(begins(&[3.0, 4.0, 4.0, 4.0, 9.0], 2), Some(40), "begun once");
        assert_eq!(begins(&[3.0, 2.0, 2.5], 1), None, "below 3, the only one more than one back");
        assert_eq!(begins(&[3.0, 2.0, 2.5, 2.1], 1), Some(40), "above 2");
    }

    #[test]
    fn canonical_bytes_tell_states_apart() {
        let mut trigger = Trigger::default();
        let mut seen = vec![trigger.canonical_bytes()];
        for (step, loss) in [(1, 0.0), (2, 0.0), (3, 0.5), (4, 0.0)] {
            trigger.validated(loss, step, 1);
            let bytes = trigger.canonical_bytes();
            assert_eq!(seen.contains(&bytes), step > 3, "after {step}: {trigger:?}");
            seen.push(bytes);
        }
        assert_eq!(trigger.averaged_from, Some(3));
    }
}
