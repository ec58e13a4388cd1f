//! What stays and what goes, also when the process dies between any two changes of the folder.

use super::*;
use std::collections::BTreeSet;

/// Writes a checkpoint with the loss of its validation and keeps the two newest and the best.
fn make(run: &RunFolder, step: u64, loss: Option<f64>) -> Result<(), CheckpointError> {
    run.write(&Snapshot { valid_loss: loss, ..snapshot(step) }, &context())?;
    run.keep(2, step, &mut BTreeSet::new())
}

fn made(steps: &[(u64, Option<f64>)]) -> (tempfile::TempDir, RunFolder) {
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::new(folder.path());
    steps.iter().for_each(|&(step, loss)| make(&run, step, loss).unwrap());
    (folder, run)
}

/// Everything in the folder of the checkpoints, in order.
fn names(run: &RunFolder) -> Vec<String> {
    let entries = fs::read_dir(run.checkpoints()).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_newest_two_and_the_best_stay_under_their_names() {
    let losses = [(4, Some(2.5)), (8, Some(1.5)), (12, None), (16, Some(1.75)), (20, Some(2.0))];
    let (_folder, run) = made(&losses);
    assert_eq!(names(&run), ["best", "latest", "step-00000008", "step-00000016", "step-00000020"]);
    assert_eq!((run.linked(BEST), run.linked(LATEST)), (Some(8), Some(20)));
    let state = Checkpoint::open(&run.checkpoints().join("best")).unwrap().state;
    assert_eq!(state.valid_loss, Some(1.5));
    make(&run, 24, Some(1.25)).unwrap();
    assert_eq!(names(&run), ["best", "latest", "step-00000020", "step-00000024"], "the old best may go");
    assert_eq!(run.linked(BEST), Some(24));
}

#[test]
fn without_a_validation_there_is_no_best() {
    let (_folder, run) = made(&[(4, None), (8, None), (12, None)]);
    assert_eq!(names(&run), ["latest", "step-00000008", "step-00000012"]);
}

#[test]
fn damaged_ones_do_not_count_among_the_newest() {
    let (_folder, run) = made(&[(4, None), (8, None)]);
    let path = run.checkpoints().join("step-00000008").join(MODEL_FILE);
    let mut bytes = fs::read(&path).unwrap();
    bytes[9] ^= 1;
    fs::write(&path, bytes).unwrap();
    make(&run, 12, None).unwrap();
    assert_eq!(names(&run), ["latest", "step-00000004", "step-00000008", "step-00000012"]);
    fs::remove_dir_all(run.checkpoints().join("step-00000012")).unwrap();
    assert_eq!(run.latest().unwrap().checkpoint.state.step, 4, "it was needed");
}

#[test]
fn whoever_dies_at_any_point_leaves_nothing_that_confuses() {
    // Of a run that goes on, and of one that went back and makes its newest, its best and its damaged one again.
    for (step, loss) in [(20, Some(1.0)), (20, Some(9.0)), (16, Some(1.75)), (8, Some(1.5))] {
        let mut points = 0;
        loop {
            let losses = [(4, Some(2.5)), (8, Some(1.5)), (12, None), (16, Some(1.75))];
            let (_folder, run) = made(&losses);
            crash::after(Some(points));
            let died = make(&run, step, loss).is_err();
            crash::after(None);
            stands_to_reason(&run, &format!("step {step}, dead at point {points}"));
            make(&run, step, loss).unwrap();
            let after = names(&run);
            let (_other, undisturbed) = made(&losses);
            make(&undisturbed, step, loss).unwrap();
            assert_eq!(after, names(&undisturbed), "step {step}, dead at point {points}, then again");
            assert_eq!(run.linked(BEST), undisturbed.linked(BEST));
            if !died {
                break;
            }
            points += 1;
        }
        assert!(points >= 6, "only {points} points were passed");
    }
}

fn stands_to_reason(run: &RunFolder, when: &str) {
    let found = run.latest().unwrap();
    assert!(found.passed_over.is_empty(), "{when}: {:?}", found.passed_over);
    for path in run.by_ascending_step().unwrap() {
        Checkpoint::open(&path).unwrap_or_else(|e| panic!("{when}: {e}"));
    }
    assert!(run.by_ascending_step().unwrap().len() >= 2, "{when}: {:?}", names(run));
    Checkpoint::open(&run.checkpoints().join(LATEST)).unwrap_or_else(|e| panic!("{when}: {e}"));
    if run.linked(BEST).is_some() {
        Checkpoint::open(&run.checkpoints().join(BEST)).unwrap_or_else(|e| panic!("{when}: {e}"));
    }
}

#[test]
fn what_finds_no_room_leaves_nothing_beside() {
    let (_folder, run) = made(&[(4, None)]);
    let blocked = run.checkpoints().join(".step-00000008.new");
    fs::write(&blocked, "in the way").unwrap();
    assert!(matches!(make(&run, 8, None), Err(CheckpointError::Io { path, .. }) if path == blocked));
    assert_eq!(names(&run), [".step-00000008.new", "latest", "step-00000004"], "a file is nobody's leftover");
    assert_eq!(run.latest().unwrap().checkpoint.state.step, 4);
}
