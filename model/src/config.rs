//! The shape of a model. Says nothing about data, training or machines.

use std::{fmt, str::FromStr};

use crate::{ModelError, Softmax, layout::ParameterLayout};

/// Which recurrent cell the layers are made of. Each has its own file under `cells/` with its equations and their source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cell {
    /// Long short-term memory with forget gate.
    Lstm,
    /// Simple recurrent network, hyperbolic tangent.
    RnnTanh,
    /// Simple recurrent network, rectifier.
    RnnRelu,
    /// Gated recurrent unit.
    Gru,
    /// LSTM of 1997: the forget gate is 1.
    LstmNoForget,
    /// LSTM with diagonal peephole connections.
    LstmPeephole,
    /// LSTM whose forget gate is 1 - input gate.
    LstmCoupled,
}

impl Cell {
    /// Every cell, in the order of the documentation.
    pub const ALL: [Cell; 7] = [
        Cell::Lstm,
        Cell::RnnTanh,
        Cell::RnnRelu,
        Cell::Gru,
        Cell::LstmNoForget,
        Cell::LstmPeephole,
        Cell::LstmCoupled,
    ];

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Cell::Lstm => "lstm",
            Cell::RnnTanh => "rnn_tanh",
            Cell::RnnRelu => "rnn_relu",
            Cell::Gru => "gru",
            Cell::LstmNoForget => "lstm_no_forget",
            Cell::LstmPeephole => "lstm_peephole",
            Cell::LstmCoupled => "lstm_coupled",
        }
    }

    /// Blocks of `hidden` rows in `weight_ih` and `weight_hh` (PyTorch's count: LSTM 4, GRU 3, simple 1).
    pub(crate) fn row_blocks(self) -> usize {
        match self {
            Cell::RnnTanh | Cell::RnnRelu => 1,
            Cell::Gru => 3,
            Cell::Lstm | Cell::LstmNoForget | Cell::LstmPeephole | Cell::LstmCoupled => 4,
        }
    }

    /// Whether the carry holds `c` beside `h`.
    pub(crate) fn has_cell_state(self) -> bool {
        !matches!(self, Cell::RnnTanh | Cell::RnnRelu | Cell::Gru)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Cell {
    type Err = ModelError;

    fn from_str(name: &str) -> Result<Self, ModelError> {
        let found = Cell::ALL.into_iter().find(|cell| cell.name() == name);
        found.ok_or_else(|| ModelError::UnknownCell(name.to_owned()))
    }
}

/// Embedding, stacked recurrent layers, linear decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The recurrent cell of every layer.
    pub cell: Cell,
    /// Tokens known (V).
    pub vocabulary: usize,
    /// Width of a token's vector (E).
    pub embedding: usize,
    /// Units of a layer (H).
    pub hidden: usize,
    /// Recurrent layers (L).
    pub layers: usize,
    /// Whether decoder and embedding share one matrix; needs E = H.
    pub tied: bool,
    /// Probability that a unit on a non-recurrent connection is dropped during training, in [0, 1).
    pub dropout: f32,
    /// Parameters start uniform in [-init, init).
    pub init: f32,
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
            layers: 1,
            tied: false,
            dropout: 0.0,
            init: 0.1,
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
        if self.tied && self.embedding != self.hidden {
            return Err(ModelError::TiedWidths { embedding: self.embedding, hidden: self.hidden });
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(ModelError::Dropout(self.dropout));
        }
        if !self.init.is_finite() || self.init < 0.0 {
            return Err(ModelError::Init(self.init));
        }
        if self.vocabulary > u32::MAX as usize {
            return Err(ModelError::TooLarge("vocabulary".into()));
        }
        self.softmax.validate(self)?;
        ParameterLayout::checked(self).map(|_| ())
    }

    /// Width of what layer `layer` reads: E for the first, H above.
    pub(crate) fn input_width(&self, layer: usize) -> usize {
        if layer == 0 { self.embedding } else { self.hidden }
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
    fn names_of_cells_read_back() {
        for cell in Cell::ALL {
            assert_eq!(cell.to_string().parse(), Ok(cell));
        }
        assert_eq!("LSTM".parse::<Cell>(), Err(ModelError::UnknownCell("LSTM".into())));
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
        let huge = ModelConfig { hidden: usize::MAX / 2, ..small() };
        assert!(matches!(huge.validate(), Err(ModelError::TooLarge(_))));
    }
}
