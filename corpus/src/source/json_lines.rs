//! JSON lines: an object a line, one field of which is the text.

use std::fmt;
use std::io::{BufRead, BufReader, Read};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::input::Input;
use super::rows::Rows;
use crate::CorpusError;

/// A longer line is refused: it would have to be held whole.
const MAX_LINE: u64 = 64 << 20;
/// Fields that a message names at most.
const SHOWN: usize = 8;

/// A reader of JSON lines.
pub(super) struct JsonLines {
    input: Input,
    bytes: BufReader<Box<dyn Read + Send>>,
    field: String,
    buffer: Vec<u8>,
    /// The line in the buffer, counted from 1, and where it begins.
    line: u64,
    offset: u64,
}

impl JsonLines {
    /// Text is the string `field` of each line; lines of white space are passed over.
    pub(super) fn new(input: Input, bytes: Box<dyn Read + Send>, field: &str) -> Self {
        let bytes = BufReader::with_capacity(256 << 10, bytes);
        JsonLines { input, bytes, field: field.into(), buffer: Vec::new(), line: 0, offset: 0 }
    }

    /// Reads the next line; whether there is one.
    fn read_line(&mut self) -> Result<bool, CorpusError> {
        self.offset += self.buffer.len() as u64;
        self.line += 1;
        self.buffer.clear();
        let read = self.bytes.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut self.buffer);
        let read = read.map_err(|source| self.input.unreadable(source))? as u64;
        if read > MAX_LINE {
            return Err(self.bad(format!("a line of more than {MAX_LINE} bytes")));
        }
        Ok(read > 0)
    }

    fn text(&self) -> Result<String, CorpusError> {
        let line = std::str::from_utf8(&self.buffer);
        let line =
            line.map_err(|error| self.input.not_utf8(self.line, self.offset + error.valid_up_to() as u64))?;
        let mut deserializer = serde_json::Deserializer::from_str(line);
        let found = TextOf(&self.field).deserialize(&mut deserializer);
        let found = found.and_then(|found| deserializer.end().map(|()| found));
        match found.map_err(|error| self.bad(without_line(&error)))? {
            Found::Text(text) => Ok(text),
            Found::Other(kind) => Err(self.bad(format!("{:?} is {kind}, expected a string", self.field))),
            Found::Missing(fields) => {
                Err(self.bad(format!("no field {:?} (data.field), only {fields}", self.field)))
            }
        }
    }

    fn bad(&self, problem: String) -> CorpusError {
        self.input.bad_line(self.line, problem)
    }
}

impl Rows for JsonLines {
    fn next_row(&mut self) -> Result<Option<String>, CorpusError> {
        while self.read_line()? {
            if !self.buffer.trim_ascii().is_empty() {
                return self.text().map(Some);
            }
        }
        Ok(None)
    }
}

/// The message of `error` with its column, without its line: that one is always 1.
fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let message = text.rfind(" at line ").map_or(text.as_str(), |at| &text[..at]);
    format!("not a JSON object: {message} (column {})", error.column())
}

/// What a line has under the field.
enum Found {
    Text(String),
    Other(&'static str),
    /// The fields there are.
    Missing(String),
}

/// Takes the one field of an object, and keeps nothing of the others.
struct TextOf<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for TextOf<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TextOf<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let mut found = None;
        let mut others = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if key == self.0 {
                found = Some(found_in(map.next_value()?));
            } else {
                map.next_value::<IgnoredAny>()?;
                others.push(key);
            }
        }
        Ok(found.unwrap_or_else(|| Found::Missing(listed(&others))))
    }
}

fn found_in(value: Value) -> Found {
    match value {
        Value::String(text) => Found::Text(text),
        // No text at all: an empty document.
        Value::Null => Found::Text(String::new()),
        Value::Bool(_) => Found::Other("true or false"),
        Value::Number(_) => Found::Other("a number"),
        Value::Array(_) => Found::Other("a list"),
        Value::Object(_) => Found::Other("an object"),
    }
}

fn listed(fields: &[String]) -> String {
    let mut names: Vec<String> = fields.iter().take(SHOWN).map(|field| format!("{field:?}")).collect();
    match fields.len() {
        0 => "an empty object".into(),
        n if n > SHOWN => {
            names.push(format!("{} more", n - SHOWN));
            names.join(", ")
        }
        _ => names.join(", "),
    }
}
