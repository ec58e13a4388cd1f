//! What a file holds: by its name, or as the configuration says.

use super::input::Input;
use super::plain::Plain;
use super::{Documents, SourceOptions};
use crate::CorpusError;

/// `data.format`: how the bytes of a file become documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Each file by its name: plain text.
    #[default]
    ByName,
    /// UTF-8; a file is one document.
    Plain,
}

/// The documents of `input`, of which at most `room` bytes may come.
pub(super) fn documents(
    input: Input,
    options: &SourceOptions,
    room: u64,
) -> Result<Box<dyn Documents>, CorpusError> {
    match options.format {
        Format::ByName | Format::Plain => {
            let bytes = input.bytes()?;
            Ok(Box::new(Plain::new(input, bytes, room)))
        }
    }
}
