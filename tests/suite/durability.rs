//! What the coordinator keeps on disk, with real processes and a disk that really runs full.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{Workshop, signal};

/// Long enough for something to happen in the middle.
const LONG: &[&str] = &["--set", "train.steps=1500", "--set", "train.evaluate_every=400"];

/// A small disk of the test's own, gone with it.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, said aloud, where a test may not mount one.
    pub(crate) fn mount(folder: PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir(&folder).unwrap();
        let size = format!("size={size}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&folder).output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(Self(folder));
        }
        println!("SKIPPED: this machine lets no test mount a small disk");
        None
    }

    /// Leaves no room at all.
    pub(crate) fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        while file.write_all(&[7; 4096]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(&self.0).status().unwrap();
        assert!(status.success() || std::thread::panicking(), "umount {}", self.0.display());
    }
}

fn checkpoints(run: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(run.join("checkpoints")).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_full_disk_is_told_once_a_file_and_changes_nothing() {
    let shop = Workshop::new();
    let Some(disk) = SmallDisk::mount(shop.path("disk"), "4m") else { return };
    let quiet = shop.trained("quiet", LONG);
    let mut run = shop.start(&[&["train", "run.toml", "--run", "disk/run"], LONG].concat());
    run.wait_for("checkpoints/step-00000020");
    let filler = disk.fill();
    for file in ["metrics.jsonl", "tensorboard", "journal.bin"] {
        run.wait_for(&format!("unwritten   {file}: No space left on device"));
    }
    run.wait_for("unsaved     step");
    std::fs::remove_file(filler).unwrap();
    for file in ["metrics.jsonl", "tensorboard", "journal.bin"] {
        run.wait_for(&format!("written     {file}: there is room again, and nothing is missing"));
    }
    assert!(run.wait().unwrap().success(), "{}", run.said());
    let told = run.printed().matches("unwritten   ").count();
    assert_eq!(told, 3, "each file once, and never committed.bin, which has its room: {}", run.printed());
    assert_eq!(shop.digest("disk/run"), quiet);
    let metrics = shop.metrics("disk/run");
    let steps = metrics.iter().filter(|l| l.get("loss").is_some()).map(|l| l["step"].as_u64().unwrap());
    assert!(steps.eq(1..=1500), "each step stands once in the metrics, in order");
    let verified = shop.succeed(&["verify", "disk/run"]);
    assert!(verified.contains("journal     1500 steps"), "{verified}");
}

#[test]
fn a_second_coordinator_on_a_run_is_refused_and_does_no_harm() {
    let shop = Workshop::new();
    let quiet = shop.trained("quiet", LONG);
    let mut run = shop.start(&[&["train", "run.toml", "--run", "run"], LONG].concat());
    run.wait_for("checkpoints/step-00000020");
    let config = shop.read("run/config.toml");
    let second = [&["train", "run.toml", "--run", "run", "--resume", "--workers", "3"], LONG].concat();
    let message = shop.refused(&second);
    assert!(message.contains("another coordinator works on this run"), "{message}");
    assert_eq!(shop.read("run/config.toml"), config, "nothing was written");
    assert!(run.wait().unwrap().success(), "{}", run.said());
    assert_eq!(shop.digest("run"), quiet);
    shop.succeed(&["verify", "run"]);
}

#[test]
fn the_newest_checkpoints_and_the_best_stay() {
    let shop = Workshop::new();
    let sets = ["--set", "train.steps=110", "--set", "train.evaluate_every=20"];
    // A rate that is far too high after the warm-up: the first validation stays the best.
    let wild = ["--set", "train.learning_rate=3.0", "--set", "train.schedule={kind=\"cosine\",warmup=100}"];
    let keep = ["--set", "train.keep_checkpoints=2"];
    shop.trained("run", &[&sets[..], &wild, &keep].concat());
    let losses: Vec<(u64, f64)> = shop
        .metrics("run")
        .iter()
        .filter_map(|l| Some((l["step"].as_u64()?, l.get("valid_loss")?.as_f64()?)))
        .filter(|(step, _)| step.is_multiple_of(20))
        .collect();
    let best = losses.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    assert!(best.0 < 100, "the best is an old one, or nothing is shown: {losses:?}");
    let named = format!("step-{:08}", best.0);
    let expected = ["best", "latest", &named, "step-00000100", "step-00000110"];
    assert_eq!(checkpoints(&shop.path("run")), expected);
    let link = std::fs::read_link(shop.path("run/checkpoints/best")).unwrap();
    assert_eq!(link, Path::new(&named));
    let state: serde_json::Value =
        serde_json::from_str(&shop.read("run/checkpoints/best/state.json")).unwrap();
    assert_eq!(state["valid_loss"].as_f64(), Some(best.1));
    let verified = shop.succeed(&["verify", "run"]);
    let ledger =
        "ledger      58 steps of 7 streams an epoch, each once: 1 whole epoch and 52 steps of the next";
    for part in [ledger, "committed   step 110", &format!("best        step {}", best.0)] {
        assert!(verified.contains(part), "{verified}");
    }
    let all = ["--resume", "--set", "train.steps=150", "--set", "train.keep_checkpoints=0"];
    shop.trained("run", &[&sets[2..], &wild, &all].concat());
    assert_eq!(checkpoints(&shop.path("run")).len(), expected.len() + 3, "0 keeps all: 120, 140 and 150");
}

#[test]
fn a_run_that_was_killed_hands_out_no_term_twice() {
    let shop = Workshop::new();
    let quiet = shop.trained("quiet", LONG);
    let mut run = shop.start(&[&["train", "run.toml", "--run", "run"], LONG].concat());
    run.wait_for("checkpoints/step-00000060");
    signal("KILL", run.id());
    assert_eq!(run.wait().unwrap().code(), None, "it was killed");
    let last_term = |run: &str| {
        shop.metrics(run).iter().filter_map(|line| line["term"].as_u64()).max().expect("steps were made")
    };
    let before = last_term("run");
    assert_eq!(shop.trained("run", &[LONG, &["--resume"]].concat()), quiet);
    assert!(last_term("run") > before, "the successor has a higher term");
    let verified = shop.succeed(&["verify", "run"]);
    assert!(verified.contains("journal     1500 steps"), "{verified}");
}
