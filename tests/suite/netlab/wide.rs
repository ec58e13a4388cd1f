//! Long and narrow wires between hosts: delay and the rate inwards by `wirefilter`, the rate outwards by the kernel's token bucket. The wires know nothing
//! of what runs over them.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{ip, tried};

/// The switches and wires of a laboratory, ended when dropped.
pub(crate) struct Wires {
    folder: tempfile::TempDir,
}

impl Wires {
    /// Whether the tools are there; else why not.
    pub(crate) fn are_possible() -> Result<(), String> {
        let found =
            |tool: &str| Command::new(tool).arg("--help").output().map_err(|e| format!("{tool}: {e}"));
        ["vde_switch", "vde_plug2tap", "wirefilter", "tc"].into_iter().try_for_each(|t| found(t).map(|_| ()))
    }

    /// One switch in the middle, so far without hosts.
    pub(crate) fn new() -> Self {
        let wires = Self { folder: tempfile::tempdir().unwrap() };
        wires.switch("core");
        wires
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn switch(&self, name: &str) {
        let (socket, pid, control) =
            (self.path(name), self.path(&format!("{name}.pid")), format!("{name}.m"));
        run("vde_switch", &["-s", &socket, "-d", "-p", &pid, "-M", &self.path(&control)]);
    }

    /// Gives a namespace an eth0 whose wire takes `delay_ms` to the middle and back, and carries this many megabits a second
    /// in each direction: what is sent waits in the kernel's token bucket, what is received at the wire's far end.
    pub(crate) fn attach(&self, space: &str, address: &str, (delay_ms, mbit): (u32, u32)) {
        self.switch(space);
        let (switch, pid) = (self.path(space), self.path(&format!("{space}.tap.pid")));
        ip(&["netns", "exec", space, "vde_plug2tap", "-d", "-P", &pid, "-s", &switch, "eth0"]);
        let is_there = |_: &i32| tried(&["-n", space, "link", "show", "eth0"]).is_ok();
        let wait = |_: &i32| std::thread::sleep(Duration::from_millis(50));
        assert!((0..50).inspect(wait).any(|n| is_there(&n)), "{space} has no eth0");
        ip(&["-n", space, "address", "add", address, "dev", "eth0"]);
        ip(&["-n", space, "link", "set", "eth0", "up"]);
        let rate = format!("{mbit}mbit");
        let bucket = ["tbf", "rate", &rate, "burst", "32kb", "latency", "100ms"];
        let qdisc = ["netns", "exec", space, "tc", "qdisc", "replace", "dev", "eth0", "root"];
        ip(&[&qdisc[..], &bucket].concat());
        let (ends, delay) = (format!("{switch}:{}", self.path("core")), delay_ms.to_string());
        let pid = self.path(&format!("{space}.wire.pid"));
        let inward = format!("RL{}", u64::from(mbit) * 1_000_000 / 8);
        run("wirefilter", &["-v", &ends, "-d", &delay, "-b", &inward, "--daemon", "--pidfile", &pid]);
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        let Ok(files) = std::fs::read_dir(self.folder.path()) else { return };
        files.flatten().filter(|file| file.path().extension().is_some_and(|e| e == "pid")).for_each(|file| {
            end(&file.path());
        });
    }
}

/// Ends the daemon whose number is in a file that it wrote itself.
fn end(file: &Path) {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    if let Ok(id) = text.trim_matches(['\0', '\n', ' ']).parse::<u32>() {
        // It may have ended with the wire it hung on.
        drop(Command::new("kill").arg(id.to_string()).output());
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {said}", arguments.join(" "));
}
