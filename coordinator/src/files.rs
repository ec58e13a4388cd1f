//! The files that only one coordinator at a time may have open: the journal, which has the lock, and the committed state.
//! What follows from what they hold is decided elsewhere.

use crate::checkpoint::RunFolder;
use crate::committed::{Committed, CommittedFile};
use crate::journal::{Contents, Journal};
use crate::run::RunError;

/// Open files of a run, and what they held.
#[derive(Debug)]
pub(crate) struct Files {
    pub journal: Journal,
    pub contents: Contents,
    pub committed: CommittedFile,
    /// The committed state that was saved last.
    pub saved: Option<Committed<'static>>,
}

impl Files {
    /// Those of a new run.
    ///
    /// # Errors
    /// When one cannot be made, or a journal is there already.
    pub(crate) fn create(folder: &RunFolder, carry_floats: usize) -> Result<Self, RunError> {
        let journal = Journal::create(&folder.journal())?;
        let committed = CommittedFile::create(&folder.committed(), carry_floats)?;
        Ok(Self { journal, contents: Contents::default(), committed, saved: None })
    }

    /// Those of a run that is gone on with. A committed state that cannot be used is told, and made anew without content.
    ///
    /// # Errors
    /// When another coordinator works on the run, or a file cannot be read or written.
    pub(crate) fn open(folder: &RunFolder, carry_floats: usize) -> Result<Self, RunError> {
        let (journal, contents) = Journal::open(&folder.journal())?;
        if contents.damaged_bytes > 0 {
            let (path, bytes) = (folder.journal(), contents.damaged_bytes);
            tracing::warn!("{}: passed over a damaged tail of {bytes} bytes", path.display());
        }
        let (committed, saved) = match CommittedFile::open(&folder.committed(), carry_floats) {
            Ok(opened) => opened,
            Err(error) => {
                tracing::warn!("{error}; made anew");
                (CommittedFile::create(&folder.committed(), carry_floats)?, None)
            }
        };
        Ok(Self { journal, contents, committed, saved })
    }

    /// The highest term that was ever handed out; 0 in a new run.
    pub(crate) fn highest_term(&self) -> u64 {
        self.saved.as_ref().map_or(0, |saved| saved.term).max(self.contents.term())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Entry;
    use crate::schedule::ScheduleState;

    fn committed(term: u64) -> Committed<'static> {
        Committed {
            term,
            step: 0,
            record: None,
            schedule: ScheduleState::new(),
            validation: None,
            step_ms: vec![20, 30],
            carries: vec![1.0; 3].into(),
        }
    }

    #[test]
    fn what_was_kept_comes_back_and_the_highest_term_of_both_counts() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::new(folder.path());
        for (journalled, saved, highest) in [(3, 2, 3), (4, 9, 9)] {
            let mut files =
                if journalled == 3 { Files::create(&run, 3) } else { Files::open(&run, 3) }.unwrap();
            files.journal.append(&Entry::Term { term: journalled }).unwrap();
            files.committed.save(&committed(saved)).unwrap();
            drop(files);
            let files = Files::open(&run, 3).unwrap();
            assert_eq!(files.saved, Some(committed(saved)));
            assert_eq!(files.highest_term(), highest);
        }
    }

    #[test]
    fn a_committed_state_that_is_gone_is_made_anew_and_the_lock_still_holds() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::new(folder.path());
        drop(Files::create(&run, 3).unwrap());
        std::fs::write(run.committed(), b"{}").unwrap();
        let files = Files::open(&run, 3).unwrap();
        assert_eq!((files.saved.as_ref(), files.highest_term()), (None, 0));
        assert_eq!(std::fs::metadata(run.committed()).unwrap().len(), 2 * 2 * 4096);
        let error = Files::open(&run, 3).unwrap_err().to_string();
        assert!(error.ends_with("another coordinator works on this run"), "{error}");
    }
}
