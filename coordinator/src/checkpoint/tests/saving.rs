//! The thread that writes checkpoints.

use super::*;
use crate::journal::{Entry, Journal};
use std::sync::mpsc;

/// A saver over a folder with a journal; what it has done comes through the channel.
fn saver(run: &RunFolder) -> (Saver, Journal, mpsc::Receiver<Saved>) {
    let mut journal = Journal::create(&run.journal()).unwrap();
    journal.append(&Entry::Term { term: 1 }).unwrap();
    let desk = Desk { folder: run.clone(), context: context().into(), journal: journal.syncer(), keep: 2 };
    let (done, saved) = mpsc::channel();
    (Saver::start(desk, move |saved| done.send(saved).unwrap()), journal, saved)
}

#[test]
fn each_checkpoint_that_is_begun_is_answered_once_and_the_old_ones_go() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::new(folder.path());
    let (mut saver, _journal, saved) = saver(&run);
    for step in [4, 8, 12] {
        saver.begin(snapshot(step)).unwrap();
        let answer = saved.recv().unwrap();
        assert_eq!(answer.step, step);
        let (path, digest) = answer.result.unwrap();
        assert_eq!(Checkpoint::open(&path).unwrap().digest(), digest);
    }
    drop(saver);
    assert!(saved.recv().is_err(), "no further answer");
    assert_eq!(run.by_ascending_step().unwrap().len(), 2);
}

#[test]
fn one_at_a_time_and_the_second_snapshot_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::new(folder.path());
    let (open_gate, gate) = mpsc::channel::<()>();
    let journal = Journal::create(&run.journal()).unwrap();
    let desk = Desk { folder: run, context: context().into(), journal: journal.syncer(), keep: 0 };
    let mut saver = Saver::start(desk, move |_| gate.recv().unwrap());
    // The flag is what begin looks at; it is set before begin returns, and cleared before the answer.
    saver.begin(snapshot(4)).unwrap();
    let refused = (0..1000).find_map(|_| saver.begin(snapshot(8)).err());
    assert_eq!(refused, Some(Box::new(snapshot(8))));
    [(); 2].iter().for_each(|()| open_gate.send(()).unwrap());
    drop(saver);
}

#[test]
fn a_failure_is_answered_and_the_next_checkpoint_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::new(folder.path());
    let (mut saver, _journal, saved) = saver(&run);
    fs::write(run.checkpoints(), "a file where a folder is needed").unwrap();
    saver.begin(snapshot(4)).unwrap();
    assert!(matches!(saved.recv().unwrap().result, Err(CheckpointError::Io { .. })));
    fs::remove_file(run.checkpoints()).unwrap();
    // Sections that do not fit the layout: our own bug, which must not leave anybody waiting.
    saver.begin(Snapshot { sections: vec![], ..snapshot(8) }).unwrap();
    assert!(matches!(saved.recv().unwrap().result, Err(CheckpointError::Panicked { step: 8, .. })));
    saver.begin(snapshot(12)).unwrap();
    saved.recv().unwrap().result.unwrap();
}

#[test]
fn dropping_waits_for_the_one_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::new(folder.path());
    let (mut saver, _journal, _saved) = saver(&run);
    saver.begin(snapshot(4)).unwrap();
    drop(saver);
    assert_eq!(run.latest().unwrap().checkpoint.state.step, 4);
}
