//! What training does against overfitting: probabilities and strengths. Knows no mask and no gradient; evaluation and generation
//! know none of it.

use crate::{ModelConfig, ModelError};

/// The regularisers of Merity, Keskar, Socher, "Regularizing and optimizing LSTM language models", 2017 (AWD-LSTM), and those before
/// them. All of them off is the default.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Regularisation {
    /// One mask of units for all time steps of a window, in place of a fresh one for each: Gal, Ghahramani, "A theoretically
    /// grounded application of dropout in recurrent neural networks", 2016. Each stream has its own.
    pub locked_dropout: bool,
    /// Probability that a token's whole embedding is zero for a window, for all its uses in all streams (Gal 2016; Merity 2017,
    /// section 4.3).
    pub dropout_embedding: f32,
    /// Probability of dropping a unit of the embedding's output; none: [`ModelConfig::dropout`].
    pub dropout_input: Option<f32>,
    /// Probability of dropping a unit between two layers; none: [`ModelConfig::dropout`].
    pub dropout_hidden: Option<f32>,
    /// Probability of dropping a unit of the last layer's output; none: [`ModelConfig::dropout`].
    pub dropout_output: Option<f32>,
    /// Probability that a recurrent weight is zero for a window, the same for all streams: Wan et al., "Regularization of neural
    /// networks using DropConnect", 2013, on `weight_hh` (Merity 2017, section 2).
    pub weight_drop: f32,
    /// Alpha: strength of the mean square of the last layer's output, after dropout (Merity, McCann, Socher, "Revisiting activation
    /// regularization for language RNNs", 2017, equation 4).
    pub activation: f32,
    /// Beta: strength of the mean square of the change of the last layer's output from step to step, before dropout (the same,
    /// equation 5).
    pub temporal_activation: f32,
    /// Epsilon: the training target is (1 - epsilon) the token and epsilon the uniform distribution (Szegedy et al., "Rethinking the
    /// Inception architecture", 2016, section 7; PyTorch's `CrossEntropyLoss`). Reported losses stay plain cross-entropies.
    pub label_smoothing: f32,
}

impl Regularisation {
    pub(crate) fn validate(&self) -> Result<(), ModelError> {
        let probabilities = [
            ("dropout_embedding", Some(self.dropout_embedding)),
            ("dropout_input", self.dropout_input),
            ("dropout_hidden", self.dropout_hidden),
            ("dropout_output", self.dropout_output),
            ("weight_drop", Some(self.weight_drop)),
            ("label_smoothing", Some(self.label_smoothing)),
        ];
        for (key, found) in probabilities {
            if let Some(found) = found.filter(|p| !(0.0..1.0).contains(p)) {
                return Err(ModelError::Probability { key, found });
            }
        }
        let strengths = [
            ("activation_regularisation", self.activation),
            ("temporal_activation_regularisation", self.temporal_activation),
        ];
        match strengths.into_iter().find(|(_, s)| !s.is_finite() || *s < 0.0) {
            None => Ok(()),
            Some((key, found)) => Err(ModelError::Strength { key, found }),
        }
    }
}

impl ModelConfig {
    /// The same model without regularisation: its gradients are those of the plain cross-entropy, a function of weights and text.
    pub fn without_regularisation(&self) -> Self {
        Self { dropout: 0.0, regularisation: Regularisation::default(), ..self.clone() }
    }

    /// Probability of dropping a unit at place 0, the embedding's output, or l, the output of layer l - 1.
    pub(crate) fn dropout_at(&self, place: usize) -> f32 {
        let of_place = match place {
            0 => self.regularisation.dropout_input,
            place if place == self.layers => self.regularisation.dropout_output,
            _ => self.regularisation.dropout_hidden,
        };
        of_place.unwrap_or(self.dropout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_has_its_probability_or_the_common_one() {
        let regularisation = Regularisation {
            dropout_input: Some(0.1),
            dropout_hidden: Some(0.2),
            dropout_output: Some(0.3),
            ..Regularisation::default()
        };
        let config = ModelConfig { layers: 3, dropout: 0.5, regularisation, ..ModelConfig::default() };
        assert_eq!([0, 1, 2, 3].map(|place| config.dropout_at(place)), [0.1, 0.2, 0.2, 0.3]);
        let config = ModelConfig { layers: 3, dropout: 0.5, ..ModelConfig::default() };
        assert_eq!([0, 1, 2, 3].map(|place| config.dropout_at(place)), [0.5; 4]);
        assert_eq!(config.without_regularisation().dropout_at(1), 0.0);
    }

    #[test]
    fn each_wrong_number_is_named_by_its_key() {
        let none = Regularisation::default();
        assert_eq!(none.validate(), Ok(()));
        for p in [1.0, -0.1, f32::NAN] {
            for (key, wrong) in [
                ("dropout_embedding", Regularisation { dropout_embedding: p, ..none }),
                ("dropout_input", Regularisation { dropout_input: Some(p), ..none }),
                ("dropout_hidden", Regularisation { dropout_hidden: Some(p), ..none }),
                ("dropout_output", Regularisation { dropout_output: Some(p), ..none }),
                ("weight_drop", Regularisation { weight_drop: p, ..none }),
                ("label_smoothing", Regularisation { label_smoothing: p, ..none }),
            ] {
                let message = wrong.validate().unwrap_err().to_string();
                assert_eq!(message, format!("model.{key} must be at least 0 and below 1, found {p}"));
            }
        }
        for s in [f32::INFINITY, -1.0, f32::NAN] {
            for (key, wrong) in [
                ("activation_regularisation", Regularisation { activation: s, ..none }),
                ("temporal_activation_regularisation", Regularisation { temporal_activation: s, ..none }),
            ] {
                let message = wrong.validate().unwrap_err().to_string();
                assert_eq!(message, format!("model.{key} must be finite and not negative, found {s}"));
            }
        }
    }
}
