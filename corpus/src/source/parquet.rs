//! Parquet: one column of strings, page after page. Other columns are not read.

use std::sync::Arc;
use std::vec::IntoIter;

use ::parquet::basic::{ConvertedType, Type as PhysicalType};
use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use ::parquet::data_type::{ByteArray, ByteArrayType};
use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::schema::types::ColumnDescriptor;

use super::Documents;
use super::chunks::Chunks;
use super::input::Input;
use super::rows::{RowDocuments, Rows};
use crate::CorpusError;

/// Rows that are decoded at a time; their bytes stay in their pages.
const BATCH: usize = 64;

/// The documents of `input`: the strings of `column`.
pub(super) fn documents(input: Input, column: &str) -> Result<Box<dyn Documents>, CorpusError> {
    Ok(Box::new(RowDocuments::new(ParquetRows::open(input, column)?)))
}

/// A reader of one column.
struct ParquetRows {
    input: Input,
    file: SerializedFileReader<Chunks>,
    chunks: Chunks,
    column: usize,
    /// Whether a row may have no string.
    optional: bool,
    /// The row group that comes next, and the column of the one being read.
    group: usize,
    reader: Option<ColumnReaderImpl<ByteArrayType>>,
    batch: IntoIter<Option<ByteArray>>,
    /// The last row given out, counted from 1.
    row: u64,
}

impl ParquetRows {
    fn open(input: Input, column: &str) -> Result<Self, CorpusError> {
        let chunks = Chunks::open(&input)?;
        let opened = SerializedFileReader::new(chunks.clone());
        let file = opened.map_err(|error| damaged(&input, &chunks, &error))?;
        let schema = file.metadata().file_metadata().schema_descr_ptr();
        let of_name = |descriptor: &&Arc<ColumnDescriptor>| descriptor.path().string() == column;
        let index = schema.columns().iter().position(|descriptor| of_name(&descriptor));
        let columns = || schema.columns().iter().map(|d| d.path().string()).collect();
        let index = index.ok_or_else(|| input.bad_column(column, None, columns()))?;
        let descriptor = schema.column(index);
        if let Some(found) = unfit(&descriptor) {
            return Err(input.bad_column(column, Some(found), columns()));
        }
        let optional = descriptor.max_def_level() > 0;
        let batch = Vec::new().into_iter();
        Ok(ParquetRows {
            input,
            file,
            chunks,
            column: index,
            optional,
            group: 0,
            reader: None,
            batch,
            row: 0,
        })
    }

    /// Opens the next row group; whether there is one.
    fn next_group(&mut self) -> Result<bool, CorpusError> {
        if self.group == self.file.num_row_groups() {
            return Ok(false);
        }
        let group = self.file.get_row_group(self.group);
        let reader = group.and_then(|group| group.get_column_reader(self.column));
        match reader.map_err(|error| damaged(&self.input, &self.chunks, &error))? {
            ColumnReader::ByteArrayColumnReader(reader) => self.reader = Some(reader),
            _ => unreachable!("the column's physical type was checked when the file was opened"),
        }
        self.group += 1;
        Ok(true)
    }

    /// Decodes the next rows; whether there are any.
    fn next_batch(&mut self) -> Result<bool, CorpusError> {
        loop {
            let Some(reader) = &mut self.reader else {
                if self.next_group()? {
                    continue;
                }
                return Ok(false);
            };
            let (mut levels, mut values) = (Vec::new(), Vec::new());
            let levels_wanted = self.optional.then_some(&mut levels);
            let read = reader.read_records(BATCH, levels_wanted, None, &mut values);
            let (records, _, _) = read.map_err(|error| damaged(&self.input, &self.chunks, &error))?;
            if records > 0 {
                self.batch = self.rows(records, &levels, values)?;
                return Ok(true);
            }
            self.reader = None;
        }
    }

    /// Puts the rows without a string between those with one.
    fn rows(
        &self,
        records: usize,
        levels: &[i16],
        values: Vec<ByteArray>,
    ) -> Result<IntoIter<Option<ByteArray>>, CorpusError> {
        let defined = self.file.metadata().file_metadata().schema_descr().column(self.column).max_def_level();
        let present: Vec<bool> = match self.optional {
            true => levels.iter().map(|&level| level == defined).collect(),
            false => vec![true; records],
        };
        if present.iter().filter(|&&present| present).count() != values.len() || present.len() != records {
            return Err(self.input.damaged("the Parquet file has more or fewer values than rows".into()));
        }
        let mut values = values.into_iter();
        let rows: Vec<_> = present.into_iter().map(|p| if p { values.next() } else { None }).collect();
        Ok(rows.into_iter())
    }
}

impl Rows for ParquetRows {
    fn next_row(&mut self) -> Result<Option<String>, CorpusError> {
        if self.batch.len() == 0 && !self.next_batch()? {
            return Ok(None);
        }
        self.row += 1;
        // A row without a string is an empty document.
        let Some(value) = self.batch.next().flatten() else { return Ok(Some(String::new())) };
        let text = std::str::from_utf8(value.data());
        let text = text.map_err(|error| self.input.row_not_utf8(self.row, error.valid_up_to()))?;
        Ok(Some(text.to_owned()))
    }
}

/// What a column holds, when that is no text.
fn unfit(column: &ColumnDescriptor) -> Option<String> {
    let text = [ConvertedType::NONE, ConvertedType::UTF8, ConvertedType::JSON, ConvertedType::ENUM];
    match column.physical_type() {
        _ if column.max_rep_level() > 0 => Some("lists".into()),
        PhysicalType::BYTE_ARRAY if text.contains(&column.converted_type()) => None,
        PhysicalType::BYTE_ARRAY => Some(column.converted_type().to_string()),
        other => Some(other.to_string()),
    }
}

/// A failure of the storage below comes first; it is what the decoder stumbled over.
fn damaged(input: &Input, chunks: &Chunks, error: &ParquetError) -> CorpusError {
    match chunks.failure() {
        Some(failure) => input.unreadable(failure),
        None => input.damaged(format!("not a whole Parquet file: {error}")),
    }
}
