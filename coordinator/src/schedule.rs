//! The learning rate of every step: a function of the configuration, the step and, for `plateau`, of the validation
//! losses so far. It reads no clock; its transcendental functions come from a portable library, because the platform's
//! may differ between machines in the last bit.

use serde::{Deserialize, Serialize};

use crate::trigger::Trigger;

/// How the learning rate changes over a run; `train.schedule` of a configuration: a name, or a table with `kind`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// The same at every step.
    Constant,
    /// Half a cosine down to the floor at the last step: Loshchilov and Hutter 2017, eq. 5, one period.
    Cosine {
        /// A linear rise before it. Unit: steps.
        #[serde(default)]
        warmup: u64,
        /// What is left of the rate at the end, in [0, 1]. Unit: share.
        #[serde(default)]
        floor: f64,
    },
    /// A line down to the floor at the last step; a floor of 1 stays at the peak.
    Linear {
        /// A linear rise before it. Unit: steps.
        #[serde(default)]
        warmup: u64,
        /// What is left of the rate at the end, in [0, 1]; 1: all. Unit: share.
        #[serde(default)]
        floor: f64,
    },
    /// With the inverse square root of the step, whatever the run's length: Vaswani et al. 2017, eq. 3.
    InverseSqrt {
        /// A linear rise before it, at least 1. Unit: steps.
        warmup: u64,
    },
    /// Divided at the start of each epoch beyond one: Zaremba, Sutskever and Vinyals 2014, section 4.1.
    Zaremba {
        /// The last at the full rate, counted from 1. Unit: epochs.
        after: u64,
        /// The divisor, for each epoch beyond it. Unit: none.
        divide: f64,
    },
    /// Divided when validations get no better, and again when as many more have not.
    Plateau {
        /// The divisor, when more validations than are put up with were not below the best before them. Unit: none.
        divide: f64,
        /// So many without improvement, in a row, are put up with. Unit: validations.
        #[serde(default)]
        patience: u32,
    },
    /// Multiplied at milestones.
    Steps {
        /// The last epochs (or steps) before a change, ascending, counted from 1. Unit: `unit`.
        milestones: Vec<u64>,
        /// What the rate is multiplied by after each, above 0 and at most 1. Unit: share.
        #[serde(default = "tenth")]
        factor: f64,
        /// What milestones count.
        #[serde(default)]
        unit: Unit,
    },
}

fn tenth() -> f64 {
    0.1
}

/// What milestones count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Epochs.
    #[default]
    Epochs,
    /// Updates.
    Steps,
}

/// What a schedule remembers between steps; part of the state's digest and of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScheduleState {
    /// The lowest validation loss so far, nats a token.
    pub best_valid_loss: Option<f64>,
    /// How often the plateau rule has divided the rate.
    pub divisions: u32,
    /// Validations without improvement since the best one or the last division.
    #[serde(default)]
    pub waited: u32,
    /// When the average of NT-ASGD begins.
    #[serde(default)]
    pub trigger: Trigger,
}

/// What a validation decides by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Validations without improvement that the plateau rule puts up with.
    pub patience: u32,
    /// NT-ASGD's n; `None`: another optimizer.
    pub nonmonotone: Option<u32>,
}

impl ScheduleState {
    /// The state of a run that has not been validated yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The canonical bytes that go into the state's digest. What only some runs remember is absent from those of others.
    #[must_use]
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let best = self.best_valid_loss.map_or(0, f64::to_bits);
        let mut bytes = vec![u8::from(self.best_valid_loss.is_some())];
        bytes.extend(best.to_le_bytes());
        bytes.extend(self.divisions.to_le_bytes());
        if self.waited > 0 || self.trigger != Trigger::default() {
            bytes.extend(self.waited.to_le_bytes());
            bytes.extend(self.trigger.canonical_bytes());
        }
        bytes
    }

    /// Takes notice of the loss of the validation after `step` (nats a token) and says whether it is the best so far.
    pub fn validated(&mut self, loss: f64, step: u64, rules: Rules) -> bool {
        let improved = self.best_valid_loss.is_none_or(|best| loss < best);
        if improved {
            (self.best_valid_loss, self.waited) = (Some(loss), 0);
        } else if self.waited < rules.patience {
            self.waited += 1;
        } else {
            (self.divisions, self.waited) = (self.divisions + 1, 0);
        }
        if let Some(nonmonotone) = rules.nonmonotone {
            self.trigger.validated(loss, step, nonmonotone as usize);
        }
        improved
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
    /// The learning rate of the update at `position`, for the configured `peak`. `share` of it is taken: a warm-up's,
    /// or that of a shorter window.
    #[must_use]
    pub fn learning_rate(&self, peak: f64, share: f64, position: Position, state: &ScheduleState) -> f32 {
        let rate = match self {
            Schedule::Constant => peak,
            Schedule::Cosine { warmup, floor } => peak * cosine_factor(position, *warmup, *floor),
            Schedule::Linear { warmup, floor } => peak * linear_factor(position, *warmup, *floor),
            Schedule::InverseSqrt { warmup } => peak * inverse_sqrt_factor(position.step, *warmup),
            Schedule::Zaremba { after, divide } => {
                divide_repeatedly(peak, *divide, position.epoch.saturating_sub(*after))
            }
            Schedule::Plateau { divide, .. } => divide_repeatedly(peak, *divide, u64::from(state.divisions)),
            Schedule::Steps { milestones, factor, unit } => {
                let now = if *unit == Unit::Epochs { position.epoch } else { position.step };
                milestones.iter().filter(|milestone| now > **milestone).fold(peak, |rate, _| rate * factor)
            }
        };
        (share * rate) as f32
    }
}

/// The share of the rate at a step of a linear warm-up, 1 after it.
pub(crate) fn warmup_share(step: u64, warmup: u64) -> f64 {
    if step < warmup { step as f64 / warmup as f64 } else { 1.0 }
}

fn cosine_factor(position: Position, warmup: u64, floor: f64) -> f64 {
    if position.step <= warmup {
        return position.step as f64 / warmup as f64;
    }
    let cosine = libm::cos(std::f64::consts::PI * done_after(position, warmup));
    floor + (1.0 - floor) * 0.5 * (1.0 + cosine)
}

fn linear_factor(position: Position, warmup: u64, floor: f64) -> f64 {
    if position.step <= warmup {
        return warmup_share(position.step, warmup);
    }
    floor + (1.0 - floor) * (1.0 - done_after(position, warmup))
}

/// The square root of IEEE 754 is rounded the same everywhere.
fn inverse_sqrt_factor(step: u64, warmup: u64) -> f64 {
    if step <= warmup { warmup_share(step, warmup) } else { (warmup as f64 / step as f64).sqrt() }
}

/// How much of the run after the warm-up is done, in [0, 1].
fn done_after(position: Position, warmup: u64) -> f64 {
    let done = (position.step - warmup) as f64;
    let whole = position.last_step.saturating_sub(warmup).max(1) as f64;
    (done / whole).min(1.0)
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
            schedule.learning_rate(2.0, 1.0, Position { step, epoch, last_step }, &ScheduleState::new())
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
    fn linear_rises_then_falls_to_its_floor() {
        let at = [(1, 1), (4, 1), (9, 1), (14, 1), (20, 1)];
        let falling = rates(&Schedule::Linear { warmup: 4, floor: 0.5 }, &at, 14);
        assert_eq!(falling, [0.5, 2.0, 1.5, 1.0, 1.0]);
        let flat = rates(&Schedule::Linear { warmup: 4, floor: 1.0 }, &at, 14);
        assert_eq!(flat, [0.5, 2.0, 2.0, 2.0, 2.0], "a warm-up to a constant");
        assert_eq!([0, 1, 3, 4, 5].map(|step| warmup_share(step, 4)), [0.0, 0.25, 0.75, 1.0, 1.0]);
        assert_eq!(warmup_share(1, 0), 1.0);
    }

    #[test]
    fn inverse_sqrt_rises_then_falls_with_the_root_of_the_step() {
        let schedule = Schedule::InverseSqrt { warmup: 4 };
        let at = [(1, 1), (2, 1), (4, 1), (16, 2), (64, 3)];
        assert_eq!(rates(&schedule, &at, 20), [0.5, 1.0, 2.0, 1.0, 0.5]);
        assert_eq!(rates(&schedule, &at, 1000), rates(&schedule, &at, 20), "no end is aimed at");
    }

    #[test]
    fn steps_multiply_after_each_milestone() {
        let schedule = |unit| Schedule::Steps { milestones: vec![2, 5], factor: 0.5, unit };
        let at = [(2, 1), (3, 2), (5, 3), (6, 6)];
        assert_eq!(rates(&schedule(Unit::Epochs), &at, 100), [2.0, 2.0, 1.0, 0.5]);
        assert_eq!(rates(&schedule(Unit::Steps), &at, 100), [2.0, 1.0, 1.0, 0.5]);
    }

    #[test]
    fn plateau_divides_when_validation_does_not_improve() {
        let mut state = ScheduleState::new();
        let mut validated = |loss| state.validated(loss, 1, Rules::default());
        assert!(validated(3.0));
        assert!(!validated(3.0));
        assert!(validated(2.0));
        let position = Position { step: 5, epoch: 1, last_step: 10 };
        let plateau = Schedule::Plateau { divide: 4.0, patience: 0 };
        assert_eq!(plateau.learning_rate(20.0, 1.0, position, &state), 5.0);
        assert_eq!(Schedule::Constant.learning_rate(20.0, 1.0, position, &state), 20.0);
        assert_eq!(Schedule::Constant.learning_rate(20.0, 0.25, position, &state), 5.0, "a share of it");
    }

    #[test]
    fn patience_puts_up_with_validations_in_a_row() {
        let mut state = ScheduleState::new();
        let rules = Rules { patience: 2, nonmonotone: None };
        let divisions: Vec<u32> = [3.0, 3.0, 3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]
            .into_iter()
            .map(|loss| {
                state.validated(loss, 1, rules);
                state.divisions
            })
            .collect();
        assert_eq!(divisions, [0, 0, 0, 0, 0, 0, 1, 1, 1, 2], "an improvement begins the count anew");
    }

    #[test]
    fn canonical_bytes_tell_states_apart() {
        let mut state = ScheduleState::new();
        let fresh = state.canonical_bytes();
        state.validated(0.0, 1, Rules::default());
        let validated = state.canonical_bytes();
        assert_ne!(fresh, validated);
        assert_eq!(fresh.len(), validated.len());
        state.validated(0.0, 2, Rules { patience: 1, nonmonotone: None });
        assert_eq!((state.divisions, state.waited), (0, 1));
        let waiting = state.canonical_bytes();
        assert_ne!(waiting[..validated.len()], fresh[..]);
        assert!(waiting.len() > validated.len());
        state.waited = 0;
        assert_eq!(state.canonical_bytes(), validated, "what is not remembered is absent");
        state.validated(1.0, 3, Rules { patience: 0, nonmonotone: Some(1) });
        assert_eq!(state.trigger.recent, [1.0]);
        assert!(state.canonical_bytes().len() > validated.len());
    }

    /// As checkpoints of runs before there was a trigger have it.
    #[test]
    fn a_state_without_what_came_later_is_read() {
        let state: ScheduleState = serde_json::from_str(r#"{"best_valid_loss":2.5,"divisions":3}"#).unwrap();
        let expected = ScheduleState { best_valid_loss: Some(2.5), divisions: 3, ..ScheduleState::new() };
        assert_eq!(state, expected);
    }
}
