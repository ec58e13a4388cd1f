//! The schemas of what is read by hand: what a value may be written as, beside the types that say what it is. Only for
//! docs/configuration.md (`reference`); the program checks with serde and `validate`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::tokens::TokenizerTable;
use super::weights::Table;
use super::{KindOr, NumberOrKind, OneOrMany, TokenizerChoice, Weights, Widths};

/// One schema out of several, in the order in which people read them.
fn any_of(choices: &[Schema]) -> Schema {
    json_schema!({ "anyOf": choices })
}

fn one_of_names<'a>(names: impl Iterator<Item = &'a str>) -> Schema {
    json_schema!({ "type": "string", "enum": names.collect::<Vec<_>>() })
}

macro_rules! schema {
    ($type:ty, $generator:ident $(, $parameter:ident)? => $schema:expr) => {
        impl$(<$parameter: JsonSchema>)? JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema($generator: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

/// In place of a text that is one of the cells' names.
pub(super) enum Cells {}

/// In place of a text that is one of the formats' names.
pub(super) enum Formats {}

schema!(Cells, _generator => one_of_names(carousel_model::Cell::ALL.iter().map(|cell| cell.name())));
schema!(Formats, _generator => {
    let names = carousel_corpus::Format::NAMES;
    one_of_names(names.split([',', ' ']).filter(|word| !word.is_empty() && *word != "or"))
});
schema!(OneOrMany, generator => any_of(&[String::json_schema(generator), Vec::<String>::json_schema(generator)]));
schema!(Widths, generator => any_of(&[u32::json_schema(generator), Vec::<u32>::json_schema(generator)]));
schema!(KindOr<T>, generator, T => T::json_schema(generator));
schema!(NumberOrKind<T>, generator, T => any_of(&[f32::json_schema(generator), T::json_schema(generator)]));
schema!(Weights, generator => any_of(&[String::json_schema(generator), Table::json_schema(generator)]));
schema!(TokenizerChoice, generator => {
    any_of(&[TokenizerTable::json_schema(generator), String::json_schema(generator)])
});
