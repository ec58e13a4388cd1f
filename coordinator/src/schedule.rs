//! The learning rate of every step: a function of the configuration, the step and, for `plateau`, of the validation
//! losses so far. It reads no clock; its transcendental functions come from a portable library, because the platform's
//! may differ between machines in the last bit.

use serde::{Deserialize, Serialize};

/// How the learning rate changes over a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// The same at every step.
    Constant,
    /// Rises linearly over `warmup` steps, then falls along a half cosine to `floor` times the peak at the last step
    /// (Loshchilov & Hutter 2017, eq. 5, one period).
    Cosine {
        /// Steps of linear rise.
        warmup: u64,
        /// Share of the peak that is left at the end, in [0, 1].
        floor: f64,
    },
    /// Constant through epoch `after`, then divided by `divide` at the start of each further epoch
    /// (Zaremba, Sutskever & Vinyals 2014, section 4.1).
    Zaremba {
        /// The last epoch at the full rate, counted from 1.
        after: u64,
        /// Divisor for each epoch beyond it.
        divide: f64,
    },
    /// Divided by `divide` whenever a validation loss is not below the best before it.
    Plateau {
        /// Divisor.
        divide: f64,
    },
}

/// What a schedule remembers between steps; part of the state's digest and of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduleState {
    /// The lowest validation loss so far, nats a token.
    pub best_valid_loss: Option<f64>,
    /// How often the plateau rule has divided the rate.
    pub divisions: u32,
}

impl ScheduleState {
    /// The state of a run that has not been validated yet.
    #[must_use]
    pub fn new() -> Self {
        Self { best_valid_loss: None, divisions: 0 }
    }

    /// The canonical bytes that go into the state's digest.
    #[must_use]
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let best = self.best_valid_loss.map_or(0, f64::to_bits);
        let mut bytes = vec![u8::from(self.best_valid_loss.is_some())];
        bytes.extend(best.to_le_bytes());
        bytes.extend(self.divisions.to_le_bytes());
        bytes
    }

    /// Takes notice of a validation loss (nats a token) and says whether it is the best so far.
    pub fn validated(&mut self, loss: f64) -> bool {
        let improved = self.best_valid_loss.is_none_or(|best| loss < best);
        if improved {
            self.best_valid_loss = Some(loss);
        } else {
            self.divisions += 1;
        }
        improved
    }
}

impl Default for ScheduleState {
    fn default() -> Self {
        Self::new()
    }
}

/// Where in the run a step stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Position {
    /// The update about to be made, counted from 1.
    pub step: u64,
    /// The epoch it belongs to, counted from 1.
    pub epoch: u64,
    /// The run's last step.
    pub last_step: u64,
}

impl Schedule {
    /// The learning rate of the update at `position`, for the configured `peak`.
    #[must_use]
    pub fn learning_rate(&self, peak: f64, position: Position, state: &ScheduleState) -> f32 {
        let rate = match self {
            Schedule::Constant => peak,
            Schedule::Cosine { warmup, floor } => peak * cosine_factor(position, *warmup, *floor),
            Schedule::Zaremba { after, divide } => {
                divide_repeatedly(peak, *divide, position.epoch.saturating_sub(*after))
            }
            Schedule::Plateau { divide } => divide_repeatedly(peak, *divide, u64::from(state.divisions)),
        };
        rate as f32
    }
}

fn cosine_factor(position: Position, warmup: u64, floor: f64) -> f64 {
    if position.step <= warmup {
        return position.step as f64 / warmup as f64;
    }
    let done = (position.step - warmup) as f64;
    let whole = position.last_step.saturating_sub(warmup).max(1) as f64;
    let cosine = libm::cos(std::f64::consts::PI * (done / whole).min(1.0));
    floor + (1.0 - floor) * 0.5 * (1.0 + cosine)
}

/// Repeated exact division: `powi` may round differently from one build to the next.
fn divide_repeatedly(peak: f64, divisor: f64, times: u64) -> f64 {
    // Beyond this a rate has long been zero or below any use; the bound keeps the loop short.
    (0..times.min(100_000)).fold(peak, |rate, _| rate / divisor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(schedule: &Schedule, positions: &[(u64, u64)], last_step: u64) -> Vec<f32> {
        let at = |&(step, epoch)| {
            schedule.learning_rate(2.0, Position { step, epoch, last_step }, &ScheduleState::new())
        };
        positions.iter().map(at).collect()
    }

    #[test]
    fn cosine_rises_then_falls_to_its_floor() {
        let schedule = Schedule::Cosine { warmup: 4, floor: 0.1 };
        let rates = rates(&schedule, &[(1, 1), (4, 1), (9, 1), (14, 1)], 14);
        assert_eq!(rates[..2], [0.5, 2.0]);
        assert!((rates[2] - 1.1).abs() < 1e-6, "half way between 2.0 and 0.2: {}", rates[2]);
        assert!((rates[3] - 0.2).abs() < 1e-6, "floor: {}", rates[3]);
    }

    #[test]
    fn zaremba_divides_each_epoch_beyond_its_last_full_one() {
        let schedule = Schedule::Zaremba { after: 4, divide: 2.0 };
        assert_eq!(rates(&schedule, &[(1, 1), (9, 4), (11, 5), (13, 6)], 100), [2.0, 2.0, 1.0, 0.5]);
    }

    #[test]
    fn plateau_divides_when_validation_does_not_improve() {
        let mut state = ScheduleState::new();
        assert!(state.validated(3.0));
        assert!(!state.validated(3.0));
        assert!(state.validated(2.0));
        let position = Position { step: 5, epoch: 1, last_step: 10 };
        assert_eq!(Schedule::Plateau { divide: 4.0 }.learning_rate(20.0, position, &state), 5.0);
        assert_eq!(Schedule::Constant.learning_rate(20.0, position, &state), 20.0);
    }

    #[test]
    fn canonical_bytes_tell_states_apart() {
        let mut state = ScheduleState::new();
        let fresh = state.canonical_bytes();
        state.validated(0.0);
        assert_ne!(fresh, state.canonical_bytes());
        assert_eq!(fresh.len(), state.canonical_bytes().len());
    }
}
