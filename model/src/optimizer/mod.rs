//! From a gradient to an update of the parameters. One file an optimizer; all run in one pass over memory.
//!
//! Learning rate and clip scale arrive from outside. Every element's update is one fixed expression of its own values, written in the
//! optimizer's file, so neither the threads nor the vector width show in the bits.

mod adam;
mod sgd;

use crate::{GradientLayout, ModelError, ParameterLayout, Parameters, kernels::Isa};

pub(crate) use adam::Adam;
pub(crate) use sgd::Sgd;

/// Which optimizer, with its options.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OptimizerConfig {
    /// Plain stochastic gradient descent.
    Sgd,
    /// Adam, as `torch.optim.Adam` without weight decay.
    Adam {
        /// Decay of the first moment, in [0, 1).
        beta1: f32,
        /// Decay of the second moment, in [0, 1).
        beta2: f32,
        /// Added to the root of the second moment, positive.
        epsilon: f32,
    },
}

/// The numbers of one update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// Number of this update, from 1.
    pub step: u64,
    /// Learning rate.
    pub learning_rate: f32,
    /// What every gradient is multiplied by first: the clip scale.
    pub scale: f32,
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
    kind: Kind,
}

enum Kind {
    Sgd(Sgd),
    Adam(Adam),
}

impl Optimizer {
    /// An optimizer at its beginning.
    ///
    /// # Errors
    /// Options out of range, or a `CAROUSEL_ISA` that cannot be used.
    pub fn new(config: OptimizerConfig, layout: &ParameterLayout) -> Result<Self, ModelError> {
        let kind = match config {
            OptimizerConfig::Sgd => Kind::Sgd(Sgd),
            OptimizerConfig::Adam { beta1, beta2, epsilon } => {
                Kind::Adam(Adam::new(beta1, beta2, epsilon, layout.len())?)
            }
        };
        Ok(Self { isa: Isa::chosen()?, kind })
    }

    /// The state's buffers by their names in PyTorch, each as long as all parameters. Empty for plain SGD.
    pub fn state(&self) -> Vec<(&'static str, &[f32])> {
        match &self.kind {
            Kind::Sgd(_) => Vec::new(),
            Kind::Adam(adam) => adam.state(),
        }
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
        if let Kind::Adam(adam) = &mut self.kind {
            adam.load(found[0], found[1]);
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
        let values = parameters.as_mut_slice();
        match &mut self.kind {
            Kind::Sgd(sgd) => sgd.apply(self.isa, values, layout, gradient, update),
            Kind::Adam(adam) => adam.apply(self.isa, values, layout, gradient, update),
        }
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

/// Floats that one thread updates at a time.
pub(crate) const CHUNK: usize = 1 << 15;
