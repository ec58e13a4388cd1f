//! What a run writes down for people: `metrics.jsonl`, one JSON object a line, and the same figures as TensorBoard
//! events. Nothing here is read back by the training, and a disk that takes nothing does not end it: what could not be
//! written waits in memory.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::append::{AppendFile, Appended, News};
use crate::tensorboard::EventFile;

/// A committed step. Each figure ends its meaning with its unit, here and below: docs/metrics.md is made from them
/// (`reference`).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StepMetrics {
    /// The step, counted from 1. Unit: steps.
    pub step: u64,
    /// Its epoch, counted from 1. Unit: epochs.
    pub epoch: u64,
    /// Mean training loss. Unit: nats a token.
    pub loss: f64,
    /// The learning rate. Unit: none.
    pub learning_rate: f32,
    /// The gradient's L2 norm, before the clip. Unit: L2 norm.
    pub grad_norm: f64,
    /// The factor of the clip. Unit: none.
    pub clip_scale: f32,
    /// Targets of the step. Unit: tokens.
    pub tokens: u64,
    /// Wall time of the step, from the commit before it. Unit: seconds.
    pub seconds: f64,
    /// Those that took part. Unit: workers.
    pub workers: usize,
    /// The term of the commit. Unit: terms.
    pub term: u64,
}

/// A validation.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ValidMetrics {
    /// The step after which it was made. Unit: steps.
    pub step: u64,
    /// The epoch of that step. Unit: epochs.
    pub epoch: u64,
    /// Mean loss. Unit: nats a token.
    pub valid_loss: f64,
    /// `exp(valid_loss)`. Unit: none.
    pub valid_perplexity: f64,
    /// Targets evaluated. Unit: tokens.
    pub tokens: u64,
    /// Wall time. Unit: seconds.
    pub seconds: f64,
    /// The step whose weights are the first of NT-ASGD's average, once it has begun: from the validation that began it on.
    /// Unit: steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub averaged_from: Option<u64>,
}

/// The test figures at the end of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TestMetrics {
    /// The run's last step. Unit: steps.
    pub step: u64,
    /// The epoch of that step. Unit: epochs.
    pub epoch: u64,
    /// Mean loss. Unit: nats a token.
    pub test_loss: f64,
    /// `exp(test_loss)`. Unit: none.
    pub test_perplexity: f64,
    /// Targets evaluated. Unit: tokens.
    pub tokens: u64,
    /// Wall time. Unit: seconds.
    pub seconds: f64,
}

/// How the files are called in the run's folder.
const LINES: &str = "metrics.jsonl";
const EVENTS: &str = "tensorboard";

/// The open metric files of a run.
#[derive(Debug)]
pub(crate) struct Metrics {
    path: PathBuf,
    lines: AppendFile,
    events: EventFile,
    news: Vec<News>,
}

impl Metrics {
    /// Opens a run's metric files, and drops the lines after `step`, whose steps will be made again.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub(crate) fn open(folder: &Path, step: u64) -> io::Result<Self> {
        let path = folder.join(LINES);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
        let events = EventFile::create(&folder.join(EVENTS), now())?;
        let mut metrics = Self { lines: AppendFile::new(file, 0), path, events, news: Vec::new() };
        metrics.go_back(step)?;
        Ok(metrics)
    }

    /// Drops the lines after `step`, whose steps will be made again.
    ///
    /// # Errors
    /// When the file cannot be read or cut.
    pub(crate) fn go_back(&mut self, step: u64) -> io::Result<()> {
        let end = end_of_kept(&fs::read(&self.path)?, step);
        self.lines.go_back(end as u64, |line| is_kept(line, step));
        let appended = self.lines.retry();
        self.hear(LINES, appended);
        Ok(())
    }

    /// Writes a committed step.
    pub(crate) fn step(&mut self, m: &StepMetrics) {
        let scalars = [
            ("train/loss", m.loss),
            ("train/learning_rate", f64::from(m.learning_rate)),
            ("train/grad_norm", m.grad_norm),
            ("train/tokens_per_second", m.tokens as f64 / m.seconds),
        ];
        self.write(m, m.step, &scalars);
    }

    /// Writes a validation.
    pub(crate) fn valid(&mut self, m: &ValidMetrics) {
        self.write(m, m.step, &[("valid/loss", m.valid_loss), ("valid/perplexity", m.valid_perplexity)]);
    }

    /// Writes the test figures.
    pub(crate) fn test(&mut self, m: &TestMetrics) {
        self.write(m, m.step, &[("test/loss", m.test_loss), ("test/perplexity", m.test_perplexity)]);
    }

    /// What has changed with the files since this was asked last.
    pub(crate) fn news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    fn write(&mut self, line: &impl Serialize, step: u64, scalars: &[(&str, f64)]) {
        let mut line = serde_json::to_vec(line).expect("figures can be written as JSON");
        line.push(b'\n');
        let appended = self.lines.append(line);
        self.hear(LINES, appended);
        let appended = self.events.scalars(now(), step, scalars);
        self.hear(EVENTS, appended);
    }

    fn hear(&mut self, file: &'static str, appended: Appended) {
        self.news.extend(News::of(file, appended));
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// Where the last line of a step that is kept ends. Lines stand in the order of their steps; a torn one counts for nothing.
fn end_of_kept(text: &[u8], step: u64) -> usize {
    let mut at = 0;
    let ends = text.split_inclusive(|byte| *byte == b'\n').filter_map(|line| {
        at += line.len();
        is_kept(line, step).then_some(at)
    });
    ends.last().unwrap_or(0)
}

fn is_kept(line: &[u8], step: u64) -> bool {
    let value: Option<serde_json::Value> = serde_json::from_slice(line).ok();
    line.ends_with(b"\n") && value.and_then(|v| v.get("step")?.as_u64()).is_some_and(|s| s <= step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64) -> StepMetrics {
        StepMetrics {
            step,
            epoch: 1,
            loss: 2.5,
            learning_rate: 0.5,
            grad_norm: 1.25,
            clip_scale: 1.0,
            tokens: 64,
            seconds: 0.5,
            workers: 2,
            term: 3,
        }
    }

    #[test]
    fn a_line_has_the_documented_keys_and_a_resumed_run_drops_later_lines() {
        let folder = tempfile::tempdir().unwrap();
        let mut metrics = Metrics::open(folder.path(), 0).unwrap();
        for s in 1..=3 {
            metrics.step(&step(s));
        }
        let text = fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
        let first = r#"{"step":1,"epoch":1,"loss":2.5,"learning_rate":0.5,"grad_norm":1.25,"clip_scale":1.0,"tokens":64,"seconds":0.5,"workers":2,"term":3}"#;
        assert_eq!(text.lines().next(), Some(first));
        let torn = format!("{text}{{\"step\":1,\"lo");
        fs::write(folder.path().join("metrics.jsonl"), torn).unwrap();
        drop(Metrics::open(folder.path(), 2).unwrap());
        let text = fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 2, "steps 1 and 2; neither step 3 nor the torn line");
    }
    #[test]
    fn a_line_that_ends_before_its_line_break_is_torn() {
        assert_eq!(end_of_kept(b"{\"step\":1}\n{\"step\":2}", 9), 11);
        assert_eq!(end_of_kept(b"{\"step\":1}\n{\"step\":3}\n", 2), 11);
        assert_eq!(end_of_kept(b"", 2), 0);
    }

    #[test]
    fn a_full_disk_is_told_once_for_each_file_and_no_line_is_missing_afterwards() {
        use crate::append::Change;
        use crate::storage::fake::Disk;
        let (folder, disk) = (tempfile::tempdir().unwrap(), Disk::new());
        let mut metrics = Metrics::open(folder.path(), 0).unwrap();
        metrics.lines = AppendFile::new(disk.clone(), 0);
        metrics.step(&step(1));
        disk.leave_room_for(30);
        (2..=4).for_each(|s| metrics.step(&step(s)));
        let news = metrics.news();
        assert!(
            matches!(&news[..], [News { file: "metrics.jsonl", change: Change::Fails(_) }]),
            "the disk of the events has room: {news:?}"
        );
        disk.leave_room_for(10_000);
        metrics.step(&step(5));
        let news = metrics.news();
        assert!(matches!(&news[..], [News { change: Change::Recovered { lost: 0 }, .. }]), "{news:?}");
        let text = disk.with(|d| String::from_utf8(d.bytes.clone()).unwrap());
        let steps: Vec<u64> = text
            .lines()
            .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["step"].as_u64().unwrap())
            .collect();
        assert_eq!(steps, [1, 2, 3, 4, 5]);
    }
}
