//! A coordinator and its workers as processes: started, hurt and started again, each on a host of its own where there is
//! a network laboratory. The crew knows nothing of what should come of it; the tests do.

use std::process::Command;

use crate::netlab::{self, Lab};
use crate::program::{Running, Workshop, eventually, free_port, signal};

/// The coordinator's port in a network of the crew's own.
const PORT: u16 = 7700;

/// The crew of one run.
pub(crate) struct Crew<'a> {
    shop: &'a Workshop,
    lab: Option<&'a Lab>,
    config: String,
    run: String,
    sets: Vec<String>,
    /// Where the coordinator listens, also after it was started again: ADDR:PORT.
    address: String,
    pub(crate) coordinator: Running,
    /// Started one after the other; a place holds the latest process started there.
    pub(crate) workers: Vec<Running>,
}

impl<'a> Crew<'a> {
    /// Starts a coordinator alone: `config` into `run`, with these keys set. With a laboratory it is on host 0, and
    /// worker n on host n + 1.
    pub(crate) fn start(
        shop: &'a Workshop,
        lab: Option<&'a Lab>,
        (config, run): (&str, &str),
        sets: &[&str],
    ) -> Self {
        Self::start_failing(shop, lab, (config, run), sets, None)
    }

    /// The same, with a failpoint in the coordinator.
    pub(crate) fn start_failing(
        shop: &'a Workshop,
        lab: Option<&'a Lab>,
        (config, run): (&str, &str),
        sets: &[&str],
        failpoint: Option<&str>,
    ) -> Self {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        let listen = lab.map_or_else(
            || format!("127.0.0.1:{}", free_port()),
            |_| format!("{}:{PORT}", netlab::address(0)),
        );
        let command = coordinator(shop, (config, run), &sets, &listen);
        let mut coordinator = spawn(shop, lab, 0, command, failpoint);
        let address = address_of(&mut coordinator);
        let (config, run) = (config.to_owned(), run.to_owned());
        Self { shop, lab, config, run, sets, address, coordinator, workers: Vec::new() }
    }

    /// Where the coordinator listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Starts a further worker, on the next place.
    pub(crate) fn add_worker(&mut self, failpoint: Option<&str>) {
        let worker = self.worker(self.workers.len(), failpoint);
        self.workers.push(worker);
    }

    /// Starts a worker anew at a place whose process has ended, or is to end now.
    pub(crate) fn replace_worker(&mut self, place: usize) {
        self.workers[place] = self.worker(place, None);
    }

    fn worker(&self, place: usize, failpoint: Option<&str>) -> Running {
        let coordinator = format!("http://{}", self.address);
        let command = self.shop.command(&["worker", "--coordinator", &coordinator, "--threads", "1"]);
        spawn(self.shop, self.lab, place + 1, command, failpoint)
    }

    /// SIGKILL to the coordinator; returns when it is gone.
    pub(crate) fn kill_coordinator(&mut self) {
        signal("KILL", self.coordinator.id());
        assert_eq!(self.coordinator.wait().unwrap().code(), None, "it was killed");
    }

    /// SIGKILL to a worker; returns when it is gone.
    pub(crate) fn kill_worker(&mut self, place: usize) {
        signal("KILL", self.workers[place].id());
        assert_eq!(self.workers[place].wait().unwrap().code(), None, "it was killed");
    }

    /// Starts the coordinator again where it was, to go on with its run.
    pub(crate) fn resume(&mut self) {
        let mut command = coordinator(self.shop, (&self.config, &self.run), &self.sets, &self.address);
        command.arg("--resume");
        self.coordinator = spawn(self.shop, self.lab, 0, command, None);
        address_of(&mut self.coordinator);
    }

    /// Waits for the run's good end, and gives its digest.
    pub(crate) fn digest(&mut self) -> String {
        let status = self.coordinator.wait();
        assert!(status.is_some_and(|status| status.success()), "{status:?}\n{}", self.story());
        self.shop.digest(&self.run)
    }

    /// Term and step of the last commit but one: a dead coordinator may have noted the last one alone, but this one all
    /// workers had.
    pub(crate) fn settled(&self) -> (u64, u64) {
        let commits = self.commits();
        commits[commits.len() - 2]
    }

    /// Term and step of every commit in the metrics.
    pub(crate) fn commits(&self) -> Vec<(u64, u64)> {
        let text = self.shop.read(&format!("{}/metrics.jsonl", self.run));
        // A killed coordinator may have torn the last line.
        let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let steps = lines.filter(|line| line.get("loss").is_some());
        steps.map(|line| (line["term"].as_u64().unwrap(), line["step"].as_u64().unwrap())).collect()
    }

    /// Waits until this step is committed. Which checkpoints are made on the way depends on the disk.
    pub(crate) fn wait_for_step(&mut self, step: u64) {
        let metrics = self.shop.path(&format!("{}/metrics.jsonl", self.run));
        let found = eventually(|| {
            let is_there = metrics.exists() && self.commits().last().is_some_and(|(_, last)| *last >= step);
            (is_there || self.coordinator.has_ended()).then_some(())
        });
        assert!(found.is_some() && !self.coordinator.has_ended(), "step {step}\n{}", self.story());
    }

    /// Everything said by the processes that are there now, for a failing test.
    pub(crate) fn story(&self) -> String {
        let mut story = format!("coordinator:\n{}{}", self.coordinator.printed(), self.coordinator.said());
        for (place, worker) in self.workers.iter().enumerate() {
            story += &format!("worker at place {place}:\n{}", worker.said());
        }
        story
    }
}

fn coordinator(shop: &Workshop, (config, run): (&str, &str), sets: &[String], listen: &str) -> Command {
    let mut command = shop.command(&["coordinator", config, "--run", run, "--listen", listen]);
    sets.iter().for_each(|set| {
        command.args(["--set", set]);
    });
    command
}

fn spawn(
    shop: &Workshop,
    lab: Option<&Lab>,
    host: usize,
    mut command: Command,
    failpoint: Option<&str>,
) -> Running {
    command.env("CAROUSEL_LOG", "info");
    if lab.is_some() {
        // Hosts of a network of the test's own, of which nobody else knows.
        command.arg("--insecure");
    }
    if let Some(failpoint) = failpoint {
        command.env("CAROUSEL_FAILPOINT", failpoint);
    }
    match lab {
        Some(lab) => shop.spawn(lab.on(host, &command)),
        None => shop.spawn(command),
    }
}

/// The address a coordinator says it listens on: ADDR:PORT.
fn address_of(coordinator: &mut Running) -> String {
    coordinator.wait_for("listening   http://");
    let printed = coordinator.printed();
    let line = printed.lines().find_map(|line| line.strip_prefix("listening   http://"));
    line.expect("it was just there").trim().to_owned()
}
