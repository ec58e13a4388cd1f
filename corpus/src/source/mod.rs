//! Text as a stream: what is named by a configuration, piece after piece, in a fixed order and in bounded memory. It
//! knows nothing of tokens, and nothing of the network: objects behind a URL come through [`Storage`].

#[cfg(feature = "parquet")]
mod chunks;
mod compression;
mod cut;
mod format;
mod input;
mod json_lines;
mod listing;
#[cfg(feature = "parquet")]
mod parquet;
#[cfg(not(feature = "parquet"))]
#[path = "no_parquet.rs"]
mod parquet;
mod plain;
mod rows;
mod storage;
mod zstd;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::vec::IntoIter;

pub use self::format::Format;
use self::input::{Input, Meter};
use self::listing::Place;
pub use self::listing::{FileStamp, is_url};
pub use self::storage::{LocalOnly, Object, Storage, StorageError};
use crate::CorpusError;

/// How named files become text.
#[derive(Clone)]
pub struct SourceOptions {
    /// Globs that choose files of a folder: see [`DataConfig::include`](crate::DataConfig::include).
    pub include: Vec<String>,
    /// At most this many bytes of text, ending at a character's boundary. What lies behind is neither read nor checked.
    pub max_bytes: Option<u64>,
    /// What a file holds.
    pub format: Format,
    /// The field of a JSON line, or the column of a Parquet file, that is the text.
    pub field: String,
    /// What opens a URL.
    pub storage: Arc<dyn Storage>,
}

impl Default for SourceOptions {
    /// Every file of a folder, no limit, formats by name, the field `text`, nothing behind a URL.
    fn default() -> Self {
        SourceOptions {
            include: Vec::new(),
            max_bytes: None,
            format: Format::ByName,
            field: "text".into(),
            storage: Arc::new(LocalOnly),
        }
    }
}

/// A part of the text that is never more than a few MiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The pieces of a source, joined, are the text. Cut behind a line end where there is one near, else before a
    /// space, else between two characters; where depends on the text alone. Empty only to say that a document ends.
    pub text: String,
    /// Whether a document ends with this piece. The last piece always ends one.
    pub ends_document: bool,
    /// Whether the line end at the end of `text` is not the document's own, but was put there so that no line runs from
    /// one document into the next.
    pub joined: bool,
    /// Bytes of the named files that were read so far, as they are stored. For a progress bar: it runs ahead of `text`.
    pub consumed: u64,
}

/// The text of some files, folders and objects, in bounded memory: an iterator of [`Piece`]s that ends after the first
/// error.
///
/// A plain file is one document; so are a JSON line and a row of a Parquet file. Documents are joined as they are,
/// except that a line end is put behind one that has none when another follows that is not empty. An empty document adds
/// nothing.
pub struct Source {
    setting: String,
    paths: Vec<PathBuf>,
    options: SourceOptions,
    places: IntoIter<Place>,
    total: Option<u64>,
    current: Option<Box<dyn Documents>>,
    meter: Meter,
    /// Bytes of the files up to the current one, that one included.
    before: u64,
    /// The end of a document without a line end: whether it needs one, the next document decides.
    held: Option<Piece>,
    ready: VecDeque<Piece>,
    /// Bytes of text that may still come; `u64::MAX` without a limit.
    left: u64,
    /// What the text so far amounts to.
    empty: bool,
    within_document: bool,
    cut: bool,
    finished: bool,
}

/// The documents of one file.
trait Documents: Send {
    /// The next part of a document; none at the end of the file.
    fn next_part(&mut self) -> Result<Option<Part>, CorpusError>;
}

/// A document, or a part of it.
struct Part {
    text: String,
    ends_document: bool,
    /// Whether the file goes on behind what was allowed to be read of it.
    cut: bool,
}

impl Source {
    /// Finds everything that `paths` names, in their order; a folder stands for the files below it that
    /// `options.include` chooses, ordered by the bytes of their relative paths. Opens none of it yet. `setting` is the
    /// key or option that named the paths, for messages.
    ///
    /// # Errors
    /// [`CorpusError::NothingNamed`], [`NotFound`](CorpusError::NotFound), [`NoMatch`](CorpusError::NoMatch),
    /// [`BadGlob`](CorpusError::BadGlob), [`NotAFile`](CorpusError::NotAFile),
    /// [`Unreadable`](CorpusError::Unreadable) and [`Storage`](CorpusError::Storage).
    pub fn open(setting: &str, paths: &[PathBuf], options: &SourceOptions) -> Result<Source, CorpusError> {
        let places = listing::places(setting, paths, options)?;
        let total =
            places.iter().map(Place::bytes).try_fold(0u64, |sum, bytes| Some(sum.saturating_add(bytes?)));
        Ok(Source {
            setting: setting.into(),
            paths: paths.to_vec(),
            options: options.clone(),
            places: places.into_iter(),
            total,
            current: None,
            meter: Meter::default(),
            before: 0,
            held: None,
            ready: VecDeque::new(),
            left: options.max_bytes.unwrap_or(u64::MAX),
            empty: true,
            within_document: false,
            cut: false,
            finished: false,
        })
    }

    /// Bytes of everything that was named, as it is stored; none when a server does not tell.
    pub fn total_bytes(&self) -> Option<u64> {
        self.total
    }

    /// Everything that was named, in its order, as it is now.
    pub fn files(&self) -> Vec<FileStamp> {
        self.places.as_slice().iter().map(Place::stamp).collect()
    }

    /// Reads until a piece is certain, or everything is read.
    fn advance(&mut self) -> Result<Option<Piece>, CorpusError> {
        while self.ready.is_empty() && !self.finished {
            let joint = u64::from(self.held.is_some());
            match self.left.checked_sub(joint) {
                Some(room) => self.read(room)?,
                None => self.end(true),
            }
        }
        match self.ready.pop_front() {
            Some(piece) => Ok(Some(piece)),
            None => self.check_emptiness().map(|()| None),
        }
    }

    /// Takes the next part, of which at most `room` bytes may come.
    fn read(&mut self, room: u64) -> Result<(), CorpusError> {
        let Some(documents) = &mut self.current else {
            match self.places.next() {
                Some(place) => {
                    self.before = self.before.saturating_add(place.bytes().unwrap_or(0));
                    self.current = Some(self.documents(place, room)?);
                }
                None => self.end(false),
            }
            return Ok(());
        };
        match documents.next_part()? {
            Some(part) => self.take(part, room),
            None => {
                self.current = None;
                self.meter.reach(self.before);
            }
        }
        Ok(())
    }

    fn documents(&self, place: Place, room: u64) -> Result<Box<dyn Documents>, CorpusError> {
        let input = Input::new(&self.setting, place, &self.options, &self.meter);
        format::documents(input, &self.options, room)
    }

    fn take(&mut self, mut part: Part, room: u64) {
        if part.text.len() as u64 > room {
            part.text.truncate(part.text.floor_char_boundary(room as usize));
            part.cut = true;
        }
        if let Some(mut before) = self.held.take_if(|_| !part.text.is_empty() || part.cut) {
            before.text.push('\n');
            before.joined = true;
            self.left -= 1;
            self.ready.push_back(before);
        }
        self.left -= part.text.len() as u64;
        let ends_document = part.ends_document || part.cut;
        if !part.text.is_empty() || (ends_document && self.within_document) {
            self.empty &= part.text.is_empty();
            self.within_document = !ends_document;
            let lacks_line_end = !part.text.is_empty() && !part.text.ends_with('\n');
            let piece = Piece { text: part.text, ends_document, joined: false, consumed: self.consumed() };
            match ends_document && lacks_line_end {
                true => self.held = Some(piece),
                false => self.ready.push_back(piece),
            }
        }
        if part.cut {
            self.end(true);
        }
    }

    /// Bytes of the files that were read, at most their length: what a Parquet reader reads twice counts once.
    fn consumed(&self) -> u64 {
        self.meter.bytes().min(self.total.map_or(u64::MAX, |_| self.before))
    }

    /// No more is read.
    fn end(&mut self, cut: bool) {
        self.current = None;
        self.cut = cut;
        self.finished = true;
        self.ready.extend(self.held.take());
    }

    /// A text without one character is an error, once.
    fn check_emptiness(&mut self) -> Result<(), CorpusError> {
        if !std::mem::replace(&mut self.empty, false) {
            return Ok(());
        }
        match self.options.max_bytes {
            Some(max_bytes) if self.cut => Err(CorpusError::MaxBytesTooSmall { max_bytes }),
            _ => Err(CorpusError::EmptyText { setting: self.setting.clone(), paths: self.paths.clone() }),
        }
    }
}

impl Iterator for Source {
    type Item = Result<Piece, CorpusError>;

    fn next(&mut self) -> Option<Self::Item> {
        let piece = self.advance();
        if piece.is_err() {
            (self.finished, self.empty) = (true, false);
            self.ready.clear();
        }
        piece.transpose()
    }
}
