//! The layers' widths, and the keys of `[model]` against overfitting: as written, checked, and as the model takes them.

use std::fmt;

use carousel_model::Regularisation;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};

use super::validate::require;
use super::{ConfigError, Model};

/// `model.hidden`: one width for all layers, as a number, or a list with one for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Widths(pub Vec<u32>);

impl From<u32> for Widths {
    fn from(width: u32) -> Self {
        Self(vec![width])
    }
}

impl fmt::Display for Widths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0[..] {
            [width] => width.fmt(f),
            _ => write!(f, "{:?}", self.0),
        }
    }
}

impl Widths {
    /// As the model takes them.
    pub(crate) fn widths(&self) -> Vec<usize> {
        self.0.iter().map(|&width| width as usize).collect()
    }
}

impl Serialize for Widths {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0[..] {
            [width] => width.serialize(serializer),
            _ => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Widths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Numbers;
        impl<'de> Visitor<'de> for Numbers {
            type Value = Widths;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of units, or a list with one for each layer")
            }

            fn visit_i64<E: Error>(self, width: i64) -> Result<Widths, E> {
                let wrong = || E::invalid_value(Unexpected::Signed(width), &self);
                u32::try_from(width).map(Widths::from).map_err(|_| wrong())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, widths: A) -> Result<Widths, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(widths)).map(Widths)
            }
        }
        deserializer.deserialize_any(Numbers)
    }
}

impl Model {
    /// What training does against overfitting, as the model takes it.
    pub(crate) fn regularisation(&self) -> Regularisation {
        Regularisation {
            locked_dropout: self.locked_dropout,
            dropout_embedding: self.dropout_embedding,
            dropout_input: self.dropout_input,
            dropout_hidden: self.dropout_hidden,
            dropout_output: self.dropout_output,
            weight_drop: self.weight_drop,
            activation: self.activation_regularisation,
            temporal_activation: self.temporal_activation_regularisation,
            label_smoothing: self.label_smoothing,
        }
    }
}

/// One width or one for each layer, none of them 0, and where weights are tied the embedding's at the top.
pub(super) fn check_widths(model: &Model) -> Result<(), ConfigError> {
    let (widths, layers) = (&model.hidden.0, model.layers);
    let expected = format!("one number of units, or one for each of model.layers = {layers}");
    let fits = widths.len() == 1 || widths.len() == layers as usize;
    require(fits, "model.hidden", &model.hidden, &expected)?;
    require(!widths.contains(&0), "model.hidden", &model.hidden, "at least 1")?;
    let fits = !model.tied || widths.last() == Some(&model.embedding);
    let sizes = format!("embedding {} and hidden {}", model.embedding, model.hidden);
    let expected = "equal sizes of embedding and last layer where the decoder uses the embedding's matrix";
    require(fits, "model.tied", sizes, expected)
}

/// Probabilities are below 1, strengths finite.
pub(super) fn check_regularisation(model: &Model) -> Result<(), ConfigError> {
    let probabilities = [
        ("model.dropout", Some(model.dropout)),
        ("model.dropout_input", model.dropout_input),
        ("model.dropout_hidden", model.dropout_hidden),
        ("model.dropout_output", model.dropout_output),
        ("model.dropout_embedding", Some(model.dropout_embedding)),
        ("model.weight_drop", Some(model.weight_drop)),
        ("model.label_smoothing", Some(model.label_smoothing)),
    ];
    for (key, found) in probabilities {
        let found = found.unwrap_or(0.0);
        require((0.0..1.0).contains(&found), key, found, "at least 0 and below 1")?;
    }
    let strengths = [
        ("model.activation_regularisation", model.activation_regularisation),
        ("model.temporal_activation_regularisation", model.temporal_activation_regularisation),
    ];
    for (key, found) in strengths {
        require(found.is_finite() && found >= 0.0, key, found, "a finite number that is not negative")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Model, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn widths_are_written_in_two_ways_and_read_back() {
        for (text, widths) in [("hidden = 5", vec![5]), ("hidden = [5, 7]", vec![5, 7])] {
            let model = read(text).unwrap();
            assert_eq!(model.hidden, Widths(widths));
            let written = toml::to_string(&model).unwrap();
            assert!(written.contains(text), "{written}");
            assert_eq!(read(&written).unwrap(), model);
        }
        for text in ["hidden = -5", "hidden = 1.5", "hidden = \"5\"", "hidden = [5, -1]"] {
            assert!(read(text).is_err(), "{text}");
        }
        let refused = read("hidden = -5").unwrap_err().to_string();
        assert!(refused.contains("-5") && refused.contains("a list with one for each layer"), "{refused}");
    }

    #[test]
    fn every_key_reaches_the_model() {
        let text = "locked_dropout = true\ndropout_embedding = 0.1\ndropout_input = 0.2\ndropout_hidden = 0.3\n\
                    dropout_output = 0.4\nweight_drop = 0.5\nactivation_regularisation = 2\n\
                    temporal_activation_regularisation = 1\nlabel_smoothing = 0.6";
        let expected = Regularisation {
            locked_dropout: true,
            dropout_embedding: 0.1,
            dropout_input: Some(0.2),
            dropout_hidden: Some(0.3),
            dropout_output: Some(0.4),
            weight_drop: 0.5,
            activation: 2.0,
            temporal_activation: 1.0,
            label_smoothing: 0.6,
        };
        let model = read(text).unwrap();
        assert_eq!(model.regularisation(), expected);
        assert_eq!(read(&toml::to_string(&model).unwrap()).unwrap(), model);
        assert_eq!(Model::default().regularisation(), Regularisation::default());
    }
}
