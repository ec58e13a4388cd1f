//! Docker Compose on an engine of the test's own: a coordinator and workers in containers that are killed, paused, cut
//! off, restarted and scaled, and still end with the digest of the run that nobody disturbed.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::engine::{Engine, eventually, succeed};
use crate::{deploy, skipped};

/// Long enough for a fault to be noticed and healed on the way.
const CONFIG: &str = r#"
seed = 3

[data]
train = "/data/text.txt"
valid_fraction = 0.1

[model]
layers = 2
embedding = 32
hidden = 96
dropout = 0.2

[train]
streams = 20
window = 24
lanes = 5
steps = STEPS
optimizer = "adam"
learning_rate = 0.003
clip_norm = 0.5
checkpoint_every = 100

[cluster]
workers = 3
digest_every = 50
"#;
const STEPS: u64 = 1500;

/// The containers of one run; taken down with its volume when dropped.
struct Cluster<'a> {
    engine: &'a Engine,
    doors: Doors,
    folder: tempfile::TempDir,
    name: String,
}

/// Whether containers meet behind mutual TLS and the token, as compose.yaml has it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doors {
    Open,
    Locked,
}

impl<'a> Cluster<'a> {
    fn up(engine: &'a Engine, name: &str, doors: Doors) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        std::fs::write(folder.path().join("data/text.txt"), text()).unwrap();
        std::fs::write(folder.path().join("run.toml"), CONFIG.replace("STEPS", &STEPS.to_string())).unwrap();
        // The containers' user is nobody here; it must be able to read them.
        succeed(Command::new("chmod").args(["-R", "a+rX"]).arg(folder.path()));
        if doors == Doors::Locked {
            make_certificates(folder.path());
        }
        let cluster = Self { engine, doors, folder, name: format!("carousel-{name}") };
        cluster.scale(3);
        cluster
    }

    fn compose(&self, arguments: &[&str]) -> String {
        let mut command = self.engine.compose();
        command.arg("-f").arg(deploy("docker/compose.yaml"));
        if self.doors == Doors::Open {
            command.arg("-f").arg(deploy("docker/compose.insecure.yaml"));
        }
        command.args(["-p", &self.name]).args(arguments);
        command.env("CAROUSEL_CONFIG", self.folder.path().join("run.toml"));
        command.env("CAROUSEL_DATA", self.folder.path().join("data"));
        command.env("CAROUSEL_CERTS", self.folder.path().join("certs"));
        succeed(&mut command)
    }

    fn scale(&self, workers: usize) {
        self.compose(&["up", "-d", "--no-recreate", "--scale", &format!("worker={workers}")]);
    }

    fn containers(&self, service: &str) -> Vec<String> {
        let listed = self.compose(&["ps", "-q", service]);
        listed.split_whitespace().map(str::to_owned).collect()
    }

    fn coordinator(&self) -> String {
        self.containers("coordinator").remove(0)
    }

    fn inspect(&self, container: &str, format: &str) -> String {
        self.engine.ask(&["inspect", "-f", format, container]).trim().to_owned()
    }

    /// The run's folder, as this machine sees the volume.
    fn run(&self) -> PathBuf {
        let volume = format!("{}_runs", self.name);
        let place = self.engine.ask(&["volume", "inspect", "-f", "{{.Mountpoint}}", &volume]);
        PathBuf::from(place.trim()).join("run")
    }

    /// Term and step of the last commit in the metrics.
    fn last_commit(&self) -> (u64, u64) {
        let text = std::fs::read_to_string(self.run().join("metrics.jsonl")).unwrap_or_default();
        // The last line may be half written.
        let lines =
            text.lines().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut steps = lines.filter(|line| line.get("loss").is_some());
        steps.next().map_or((0, 0), |line| (line["term"].as_u64().unwrap(), line["step"].as_u64().unwrap()))
    }

    /// Waits for a commit of a later term than `term`, at step `step` or later; gives its term.
    fn wait_for(&self, term: u64, step: u64) -> u64 {
        let found = eventually(|| {
            let (now, at) = self.last_commit();
            (now > term && at >= step).then_some((now, at))
        });
        let Some((now, at)) = found else { panic!("no step {step} after term {term}: {}", self.story()) };
        assert!(at < STEPS, "the run was over before it was disturbed");
        now
    }

    /// Waits for the good end of the run, and gives its digest. Its records are whole.
    fn digest(&self) -> String {
        let coordinator = self.coordinator();
        let status = eventually(|| {
            let state = self.inspect(&coordinator, "{{.State.Status}} {{.State.ExitCode}}");
            (state.starts_with("exited") || state.starts_with("restarting")).then_some(state)
        });
        assert_eq!(status.as_deref(), Some("exited 0"), "{}", self.story());
        carousel("verify", self.run());
        carousel("digest", self.run())
    }

    fn story(&self) -> String {
        self.compose(&["ps"]) + &self.compose(&["logs", "--tail", "30"])
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.compose(&["down", "-t", "0", "-v"]);
        }
    }
}

/// As the README says: the containers' user owns what it must read.
fn make_certificates(folder: &Path) {
    let certs = folder.join("certs");
    succeed(
        Command::new(env!("CARGO_BIN_EXE_carousel")).arg("certs").arg(&certs).args(["--name", "coordinator"]),
    );
    succeed(Command::new("chown").args(["-R", "65532"]).arg(&certs));
}

fn carousel(subcommand: &str, run: PathBuf) -> String {
    succeed(Command::new(env!("CARGO_BIN_EXE_carousel")).arg(subcommand).arg(run))
}

/// Some text that a model can learn, the same in every run.
fn text() -> String {
    let words =
        ["the carousel", "a lane", "every worker", "turns", "adds", "carries", "the step", "a gradient"];
    let mut state = 12345u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        words[(state >> 16) as usize % words.len()]
    };
    (0..2000).map(|_| format!("{} {} {}.\n", next(), next(), next())).collect()
}

type Fault = fn(&Cluster);

/// SIGKILL from outside, as the kernel sends it to a process that takes too much memory: the engine must start it again.
fn kill(cluster: &Cluster) {
    let worker = &cluster.containers("worker")[1];
    let before = cluster.wait_for(0, 20);
    succeed(Command::new("kill").args(["-s", "KILL", &cluster.inspect(worker, "{{.State.Pid}}")]));
    cluster.wait_for(before, 20);
    assert_eq!(cluster.inspect(worker, "{{.RestartCount}} {{.State.Running}}"), "1 true");
}

/// A container stands still and is expelled; afterwards it comes back.
fn pause(cluster: &Cluster) {
    let worker = &cluster.containers("worker")[2];
    let before = cluster.wait_for(0, 20);
    cluster.engine.ask(&["pause", worker]);
    let without = cluster.wait_for(before, 20);
    assert_eq!(cluster.inspect(worker, "{{.State.Paused}}"), "true", "the run went on without it");
    cluster.engine.ask(&["unpause", worker]);
    cluster.wait_for(without, 20);
}

/// A container loses its network and is expelled; connected again, under whatever address, it comes back.
fn cut(cluster: &Cluster) {
    let worker = &cluster.containers("worker")[0];
    let network = format!("{}_cluster", cluster.name);
    let before = cluster.wait_for(0, 20);
    cluster.engine.ask(&["network", "disconnect", &network, worker]);
    let without = cluster.wait_for(before, 20);
    assert_eq!(cluster.inspect(worker, "{{len .NetworkSettings.Networks}}"), "0");
    cluster.engine.ask(&["network", "connect", &network, worker]);
    cluster.wait_for(without, 20);
}

/// The coordinator ends at a checkpoint and goes on. Its workers end with it and are started again.
fn restart(cluster: &Cluster) {
    let coordinator = cluster.coordinator();
    let before = cluster.wait_for(0, 20);
    let started = cluster.inspect(&coordinator, "{{.State.StartedAt}}");
    cluster.compose(&["restart", "coordinator"]);
    assert_ne!(cluster.inspect(&coordinator, "{{.State.StartedAt}}"), started);
    cluster.wait_for(before, 20);
}

fn scale(cluster: &Cluster) {
    let three = cluster.wait_for(0, 20);
    cluster.scale(5);
    let five = cluster.wait_for(three, 20);
    assert_eq!(cluster.containers("worker").len(), 5);
    cluster.scale(2);
    cluster.wait_for(five, 20);
    assert_eq!(cluster.containers("worker").len(), 2);
}

#[test]
fn containers_killed_paused_cut_off_restarted_and_scaled_end_with_the_digest_of_the_run_left_alone() {
    let Some(binary) = std::env::var_os("CAROUSEL_STATIC_BINARY") else {
        return skipped(
            "Docker Compose",
            "CAROUSEL_STATIC_BINARY is not set: the program as build.sh builds it",
        );
    };
    let Some(engine) = Engine::start() else { return };
    engine.build_image(&PathBuf::from(binary));
    let alone = Cluster::up(&engine, "alone", Doors::Open).digest();
    let faults: [(&str, Fault); 5] =
        [("restart", restart), ("scale", scale), ("kill", kill), ("pause", pause), ("cut", cut)];
    for (name, disturb) in faults {
        let began = std::time::Instant::now();
        let cluster = Cluster::up(&engine, name, Doors::Locked);
        disturb(&cluster);
        assert_eq!(cluster.digest(), alone, "{name}");
        crate::say_aloud(&format!("{name}: the same digest after {:.0} s", began.elapsed().as_secs_f64()));
    }
}
