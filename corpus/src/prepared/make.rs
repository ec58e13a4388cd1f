//! Making a folder of token files: beside the place where it will be, every file on the disk, then renamed. Whatever
//! ends this on the way leaves nothing under the folder's name, and what it leaves beside is cleared by the next one.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use blake3::Hash;

use super::fit::stamps;
use super::manifest::{self, Manifest, TextRecord, selection_keys, token_keys};
use super::{Prepared, PreparedError, SplitFigures, TOKENIZER_FILE};
use crate::batches::Fingerprint;
use crate::token_file::{FORMAT, TokenFileWriter};
use crate::tokenize::{Encoded, Output, Texts, Tokenized};
use crate::{CorpusError, DataConfig, Documents, FileStamp, Split, TokenFileInfo, Tokenizer, Watch};

/// A folder that was made.
#[derive(Debug)]
pub struct Made {
    /// What is there now.
    pub prepared: Prepared,
    /// What makes its tokens.
    pub tokenizer: Tokenizer,
}

impl Prepared {
    /// Makes `folder` from the texts of `config`, in place of a prepared folder that may be there. Works on the
    /// threads of the rayon pool it is called in; the files are the same for any number of them.
    ///
    /// # Errors
    /// Those of [`Source`](crate::Source) and of the tokenizer; [`PreparedError::Manifest`] when something else is in
    /// the folder's place; [`PreparedError::Busy`]; [`PreparedError::Io`] and [`CorpusError::TokenFile`] when the disk
    /// refuses.
    pub fn make(folder: &Path, config: &DataConfig, watch: Watch<'_>) -> Result<Made, CorpusError> {
        let before = Self::find(folder)?;
        let files = stamps(config)?;
        let aside = Aside::create(folder)?;
        let mut written = Written::new(aside.path.clone(), config);
        let tokenized = Texts::new(config, false, watch)?.tokenize(&mut written)?;
        if files != stamps(config)? {
            return Err(CorpusError::TextChanged { setting: "data".into() });
        }
        let splits = written.finish(&tokenized)?;
        let manifest = manifest(config, &tokenized, splits, files);
        let json = serde_json::to_vec_pretty(&manifest).expect("text and numbers can be written as JSON");
        write_durably(&aside.path.join(manifest::FILE), &json)?;
        aside.put_in_place(folder, before.is_some())?;
        let prepared = Prepared { folder: folder.into(), manifest };
        Ok(Made { prepared, tokenizer: tokenized.tokenizer })
    }
}

fn manifest(
    config: &DataConfig,
    made: &Tokenized,
    splits: Vec<SplitFigures>,
    mut files: BTreeMap<&'static str, Vec<FileStamp>>,
) -> Manifest {
    let mut text = |(split, text): &(Split, Fingerprint)| {
        let record = TextRecord::new(text, files.remove(split.name()).unwrap_or_default());
        (split.name().to_owned(), record)
    };
    Manifest {
        format: FORMAT.into(),
        program_version: env!("CARGO_PKG_VERSION").into(),
        tokens: token_keys(config),
        selection: selection_keys(config),
        texts: made.texts.iter().map(&mut text).collect(),
        tokenizer_blake3: Hash::from_bytes(made.tokenizer.identity()).to_string(),
        vocabulary: made.tokenizer.vocabulary() as u64,
        forgotten_to: made.forgotten_to,
        splits: splits.into_iter().map(|split| (split.split.clone(), split)).collect(),
    }
}

/// Token files that are being written.
struct Written {
    folder: PathBuf,
    apart: bool,
    vocabulary: usize,
    /// By split: training, validation, test.
    files: [Option<(TokenFileWriter, Sums)>; 3],
}

#[derive(Default)]
struct Sums {
    bytes: u64,
    unknown: u64,
    ends: u64,
}

impl Written {
    fn new(folder: PathBuf, config: &DataConfig) -> Self {
        let apart = config.documents == Documents::Apart;
        Written { folder, apart, vocabulary: 0, files: [const { None }; 3] }
    }

    /// Completes every file.
    fn finish(self, made: &Tokenized) -> Result<Vec<SplitFigures>, CorpusError> {
        let tokenizer = Hash::from_bytes(made.tokenizer.identity());
        let mut figures = Vec::new();
        for (split, file) in [Split::Train, Split::Valid, Split::Test].into_iter().zip(self.files) {
            let Some((writer, sums)) = file else { continue };
            // A validation text that was cut off is a part of the training text.
            let of_split = made.texts.iter().find(|(of, _)| *of == split);
            let (_, text) = of_split.unwrap_or(&made.texts[0]);
            let documents = if self.apart { sums.ends } else { text.documents };
            let (name, vocabulary) = (split.name().to_owned(), self.vocabulary);
            let info = TokenFileInfo { split: name, tokenizer, vocabulary, text: text.text, documents };
            figures.push(SplitFigures {
                split: split.name().into(),
                file: split.file_name(),
                tokens: writer.tokens(),
                bytes: sums.bytes,
                documents,
                unknown: sums.unknown,
            });
            writer.finish(&info)?;
        }
        Ok(figures)
    }
}

impl Output for Written {
    fn begin(&mut self, tokenizer: &Tokenizer) -> Result<(), CorpusError> {
        self.vocabulary = tokenizer.vocabulary();
        Ok(write_durably(&self.folder.join(TOKENIZER_FILE), tokenizer.to_json().as_bytes())?)
    }

    fn take(&mut self, split: Split, encoded: &Encoded) -> Result<(), CorpusError> {
        let file = &mut self.files[split as usize];
        if file.is_none() {
            let path = self.folder.join(split.file_name());
            *file = Some((TokenFileWriter::create(&path, self.vocabulary, self.apart)?, Sums::default()));
        }
        let (writer, sums) = file.as_mut().expect("it was just made");
        sums.bytes += encoded.bytes;
        sums.unknown += encoded.unknown;
        sums.ends += encoded.ends.len() as u64;
        Ok(writer.add(&encoded.tokens, &encoded.ends)?)
    }
}

/// The folder beside the one that is to be, which this process holds locked; removed when it is not put in place.
struct Aside {
    path: PathBuf,
    /// The open folder: its lock ends with it, however the process ends.
    lock: File,
    in_place: bool,
}

impl Aside {
    /// Makes it, and clears what an interrupted process may have left there.
    fn create(folder: &Path) -> Result<Self, PreparedError> {
        let path = beside(folder, "partial");
        let lock = || {
            fs::create_dir_all(&path)?;
            File::open(&path)
        };
        let lock = lock().map_err(io_at(&path))?;
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(PreparedError::Busy { folder: folder.into() }),
            Err(TryLockError::Error(source)) => return Err(io_at(&path)(source)),
            Ok(()) => {}
        }
        let aside = Aside { path, lock, in_place: false };
        for entry in fs::read_dir(&aside.path).map_err(io_at(&aside.path))? {
            let left = entry.map_err(io_at(&aside.path))?.path();
            fs::remove_file(&left).map_err(io_at(&left))?;
        }
        Ok(aside)
    }

    /// Everything in it is on the disk: gives it the folder's name. `replace`: a prepared folder is there, and goes.
    fn put_in_place(mut self, folder: &Path, replace: bool) -> Result<(), PreparedError> {
        self.lock.sync_all().map_err(io_at(&self.path))?;
        let old = beside(folder, "old");
        if replace {
            remove_folder(&old)?;
            fs::rename(folder, &old).map_err(io_at(folder))?;
        }
        fs::rename(&self.path, folder).map_err(io_at(folder))?;
        self.in_place = true;
        let parent =
            folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(io_at(parent))?;
        remove_folder(&old)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.in_place {
            // What may be left has not the folder's name: nobody takes it for whole, and the next one clears it.
            fs::remove_dir_all(&self.path).ok();
        }
    }
}

/// `NAME.partial` beside `NAME`.
fn beside(folder: &Path, what: &str) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(what);
    folder.with_file_name(name)
}

fn remove_folder(path: &Path) -> Result<(), PreparedError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_at(path)(error)),
        _ => Ok(()),
    }
}

fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), PreparedError> {
    let write = || {
        let mut file = File::create_new(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(io_at(path))
}

fn io_at(path: &Path) -> impl Fn(io::Error) -> PreparedError + '_ {
    move |source| PreparedError::Io { path: path.into(), source }
}
