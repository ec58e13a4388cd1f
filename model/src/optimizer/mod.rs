//! From a gradient to an update of the parameters. One file an optimizer; all run in one pass over memory.
//!
//! Learning rate and clip scale arrive from outside. Every element's update is one fixed expression of its own values, written in the
//! optimizer's file, so neither the threads nor the vector width show in the bits. What changes over time (powers of beta, an
//! average's share) is a function of the update's number, so that a replica needs no memory of it.

mod adagrad;
mod adam;
mod asgd;
mod config;
mod lion;
mod momentum;
mod rmsprop;
mod sgd;
mod sweep;

use self::sweep::Target;
use crate::{
    GradientLayout, ModelError, ParameterLayout, Parameters,
    kernels::{Buffer, Isa},
};

pub use config::OptimizerConfig;

/// The state that holds an average of the weights: where an optimizer has it, evaluations use it.
pub const AVERAGE: &str = "ax";

/// The numbers of one update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// Number of this update, from 1.
    pub step: u64,
    /// Learning rate.
    pub learning_rate: f32,
    /// What every gradient is multiplied by first: the scale of the clip by norm.
    pub scale: f32,
    /// The largest absolute value of an element after that (`torch.nn.utils.clip_grad_value_`); `None`: any.
    pub clip_value: Option<f32>,
    /// The step whose weights are the first of the average, where something outside decides when it begins.
    pub averaged_from: Option<u64>,
}

impl Default for Update {
    /// The first update, of rate 0: a beginning for literals.
    fn default() -> Self {
        Self { step: 1, learning_rate: 0.0, scale: 1.0, clip_value: None, averaged_from: None }
    }
}

/// The reduced gradient of a step. When [`GradientLayout::rows_fold_into`] is set, the rows are in `dense` already, and empty here.
#[derive(Debug, Clone, Copy)]
pub struct GradientView<'a> {
    /// The dense part.
    pub dense: &'a [f32],
    /// Tokens whose embedding was touched: sorted, each once.
    pub rows: &'a [u32],
    /// (rows, E) their gradients.
    pub row_values: &'a [f32],
}

/// An optimizer with its state.
pub struct Optimizer {
    isa: Isa,
    method: Box<dyn Method>,
}

/// What an optimizer is, each in a file of its own; `config` has the list of them.
trait Method: Send + Sync {
    /// Updates all parameters and the state, once.
    fn apply(&mut self, target: Target<'_>, update: Update);

    /// The state's buffers by their names, each as long as all parameters.
    fn state(&self) -> Vec<(&'static str, &Buffer)> {
        Vec::new()
    }

    /// The buffers of [`Self::state`], in its order.
    fn state_mut(&mut self) -> Vec<&mut Buffer> {
        Vec::new()
    }

    /// The average of the weights, where one is kept: what an evaluation uses, from the first update on.
    fn average(&self) -> Option<&[f32]> {
        None
    }
}

impl Optimizer {
    /// An optimizer at its beginning.
    ///
    /// # Errors
    /// Options out of range, or a `CAROUSEL_ISA` that cannot be used.
    pub fn new(config: OptimizerConfig, layout: &ParameterLayout) -> Result<Self, ModelError> {
        Ok(Self { isa: Isa::chosen()?, method: config.build(layout.len())? })
    }

    /// The state's buffers by their names in PyTorch, each as long as all parameters. Empty for plain SGD.
    pub fn state(&self) -> Vec<(&'static str, &[f32])> {
        self.method.state().into_iter().map(|(name, buffer)| (name, &buffer[..])).collect()
    }

    /// The average of the weights, in their order, where the optimizer keeps one: what an evaluation uses, once there was an
    /// update.
    pub fn average(&self) -> Option<&[f32]> {
        self.method.average()
    }

    /// Takes over a saved state: exactly the buffers of [`Self::state`], in any order.
    ///
    /// # Errors
    /// A missing, unknown or repeated name, or another length; nothing is changed then.
    pub fn load_state(&mut self, state: &[(String, Vec<f32>)]) -> Result<(), ModelError> {
        let names: Vec<(&'static str, usize)> =
            self.state().iter().map(|(name, v)| (*name, v.len())).collect();
        if let Some((unknown, _)) =
            state.iter().find(|(name, _)| names.iter().all(|(known, _)| known != name))
        {
            return Err(ModelError::OptimizerState(format!("unknown buffer {unknown:?}")));
        }
        let mut found = Vec::new();
        for (name, len) in names {
            let mut named = state.iter().filter(|(candidate, _)| candidate == name);
            let (Some((_, values)), None) = (named.next(), named.next()) else {
                return Err(ModelError::OptimizerState(format!("expected {name:?} once")));
            };
            if values.len() != len {
                let text = format!("{name}: expected {len} numbers, found {}", values.len());
                return Err(ModelError::OptimizerState(text));
            }
            found.push(values.as_slice());
        }
        for (buffer, values) in self.method.state_mut().into_iter().zip(found) {
            buffer.copy_from_slice(values);
        }
        Ok(())
    }

    /// Updates the parameters in place, on the current rayon pool.
    ///
    /// # Errors
    /// A gradient whose sizes do not fit the layout and the parameters; nothing is changed then.
    pub fn apply(
        &mut self,
        parameters: &mut Parameters,
        layout: &GradientLayout,
        gradient: GradientView<'_>,
        update: Update,
    ) -> Result<(), ModelError> {
        check(parameters, layout, &gradient)?;
        if update.step == 0 {
            return Err(ModelError::OptimizerOption("updates are numbered from 1".into()));
        }
        let target = Target { isa: self.isa, values: parameters.as_mut_slice(), layout, gradient };
        self.method.apply(target, update);
        Ok(())
    }
}

fn check(
    parameters: &Parameters,
    layout: &GradientLayout,
    gradient: &GradientView<'_>,
) -> Result<(), ModelError> {
    use crate::window::check_length;
    check_length("dense gradient", layout.dense_len, gradient.dense.len())?;
    check_length("parameters", layout.dense_offset + layout.dense_len, parameters.as_slice().len())?;
    let rows = if layout.rows_fold_into.is_some() { 0 } else { gradient.rows.len() };
    check_length("touched rows", rows, gradient.rows.len())?;
    check_length("row values", rows * layout.row_width, gradient.row_values.len())?;
    let sorted = gradient.rows.windows(2).all(|pair| pair[0] < pair[1]);
    let vocabulary = layout.rows;
    match gradient.rows.last() {
        _ if !sorted => Err(ModelError::OptimizerOption("touched rows must be sorted, each once".into())),
        Some(&last) if last as usize >= vocabulary => {
            Err(ModelError::Token { what: "rows", index: rows - 1, token: last, vocabulary })
        }
        _ => Ok(()),
    }
}

/// A state of one value.
fn filled(len: usize, value: f32) -> Buffer {
    let mut buffer = Buffer::zeroed(len);
    if value != 0.0 {
        buffer.fill(value);
    }
    buffer
}

/// The number a configuration wrote: the shortest decimal that rounds to `x`, so that 0.999 means 0.999 and not its nearest f32.
fn decimal(x: f32) -> f64 {
    x.to_string().parse().expect("a float's text is a number")
}

fn refuse(name: &str, expected: &str, found: f32) -> Result<(), ModelError> {
    Err(ModelError::OptimizerOption(format!("{name} must be {expected}, found {found}")))
}

fn check_share(name: &str, x: f32) -> Result<(), ModelError> {
    if (0.0..1.0).contains(&x) { Ok(()) } else { refuse(name, "at least 0 and below 1", x) }
}

fn check_positive(name: &str, x: f32) -> Result<(), ModelError> {
    if x.is_finite() && x > 0.0 { Ok(()) } else { refuse(name, "positive", x) }
}

fn check_not_negative(name: &str, x: f32) -> Result<(), ModelError> {
    if x.is_finite() && x >= 0.0 { Ok(()) } else { refuse(name, "a finite number that is not negative", x) }
}

/// Floats that one thread updates at a time.
pub(crate) const CHUNK: usize = 1 << 15;
