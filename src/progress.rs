//! What a person sees of a run: a bar on a terminal, lines elsewhere.

use std::time::{Duration, Instant};

use carousel_coordinator::{Observer, Report, Run, Start, StepMetrics};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Where no bar can be drawn, a line at most this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

pub(crate) struct Progress {
    bar: ProgressBar,
    last_line: Instant,
    last_step: u64,
}

impl Progress {
    /// Says what is about to be trained.
    pub(crate) fn new(run: &Run) -> Self {
        let (steps, even, last_step) = run.calendar();
        let about = if even { "" } else { "about " };
        let floats: usize = run.layout.parameters.iter().map(carousel_coordinator::TensorShape::floats).sum();
        let settings = &run.settings;
        let (streams, window, lanes) = (settings.streams, settings.window, settings.lanes);
        println!(
            "run         {}: {floats} parameters, vocabulary {}",
            run.folder.display(),
            run.layout.gradient.rows
        );
        println!(
            "epoch       {about}{steps} steps of {streams} streams x {about}{window} in {lanes} lanes; {last_step} steps in all"
        );
        if let Start::Resume { checkpoint, .. } = &run.start {
            match checkpoint {
                Some(found) => println!("resuming    with {}", found.path.display()),
                None => println!("resuming    a run that has no checkpoint yet"),
            }
        }
        let bar = ProgressBar::with_draw_target(Some(last_step), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{bar:24} {pos}/{len} steps  {msg}  {eta} left");
        bar.set_style(style.expect("the template is a constant"));
        Self { bar, last_line: Instant::now(), last_step }
    }

    pub(crate) fn finish(&mut self) {
        self.bar.finish_and_clear();
    }

    fn line(&self, text: &str) {
        if self.bar.is_hidden() {
            println!("{text}");
        } else {
            self.bar.suspend(|| println!("{text}"));
        }
    }

    fn step(&mut self, m: &StepMetrics) {
        let rate = m.tokens as f64 / m.seconds;
        self.bar.set_message(format!("epoch {}  loss {:.4}  {rate:.0} tokens/s", m.epoch, m.loss));
        self.bar.set_position(m.step);
        if self.bar.is_hidden() && self.last_line.elapsed() > LINE_EVERY {
            self.last_line = Instant::now();
            let (step, last, epoch, loss) = (m.step, self.last_step, m.epoch, m.loss);
            println!("step {step:>7} of {last}  epoch {epoch}  loss {loss:.4}  {rate:.0} tokens/s");
        }
    }
}

impl Observer for Progress {
    fn observe(&mut self, report: Report<'_>) {
        match report {
            Report::Step(m) => self.step(m),
            Report::Waiting { joined, needed } => {
                self.line(&format!("waiting     for workers: {joined} of {needed} are here"));
            }
            Report::Joined { worker, hello } => {
                let (host, pid, threads) = (printable(&hello.host), hello.process_id, hello.threads);
                self.line(&format!("joined      {worker} (process {pid} on {host}, threads: {threads})"));
            }
            Report::Left { worker, reason } => {
                self.line(&format!("left        {worker}: {}", printable(reason)))
            }
            Report::Valid { metrics: m, best } => {
                let mark = if best { "  best so far" } else { "" };
                let (step, loss, perplexity) = (m.step, m.valid_loss, m.valid_perplexity);
                self.line(&format!(
                    "validation  step {step}: loss {loss:.4}, perplexity {perplexity:.2}{mark}"
                ));
                if m.averaged_from == Some(step) {
                    self.line(&format!("averaging   from step {step} on; evaluations use the average"));
                }
            }
            Report::Test(m) => {
                self.line(&format!(
                    "test        loss {:.4}, perplexity {:.2}",
                    m.test_loss, m.test_perplexity
                ));
            }
            Report::Checkpoint { path, .. } => self.line(&format!("checkpoint  {}", path.display())),
            Report::Unsaved { step, problem } => {
                self.line(&format!("unsaved     step {step}: {problem}; the run goes on"));
            }
            Report::RolledBack { step } => self.line(&format!(
                "rolled back to step {step}: no worker holds the state after it; it will be made again"
            )),
            Report::Unwritten { file, problem } => {
                self.line(&format!("unwritten   {file}: {problem}; the run goes on"));
            }
            Report::Written { file: "bucket", .. } => {
                self.line("written     bucket: it has everything again")
            }
            Report::Written { file, lost: 0 } => {
                self.line(&format!("written     {file}: there is room again, and nothing is missing"));
            }
            Report::Written { file, lost } => {
                self.line(&format!("written     {file}: there is room again; {lost} entries are missing"));
            }
            Report::Stopping => self.line("stopping    after this step"),
        }
    }
}

/// Text from the network, fit for a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
