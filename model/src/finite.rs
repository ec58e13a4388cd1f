//! Finding the first number that is not one.

use crate::{GradientLayout, GradientView, ParameterLayout};

/// Index of the first NaN or infinity.
pub fn first_non_finite(values: &[f32]) -> Option<usize> {
    let chunk = 4096;
    let dirty = |values: &[f32]| values.iter().any(|x| !x.is_finite());
    let start = values.chunks(chunk).position(dirty)? * chunk;
    values[start..].iter().position(|x| !x.is_finite()).map(|at| start + at)
}

/// Name of the first parameter, in the order of the layout, whose gradient has a NaN or an infinity.
pub fn first_non_finite_parameter<'a>(
    parameters: &'a ParameterLayout,
    layout: &GradientLayout,
    gradient: &GradientView<'_>,
) -> Option<&'a str> {
    let name_at = |offset: usize| {
        let tensor = parameters.tensors.iter().find(|t| (t.offset..t.offset + t.len()).contains(&offset));
        tensor.map(|t| t.name.as_str())
    };
    if let Some(at) = first_non_finite(gradient.row_values) {
        return name_at(gradient.rows[at / layout.row_width] as usize * layout.row_width);
    }
    first_non_finite(gradient.dense).and_then(|at| name_at(layout.dense_offset + at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cell, ModelConfig};

    #[test]
    fn names_the_first_parameter() {
        let config = ModelConfig {
            cell: Cell::Gru,
            vocabulary: 5,
            embedding: 2,
            hidden: 3,
            layers: 1,
            tied: false,
            init: 0.1,
            ..ModelConfig::default()
        };
        let (parameters, layout) = (config.parameter_layout(), config.gradient_layout());
        let mut dense = vec![0.5; layout.dense_len];
        let found = |dense: &[f32], row_values: &[f32]| {
            let gradient = GradientView { dense, rows: &[3], row_values };
            first_non_finite_parameter(&parameters, &layout, &gradient).map(str::to_owned)
        };
        assert_eq!(found(&dense, &[0.0, 1.0]), None);
        assert_eq!(found(&dense, &[0.0, f32::NAN]).as_deref(), Some("encoder.weight"));
        let at = |name| parameters.get(name).map_or(0, |t| t.offset) - layout.dense_offset;
        dense[at("decoder.bias")] = f32::NAN;
        assert_eq!(found(&dense, &[]).as_deref(), Some("decoder.bias"));
        dense[at("rnn.weight_hh_l0") + 26] = f32::INFINITY;
        assert_eq!(found(&dense, &[]).as_deref(), Some("rnn.weight_hh_l0"));
    }

    #[test]
    fn finds_the_index_beyond_the_first_chunk() {
        let mut values = vec![f32::MAX; 10_000];
        assert_eq!(first_non_finite(&values), None);
        values[9_999] = f32::NEG_INFINITY;
        values[5_000] = f32::NAN;
        assert_eq!(first_non_finite(&values), Some(5_000));
    }
}
