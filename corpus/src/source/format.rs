//! What a file holds: by its name, or as the configuration says.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::input::Input;
use super::json_lines::JsonLines;
use super::plain::Plain;
use super::rows::RowDocuments;
use super::{Documents, SourceOptions, compression, parquet};
use crate::CorpusError;

/// `data.format`: how the bytes of a file become documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Each file by its name: `.jsonl` and `.ndjson` are JSON lines, `.parquet` is Parquet, all others are plain text.
    /// `.gz`, `.gzip`, `.zst` and `.zstd` behind that are of no account.
    #[default]
    ByName,
    /// UTF-8; a file is one document.
    Text,
    /// A JSON object a line; its field is one document.
    JsonLines,
    /// A row is one document.
    Parquet,
}

impl Format {
    /// The four names, for messages.
    pub const NAMES: &'static str = "auto, text, jsonl or parquet";

    /// The format of a file of this name (of the path of a URL).
    fn of(self, path: &Path) -> Format {
        if self != Format::ByName {
            return self;
        }
        let name = path.to_string_lossy().to_ascii_lowercase();
        let name = match name.starts_with("http") {
            true => name.split(['?', '#']).next().unwrap_or_default(),
            false => &name,
        };
        let plain = compression::SUFFIXES.iter().find_map(|(suffix, _)| name.strip_suffix(suffix));
        match plain.unwrap_or(name).rsplit('.').next() {
            Some("jsonl" | "ndjson") => Format::JsonLines,
            Some("parquet") => Format::Parquet,
            _ => Format::Text,
        }
    }
}

impl FromStr for Format {
    type Err = String;

    /// One of [`Format::NAMES`]; the error is what was expected.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Format::ByName),
            "text" => Ok(Format::Text),
            "jsonl" => Ok(Format::JsonLines),
            "parquet" => Ok(Format::Parquet),
            _ => Err(Self::NAMES.into()),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::ByName => "auto",
            Format::Text => "text",
            Format::JsonLines => "jsonl",
            Format::Parquet => "parquet",
        })
    }
}

/// The documents of `input`, of which at most `room` bytes may come.
pub(super) fn documents(
    input: Input,
    options: &SourceOptions,
    room: u64,
) -> Result<Box<dyn Documents>, CorpusError> {
    match options.format.of(&input.path()) {
        Format::ByName | Format::Text => {
            let bytes = compression::unpacked(&input)?;
            Ok(Box::new(Plain::new(input, bytes, room)))
        }
        Format::JsonLines => {
            let bytes = compression::unpacked(&input)?;
            Ok(Box::new(RowDocuments::new(JsonLines::new(input, bytes, &options.field))))
        }
        Format::Parquet => parquet::documents(input, &options.field),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_the_format() {
        let of = |name: &str| Format::ByName.of(Path::new(name));
        for name in ["a.txt", "a", "a.json", "a.jsonl.txt", "a.txt.gz", "jsonl", "a.parquet/b", "a.gz"] {
            let expected = if name == "jsonl" { Format::JsonLines } else { Format::Text };
            assert_eq!(of(name), expected, "{name}");
        }
        for name in
            ["a.jsonl", "s3://b/a.JSONL", "a.ndjson.gz", "a.jsonl.zst", "https://h/a.jsonl.gz?key=a.txt"]
        {
            assert_eq!(of(name), Format::JsonLines, "{name}");
        }
        assert_eq!(of("x/a.parquet"), Format::Parquet);
        assert_eq!(Format::Text.of(Path::new("a.jsonl")), Format::Text);
    }

    #[test]
    fn every_format_reads_back_from_its_name() {
        for format in [Format::ByName, Format::Text, Format::JsonLines, Format::Parquet] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert_eq!("csv".parse::<Format>(), Err(Format::NAMES.to_owned()));
    }
}
