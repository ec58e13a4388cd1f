//! One named file, as bytes: opened, counted, and with the errors that its name belongs to.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::compression::Damage;
use super::listing::{Place, unreadable};
use super::{SourceOptions, Storage, StorageError};
use crate::CorpusError;

/// Bytes read so far of all the files of a source.
#[derive(Clone, Default)]
pub(super) struct Meter(Arc<AtomicU64>);

impl Meter {
    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts what no reader had to read.
    pub(super) fn reach(&self, bytes: u64) {
        self.0.fetch_max(bytes, Ordering::Relaxed);
    }
}

/// A file that is about to be read.
pub(super) struct Input {
    setting: String,
    place: Place,
    storage: Arc<dyn Storage>,
    meter: Meter,
}

impl Input {
    pub(super) fn new(setting: &str, place: Place, options: &SourceOptions, meter: &Meter) -> Self {
        Input { setting: setting.into(), place, storage: options.storage.clone(), meter: meter.clone() }
    }

    /// Its bytes as they are stored.
    pub(super) fn bytes(&self) -> Result<Box<dyn Read + Send>, CorpusError> {
        let inner: Box<dyn Read + Send> = match &self.place {
            Place::File(path, _) => Box::new(File::open(path).map_err(|source| self.unreadable(source))?),
            Place::Object(object) => {
                let opened = self.storage.open(object, 0..u64::MAX);
                opened.map_err(|source| self.unreadable(io::Error::other(source)))?
            }
        };
        Ok(Box::new(Counted { inner, meter: self.meter.clone() }))
    }

    /// What a failure to read it is to the owner of the text.
    pub(super) fn unreadable(&self, source: io::Error) -> CorpusError {
        let source = match source.downcast::<StorageError>() {
            Ok(source) => {
                let (setting, url) = (self.setting.clone(), self.path().display().to_string());
                return CorpusError::Storage { setting, url, source };
            }
            Err(source) => source,
        };
        match source.downcast::<Damage>() {
            Ok(Damage(problem)) => self.damaged(problem),
            Err(source) => unreadable(&self.setting, self.place.path(), source),
        }
    }

    /// A file that is not what it says it is.
    pub(super) fn damaged(&self, problem: String) -> CorpusError {
        CorpusError::Damaged { setting: self.setting.clone(), path: self.path(), problem }
    }

    /// A line of a file of records that cannot be used.
    pub(super) fn bad_line(&self, line: u64, problem: String) -> CorpusError {
        CorpusError::BadLine { setting: self.setting.clone(), path: self.path(), line, problem }
    }

    /// A file for which this build lacks the reader.
    #[cfg(not(feature = "parquet"))]
    pub(super) fn not_built(&self, what: &'static str, feature: &'static str) -> CorpusError {
        CorpusError::NotBuilt { setting: self.setting.clone(), path: self.path(), what, feature }
    }

    /// A column that is not there, or not of strings.
    #[cfg(feature = "parquet")]
    pub(super) fn bad_column(
        &self,
        column: &str,
        found: Option<String>,
        columns: Vec<String>,
    ) -> CorpusError {
        let (setting, path, column) = (self.setting.clone(), self.path(), column.to_owned());
        CorpusError::BadColumn { setting, path, column, found, columns }
    }

    /// A row that is not UTF-8 from its byte `offset` on.
    #[cfg(feature = "parquet")]
    pub(super) fn row_not_utf8(&self, row: u64, offset: usize) -> CorpusError {
        CorpusError::RowNotUtf8 { setting: self.setting.clone(), path: self.path(), row, offset }
    }

    #[cfg(feature = "parquet")]
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    #[cfg(feature = "parquet")]
    pub(super) fn storage(&self) -> Arc<dyn Storage> {
        self.storage.clone()
    }

    #[cfg(feature = "parquet")]
    pub(super) fn meter(&self) -> Meter {
        self.meter.clone()
    }

    /// A text that is not UTF-8 from `offset` on, which is in `line`.
    pub(super) fn not_utf8(&self, line: u64, offset: u64) -> CorpusError {
        CorpusError::NotUtf8 { setting: self.setting.clone(), path: self.path(), line, offset }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.place.path().to_owned()
    }
}

struct Counted {
    inner: Box<dyn Read + Send>,
    meter: Meter,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.meter.add(read as u64);
        Ok(read)
    }
}
