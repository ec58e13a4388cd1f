//! Where each tensor lies in the flat buffers: parameters, carries, gradients. Names and shapes are PyTorch's.

use std::ops::Range;

use crate::{ModelConfig, ModelError};

/// One tensor inside the flat parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// PyTorch's name, such as `rnn.weight_ih_l0`.
    pub name: String,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// Where it begins, in floats.
    pub offset: usize,
}

impl TensorSpec {
    /// Floats of the tensor.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the tensor has no elements (never, in a valid model).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// All tensors in their order, end to end without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterLayout {
    /// `encoder.weight`, for each layer `rnn.weight_ih_l0`, `rnn.weight_hh_l0`, `rnn.bias_ih_l0`, `rnn.bias_hh_l0` (peephole: then
    /// `rnn.w_ci_l0`, `rnn.w_cf_l0`, `rnn.w_co_l0`), last `decoder.weight` (absent when tied; behind
    /// `encoder.weight` with a sampled softmax) and `decoder.bias`. With an adaptive softmax, instead of these two: `head.weight`, if
    /// wanted `head.bias`, and for each cluster `tail.0.0.weight` (the projection) and `tail.0.1.weight`.
    pub tensors: Vec<TensorSpec>,
}

impl ParameterLayout {
    /// Floats of all tensors.
    pub fn len(&self) -> usize {
        self.tensors.last().map_or(0, |last| last.offset + last.len())
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&TensorSpec> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// Lays the tensors out, or tells which one makes the sizes overflow.
    pub(crate) fn checked(config: &ModelConfig) -> Result<Self, ModelError> {
        let mut tensors = Vec::new();
        let mut offset = 0usize;
        for (name, shape) in shapes(config)? {
            let overflow = || ModelError::TooLarge(name.clone());
            let len = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
            let end = len.and_then(|len| offset.checked_add(len)).ok_or_else(overflow)?;
            if end > isize::MAX as usize / size_of::<f32>() {
                return Err(overflow());
            }
            tensors.push(TensorSpec { name, shape, offset });
            offset = end;
        }
        Ok(Self { tensors })
    }
}

fn shapes(config: &ModelConfig) -> Result<Vec<(String, Vec<usize>)>, ModelError> {
    let (v, e) = (config.vocabulary, config.embedding);
    if config.layers > 1 << 16 {
        return Err(ModelError::TooLarge("layers".into()));
    }
    let mut shapes = vec![("encoder.weight".to_owned(), vec![v, e])];
    let mut decoder = config.softmax.tensors(config);
    if config.decoder_rows() {
        // Rows of the decoder travel as those of the embedding, which they follow.
        shapes.push(decoder.remove(0));
    }
    for layer in 0..config.layers {
        let h = config.width(layer);
        let rows = h.checked_mul(config.cell.row_blocks()).ok_or(ModelError::TooLarge("hidden".into()))?;
        shapes.push((format!("rnn.weight_ih_l{layer}"), vec![rows, config.input_width(layer)]));
        shapes.push((format!("rnn.weight_hh_l{layer}"), vec![rows, h]));
        shapes.push((format!("rnn.bias_ih_l{layer}"), vec![rows]));
        shapes.push((format!("rnn.bias_hh_l{layer}"), vec![rows]));
        if config.cell.has_peepholes() {
            shapes.extend(["w_ci", "w_cf", "w_co"].map(|name| (format!("rnn.{name}_l{layer}"), vec![h])));
        }
    }
    shapes.extend(decoder);
    Ok(shapes)
}

/// One tensor of a stream's carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarryTensor {
    /// `h`, or `c`: the LSTM's cell state. Layers of unequal widths have a tensor each: `h_l0`, `h_l1`, ...
    pub name: String,
    /// Layers (L), the slow axis.
    pub layers: usize,
    /// Units of a layer (H), the fast axis.
    pub hidden: usize,
}

/// How a step's gradient is handed over: a dense part, and the rows at the parameters' beginning that were touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GradientLayout {
    /// Floats of the dense part.
    pub dense_len: usize,
    /// Where the dense part begins in the flat parameters: after the rows; 0 when tied.
    pub dense_offset: usize,
    /// Floats of one touched row: the embedding's width (E).
    pub row_width: usize,
    /// Rows that can be touched: the embedding's (V); with a sampled softmax then the decoder's (2 V in all).
    pub rows: usize,
    /// Tied weights: `Some(0)`. The rows are added into the dense part, at this offset plus token times E, after the whole lane tree.
    pub rows_fold_into: Option<usize>,
}

impl ModelConfig {
    /// The parameters' tensors. The configuration must be valid.
    pub fn parameter_layout(&self) -> ParameterLayout {
        ParameterLayout::checked(self).expect("the configuration was validated")
    }

    /// The tensors of one stream's carry in their order: `h`, for the LSTMs then `c`; by layer where their widths differ.
    pub fn carry_tensors(&self) -> Vec<CarryTensor> {
        let names = if self.cell.has_cell_state() { &["h", "c"][..] } else { &["h"] };
        let tensors = |&name: &&str| match self.has_equal_widths() {
            true => vec![CarryTensor { name: name.into(), layers: self.layers, hidden: self.hidden }],
            false => {
                let of = |l| CarryTensor { name: format!("{name}_l{l}"), layers: 1, hidden: self.width(l) };
                (0..self.layers).map(of).collect()
            }
        };
        names.iter().flat_map(tensors).collect()
    }

    /// Floats of one stream's carry: `h` of all layers, then `c` if the cell has one.
    pub fn carry_len(&self) -> usize {
        self.carry_range(usize::from(self.cell.has_cell_state()), self.layers - 1).end
    }

    /// Where `h` (0) or `c` (1) of a layer lies in a stream's carry.
    pub(crate) fn carry_range(&self, state: usize, layer: usize) -> Range<usize> {
        let before = |layers| (0..layers).map(|l| self.width(l)).sum::<usize>();
        let start = state * before(self.layers) + before(layer);
        start..start + self.width(layer)
    }

    /// How gradients of this model are cut.
    pub fn gradient_layout(&self) -> GradientLayout {
        let total = self.parameter_layout().len();
        let rows = if self.decoder_rows() { 2 * self.vocabulary } else { self.vocabulary };
        let dense_offset = if self.tied { 0 } else { rows * self.embedding };
        GradientLayout {
            dense_len: total - dense_offset,
            dense_offset,
            row_width: self.embedding,
            rows,
            rows_fold_into: self.tied.then_some(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cell;

    fn config(cell: Cell, tied: bool) -> ModelConfig {
        ModelConfig {
            cell,
            vocabulary: 7,
            embedding: 3,
            hidden: 3,
            layers: 2,
            tied,
            init: 0.1,
            ..ModelConfig::default()
        }
    }

    #[test]
    fn tensors_follow_each_other_without_gaps() {
        for cell in Cell::ALL {
            let layout = config(cell, false).parameter_layout();
            let mut end = 0;
            for tensor in &layout.tensors {
                assert_eq!(tensor.offset, end);
                end += tensor.len();
            }
            assert_eq!(end, layout.len());
        }
        let names: Vec<_> = config(Cell::LstmPeephole, false).parameter_layout().tensors;
        assert_eq!(names[5].name, "rnn.w_ci_l0");
        assert_eq!(names[1].shape, [12, 3]);
        assert_eq!(names.last().map(|t| t.name.as_str()), Some("decoder.bias"));
    }

    #[test]
    fn layers_of_unequal_width_have_carries_of_their_own() {
        let plain = config(Cell::Lstm, true);
        let named = |config: &ModelConfig| -> Vec<(String, usize, usize)> {
            config.carry_tensors().into_iter().map(|t| (t.name, t.layers, t.hidden)).collect()
        };
        assert_eq!(named(&plain), [("h".to_owned(), 2, 3), ("c".to_owned(), 2, 3)]);
        assert_eq!(named(&plain.clone().with_widths(&[3, 3])), named(&plain));
        let uneven = plain.with_widths(&[5, 3]);
        let expected = [("h_l0", 5), ("h_l1", 3), ("c_l0", 5), ("c_l1", 3)];
        assert_eq!(named(&uneven), expected.map(|(name, width)| (name.to_owned(), 1, width)));
        assert_eq!(
            (uneven.carry_len(), uneven.carry_range(1, 0), uneven.carry_range(0, 1)),
            (16, 8..13, 5..8)
        );
        let layout = uneven.parameter_layout();
        let shape = |name: &str| layout.get(name).map(|t| t.shape.clone());
        assert_eq!(shape("rnn.weight_ih_l0"), Some(vec![20, 3]));
        assert_eq!(shape("rnn.weight_ih_l1"), Some(vec![12, 5]));
        assert_eq!(shape("rnn.weight_hh_l1"), Some(vec![12, 3]));
    }

    #[test]
    fn the_dense_part_leaves_out_the_embedding_unless_tied() {
        let plain = config(Cell::Gru, false);
        let layout = plain.gradient_layout();
        assert_eq!((layout.dense_offset, layout.rows_fold_into), (21, None));
        assert_eq!(layout.dense_len + 21, plain.parameter_layout().len());
        let tied = config(Cell::Gru, true);
        let layout = tied.gradient_layout();
        assert_eq!((layout.dense_offset, layout.rows_fold_into), (0, Some(0)));
        assert_eq!(layout.dense_len, tied.parameter_layout().len());
        assert!(tied.parameter_layout().get("decoder.weight").is_none());
        assert_eq!((plain.carry_len(), config(Cell::Lstm, false).carry_len()), (6, 12));
    }
}
