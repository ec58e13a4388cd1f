//! Checkpoints that come back whole, and every way to damage one.

mod keeping;
mod saving;

use super::*;
use crate::plan::{Epochs, Length, RunPlan};
use crate::replica::{ReplicaLayout, TensorShape};
use std::fs;
use std::path::Path;
use std::sync::Arc;

fn shape(name: &str, shape: &[usize]) -> TensorShape {
    TensorShape { name: name.into(), shape: shape.into() }
}

fn layout() -> ReplicaLayout {
    ReplicaLayout {
        parameters: vec![shape("encoder.weight", &[3, 2]), shape("decoder.bias", &[3])],
        optimizer_state: vec!["exp_avg".into()],
        carry: vec![shape("h", &[2, 2]), shape("c", &[2, 2])],
        ..ReplicaLayout::default()
    }
}

fn snapshot(step: u64) -> Snapshot {
    let count = |n: usize, from: f32| (0..n).map(|i| from + i as f32).collect::<Vec<f32>>();
    Snapshot {
        step,
        schedule: ScheduleState { best_valid_loss: Some(1.25), divisions: 2, ..ScheduleState::new() },
        sections: vec![Arc::new(count(9, 0.5)), Arc::new(count(9, -3.0))],
        carries: count(3 * 8, 100.0),
        valid_loss: None,
    }
}

fn context() -> Context {
    let plan = RunPlan {
        lanes: 1,
        epochs: Epochs::Even { updates: 4 },
        length: Length::Epochs(2),
        evaluate_every: None,
        checkpoint_every: None,
        digest_every: None,
        has_valid: false,
        has_test: false,
    };
    Context { layout: layout(), plan, data_digest: Digest::of_bytes(b"data"), tokens_per_epoch: 77 }
}

pub(crate) fn write(run: &RunFolder, step: u64) {
    run.write(&snapshot(step), &context()).unwrap();
}

fn run_with(steps: &[u64]) -> (tempfile::TempDir, RunFolder) {
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::new(folder.path());
    steps.iter().for_each(|&step| write(&run, step));
    (folder, run)
}

#[test]
fn what_was_written_comes_back() {
    let (_folder, run) = run_with(&[5]);
    let found = run.latest().unwrap();
    assert_eq!(found.checkpoint.snapshot, snapshot(5));
    let state = &found.checkpoint.state;
    assert_eq!((state.epoch, state.window, state.windows_per_epoch), (2, 1, 4));
    assert_eq!((state.streams, state.tokens_per_epoch, state.valid_loss), (3, 77, None));
    assert!(found.passed_over.is_empty());
    assert_eq!(fs::read_link(run.checkpoints().join("latest")).unwrap(), Path::new("step-00000005"));
}

#[test]
fn files_have_pytorch_s_names_and_shapes() {
    let (_folder, run) = run_with(&[5]);
    let bytes = fs::read(run.checkpoints().join("latest/carries.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let c = file.tensor("c").unwrap();
    assert_eq!(c.shape(), [2, 3, 2], "(layers, streams, hidden)");
    let floats: Vec<f32> = c.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    // Stream s has its carry at 100 + 8 s; c begins 4 floats in.
    assert_eq!(floats, [104., 105., 112., 113., 120., 121., 106., 107., 114., 115., 122., 123.]);
    let bytes = fs::read(run.checkpoints().join("latest/optimizer.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("exp_avg.encoder.weight").unwrap().shape(), [3, 2]);
}

#[test]
fn equal_states_give_equal_files() {
    let (a, _) = run_with(&[5]);
    let (b, _) = run_with(&[5]);
    for name in [MODEL_FILE, OPTIMIZER_FILE, CARRIES_FILE, STATE_FILE] {
        let read = |f: &tempfile::TempDir| fs::read(f.path().join("checkpoints/latest").join(name)).unwrap();
        assert_eq!(read(&a), read(&b), "{name}");
    }
}

#[test]
fn a_damaged_checkpoint_is_named_and_passed_over() {
    for name in [MODEL_FILE, OPTIMIZER_FILE, CARRIES_FILE] {
        let (_folder, run) = run_with(&[4, 8]);
        let path = run.checkpoints().join("step-00000008").join(name);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, &bytes).unwrap();
        let found = run.latest().unwrap();
        assert_eq!(found.checkpoint.state.step, 4);
        assert!(
            matches!(&found.passed_over[..], [CheckpointError::Damaged { path: p, .. }] if p.ends_with(name))
        );
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(matches!(&run.latest().unwrap().passed_over[..], [CheckpointError::Damaged { .. }]));
        fs::remove_file(&path).unwrap();
        assert!(matches!(&run.latest().unwrap().passed_over[..], [CheckpointError::Io { .. }]));
    }
}

#[test]
fn a_changed_state_file_does_not_pass() {
    let edits = [
        ("\"step\": 8", "\"step\": 9", "digest"),
        ("\"divisions\": 2", "\"divisions\": 3", "digest"),
        ("\"format\": 2", "\"format\": 7", "format 7"),
        ("\"format\"", "\"fomat\"", "missing field `format`"),
    ];
    for (from, to, message) in edits {
        let (_folder, run) = run_with(&[8]);
        let path = run.checkpoints().join("step-00000008/state.json");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from} in {text}");
        fs::write(&path, text.replace(from, to)).unwrap();
        let error = run.latest().unwrap_err().to_string();
        assert!(error.contains(message) && error.contains("step-00000008"), "{error}");
    }
}

#[test]
fn half_written_ones_are_not_seen() {
    let (_folder, run) = run_with(&[4]);
    let torn = run.checkpoints().join(".step-00000008.new");
    fs::create_dir(&torn).unwrap();
    fs::write(torn.join(MODEL_FILE), b"half").unwrap();
    assert_eq!(run.latest().unwrap().checkpoint.state.step, 4);
    write(&run, 8);
    assert_eq!(run.latest().unwrap().checkpoint.state.step, 8);
    assert!(!torn.exists());
}

#[test]
fn a_run_is_found_from_any_of_its_folders() {
    let (folder, run) = run_with(&[4]);
    fs::write(run.config(), "").unwrap();
    let real = fs::canonicalize(folder.path()).unwrap();
    for inside in ["", "checkpoints/latest", "checkpoints/step-00000004"] {
        assert_eq!(RunFolder::containing(&folder.path().join(inside)).unwrap().path(), real);
    }
    assert!(RunFolder::containing(Path::new("/")).unwrap_err().to_string().contains("neither a run"));
}
