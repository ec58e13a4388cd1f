//! The shape of a model. Says nothing about data, training or machines.

use crate::{Cell, Initialisation, ModelError, Regularisation, Softmax, layout::ParameterLayout};

/// Embedding, stacked recurrent layers, linear decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The recurrent cell of every layer.
    pub cell: Cell,
    /// Tokens known (V).
    pub vocabulary: usize,
    /// Width of a token's vector (E).
    pub embedding: usize,
    /// Units of a layer (H); of the last one, where `hidden_below` has others.
    pub hidden: usize,
    /// Units of the layers below the last, from the bottom; empty: all have `hidden`.
    pub hidden_below: Vec<usize>,
    /// Recurrent layers (L).
    pub layers: usize,
    /// Whether decoder and embedding share one matrix; needs E = H.
    pub tied: bool,
    /// Probability that a unit on a non-recurrent connection is dropped during training, in [0, 1).
    pub dropout: f32,
    /// Half the width of the uniform distribution in which parameters start: all of them, or those that [`Initialisation`] leaves to it.
    pub init: f32,
    /// By what rule the parameters start.
    pub initialisation: Initialisation,
    /// Added to the forget gates' `bias_ih` at the start (Jozefowicz, Zaremba, Sutskever, "An empirical exploration of recurrent network
    /// architectures", 2015: 1); 0 for cells without a learned one.
    pub forget_bias: f32,
    /// Everything else against overfitting.
    pub regularisation: Regularisation,
    /// What the last layer's output goes through.
    pub softmax: Softmax,
}

impl Default for ModelConfig {
    /// One LSTM layer without regularisation; no sizes, which [`ModelConfig::validate`] refuses until they are set.
    fn default() -> Self {
        Self {
            cell: Cell::Lstm,
            vocabulary: 0,
            embedding: 0,
            hidden: 0,
            hidden_below: Vec::new(),
            layers: 1,
            tied: false,
            dropout: 0.0,
            init: 0.1,
            initialisation: Initialisation::default(),
            forget_bias: 0.0,
            regularisation: Regularisation::default(),
            softmax: Softmax::Full,
        }
    }
}

impl ModelConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// Zero sizes, tied weights of two widths, a dropout outside [0, 1), a negative or non-finite `init`, sizes that overflow.
    pub fn validate(&self) -> Result<(), ModelError> {
        let sizes = [
            ("vocabulary", self.vocabulary),
            ("embedding", self.embedding),
            ("hidden", self.hidden),
            ("layers", self.layers),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(ModelError::ZeroSize(name));
        }
        if self.hidden_below.contains(&0) {
            return Err(ModelError::ZeroSize("hidden"));
        }
        if !self.hidden_below.is_empty() && self.hidden_below.len() != self.layers - 1 {
            let found = self.hidden_below.len() + 1;
            return Err(ModelError::Widths { found, layers: self.layers });
        }
        if self.tied && self.embedding != self.hidden {
            return Err(ModelError::TiedWidths { embedding: self.embedding, hidden: self.hidden });
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(ModelError::Dropout(self.dropout));
        }
        self.regularisation.validate()?;
        if !self.init.is_finite() || self.init < 0.0 {
            return Err(ModelError::Init(self.init));
        }
        if !self.forget_bias.is_finite() || (self.forget_bias != 0.0 && !self.cell.has_forget_gate()) {
            return Err(ModelError::ForgetBias { found: self.forget_bias, cell: self.cell });
        }
        if self.vocabulary > u32::MAX as usize {
            return Err(ModelError::TooLarge("vocabulary".into()));
        }
        self.softmax.validate(self)?;
        ParameterLayout::checked(self).map(|_| ())
    }

    /// The same model with layers of these widths, from the bottom; one for all, where there is one.
    pub fn with_widths(mut self, widths: &[usize]) -> Self {
        if let Some((&last, below)) = widths.split_last() {
            self.hidden = last;
            self.hidden_below =
                if below.iter().all(|&width| width == last) { Vec::new() } else { below.to_vec() };
        }
        self
    }

    /// Units of layer `layer`.
    pub fn width(&self, layer: usize) -> usize {
        self.hidden_below.get(layer).copied().unwrap_or(self.hidden)
    }

    /// Width of what layer `layer` reads: E for the first, H of the layer below above.
    pub(crate) fn input_width(&self, layer: usize) -> usize {
        if layer == 0 { self.embedding } else { self.width(layer - 1) }
    }

    /// Whether all layers have `hidden` units.
    pub(crate) fn has_equal_widths(&self) -> bool {
        self.hidden_below.iter().all(|&width| width == self.hidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> ModelConfig {
        ModelConfig {
            cell: Cell::Lstm,
            vocabulary: 10,
            embedding: 4,
            hidden: 4,
            layers: 2,
            tied: false,
            init: 0.1,
            ..ModelConfig::default()
        }
    }

    #[test]
    fn each_wrong_field_is_named() {
        assert_eq!(small().validate(), Ok(()));
        let zero = ModelConfig { hidden: 0, ..small() };
        assert_eq!(zero.validate(), Err(ModelError::ZeroSize("hidden")));
        let tied = ModelConfig { tied: true, embedding: 5, ..small() };
        assert_eq!(tied.validate(), Err(ModelError::TiedWidths { embedding: 5, hidden: 4 }));
        for dropout in [1.0, -0.1, f32::NAN] {
            assert!(matches!(ModelConfig { dropout, ..small() }.validate(), Err(ModelError::Dropout(_))));
        }
        for init in [f32::INFINITY, -1.0, f32::NAN] {
            assert!(matches!(ModelConfig { init, ..small() }.validate(), Err(ModelError::Init(_))));
        }
        let widths = ModelConfig { hidden_below: vec![5, 6], ..small() };
        assert_eq!(widths.validate(), Err(ModelError::Widths { found: 3, layers: 2 }));
        assert_eq!(small().with_widths(&[0, 4]).validate(), Err(ModelError::ZeroSize("hidden")));
        let tied = ModelConfig { tied: true, ..small().with_widths(&[4, 5]) };
        assert_eq!(tied.validate(), Err(ModelError::TiedWidths { embedding: 4, hidden: 5 }));
        for (cell, found) in [(Cell::Gru, 1.0), (Cell::LstmCoupled, -1.0), (Cell::Lstm, f32::INFINITY)] {
            let biased = ModelConfig { cell, forget_bias: found, ..small() };
            assert_eq!(biased.validate(), Err(ModelError::ForgetBias { found, cell }));
        }
        let huge = ModelConfig { hidden: usize::MAX / 2, ..small() };
        assert!(matches!(huge.validate(), Err(ModelError::TooLarge(_))));
    }
}
