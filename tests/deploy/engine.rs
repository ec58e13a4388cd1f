//! A Docker Engine of a test's own: its data, its socket and its network are the test's, and go with it. It runs in a
//! network namespace, so that its bridges and its packet filter never touch the machine's. No image is ever fetched.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::{deploy, is_root, is_there, say_aloud, skipped};

/// A hang fails instead of standing still.
const PATIENCE: Duration = Duration::from_secs(180);

pub(crate) struct Engine {
    folder: tempfile::TempDir,
    space: String,
    daemon: Child,
}

impl Engine {
    /// Starts one. Where this machine does not allow it: says so and gives none.
    pub(crate) fn start() -> Option<Self> {
        if let Some(missing) = missing() {
            skipped("Docker Compose", &missing);
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let space = format!("carousel-{}-docker", std::process::id());
        succeed(Command::new("ip").args(["netns", "add", &space]));
        succeed(Command::new("ip").args(["-n", &space, "link", "set", "lo", "up"]));
        let daemon = daemon(folder.path(), &space);
        let mut engine = Self { folder, space, daemon };
        engine.wait_until_it_answers();
        Some(engine)
    }

    fn wait_until_it_answers(&mut self) {
        let answers = eventually(|| {
            let ended = self.daemon.try_wait().unwrap();
            assert!(ended.is_none(), "dockerd ended: {}", self.said());
            self.docker(&["info"]).output().unwrap().status.success().then_some(())
        });
        assert!(answers.is_some(), "dockerd does not answer: {}", self.said());
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// `docker` with arguments.
    pub(crate) fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(arguments);
        self.reach(&mut command);
        command
    }

    /// What a `docker` that must succeed prints.
    pub(crate) fn ask(&self, arguments: &[&str]) -> String {
        succeed(&mut self.docker(arguments))
    }

    /// `docker-compose`, or Docker's plugin, where there is no such program.
    pub(crate) fn compose(&self) -> Command {
        let mut command = Command::new(if is_there("docker-compose") { "docker-compose" } else { "docker" });
        if !is_there("docker-compose") {
            command.arg("compose");
        }
        self.reach(&mut command);
        command
    }

    /// The image of a program that is already built.
    pub(crate) fn build_image(&self, binary: &Path) {
        let mut build = Command::new(deploy("docker/build.sh"));
        build.env("CAROUSEL_BINARY", binary).env("CAROUSEL_ENGINE", "docker");
        self.reach(&mut build);
        let printed = succeed(&mut build);
        say_aloud(printed.trim_end());
    }

    fn reach(&self, command: &mut Command) {
        command.env("DOCKER_HOST", format!("unix://{}", self.folder.path().join("socket").display()));
        command.env_remove("DOCKER_CONTEXT").stdin(Stdio::null());
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Asked to end, it ends its containers and unmounts their folders; killed, it would leave them.
        let asked = Command::new("kill").arg(self.daemon.id().to_string()).status();
        if !asked.is_ok_and(|status| status.success())
            || eventually(|| self.daemon.try_wait().ok()?).is_none()
        {
            say_aloud(&format!("dockerd, process {}, does not end", self.daemon.id()));
        }
        let removed = Command::new("ip").args(["netns", "delete", &self.space]).status();
        if !removed.is_ok_and(|status| status.success()) {
            say_aloud(&format!("the network namespace {} is left behind", self.space));
        }
    }
}

/// `nsenter`, not `ip netns exec`: that one hides /sys/fs/cgroup. When the test is killed, the daemon is told to end.
fn daemon(folder: &Path, space: &str) -> Child {
    let path = |name: &str| folder.join(name).display().to_string();
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "nsenter", &format!("--net=/run/netns/{space}"), "dockerd"]);
    command.args(["--data-root", &path("data"), "--exec-root", &path("exec"), "--pidfile", &path("pid")]);
    command.args(["--host", &format!("unix://{}", path("socket")), "--config-file", &path("none.json")]);
    std::fs::write(folder.join("none.json"), "{}").unwrap();
    let log = File::create(folder.join("log")).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

fn missing() -> Option<String> {
    let tools = ["dockerd", "docker", "ip", "nsenter", "setpriv"];
    if let Some(tool) = tools.into_iter().find(|tool| !is_there(tool)) {
        return Some(format!("no {tool} here; deploy/tools.sh installs it"));
    }
    let plugin = Command::new("docker").args(["compose", "version"]).output();
    if !is_there("docker-compose") && !plugin.is_ok_and(|output| output.status.success()) {
        return Some("no docker-compose here; deploy/tools.sh installs it".into());
    }
    (!is_root()).then(|| "it takes root to start a Docker Engine".into())
}

/// What a command that must succeed prints.
pub(crate) fn succeed(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{out}\n{err}");
    out.into_owned()
}

/// Asks until there is an answer, for at most [`PATIENCE`].
pub(crate) fn eventually<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask();
        if answer.is_some() || Instant::now() > deadline {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
