//! Files of many documents: each is held whole, and given out in pieces where it is long.

use std::vec::IntoIter;

use super::{Documents, Part, cut};
use crate::CorpusError;

/// A file that has one document after another.
pub(super) trait Rows: Send {
    /// The text of the next row; none at the end of the file.
    fn next_row(&mut self) -> Result<Option<String>, CorpusError>;
}

/// The documents of such a file.
pub(super) struct RowDocuments<R> {
    rows: R,
    /// What is left of a document.
    rest: IntoIter<String>,
}

impl<R: Rows> RowDocuments<R> {
    pub(super) fn new(rows: R) -> Self {
        RowDocuments { rows, rest: Vec::new().into_iter() }
    }
}

impl<R: Rows> Documents for RowDocuments<R> {
    fn next_part(&mut self) -> Result<Option<Part>, CorpusError> {
        if self.rest.len() == 0 {
            match self.rows.next_row()? {
                Some(text) => self.rest = cut::pieces(text).into_iter(),
                None => return Ok(None),
            }
        }
        let next = self.rest.next();
        let ends_document = self.rest.len() == 0;
        Ok(next.map(|text| Part { text, ends_document, cut: false }))
    }
}
