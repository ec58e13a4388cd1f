//! What a run writes down for people: `metrics.jsonl`, one JSON object a line, and the same figures as TensorBoard
//! events. Nothing here is read back by the training.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::tensorboard::EventFile;

/// A committed step. `seconds` is the wall time of this step, from the commit before it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepMetrics {
    /// The step, counted from 1.
    pub step: u64,
    /// Its epoch, counted from 1.
    pub epoch: u64,
    /// Mean training loss, nats a token.
    pub loss: f64,
    /// The learning rate.
    pub learning_rate: f32,
    /// The gradient's L2 norm before the clip.
    pub grad_norm: f64,
    /// The factor of the clip.
    pub clip_scale: f32,
    /// Targets of the step.
    pub tokens: u64,
    /// Wall time of the step.
    pub seconds: f64,
    /// Workers that took part.
    pub workers: usize,
    /// The term of the commit.
    pub term: u64,
}

/// A validation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ValidMetrics {
    /// The step after which it was made.
    pub step: u64,
    /// The epoch of that step.
    pub epoch: u64,
    /// Mean loss, nats a token.
    pub valid_loss: f64,
    /// `exp(valid_loss)`.
    pub valid_perplexity: f64,
    /// Targets evaluated.
    pub tokens: u64,
    /// Wall time.
    pub seconds: f64,
}

/// The test figures at the end of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TestMetrics {
    /// The run's last step.
    pub step: u64,
    /// The epoch of that step.
    pub epoch: u64,
    /// Mean loss, nats a token.
    pub test_loss: f64,
    /// `exp(test_loss)`.
    pub test_perplexity: f64,
    /// Targets evaluated.
    pub tokens: u64,
    /// Wall time.
    pub seconds: f64,
}

/// The open metric files of a run.
#[derive(Debug)]
pub(crate) struct Metrics {
    lines: BufWriter<File>,
    events: EventFile,
}

impl Metrics {
    /// Opens a run's metric files. Of a resumed run the lines after `step`, whose steps will be made again, are dropped.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub(crate) fn open(folder: &Path, step: u64) -> io::Result<Self> {
        let path = folder.join("metrics.jsonl");
        if path.exists() {
            drop_lines_after(&path, step)?;
        }
        let lines = BufWriter::new(OpenOptions::new().create(true).append(true).open(&path)?);
        let events = EventFile::create(&folder.join("tensorboard"), now())?;
        Ok(Self { lines, events })
    }

    /// Writes a committed step.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn step(&mut self, m: &StepMetrics) -> io::Result<()> {
        self.line(m)?;
        let scalars = [
            ("train/loss", m.loss),
            ("train/learning_rate", f64::from(m.learning_rate)),
            ("train/grad_norm", m.grad_norm),
            ("train/tokens_per_second", m.tokens as f64 / m.seconds),
        ];
        self.events.scalars(now(), m.step, &scalars)
    }

    /// Writes a validation.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn valid(&mut self, m: &ValidMetrics) -> io::Result<()> {
        self.line(m)?;
        self.events.scalars(
            now(),
            m.step,
            &[("valid/loss", m.valid_loss), ("valid/perplexity", m.valid_perplexity)],
        )?;
        self.flush()
    }

    /// Writes the test figures.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn test(&mut self, m: &TestMetrics) -> io::Result<()> {
        self.line(m)?;
        self.events.scalars(
            now(),
            m.step,
            &[("test/loss", m.test_loss), ("test/perplexity", m.test_perplexity)],
        )?;
        self.flush()
    }

    /// Hands everything to the system.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.lines.flush()?;
        self.events.flush()
    }

    fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.lines, value)?;
        self.lines.write_all(b"\n")
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

fn drop_lines_after(path: &Path, step: u64) -> io::Result<()> {
    let text = fs::read_to_string(path)?;
    let of_kept_step = |line: &&str| {
        let value: Option<serde_json::Value> = serde_json::from_str(line).ok();
        value.and_then(|v| v.get("step")?.as_u64()).is_some_and(|s| s <= step)
    };
    let mut kept: String = text.lines().filter(of_kept_step).collect::<Vec<_>>().join("\n");
    if !kept.is_empty() {
        kept.push('\n');
    }
    let beside: PathBuf = path.with_extension("jsonl.new");
    fs::write(&beside, kept)?;
    fs::rename(&beside, path)
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
            metrics.step(&step(s)).unwrap();
        }
        metrics.flush().unwrap();
        let text = fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
        let first = r#"{"step":1,"epoch":1,"loss":2.5,"learning_rate":0.5,"grad_norm":1.25,"clip_scale":1.0,"tokens":64,"seconds":0.5,"workers":2,"term":3}"#;
        assert_eq!(text.lines().next(), Some(first));
        let torn = format!("{text}{{\"step\":1,\"lo");
        fs::write(folder.path().join("metrics.jsonl"), torn).unwrap();
        drop(Metrics::open(folder.path(), 2).unwrap());
        let text = fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 2, "steps 1 and 2; neither step 3 nor the torn line");
    }
}
