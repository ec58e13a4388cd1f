//! `carousel-ssh` over a real sshd of the test's own: three host names for loopback, each with its own folder.

use std::fs;
use std::process::{Command, Output};

use crate::program::{Running, Workshop, eventually, free_port, is_alive};
use crate::slurm_lab::{kill, succeed};
use crate::{deploy, is_there, skipped};

const SSHD: &str = "/usr/sbin/sshd";

/// Much longer than what is done to the run takes, however fast the machine is: it must not be over before it is stopped.
const STEPS: u64 = 20_000;

struct Machines {
    shop: Workshop,
    port: u16,
    _daemon: Running,
}

impl Machines {
    fn open() -> Option<Self> {
        if !is_there(SSHD) || !is_there("ssh") {
            skipped("machines behind ssh", "no sshd or ssh (Debian: openssh-server, openssh-client)");
            return None;
        }
        let shop = Workshop::new();
        for key in ["host_key", "user_key"] {
            succeed(
                Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(shop.path(key)),
            );
        }
        let [ssh, port] = [(); 2].map(|()| free_port());
        let folder = shop.path("").to_string_lossy().trim_end_matches('/').to_owned();
        let public = shop.read("host_key.pub");
        shop.write("known_hosts", &format!("carousel {public}"));
        for (name, text) in [("sshd.conf", SERVER), ("ssh.conf", CLIENT)] {
            shop.write(name, &text.replace("FOLDER", &folder).replace("PORT", &ssh.to_string()));
        }
        shop.write("hosts", "# three names for one machine\nh1 1\nh2 1\n\nh3 # all cores\n");
        fs::create_dir_all("/run/sshd").expect("sshd's own folder can be made, as by its package");
        let mut daemon = Command::new(SSHD);
        daemon.args(["-D", "-e", "-f"]).arg(shop.path("sshd.conf"));
        let mut daemon = shop.spawn(daemon);
        daemon.wait_for("Server listening");
        let config = shop.read("run.toml").replace("epochs = 1", &format!("steps = {STEPS}"));
        let config = config.replace("checkpoint_every = 20", "checkpoint_every = 40");
        shop.write("long.toml", &config);
        shop.succeed(&["certs", "certs"]);
        Some(Self { shop, port, _daemon: daemon })
    }

    fn call(&self, words: &[&str]) -> Output {
        let shop = &self.shop;
        let ssh = format!("ssh -F {}", shop.path("ssh.conf").display());
        let mut command = Command::new(deploy("ssh/carousel-ssh"));
        command.arg("hosts").args(words).current_dir(shop.path("."));
        command
            .env("CAROUSEL_SSH", ssh)
            .env("CAROUSEL_BIN", env!("CARGO_BIN_EXE_carousel"))
            .env("CAROUSEL_DATA", "text.txt");
        command.env("CAROUSEL_REMOTE", shop.path("remote")).env("CAROUSEL_ADDRESS", "127.0.0.1");
        command
            .env("CAROUSEL_PORT", self.port.to_string())
            .env("CAROUSEL_PAUSE", "0.2")
            .env("CAROUSEL_CERTS", "certs")
            .output()
            .unwrap()
    }

    fn succeed(&self, words: &[&str]) -> String {
        let output = self.call(words);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{words:?}: {}\n{out}\n{err}", output.status);
        out.into_owned()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.shop.path("remote/h1/coordinator.log")).unwrap_or_default()
    }

    fn wait_for(&self, part: &str) {
        let found = eventually(|| self.log().contains(part).then_some(()));
        assert!(found.is_some(), "no {part:?} in {}", self.log());
    }

    fn id(&self, file: &str) -> u32 {
        self.shop.read(&format!("remote/{file}")).trim().parse().unwrap()
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for host in ["h1", "h2", "h3"] {
            for file in ["coordinator.pid", "coordinator.child", "worker.pid", "worker.child"] {
                let id = fs::read_to_string(self.shop.path(&format!("remote/{host}/{file}")));
                if let Some(id) = id.ok().and_then(|id| id.trim().parse().ok()) {
                    kill(id);
                }
            }
        }
    }
}

#[test]
fn a_run_over_ssh_survives_a_killed_worker_a_stop_and_a_start_with_the_same_bits() {
    let Some(machines) = Machines::open() else { return };
    let quiet = machines.shop.trained("quiet", &["--set", &format!("train.steps={STEPS}")]);
    let started = machines.succeed(&["start", "long.toml"]);
    assert_eq!(started.matches(" started (process ").count(), 4, "{started}");
    machines.wait_for("checkpoints/step-00000040");
    let again = machines.succeed(&["start", "long.toml"]);
    assert_eq!(again.matches(" runs already ").count(), 4, "{again}");
    let killed = machines.id("h2/worker.child");
    kill(killed);
    machines.wait_for("left        worker");
    let back = eventually(|| machines.log().contains("joined      worker 4").then_some(()));
    assert!(back.is_some(), "it is launched again: {}", machines.log());
    let status = machines.succeed(&["status"]);
    assert_eq!(status.matches(" runs (process ").count(), 4, "{status}");
    let kept =
        ["h1/coordinator.pid", "h1/worker.pid", "h2/worker.pid", "h3/worker.pid"].map(|f| machines.id(f));
    assert!(!machines.log().contains("is complete"), "it was over before it was stopped: {}", machines.log());
    let stopped = machines.succeed(&["stop"]);
    assert!(stopped.contains("h1: coordinator stopped (with 130)"), "{stopped}");
    assert!(kept.iter().all(|&id| !is_alive(id)), "nothing is left: {stopped}");
    assert!(!machines.call(&["status"]).status.success(), "a stopped run is not healthy");
    machines.succeed(&["start", "long.toml"]);
    machines.wait_for(&format!("is complete: {STEPS} steps"));
    assert_eq!(machines.shop.digest("remote/h1/run"), quiet);
    assert!(machines.shop.path("remote/h1/coordinator/tls.key").exists(), "it has trained behind locks");
    assert!(
        !machines.shop.path("remote/h2/coordinator").exists(),
        "each host has the keys of its roles alone"
    );
    machines.succeed(&["logs", "collected"]);
    assert!(machines.shop.read("collected/h1-coordinator.log").contains("is complete"));
    assert!(machines.shop.path("collected/h3-worker.log").exists());
    assert!(!machines.shop.path("collected/h3-coordinator.log").exists());
}

#[test]
fn a_host_that_cannot_be_reached_stops_no_other_and_is_named() {
    let Some(machines) = Machines::open() else { return };
    machines.shop.write("hosts", "h1 1\nnowhere.invalid\n");
    let output = machines.call(&["start", "long.toml"]);
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{out}");
    assert!(out.contains("nowhere.invalid: FAILED"), "{out}");
    assert!(out.contains("h1: worker started"), "{out}");
    machines.shop.write("hosts", "h1 1\n");
    machines.succeed(&["add", "h2", "1"]);
    assert_eq!(machines.shop.read("hosts"), "h1 1\nh2 1\n");
    machines.wait_for("joined      worker 2");
    machines.succeed(&["stop"]);
}

#[test]
fn a_wrong_host_list_is_refused_with_its_line() {
    let Some(machines) = Machines::open() else { return };
    for (list, expected) in [
        ("h1\nh2 many\n", "hosts, line 2: found threads 'many'"),
        ("-oProxyCommand=x\n", "hosts, line 1: found host '-oProxyCommand=x'"),
        ("h1 1 me more\n", "hosts, line 1: found 'more'"),
        ("# none\n", "no host in it"),
    ] {
        machines.shop.write("hosts", list);
        let output = machines.call(&["status"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
    }
}

const SERVER: &str = "\
Port PORT
ListenAddress 127.0.0.1
HostKey FOLDER/host_key
AuthorizedKeysFile FOLDER/user_key.pub
PidFile none
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
";

const CLIENT: &str = "\
Host h1 h2 h3
  HostName 127.0.0.1
  Port PORT
  HostKeyAlias carousel
Host *
  IdentityFile FOLDER/user_key
  IdentitiesOnly yes
  UserKnownHostsFile FOLDER/known_hosts
  GlobalKnownHostsFile none
";
