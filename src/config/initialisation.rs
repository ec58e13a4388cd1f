//! `model.init`: how weights start, as a number, a name or a table; and the forget gates' bias.

use std::fmt;
use std::marker::PhantomData;

use carousel_model::{Cell, Initialisation};
use serde::de::value::{MapAccessDeserializer, MapDeserializer};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde::{Serialize, Serializer};

use super::validate::require;
use super::{ConfigError, Model};

/// By what rule. The resolved configuration has it by name.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Init {
    /// Every tensor uniform in (-range, range).
    Uniform(Range),
    /// Glorot and Bengio 2010, for each gate's block.
    Glorot(Range),
    /// Recurrent blocks are orthogonal matrices: Saxe et al. 2014.
    Orthogonal(Range),
    /// As `torch.nn.LSTM`: uniform in (-a, a), a = 1 / sqrt(hidden units).
    Pytorch(Range),
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Range {
    /// Half the width of the uniform distribution: of every tensor, or of embedding and decoder where the rule is of the
    /// layers. Unit: none.
    pub range: f32,
}

impl Default for Range {
    fn default() -> Self {
        Self { range: 0.1 }
    }
}

impl From<f64> for Init {
    fn from(range: f64) -> Self {
        Self::Uniform(Range { range: range as f32 })
    }
}

impl Init {
    pub(crate) fn range(&self) -> f32 {
        let (Self::Uniform(Range { range })
        | Self::Glorot(Range { range })
        | Self::Orthogonal(Range { range })
        | Self::Pytorch(Range { range })) = self;
        *range
    }

    /// The key under which a wrong range is found.
    pub(crate) fn range_key(&self) -> &'static str {
        match self {
            Self::Uniform(_) => "model.init",
            _ => "model.init.range",
        }
    }

    pub(crate) fn rule(&self) -> Initialisation {
        match self {
            Self::Uniform(_) => Initialisation::Uniform,
            Self::Glorot(_) => Initialisation::Glorot,
            Self::Orthogonal(_) => Initialisation::Orthogonal,
            Self::Pytorch(_) => Initialisation::Pytorch,
        }
    }
}

/// A number for the kind that a number makes, `"name"` for `{ kind = "name" }`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NumberOrKind<T>(pub T);

impl<T: Serialize> Serialize for NumberOrKind<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de> + From<f64>> Deserialize<'de> for NumberOrKind<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Choices<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de> + From<f64>> Visitor<'de> for Choices<T> {
            type Value = NumberOrKind<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, a name, or a table with `kind`")
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
                Ok(NumberOrKind(number.into()))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
                Ok(NumberOrKind((number as f64).into()))
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
                let table = [("kind", name)].into_iter();
                T::deserialize(MapDeserializer::new(table)).map(NumberOrKind)
            }

            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(table)).map(NumberOrKind)
            }
        }
        deserializer.deserialize_any(Choices(PhantomData))
    }
}

/// A bias needs a forget gate to be in.
pub(super) fn check_forget_bias(model: &Model) -> Result<(), ConfigError> {
    let bias = model.forget_bias;
    require(bias.is_finite(), "model.forget_bias", bias, "a finite number")?;
    let has_gate = model.cell.parse().is_ok_and(Cell::has_forget_gate);
    let found = format!("{bias} with {}", model.cell);
    let expected = format!("0, or a cell with a learned forget gate: {}", Cell::names(Cell::has_forget_gate));
    require(bias == 0.0 || has_gate, "model.forget_bias", found, &expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Model, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn a_number_a_name_or_a_table_reads_back_by_name() {
        let range = |range| Range { range };
        for (text, expected) in [
            ("init = 0.25", Init::Uniform(range(0.25))),
            ("init = 1", Init::Uniform(range(1.0))),
            ("init = \"glorot\"", Init::Glorot(range(0.1))),
            ("init = { kind = \"orthogonal\", range = 0.5 }", Init::Orthogonal(range(0.5))),
            ("[init]\nkind = \"pytorch\"", Init::Pytorch(range(0.1))),
        ] {
            let model = read(text).unwrap();
            assert_eq!(model.init, NumberOrKind(expected), "{text}");
            let written = toml::to_string(&model).unwrap();
            assert!(written.contains(&format!("kind = \"{}\"", model.init.0.rule())), "{written}");
            assert_eq!(read(&written).unwrap(), model);
        }
        for (text, named) in [
            ("init = \"he\"", "uniform"),
            ("init = { kind = \"glorot\", gain = 2 }", "gain"),
            ("init = true", "a number, a name, or a table with `kind`"),
        ] {
            let refused = read(text).unwrap_err().to_string();
            assert!(refused.contains(named), "{text}: {refused}");
        }
    }

    #[test]
    fn only_a_learned_forget_gate_takes_a_bias() {
        let check = |cell: &str| {
            check_forget_bias(&Model { cell: cell.into(), forget_bias: 1.0, ..Model::default() })
        };
        check("lstm").unwrap();
        check("lstm_peephole").unwrap();
        let refused = check("gru").unwrap_err().to_string();
        assert!(refused.starts_with("model.forget_bias: found 1 with gru, expected "), "{refused}");
        check_forget_bias(&Model { cell: "gru".into(), ..Model::default() }).unwrap();
    }
}
