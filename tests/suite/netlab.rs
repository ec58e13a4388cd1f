//! A network of a test's own: hosts are network namespaces on one bridge, whose cables can be pulled and which can be
//! made deaf to one another. Nothing outside of it is reached or changed. It needs root, `ip` and `nft`.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::program::is_alive;

#[path = "netlab/wide.rs"]
mod wide;
use wide::Wires;

/// Named after this process; taken down when dropped, also by a failing test.
pub(crate) struct Lab {
    name: String,
    hosts: usize,
    /// Those of a wide network, which has no bridge.
    wires: Option<Wires>,
}

impl Lab {
    /// A network of so many hosts, numbered from 0. Where this machine does not allow it: says so, past the harness,
    /// and gives none; in CI, which can install them, missing tools fail.
    pub(crate) fn open(hosts: usize) -> Option<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        for tool in ["ip", "nft"] {
            let is_there = Command::new(tool).arg("-V").output().is_ok();
            assert!(is_there || std::env::var_os("CI").is_none(), "CI must have {tool}");
        }
        if let Err(problem) = is_possible() {
            say_aloud(&format!("SKIPPED: no network laboratory on this machine: {problem}"));
            return None;
        }
        remove_remains();
        let name = format!("carousel-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let lab = Self { name, hosts, wires: None };
        lab.build();
        Some(lab)
    }

    /// Hosts far from each other: so many milliseconds from one to another, and wires of so many megabits a second each way.
    pub(crate) fn open_wide(hosts: usize, (delay_ms, mbit): (u32, u32)) -> Option<Self> {
        let possible = Wires::are_possible();
        assert!(possible.is_ok() || std::env::var_os("CI").is_none(), "CI must have vde2: {possible:?}");
        if let Err(problem) = possible {
            say_aloud(&format!("SKIPPED: no wide network on this machine: {problem}"));
            return None;
        }
        let mut lab = Self::open(0)?;
        lab.hosts = hosts;
        let wires = Wires::new();
        for host in 0..hosts {
            let space = lab.host(host);
            ip(&["netns", "add", &space]);
            ip(&["-n", &space, "link", "set", "lo", "up"]);
            wires.attach(&space, &format!("{}/24", address(host)), (delay_ms / 2, mbit));
        }
        lab.wires = Some(wires);
        Some(lab)
    }

    fn build(&self) {
        let hub = self.hub();
        ip(&["netns", "add", &hub]);
        ip(&["-n", &hub, "link", "add", "bridge", "type", "bridge"]);
        ip(&["-n", &hub, "link", "set", "bridge", "up"]);
        for host in 0..self.hosts {
            let (space, port, address) = (self.host(host), port(host), format!("{}/24", address(host)));
            ip(&["netns", "add", &space]);
            ip(&["-n", &space, "link", "set", "lo", "up"]);
            ip(&["-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &space]);
            ip(&["-n", &hub, "link", "set", &port, "master", "bridge", "up"]);
            ip(&["-n", &space, "address", "add", &address, "dev", "eth0"]);
            ip(&["-n", &space, "link", "set", "eth0", "up"]);
        }
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.name)
    }

    fn host(&self, host: usize) -> String {
        format!("{}-h{host}", self.name)
    }

    /// The same command, to be started on a host. The process keeps the id it is started with.
    pub(crate) fn on(&self, host: usize, command: &Command) -> Command {
        let mut there = Command::new("ip");
        there.args(["netns", "exec", &self.host(host)]).arg(command.get_program()).args(command.get_args());
        there.stdin(Stdio::null());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => there.env(key, value),
                None => there.env_remove(key),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            there.current_dir(folder);
        }
        there
    }

    /// Pulls a host's cable out of the bridge: nothing passes, and nobody is told.
    pub(crate) fn cut(&self, host: usize) {
        ip(&["-n", &self.hub(), "link", "set", &port(host), "down"]);
    }

    /// Puts it in again.
    pub(crate) fn heal(&self, host: usize) {
        ip(&["-n", &self.hub(), "link", "set", &port(host), "up"]);
    }

    /// Two hosts no longer reach each other; both reach all others.
    pub(crate) fn part(&self, one: usize, other: usize) {
        let other = address(other);
        self.nft(
            one,
            &format!(
                "table inet parted {{ chain in {{ type filter hook input priority 0; ip saddr {other} drop; }}; \
                 chain out {{ type filter hook output priority 0; ip daddr {other} drop; }}; }}"
            ),
        );
    }

    /// What reaches a host or leaves it is dropped from now on, while its cable and its addresses look well.
    pub(crate) fn silence(&self, host: usize) {
        self.nft(
            host,
            "table inet silenced { chain in { type filter hook input priority 0; iifname eth0 drop; }; \
             chain out { type filter hook output priority 0; oifname eth0 drop; }; }",
        );
    }

    /// Ends [`Lab::silence`].
    pub(crate) fn unsilence(&self, host: usize) {
        self.nft(host, "delete table inet silenced");
    }

    fn nft(&self, host: usize, rule: &str) {
        ip(&["netns", "exec", &self.host(host), "nft", rule]);
    }

    /// How many packets a host has received: shows that a cut is one.
    pub(crate) fn received(&self, host: usize) -> u64 {
        self.statistic(host, "rx_packets")
    }

    /// Bytes that a host has sent and received.
    pub(crate) fn bytes(&self, host: usize) -> (u64, u64) {
        (self.statistic(host, "tx_bytes"), self.statistic(host, "rx_bytes"))
    }

    fn statistic(&self, host: usize, name: &str) -> u64 {
        let file = format!("/sys/class/net/eth0/statistics/{name}");
        let arguments = ["netns", "exec", &self.host(host), "cat", &file];
        let output = Command::new("ip").args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(self.wires.take());
        for space in (0..self.hosts).map(|host| self.host(host)).chain([self.hub()]) {
            let removed = Command::new("ip").args(["netns", "delete", &space]).status();
            if !removed.is_ok_and(|status| status.success()) {
                say_aloud(&format!("the network namespace {space} is left behind"));
            }
        }
    }
}

/// Takes down what a killed process of the tests has left: its namespaces bear its id.
fn remove_remains() {
    let listed = Command::new("ip").args(["netns", "list"]).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for space in listed.lines().filter_map(|line| line.split_whitespace().next()) {
        let owner = space.strip_prefix("carousel-").and_then(|rest| rest.split('-').next()?.parse().ok());
        if owner.is_some_and(|owner: u32| !is_alive(owner)) {
            // Another process of the tests may be taking it down as well.
            tried(&["netns", "delete", space]).unwrap_or_default();
        }
    }
}

/// Where a host is reached by the others.
pub(crate) fn address(host: usize) -> String {
    format!("10.77.0.{}", 10 + host)
}

/// The bridge's end of a host's cable.
fn port(host: usize) -> String {
    format!("port{host}")
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {}: {said}", arguments.join(" "));
}

/// Tries what is needed, in a namespace that is removed at once.
fn is_possible() -> Result<(), String> {
    let probe = format!("carousel-{}-probe-{:?}", std::process::id(), std::thread::current().id());
    let probe: String = probe.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    tried(&["netns", "add", &probe])?;
    let bridged = tried(&["-n", &probe, "link", "add", "bridge", "type", "bridge"]);
    let filtered = tried(&["netns", "exec", &probe, "nft", "add table inet probe"]);
    tried(&["netns", "delete", &probe])?;
    bridged.and(filtered)
}

fn tried(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("ip: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("ip {}: {said}", arguments.join(" "))) }
}

/// Past the harness, which keeps what a passing test prints to itself.
pub(crate) fn say_aloud(text: &str) {
    use std::io::Write;
    writeln!(std::io::stderr(), "{text}").expect("a test has a standard error");
}
