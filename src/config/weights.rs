//! `model.weights`: a file of weights that a run starts from, instead of from the seed.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize as DeriveDeserialize, Serialize};

use super::ConfigError;

/// `"file.safetensors"`, or a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Weights {
    /// A PyTorch state dict in safetensors.
    pub path: String,
    /// The file's BLAKE3 hash. It is part of what the run is; where it is not given, it is found and kept with the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blake3: Option<String>,
    /// The file's modules by other names: `{ lstm = "rnn", embed = "encoder" }`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub modules: BTreeMap<String, String>,
}

/// The table, as serde reads it.
#[derive(DeriveDeserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    /// A PyTorch state dict in safetensors.
    path: String,
    /// The file's BLAKE3 hash, 64 hexadecimal digits; none: it is found, and kept with the run.
    blake3: Option<String>,
    /// The file's modules by other names: `{ lstm = "rnn", embed = "encoder" }`.
    #[serde(default)]
    modules: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for Weights {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PathOrTable;
        impl<'de> Visitor<'de> for PathOrTable {
            type Value = Weights;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, or a table with `path`")
            }

            fn visit_str<E: Error>(self, path: &str) -> Result<Weights, E> {
                Ok(Weights { path: path.into(), blake3: None, modules: BTreeMap::new() })
            }

            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Weights, A::Error> {
                let Table { path, blake3, modules } = Table::deserialize(MapAccessDeserializer::new(table))?;
                Ok(Weights { path, blake3, modules })
            }
        }
        deserializer.deserialize_any(PathOrTable)
    }
}

/// The modules that weights are for.
const MODULES: [&str; 3] = ["encoder", "rnn", "decoder"];

pub(super) fn check(weights: Option<&Weights>) -> Result<(), ConfigError> {
    let Some(weights) = weights else { return Ok(()) };
    let wrong = |key, found: &str, expected: &str| ConfigError::Value {
        key,
        found: format!("{found:?}"),
        expected: expected.into(),
    };
    if weights.path.is_empty() {
        return Err(wrong("model.weights.path", "", "the path of a safetensors file"));
    }
    if let Some(hash) = weights.blake3.as_ref().filter(|hash| !is_hash(hash)) {
        return Err(wrong("model.weights.blake3", hash, "64 hexadecimal digits, in small letters"));
    }
    match weights.modules.values().find(|module| !MODULES.contains(&module.as_str())) {
        Some(module) => Err(wrong("model.weights.modules", module, "encoder, rnn or decoder")),
        None => Ok(()),
    }
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, DeriveDeserialize)]
    struct Model {
        weights: Option<Weights>,
    }

    fn read(text: &str) -> Result<Weights, String> {
        let model: Result<Model, _> = toml::from_str(text);
        model.map(|model| model.weights.unwrap()).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_path_and_a_table_are_read_and_written_back() {
        let plain = read("weights = \"a.safetensors\"").unwrap();
        assert_eq!((plain.path.as_str(), &plain.blake3), ("a.safetensors", &None));
        let table = read("[weights]\npath = \"a\"\nmodules = { lstm = \"rnn\" }").unwrap();
        assert_eq!(table.modules["lstm"], "rnn");
        let text = toml::to_string_pretty(&Model { weights: Some(table.clone()) }).unwrap();
        assert_eq!(read(&text), Ok(table));
        assert!(read("weights = 3").unwrap_err().contains("a path, or a table with `path`"));
        assert!(read("weights = { pth = \"a\" }").unwrap_err().contains("unknown field `pth`"));
    }

    #[test]
    fn what_cannot_be_is_named() {
        let problem = |text| check(Some(&read(text).unwrap())).unwrap_err().to_string();
        assert!(problem("weights = \"\"").starts_with("model.weights.path: found \"\""));
        assert!(problem("weights = { path = \"a\", blake3 = \"AB\" }").contains("64 hexadecimal digits"));
        let module = problem("weights = { path = \"a\", modules = { lstm = \"rn\" } }");
        assert!(module.contains("\"rn\", expected encoder, rnn or decoder"), "{module}");
        check(None).unwrap();
    }
}
