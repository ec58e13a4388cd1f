//! Running the program: in a folder of its own, with text of its own, and with its processes known by id.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything here takes on a slow machine; a hang fails instead of standing still.
const PATIENCE: Duration = Duration::from_secs(240);

/// A folder with text and a configuration that trains in a second or two.
pub(crate) struct Workshop {
    folder: tempfile::TempDir,
}

impl Workshop {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let workshop = Self { folder };
        workshop.write("text.txt", &text());
        workshop.write("run.toml", CONFIG);
        workshop
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// `carousel` with arguments, in the workshop's folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_carousel"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        for key in ["CAROUSEL_LOG", "CAROUSEL_TLS", "CAROUSEL_TOKEN_FILE", "CAROUSEL_COORDINATOR"] {
            command.env_remove(key);
        }
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let mut child = self.start(arguments);
        let status = child.wait();
        assert!(status.is_some(), "{arguments:?} did not end within {PATIENCE:?}");
        child.output()
    }

    /// Runs what must succeed; gives what it printed.
    pub(crate) fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {}\n{out}\n{err}", output.status);
        out.into_owned()
    }

    /// Runs what must be refused as bad input; gives the message.
    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}\n{err}");
        assert!(!err.contains("panicked"), "{err}");
        err
    }

    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        self.spawn(self.command(arguments))
    }

    /// Starts a command, with its output kept.
    pub(crate) fn spawn(&self, mut command: Command) -> Running {
        let out = self.path(&format!("out-{}", unique()));
        let err = out.with_extension("err");
        command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
        Running { child: command.spawn().unwrap(), out, err, status: None }
    }

    /// Trains into `run` with these further arguments and gives the digest of its end.
    pub(crate) fn trained(&self, run: &str, further: &[&str]) -> String {
        let arguments: Vec<&str> =
            ["train", "run.toml", "--run", run].iter().chain(further).copied().collect();
        self.succeed(&arguments);
        self.digest(run)
    }

    pub(crate) fn digest(&self, run: &str) -> String {
        let printed = self.succeed(&["digest", run]);
        assert_eq!(printed.trim_end().len(), 64, "one line of hexadecimal: {printed:?}");
        assert!(printed.trim_end().bytes().all(|b| b.is_ascii_hexdigit()));
        printed
    }

    /// The lines of a run's metrics.
    pub(crate) fn metrics(&self, run: &str) -> Vec<serde_json::Value> {
        let text = self.read(&format!("{run}/metrics.jsonl"));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A started program; ended by id when the test is over, whatever came of it.
pub(crate) struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
    status: Option<std::process::ExitStatus>,
}

impl Running {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn printed(&self) -> String {
        read_lossy(&self.out)
    }

    pub(crate) fn said(&self) -> String {
        read_lossy(&self.err)
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until it ends by itself; `None` when it does not.
    pub(crate) fn wait(&mut self) -> Option<std::process::ExitStatus> {
        self.status = eventually(|| self.child.try_wait().unwrap());
        self.status
    }

    fn output(&mut self) -> Output {
        let status = self.status.expect("it has ended");
        Output { status, stdout: fs::read(&self.out).unwrap(), stderr: fs::read(&self.err).unwrap() }
    }

    /// Waits until what it printed or said has this in it.
    pub(crate) fn wait_for(&mut self, part: &str) {
        self.wait_for_times(part, 1);
    }

    /// Waits until what it printed or said has this in it so many times.
    pub(crate) fn wait_for_times(&mut self, part: &str, times: usize) {
        let found = eventually(|| {
            let ended = self.has_ended();
            let there = self.printed().matches(part).count() + self.said().matches(part).count() >= times;
            assert!(there || !ended, "it ended without {part:?}: {}{}", self.printed(), self.said());
            there.then_some(())
        });
        assert!(found.is_some(), "no {part:?} in {}{}", self.printed(), self.said());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.child.kill().expect("a child that has not ended can be killed");
            self.child.wait().expect("a killed child ends");
        }
    }
}

fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()
}

/// Asks until there is an answer, for at most [`PATIENCE`].
pub(crate) fn eventually<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask();
        if answer.is_some() || Instant::now() > deadline {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sends a signal to a process this test has started, by its id.
pub(crate) fn signal(name: &str, id: u32) {
    let status = Command::new("kill").args(["-s", name, &id.to_string()]).status().unwrap();
    assert!(status.success(), "kill -s {name} {id}");
}

/// The ids of a process's living children.
pub(crate) fn children(id: u32) -> Vec<u32> {
    let mut ids = Vec::new();
    for task in fs::read_dir(format!("/proc/{id}/task")).unwrap() {
        let text = fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
        ids.extend(text.split_whitespace().map(|id| id.parse::<u32>().unwrap()));
    }
    ids
}

/// Whether a process is there and is no zombie.
pub(crate) fn is_alive(id: u32) -> bool {
    fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// A free port on this machine, below those that the system hands out: nobody takes it before it is used, or while who
/// listens there is away, least of all a client that tries to reach it and would meet itself.
pub(crate) fn free_port() -> u16 {
    let candidates = std::iter::repeat_with(|| {
        let number = std::process::id().wrapping_mul(101).wrapping_add(unique() as u32);
        20_000 + (number % 10_000) as u16
    });
    let mut free = candidates.take(1000).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.next().expect("one of a thousand ports is free")
}

fn unique() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// Some text with structure: a model can learn it, and every run of the tests has the same.
fn text() -> String {
    let subjects = ["the carousel", "a lane", "the coordinator", "every worker", "a stream"];
    let verbs = ["turns", "adds", "waits for", "carries", "commits"];
    let objects = ["the window", "a gradient", "its own carry", "the step", "what was lost"];
    let mut state = 12345u32;
    let mut next = |n: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as usize % n
    };
    let mut line = || format!("{} {} {}.\n", subjects[next(5)], verbs[next(5)], objects[next(5)]);
    (0..160).map(|_| line()).collect()
}

/// Uneven on purpose: 7 streams in 3 lanes, windows that do not fill the text, two layers, dropout.
pub(crate) const CONFIG: &str = r#"
seed = 3

[data]
train = "text.txt"
valid_fraction = 0.1

[model]
layers = 2
embedding = 9
hidden = 13
dropout = 0.2

[train]
streams = 7
window = 11
lanes = 3
epochs = 1
optimizer = "adam"
learning_rate = 0.01
schedule = { kind = "cosine", warmup = 3 }
clip_norm = 0.5
checkpoint_every = 20

[cluster]
workers = 1
threads = 1
digest_every = 10
"#;
