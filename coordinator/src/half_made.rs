//! A run's folder whose making was cut short. The configuration is written last: without it there is no run yet, and what is
//! there is made anew by whoever starts the run again. Nothing is ever taken for half made that holds anything else.

use std::fs::{self, File};
use std::path::Path;

use crate::checkpoint::RunFolder;
use crate::journal::Journal;
use crate::run::RunError;

/// What the making of a folder leaves before the configuration is there.
const PARTS: [&str; 6] = ["checkpoints", "tokenizer.json", "tokenizer.new", "id", "id.new", "config.new"];

impl RunFolder {
    /// Whether there is a run in the folder.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        self.config().is_file()
    }

    /// Whether the folder is empty, or holds only what a start leaves that was cut short.
    #[must_use]
    pub fn is_half_made(&self) -> bool {
        let Ok(entries) = fs::read_dir(self.path()) else { return false };
        let known = |name: &std::ffi::OsStr| PARTS.iter().any(|part| name == *part);
        !self.is_begun()
            && entries.into_iter().all(|entry| entry.is_ok_and(|entry| known(&entry.file_name())))
    }

    /// Takes a half made folder over and empties it; it stays itself, as it may be where a volume is mounted. The lock
    /// ends with what is returned: of two that start at once one is refused.
    ///
    /// # Errors
    /// When it is no half made folder, or another process makes it at this moment.
    pub(crate) fn take_over(&self) -> Result<File, RunError> {
        let io = |source| RunError::Io { path: self.path().into(), source };
        let exists = || RunError::Exists { path: self.path().into() };
        let lock = self.lock()?;
        if !self.is_half_made() {
            return Err(exists());
        }
        for entry in fs::read_dir(self.path()).map_err(io)? {
            let entry = entry.map_err(io)?;
            let is_folder = entry.file_type().map_err(io)?.is_dir();
            let path = entry.path();
            if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) }.map_err(io)?;
        }
        Ok(lock)
    }

    /// Keeps others from taking the folder over while it is made.
    pub(crate) fn lock(&self) -> Result<File, RunError> {
        let file =
            File::open(self.path()).map_err(|source| RunError::Io { path: self.path().into(), source })?;
        file.try_lock().map_err(|_| RunError::Exists { path: self.path().into() })?;
        Ok(file)
    }

    /// Makes the journal of a run whose process was killed right after its configuration was there.
    pub(crate) fn finish_making(&self) -> Result<(), RunError> {
        let journal = self.journal();
        let is_made = fs::metadata(&journal).is_ok_and(|found| found.len() >= Journal::EMPTY_BYTES);
        if is_made || self.is_past_the_start() {
            return Ok(());
        }
        Ok(Journal::finish(&journal)?)
    }

    /// Whether there is a checkpoint of any step but 0. Its journal is never made anew.
    fn is_past_the_start(&self) -> bool {
        let first = |path: &Path| path.file_name().is_some_and(|name| name == "step-00000000");
        let is_step =
            |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("step-"));
        let entries = fs::read_dir(self.checkpoints()).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).any(|path| is_step(&path) && !first(&path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> (tempfile::TempDir, RunFolder) {
        let place = tempfile::tempdir().unwrap();
        names.iter().for_each(|name| fs::write(place.path().join(name), "x").unwrap());
        let run = RunFolder::new(place.path());
        (place, run)
    }

    #[test]
    fn only_what_a_start_leaves_is_half_made() {
        assert!(folder(&[]).1.is_half_made());
        assert!(folder(&PARTS).1.is_half_made());
        assert!(!folder(&["id", "config.toml"]).1.is_half_made(), "a run is there");
        assert!(!folder(&["id", "thesis.tex"]).1.is_half_made(), "somebody's work is there");
        assert!(!RunFolder::new("/nowhere/at/all").is_half_made());
    }

    #[test]
    fn what_is_half_made_is_emptied_and_only_one_takes_it_over() {
        let (place, run) = folder(&["id", "tokenizer.new"]);
        fs::create_dir(place.path().join("checkpoints")).unwrap();
        let held = run.take_over().unwrap();
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
        assert!(matches!(run.take_over(), Err(RunError::Exists { .. })), "it is being made");
        drop(held);
        fs::write(place.path().join("thesis.tex"), "x").unwrap();
        assert!(matches!(run.take_over(), Err(RunError::Exists { .. })));
        assert!(place.path().join("thesis.tex").exists());
    }

    #[test]
    fn a_journal_is_finished_only_at_the_start_of_a_run() {
        let (place, run) = folder(&["config.toml"]);
        fs::create_dir(run.checkpoints()).unwrap();
        for torn in [None, Some(&b"CA"[..])] {
            torn.into_iter().for_each(|bytes| fs::write(run.journal(), bytes).unwrap());
            run.finish_making().unwrap();
            assert_eq!(Journal::read(&run.journal()).unwrap().entries, []);
        }
        fs::remove_file(run.journal()).unwrap();
        fs::create_dir(place.path().join("checkpoints/step-00000020")).unwrap();
        run.finish_making().unwrap();
        assert!(!run.journal().exists(), "a journal that was lost later is not made up");
    }
}
