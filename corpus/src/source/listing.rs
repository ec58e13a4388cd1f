//! From what a configuration names to files and objects, in the order in which they are read. Opens none of them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Object, SourceOptions, StorageError};
use crate::CorpusError;
use crate::folder::{self, Include};

/// A file that will be read.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// A file of this machine, and its length.
    File(PathBuf, u64),
    /// One that [`Storage`](super::Storage) opens.
    Object(Object),
}

impl Place {
    /// Its length, as it is stored.
    pub(super) fn bytes(&self) -> Option<u64> {
        match self {
            Place::File(_, bytes) => Some(*bytes),
            Place::Object(object) => object.bytes,
        }
    }

    /// What tells whether it is still the same.
    pub(super) fn stamp(&self) -> FileStamp {
        let modified = |path| {
            let modified = fs::metadata(path).and_then(|metadata| metadata.modified()).ok()?;
            let since = modified.duration_since(std::time::UNIX_EPOCH).ok()?;
            Some(format!("{}.{:09}", since.as_secs(), since.subsec_nanos()))
        };
        let version = match self {
            Place::File(path, _) => modified(path),
            Place::Object(object) => object.version.clone(),
        };
        FileStamp { path: self.path().display().to_string(), bytes: self.bytes(), version }
    }

    /// How it is called, in messages.
    pub(super) fn path(&self) -> &Path {
        match self {
            Place::File(path, _) => path,
            Place::Object(object) => Path::new(&object.url),
        }
    }
}

/// A file or object, and what changes when it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStamp {
    /// The path or the URL.
    pub path: String,
    /// Its length, as it is stored.
    pub bytes: Option<u64>,
    /// When a file was last written, or an object's entity tag; none when a server does not tell.
    pub version: Option<String>,
}

/// Everything that `paths` names.
pub(super) fn places(
    setting: &str,
    paths: &[PathBuf],
    options: &SourceOptions,
) -> Result<Vec<Place>, CorpusError> {
    if paths.is_empty() {
        return Err(CorpusError::NothingNamed { setting: setting.into() });
    }
    let listing = Listing { setting, options, include: Include::new(&options.include)? };
    let mut places = Vec::new();
    for path in paths {
        match path.to_str().filter(|text| is_url(text)) {
            Some(url) => places.extend(listing.objects(url)?),
            None => places.extend(listing.files(path)?),
        }
    }
    Ok(places)
}

/// Whether a path of a configuration is a URL: `scheme://`.
pub fn is_url(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| {
        !scheme.is_empty()
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    })
}

struct Listing<'a> {
    setting: &'a str,
    options: &'a SourceOptions,
    include: Include,
}

impl Listing<'_> {
    fn files(&self, path: &Path) -> Result<Vec<Place>, CorpusError> {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => self.sized(folder::list(self.setting, path, &self.include)?),
            Ok(metadata) => Ok(vec![Place::File(path.into(), metadata.len())]),
            Err(source) if source.kind() == io::ErrorKind::NotFound => self.glob(path, source),
            Err(source) => Err(unreadable(self.setting, path, source)),
        }
    }

    /// A path that does not exist, and may be a pattern.
    fn glob(&self, path: &Path, source: io::Error) -> Result<Vec<Place>, CorpusError> {
        let Some((folder, pattern)) = path.to_str().and_then(split_pattern) else {
            return Err(unreadable(self.setting, path, source));
        };
        let include = Include::whole_path(pattern)?;
        self.sized(folder::list(self.setting, Path::new(folder), &include)?)
    }

    fn sized(&self, files: Vec<PathBuf>) -> Result<Vec<Place>, CorpusError> {
        let sized = |path: PathBuf| match fs::metadata(&path) {
            Ok(metadata) => Ok(Place::File(path, metadata.len())),
            Err(source) => Err(unreadable(self.setting, &path, source)),
        };
        files.into_iter().map(sized).collect()
    }

    /// An object, or everything below a folder of objects.
    fn objects(&self, url: &str) -> Result<Vec<Place>, CorpusError> {
        if let Some((folder, pattern)) = split_pattern(url) {
            return self.below(folder, &Include::whole_path(pattern)?);
        }
        if url.ends_with('/') {
            return self.below(url, &self.include);
        }
        match self.options.storage.find(url).map_err(|source| self.storage(url, source))? {
            Some(object) => Ok(vec![Place::Object(object)]),
            None => self.prefix(url),
        }
    }

    /// A URL that is no object may be a folder that was named without its slash.
    fn prefix(&self, url: &str) -> Result<Vec<Place>, CorpusError> {
        let not_found = || CorpusError::NotFound { setting: self.setting.into(), path: url.into() };
        if url.starts_with("http") {
            return Err(not_found());
        }
        let folder = format!("{url}/");
        let found = self.options.storage.list(&folder).map_err(|source| self.storage(url, source))?;
        if found.is_empty() { Err(not_found()) } else { self.chosen(&folder, found, &self.include) }
    }

    fn below(&self, folder: &str, include: &Include) -> Result<Vec<Place>, CorpusError> {
        let found = self.options.storage.list(folder).map_err(|source| self.storage(folder, source))?;
        self.chosen(folder, found, include)
    }

    /// Those of `found` that `include` matches, ordered by the bytes of their keys.
    fn chosen(
        &self,
        folder: &str,
        mut found: Vec<Object>,
        include: &Include,
    ) -> Result<Vec<Place>, CorpusError> {
        found.retain(|object| {
            let relative = object.url.strip_prefix(folder).unwrap_or(&object.url);
            !relative.is_empty() && !relative.ends_with('/') && include.matches(Path::new(relative))
        });
        found.sort_by(|a, b| a.url.cmp(&b.url));
        if found.is_empty() {
            return Err(include.no_match(self.setting, Path::new(folder)));
        }
        Ok(found.into_iter().map(Place::Object).collect())
    }

    fn storage(&self, url: &str, source: StorageError) -> CorpusError {
        CorpusError::Storage { setting: self.setting.into(), url: url.into(), source }
    }
}

/// Cuts behind the last `/` before the first mark of a glob; none without a mark.
fn split_pattern(path: &str) -> Option<(&str, &str)> {
    let mark = path.find(['*', '?', '[', '{'])?;
    Some(path.split_at(path[..mark].rfind('/').map_or(0, |slash| slash + 1)))
}

pub(super) fn unreadable(setting: &str, path: &Path, source: io::Error) -> CorpusError {
    let (setting, path) = (setting.into(), path.into());
    match source.kind() {
        io::ErrorKind::NotFound => CorpusError::NotFound { setting, path },
        _ => CorpusError::Unreadable { setting, path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_known_by_its_scheme() {
        assert!(is_url("s3://bucket/key") && is_url("https://host/x") && is_url("x+y.z-1://"));
        assert!(
            !is_url("/a/b") && !is_url("a:b") && !is_url("://x") && !is_url("./s3 x://y") && !is_url("C:/x")
        );
    }

    #[test]
    fn a_pattern_begins_behind_the_last_slash_before_its_first_mark() {
        assert_eq!(split_pattern("s3://b/x/y*/z.txt"), Some(("s3://b/x/", "y*/z.txt")));
        assert_eq!(split_pattern("*.txt"), Some(("", "*.txt")));
        assert_eq!(split_pattern("/a/b/"), None);
    }
}
