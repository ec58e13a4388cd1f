//! In place of the Parquet reader, where the feature `parquet` is off: the sentence that says so.

use super::Documents;
use super::input::Input;
use crate::CorpusError;

pub(super) fn documents(input: Input, _column: &str) -> Result<Box<dyn Documents>, CorpusError> {
    Err(input.not_built("Parquet", "parquet"))
}
