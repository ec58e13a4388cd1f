//! The weights of a model: one flat buffer under a layout.

use std::fmt;

use crate::{
    ModelConfig, ModelError, initial, kernels::Buffer, layout::ParameterLayout, window::check_length,
};

/// All parameters of a model in one flat buffer on a 64-byte boundary.
#[derive(Clone)]
pub struct Parameters {
    layout: ParameterLayout,
    values: Buffer,
}

impl Parameters {
    /// Every tensor by the rule of [`ModelConfig::initialisation`], a function of (seed, tensor) alone. The configuration must be valid.
    pub fn initial(config: &ModelConfig, seed: u64) -> Self {
        let layout = config.parameter_layout();
        let mut values = Buffer::zeroed(layout.len());
        for (index, tensor) in layout.tensors.iter().enumerate() {
            let place = &mut values[tensor.offset..tensor.offset + tensor.len()];
            initial::fill(config, (index, tensor), seed, place);
        }
        Self { layout, values }
    }

    /// Takes values in the order of [`ModelConfig::parameter_layout`].
    ///
    /// # Errors
    /// An invalid configuration or another number of values.
    pub fn from_flat(config: &ModelConfig, values: Vec<f32>) -> Result<Self, ModelError> {
        config.validate()?;
        let layout = config.parameter_layout();
        check_length("parameters", layout.len(), values.len())?;
        let mut aligned = Buffer::zeroed(values.len());
        aligned.copy_from_slice(&values);
        Ok(Self { layout, values: aligned })
    }

    /// All values, in the layout's order.
    pub fn as_slice(&self) -> &[f32] {
        &self.values
    }

    /// All values, in the layout's order.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// One tensor, row-major.
    pub fn tensor(&self, name: &str) -> Option<&[f32]> {
        let tensor = self.layout.get(name)?;
        Some(&self.values[tensor.offset..tensor.offset + tensor.len()])
    }

    /// Names, shapes and offsets.
    pub fn layout(&self) -> &ParameterLayout {
        &self.layout
    }
}

impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parameters({} tensors, {} floats)", self.layout.tensors.len(), self.values.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cell;

    fn config() -> ModelConfig {
        ModelConfig {
            cell: Cell::Lstm,
            vocabulary: 50,
            embedding: 9,
            hidden: 7,
            layers: 1,
            tied: false,
            init: 0.25,
            ..ModelConfig::default()
        }
    }

    #[test]
    fn initial_values_fill_the_interval_and_depend_on_the_seed() {
        let a = Parameters::initial(&config(), 3);
        let b = Parameters::initial(&config(), 4);
        assert_eq!(a.as_slice(), Parameters::initial(&config(), 3).as_slice());
        assert_ne!(a.as_slice(), b.as_slice());
        let (low, high) = a.as_slice().iter().fold((0f32, 0f32), |(l, h), &x| (l.min(x), h.max(x)));
        assert!((-0.25..-0.24).contains(&low) && high < 0.25 && high > 0.24, "{low} {high}");
        let mean = a.as_slice().iter().sum::<f32>() / a.as_slice().len() as f32;
        assert!(mean.abs() < 0.02, "{mean}");
        assert_eq!(a.as_slice().as_ptr() as usize % 64, 0);
    }

    #[test]
    fn flat_values_must_fit() {
        let n = config().parameter_layout().len();
        let expected = ModelError::Length { what: "parameters", expected: n, found: n - 1 };
        assert_eq!(Parameters::from_flat(&config(), vec![0.0; n - 1]).unwrap_err(), expected);
        let p = Parameters::from_flat(&config(), (0..n).map(|i| i as f32).collect()).unwrap();
        assert_eq!(p.tensor("rnn.weight_ih_l0").map(|t| t[0]), Some(450.0));
        assert!(p.tensor("nothing").is_none());
    }
}
