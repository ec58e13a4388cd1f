//! Which files of a folder are read, and in which order. Opens none of them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::CorpusError;

/// The globs of `data.include`, ready to match.
pub(crate) struct Include {
    globs: Option<GlobSet>,
    patterns: Vec<String>,
}

impl Include {
    /// Compiles `patterns`; with none, every file matches.
    pub(crate) fn new(patterns: &[String]) -> Result<Self, CorpusError> {
        let anchored = |pattern: &String| match pattern.contains('/') {
            true => pattern.clone(),
            false => format!("**/{pattern}"),
        };
        Self::compile(patterns, patterns.iter().map(anchored).collect())
    }

    /// The one glob that a path ends with: it is matched against the whole rest of a path.
    pub(crate) fn whole_path(pattern: &str) -> Result<Self, CorpusError> {
        Self::compile(&[pattern.to_owned()], vec![pattern.to_owned()])
    }

    fn compile(patterns: &[String], anchored: Vec<String>) -> Result<Self, CorpusError> {
        let bad = |pattern: &str, source| CorpusError::BadGlob { pattern: pattern.into(), source };
        let mut builder = GlobSetBuilder::new();
        for (pattern, anchored) in patterns.iter().zip(&anchored) {
            let glob = GlobBuilder::new(anchored).literal_separator(true).build();
            builder.add(glob.map_err(|source| bad(pattern, source))?);
        }
        let globs = builder.build().map_err(|source| bad(&patterns.join(" "), source))?;
        Ok(Include { globs: (!patterns.is_empty()).then_some(globs), patterns: patterns.to_vec() })
    }

    pub(crate) fn matches(&self, relative: &Path) -> bool {
        self.globs.as_ref().is_none_or(|globs| globs.is_match(relative))
    }

    /// The error of a folder in which nothing matches.
    pub(crate) fn no_match(&self, setting: &str, folder: &Path) -> CorpusError {
        let (setting, path) = (setting.into(), folder.into());
        CorpusError::NoMatch { setting, path, include: self.patterns.clone() }
    }
}

/// The files below `folder` that `include` chooses, ordered by the bytes of their paths.
///
/// Symbolic links are followed, except a link to a folder that contains it: its files are listed already.
///
/// # Errors
/// [`CorpusError::NoMatch`] when there is no such file; [`CorpusError::Unreadable`] for a folder that cannot be
/// listed and for a matching link to nothing; [`CorpusError::NotAFile`] for a matching pipe, socket or device.
pub(crate) fn list(setting: &str, folder: &Path, include: &Include) -> Result<Vec<PathBuf>, CorpusError> {
    let mut walk = Walk { setting, include, open: Vec::new(), found: Vec::new() };
    walk.visit(folder, Path::new(""))?;
    if walk.found.is_empty() {
        return Err(include.no_match(setting, folder));
    }
    walk.found.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    Ok(walk.found.iter().map(|relative| folder.join(relative)).collect())
}

struct Walk<'a> {
    setting: &'a str,
    include: &'a Include,
    /// Canonical paths of the folders between the root and the one being listed.
    open: Vec<PathBuf>,
    /// Relative to the root.
    found: Vec<PathBuf>,
}

impl Walk<'_> {
    fn visit(&mut self, folder: &Path, relative: &Path) -> Result<(), CorpusError> {
        let canonical = folder.canonicalize().map_err(|source| self.unreadable(folder, source))?;
        if self.open.contains(&canonical) {
            return Ok(());
        }
        self.open.push(canonical);
        for entry in fs::read_dir(folder).map_err(|source| self.unreadable(folder, source))? {
            let entry = entry.map_err(|source| self.unreadable(folder, source))?;
            self.entry(&entry.path(), &relative.join(entry.file_name()))?;
        }
        self.open.pop();
        Ok(())
    }

    fn entry(&mut self, path: &Path, relative: &Path) -> Result<(), CorpusError> {
        let wanted = self.include.matches(relative);
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => self.visit(path, relative)?,
            _ if !wanted => {}
            Ok(metadata) if metadata.is_file() => self.found.push(relative.into()),
            Ok(_) => return Err(CorpusError::NotAFile { setting: self.setting.into(), path: path.into() }),
            Err(source) => return Err(self.unreadable(path, source)),
        }
        Ok(())
    }

    fn unreadable(&self, path: &Path, source: io::Error) -> CorpusError {
        CorpusError::Unreadable { setting: self.setting.into(), path: path.into(), source }
    }
}
