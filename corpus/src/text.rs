//! A whole text in memory, for texts that are known to be small.

use std::path::PathBuf;

use crate::{CorpusError, Source, SourceOptions};

/// The text of `paths`: the pieces of [`Source::open`], joined. With `options.max_bytes` it is the longest prefix of at
/// most that many bytes that ends at a character's boundary.
///
/// # Errors
/// Those of [`Source::open`] and of its pieces; [`EmptyText`](CorpusError::EmptyText) and
/// [`MaxBytesTooSmall`](CorpusError::MaxBytesTooSmall) when the limit ends before the first character.
pub fn read_text(setting: &str, paths: &[PathBuf], options: &SourceOptions) -> Result<String, CorpusError> {
    let mut text = String::new();
    for piece in Source::open(setting, paths, options)? {
        text.push_str(&piece?.text);
    }
    Ok(text)
}
