//! Folders that are as they should be, and each way in which one may not be.

use super::*;
use crate::checkpoint::{Context, Snapshot};
use crate::journal::{Entry, Record};
use crate::plan::{Epochs, Length, RunPlan};
use crate::replica::{ReplicaLayout, TensorShape};
use crate::schedule::ScheduleState;
use std::fs;
use std::sync::Arc;

fn record(step: u64) -> Record {
    Record { term: 2, step, tokens: 6, loss_sum: 1.0, grad_norm: 1.0, clip_scale: 1.0, learning_rate: 0.1 }
}

fn carries(step: u64) -> Vec<f32> {
    vec![step as f32; 3]
}

fn context() -> Context {
    let shape = |name: &str, shape: &[usize]| TensorShape { name: name.into(), shape: shape.into() };
    let plan = RunPlan {
        lanes: 1,
        epochs: Epochs::Even { updates: 4 },
        length: Length::Epochs(2),
        evaluate_every: None,
        checkpoint_every: None,
        digest_every: None,
        has_valid: true,
        has_test: false,
    };
    let layout = ReplicaLayout {
        parameters: vec![shape("w", &[2])],
        carry: vec![shape("h", &[1, 1])],
        ..ReplicaLayout::default()
    };
    Context { layout, plan, data_digest: Digest::of_bytes(b"data"), tokens_per_epoch: 24 }
}

fn checkpoint(run: &RunFolder, step: u64, valid_loss: Option<f64>) {
    let snapshot = Snapshot {
        step,
        schedule: ScheduleState::new(),
        sections: vec![Arc::new(vec![step as f32; 2])],
        carries: carries(step),
        valid_loss,
    };
    run.write(&snapshot, &context()).unwrap();
}

fn committed(step: u64) -> Committed<'static> {
    Committed {
        term: 2,
        step,
        record: Some(record(step)),
        schedule: ScheduleState::new(),
        validation: None,
        step_ms: vec![],
        carries: carries(step).into(),
    }
}

/// A run of 9 steps with checkpoints of steps 4 and 8.
fn run() -> (tempfile::TempDir, RunFolder) {
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::new(folder.path());
    let mut journal = Journal::create(&run.journal()).unwrap();
    journal.append(&Entry::Term { term: 2 }).unwrap();
    (1..=9).for_each(|step| drop(journal.append(&Entry::Commit(record(step))).unwrap()));
    checkpoint(&run, 4, Some(1.5));
    checkpoint(&run, 8, Some(1.75));
    save(&run, committed(9));
    (folder, run)
}

fn save(run: &RunFolder, committed: Committed) {
    CommittedFile::create(&run.committed(), 3).unwrap().save(&committed).unwrap();
}

fn flaws(run: &RunFolder) -> Vec<String> {
    let base = format!("{}/", run.path().display());
    verify(run.path()).unwrap().flaws.iter().map(|flaw| flaw.to_string().replace(&base, "")).collect()
}

#[test]
fn a_run_that_is_as_it_should_be_has_no_flaw() {
    let (_folder, run) = run();
    let found = verify(run.path()).unwrap();
    assert!(found.flaws.is_empty(), "{:?}", found.flaws);
    assert_eq!((found.steps, found.last_term, found.committed, found.best), (9, 2, Some(9), Some(4)));
    assert_eq!(found.epoch, Some(Epoch { streams: 3, windows: 4, tokens: 24 }));
    assert_eq!(found.checkpoints.len(), 2);
}

#[test]
fn a_committed_state_that_is_not_the_journal_s_is_named() {
    let (_folder, run) = run();
    save(&run, committed(11));
    assert_eq!(flaws(&run), ["committed.bin: the state of step 11, the journal ends with step 9"]);
    save(&run, Committed { term: 3, ..committed(9) });
    assert_eq!(flaws(&run), ["committed.bin: saved in term 3, the journal's highest is 2"]);
    for spoiled in [Some(Record { grad_norm: 9.0, ..record(9) }), Some(record(8)), None] {
        save(&run, Committed { record: spoiled, ..committed(9) });
        assert_eq!(flaws(&run), ["committed.bin: step 9 is not as in journal.bin"]);
    }
    save(&run, Committed { carries: vec![0.5; 3].into(), ..committed(8) });
    assert_eq!(flaws(&run), ["committed.bin: step 8 is not as in checkpoints/step-00000008"]);
    fs::write(run.committed(), b"{}").unwrap();
    assert_eq!(flaws(&run), ["committed.bin: found 2 bytes, expected 8192"]);
    fs::remove_file(run.committed()).unwrap();
    assert!(flaws(&run)[0].starts_with("committed.bin: No such file"));
}

#[test]
fn links_must_name_what_they_say() {
    let (_folder, run) = run();
    let link = |name: &str, to: &str| {
        fs::remove_file(run.checkpoints().join(name)).unwrap();
        std::os::unix::fs::symlink(to, run.checkpoints().join(name)).unwrap();
    };
    link("latest", "step-00000007");
    link("best", "step-00000007");
    let dangling = ["latest", "best"].map(|l| format!("checkpoints/{l}: does not name a whole checkpoint"));
    assert_eq!(flaws(&run), dangling);
    link("latest", "step-00000004");
    link("best", "step-00000008");
    let problem = "checkpoints/best: does not name the checkpoint of the lowest validation loss";
    assert_eq!(flaws(&run), [problem], "whoever died before latest was moved left an older one");
    fs::remove_file(run.checkpoints().join("best")).unwrap();
    fs::remove_file(run.checkpoints().join("latest")).unwrap();
    let gone = flaws(&run);
    assert_eq!(gone.len(), 2, "{gone:?}");
    assert!(gone.iter().all(|flaw| flaw.contains("is not there")));
    checkpoint(&run, 9, None);
    link("best", "step-00000009");
    assert_eq!(flaws(&run), ["checkpoints/best: names a checkpoint that was not validated"]);
}

#[test]
fn a_checkpoint_of_no_committed_step_and_a_damaged_one_are_named() {
    let (_folder, run) = run();
    checkpoint(&run, 12, None);
    fs::write(run.checkpoints().join("step-00000008/carries.safetensors"), b"x").unwrap();
    let found = flaws(&run);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("checkpoints/step-00000008/carries.safetensors: damaged"));
    assert_eq!(found[1], "checkpoints/step-00000012: a checkpoint of step 12, the journal ends with step 9");
}

#[test]
fn a_window_that_was_read_in_part_is_named() {
    let (_folder, run) = run();
    let (mut journal, _) = Journal::open(&run.journal()).unwrap();
    journal.append(&Entry::Commit(Record { tokens: 5, ..record(10) })).unwrap();
    assert_eq!(flaws(&run), ["journal: step 10 read 5 targets in window 1, which has 6"]);
}

#[test]
fn a_journal_whose_tail_is_damaged_says_so() {
    let (_folder, run) = run();
    let bytes = fs::read(run.journal()).unwrap();
    fs::write(run.journal(), &bytes[..bytes.len() - 1]).unwrap();
    let found = flaws(&run);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("torn or damaged"));
    assert_eq!(found[1], "committed.bin: the state of step 9, the journal ends with step 8");
}
