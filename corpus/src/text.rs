//! Files and folders to one text. Knows nothing of tokens.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::CorpusError;
use crate::folder::{self, Include};

/// The text of `paths`, in their order; a folder stands for the files below it that `include` chooses (see
/// [`DataConfig::include`](crate::DataConfig::include)), ordered by the bytes of their relative paths.
///
/// Files are joined as they are, except that a line end is put between a file that does not end with one and the
/// next that is not empty, so that no word and no line runs from one file into another. With `max_bytes` the
/// result is the longest prefix of at most that many bytes that ends at a character's boundary; what lies behind
/// it is not read, and not checked. `setting` is the key or option that named the paths, for messages.
///
/// # Errors
/// [`CorpusError::NothingNamed`], [`NotFound`](CorpusError::NotFound), [`NoMatch`](CorpusError::NoMatch),
/// [`BadGlob`](CorpusError::BadGlob), [`NotAFile`](CorpusError::NotAFile), [`Unreadable`](CorpusError::Unreadable),
/// [`NotUtf8`](CorpusError::NotUtf8) with file and line, [`EmptyText`](CorpusError::EmptyText), and
/// [`MaxBytesTooSmall`](CorpusError::MaxBytesTooSmall) when the limit ends before the first character.
pub fn read_text(
    setting: &str,
    paths: &[PathBuf],
    include: &[String],
    max_bytes: Option<u64>,
) -> Result<String, CorpusError> {
    let files = list_files(setting, paths, include)?;
    let mut text = String::new();
    let mut cut = false;
    for file in &files {
        let room = max_bytes.map_or(u64::MAX, |max| max - text.len() as u64);
        cut = append(setting, file, room, &mut text)?;
        if cut {
            break;
        }
    }
    match max_bytes {
        Some(max_bytes) if cut && text.is_empty() => Err(CorpusError::MaxBytesTooSmall { max_bytes }),
        _ if text.is_empty() => {
            Err(CorpusError::EmptyText { setting: setting.into(), paths: paths.to_vec() })
        }
        _ => Ok(text),
    }
}

fn list_files(setting: &str, paths: &[PathBuf], include: &[String]) -> Result<Vec<PathBuf>, CorpusError> {
    if paths.is_empty() {
        return Err(CorpusError::NothingNamed { setting: setting.into() });
    }
    let include = Include::new(include)?;
    let mut files = Vec::new();
    for path in paths {
        let metadata = fs::metadata(path).map_err(|source| unreadable(setting, path, source))?;
        if metadata.is_dir() {
            files.extend(folder::list(setting, path, &include)?);
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

/// Adds `file` to `text`, at most `room` bytes; whether that has cut it.
fn append(setting: &str, file: &Path, room: u64, text: &mut String) -> Result<bool, CorpusError> {
    let joint = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let Some(room) = room.checked_sub(joint.len() as u64) else { return Ok(true) };
    let mut bytes = Vec::new();
    // One byte more than there is room for tells a file that is cut from one that ends there.
    let limit = room.saturating_add(1);
    let read = File::open(file).and_then(|opened| opened.take(limit).read_to_end(&mut bytes));
    read.map_err(|source| unreadable(setting, file, source))?;
    if bytes.is_empty() {
        return Ok(false);
    }
    let cut = bytes.len() as u64 > room;
    if cut {
        bytes.pop();
    }
    text.push_str(joint);
    text.push_str(&decode(setting, file, bytes, cut)?);
    Ok(cut)
}

/// The bytes as text; when they were `cut`, without the beginning of a character at their end.
fn decode(setting: &str, file: &Path, bytes: Vec<u8>, cut: bool) -> Result<String, CorpusError> {
    String::from_utf8(bytes).or_else(|error| {
        let (utf8, mut bytes) = (error.utf8_error(), error.into_bytes());
        bytes.truncate(utf8.valid_up_to());
        if cut && utf8.error_len().is_none() {
            return Ok(String::from_utf8(bytes).expect("the part before the error is valid"));
        }
        let line = 1 + bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
        Err(CorpusError::NotUtf8 {
            setting: setting.into(),
            path: file.into(),
            line,
            offset: bytes.len() as u64,
        })
    })
}

fn unreadable(setting: &str, path: &Path, source: io::Error) -> CorpusError {
    let (setting, path) = (setting.into(), path.into());
    match source.kind() {
        io::ErrorKind::NotFound => CorpusError::NotFound { setting, path },
        _ => CorpusError::Unreadable { setting, path, source },
    }
}
