//! The run's figures as Prometheus reads them: text format 0.0.4. Every metric is in one table, which docs/metrics.md is
//! made from (`reference`). Labels take few values: no worker, path or digest is one.

use std::fmt::Write;

use carousel_proto::PROTOCOL_VERSION;

use crate::board::Figures;
use crate::protocol::{Presence, Stage};

/// How Prometheus may combine a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It goes up and down.
    Gauge,
    /// It grows from 0 while the process lives.
    Counter,
}

impl Kind {
    /// As a TYPE line has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
        }
    }
}

/// A sample: its labels, as they are written, and its value.
type Sample = (String, f64);

/// A metric. One without samples, as a loss before the first step, is left out.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name, which ends with its unit. A figure that metrics.jsonl has too is called as it is there.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// What one of it is; empty for a number without a unit.
    pub unit: &'static str,
    /// What it is.
    pub help: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    samples: fn(&Figures) -> Vec<Sample>,
}

impl Metric {
    const fn in_units(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    const fn by(mut self, labels: &'static [&'static str]) -> Self {
        self.labels = labels;
        self
    }
}

const fn gauge(name: &'static str, help: &'static str, samples: fn(&Figures) -> Vec<Sample>) -> Metric {
    Metric { name, kind: Kind::Gauge, unit: "", help, labels: &[], samples }
}

const fn counter(name: &'static str, help: &'static str, samples: fn(&Figures) -> Vec<Sample>) -> Metric {
    Metric { name, kind: Kind::Counter, unit: "", help, labels: &[], samples }
}

/// Every metric, in the order of the text.
pub const METRICS: &[Metric] = &[
    gauge("carousel_build_info", "1; the program's version and its protocol are labels", |_| {
        let version = env!("CARGO_PKG_VERSION");
        vec![(format!("{{version=\"{version}\",protocol=\"{PROTOCOL_VERSION}\"}}"), 1.0)]
    })
    .by(&["version", "protocol"]),
    gauge("carousel_healthy", "1 while the coordinator does its work, else 0", |f| {
        one(f64::from(f.health().0))
    }),
    gauge("carousel_uptime_seconds", "Time since this coordinator process began", |f| {
        one(f.uptime().as_secs_f64())
    })
    .in_units("seconds"),
    gauge("carousel_state", "1 for the state that the run is in, 0 for the others", |f| {
        Stage::NAMES.map(|name| (label("state", name), f64::from(f.stage.name() == name))).into()
    })
    .by(&["state"]),
    gauge("carousel_step", "The last committed step", |f| one(f.step as f64)).in_units("steps"),
    gauge("carousel_last_step", "The step at which the run is complete", |f| one(f.last_step as f64))
        .in_units("steps"),
    gauge("carousel_epoch", "The epoch of the last step", |f| of(f.last.as_ref().map(|m| m.epoch as f64)))
        .in_units("epochs"),
    gauge("carousel_term", "The current term: it grows when workers come or go", |f| one(f.term as f64))
        .in_units("terms"),
    gauge("carousel_loss_nats", "Mean training loss of the last step", |f| {
        of(f.last.as_ref().map(|m| m.loss))
    })
    .in_units("nats a token"),
    gauge("carousel_learning_rate", "The learning rate of the last step", |f| {
        of(f.last.as_ref().map(|m| f64::from(m.learning_rate)))
    }),
    gauge("carousel_grad_norm", "The gradient's L2 norm in the last step, before the clip", |f| {
        of(f.last.as_ref().map(|m| m.grad_norm))
    })
    .in_units("L2 norm"),
    gauge("carousel_clip_scale", "The factor of the last clip", |f| {
        of(f.last.as_ref().map(|m| f64::from(m.clip_scale)))
    }),
    gauge("carousel_valid_loss_nats", "Mean loss of the last validation", |f| {
        of(f.valid.as_ref().map(|m| m.valid_loss))
    })
    .in_units("nats a token"),
    gauge("carousel_valid_step", "The step of the last validation", |f| {
        of(f.valid.as_ref().map(|m| m.step as f64))
    })
    .in_units("steps"),
    gauge("carousel_tokens_per_second", "Training speed over the last 20 steps", |f| {
        of(f.tokens_per_second())
    })
    .in_units("tokens a second"),
    counter("carousel_steps_total", "Steps committed by this process", |f| one(f.counts.steps as f64))
        .in_units("steps"),
    counter("carousel_step_seconds_total", "Wall time of those steps", |f| one(f.counts.step_seconds))
        .in_units("seconds"),
    counter("carousel_tokens_total", "Training tokens of those steps", |f| one(f.counts.tokens as f64))
        .in_units("tokens"),
    gauge("carousel_workers", "Workers that are here, by state", |f| {
        let sample = |presence: Presence| (label("state", presence.name()), f.present(presence) as f64);
        Presence::ALL.map(sample).into()
    })
    .in_units("workers")
    .by(&["state"]),
    gauge(
        "carousel_workers_awaited",
        "Workers that must be there for the run to go on; 0 when it does",
        |f| one(f64::from(f.stage.workers_awaited())),
    )
    .in_units("workers"),
    counter("carousel_workers_joined_total", "Workers that have joined", |f| one(f.counts.joined as f64))
        .in_units("workers"),
    counter("carousel_workers_left_total", "Workers that have left or were lost", |f| {
        one(f.counts.left as f64)
    })
    .in_units("workers"),
    gauge("carousel_checkpoint_step", "The step of the last whole checkpoint", |f| {
        of(f.checkpoint.as_ref().map(|made| made.step as f64))
    })
    .in_units("steps"),
    counter("carousel_checkpoints_total", "Checkpoints written", |f| one(f.counts.checkpoints as f64))
        .in_units("checkpoints"),
    counter("carousel_checkpoint_failures_total", "Checkpoints that could not be written", |f| {
        one(f.counts.checkpoint_failures as f64)
    })
    .in_units("checkpoints"),
    counter("carousel_rollbacks_total", "Times that the run went back to a checkpoint", |f| {
        one(f.counts.rollbacks as f64)
    })
    .in_units("times"),
];

fn one(value: f64) -> Vec<Sample> {
    vec![(String::new(), value)]
}

fn of(value: Option<f64>) -> Vec<Sample> {
    value.into_iter().flat_map(one).collect()
}

/// Only for names that need no escape.
fn label(name: &str, value: &str) -> String {
    format!("{{{name}=\"{value}\"}}")
}

/// The whole text.
pub(crate) fn exposition(figures: &Figures) -> String {
    let mut text = String::new();
    for metric in METRICS {
        let samples = (metric.samples)(figures);
        if samples.is_empty() {
            continue;
        }
        let (name, kind) = (metric.name, metric.kind.name());
        write!(text, "# HELP {name} {}\n# TYPE {name} {kind}\n", metric.help)
            .expect("a string takes everything");
        for (labels, value) in samples {
            writeln!(text, "{name}{labels} {}", number(value)).expect("a string takes everything");
        }
    }
    text
}

/// Rust writes infinities otherwise than Prometheus reads them.
fn number(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN".into(),
        f64::INFINITY => "+Inf".into(),
        f64::NEG_INFINITY => "-Inf".into(),
        value => value.to_string(),
    }
}
