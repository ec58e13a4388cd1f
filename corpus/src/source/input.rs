//! One named file, as bytes: opened, counted, and with the errors that its name belongs to.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
        match source.downcast::<StorageError>() {
            Ok(source) => CorpusError::Storage {
                setting: self.setting.clone(),
                url: self.path().display().to_string(),
                source,
            },
            Err(source) => unreadable(&self.setting, self.place.path(), source),
        }
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
