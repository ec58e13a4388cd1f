//! A Slurm of a test's own: a controller and four nodes on this machine, with ports, keys and state in a folder of the
//! test. Everything it has started is ended by id when it is dropped. It needs root and Debian's packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::program::{eventually, free_port, is_alive};
use crate::{is_root, is_there, skipped};

/// One at a time: the machine is small.
static ONE: Mutex<()> = Mutex::new(());

const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];

pub(crate) struct Slurm {
    folder: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

/// A process of a job's step.
pub(crate) struct Task {
    pub id: u32,
    pub node: String,
    words: Vec<String>,
}

impl Slurm {
    /// Starts it; says aloud why not where this machine cannot.
    pub(crate) fn open() -> Option<Self> {
        for tool in ["slurmctld", "slurmd", "sbatch", "munged"] {
            if !is_there(tool) {
                skipped("a Slurm of our own", &format!("no {tool}"));
                return None;
            }
        }
        if !is_root() {
            skipped("a Slurm of our own", "not root");
            return None;
        }
        let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let slurm = Self { folder: tempfile::tempdir().unwrap(), _alone: alone };
        slurm.write_settings();
        slurm.start();
        Some(slurm)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_settings(&self) {
        let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let ports = [(); 5].map(|()| free_port());
        let port = |index: usize| ports[index].to_string();
        let settings = SETTINGS
            .replace("HOSTNAME", hostname.trim())
            .replace("FOLDER", &self.folder.path().to_string_lossy())
            .replace("FIRST", &(1000 + std::process::id() % 9000).to_string())
            .replace("CONTROLLER", &port(0));
        let node = |(index, name): (usize, &&str)| {
            let port = port(index + 1);
            format!(
                "NodeName={name} NodeHostname={} NodeAddr=127.0.0.1 Port={port} CPUs=4\n",
                hostname.trim()
            )
        };
        let nodes: String = NODES.iter().enumerate().map(node).collect();
        let partition = "PartitionName=main Nodes=n[1-4] Default=YES MaxTime=INFINITE State=UP\n";
        fs::write(self.path("slurm.conf"), settings + &nodes + partition).unwrap();
        for folder in ["state", "log", "spool/n1", "spool/n2", "spool/n3", "spool/n4"] {
            fs::create_dir_all(self.path(folder)).unwrap();
        }
    }

    fn start(&self) {
        let option = |name: &str, file: &str| format!("--{name}={}", self.path(file).display());
        let key: Vec<u8> = (0..1024u32).map(|n| (n.wrapping_mul(std::process::id()) >> 3) as u8).collect();
        fs::write(self.path("munge.key"), key).unwrap();
        succeed(Command::new("chmod").arg("600").arg(self.path("munge.key")));
        let munged = ["key-file", "socket", "pid-file", "log-file", "seed-file"]
            .map(|name| option(name, &format!("munge.{}", name.trim_end_matches("-file"))));
        succeed(Command::new("munged").arg("--force").args(munged));
        succeed(&mut self.command("slurmctld", &["-c"]));
        for node in NODES {
            succeed(&mut self.command("slurmd", &["-N", node]));
        }
        let idle = || {
            let said = self.command("sinfo", &["-h", "-N", "-o", "%T"]).output().unwrap();
            let states = String::from_utf8_lossy(&said.stdout).into_owned();
            (states.lines().filter(|state| *state == "idle").count() == NODES.len()).then_some(())
        };
        eventually(idle).expect("every node comes up");
    }

    /// A command of Slurm, for this one.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env("SLURM_CONF", self.path("slurm.conf"));
        command
    }

    /// A command's output; it must succeed.
    pub(crate) fn asked(&self, program: &str, arguments: &[&str]) -> String {
        let output = succeed(&mut self.command(program, arguments));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A field of what Slurm knows of a job, as `JobState`.
    pub(crate) fn field(&self, job: &str, field: &str) -> String {
        let shown = self.asked("scontrol", &["show", "job", job, "-o"]);
        let found = shown.split_whitespace().find_map(|word| word.strip_prefix(&format!("{field}=")));
        found.unwrap_or_else(|| panic!("no {field} in {shown}")).to_owned()
    }

    /// Waits for a job's end; gives its state and exit code, as `COMPLETED 0:0`.
    pub(crate) fn ended(&self, job: &str) -> String {
        let ends = ["COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"];
        let ended = eventually(|| {
            let state = self.field(job, "JobState");
            ends.contains(&state.as_str()).then(|| format!("{state} {}", self.field(job, "ExitCode")))
        });
        ended.unwrap_or_else(|| panic!("job {job} does not end: {}", self.field(job, "JobState")))
    }

    /// The processes of a job's steps that are in a role: `coordinator` or `worker`.
    pub(crate) fn tasks(&self, job: &str, role: &str) -> Vec<Task> {
        let of = format!("SLURM_JOB_ID={job}");
        let mut tasks = self.processes(&of);
        tasks.retain(|task| {
            task.words[0].ends_with("carousel") && task.words.get(1).is_some_and(|w| w == role)
        });
        tasks
    }

    /// What has a variable, and has this Slurm as its own, in its environment.
    fn processes(&self, variable: &str) -> Vec<Task> {
        let own = format!("SLURM_CONF={}", self.path("slurm.conf").display());
        let task = |entry: fs::DirEntry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            let environment = strings(&entry.path().join("environ"))?;
            let is_own = environment.contains(&own) && environment.iter().any(|set| set == variable);
            let node = environment.iter().find_map(|set| set.strip_prefix("SLURMD_NODENAME="))?.to_owned();
            let words = strings(&entry.path().join("cmdline")).filter(|words| !words.is_empty())?;
            is_own.then_some(Task { id, node, words })
        };
        fs::read_dir("/proc").unwrap().filter_map(|entry| task(entry.ok()?)).collect()
    }

    /// A node is gone at once with all that ran on it for a job; nobody is told.
    pub(crate) fn lose(&self, node: &str, task: &Task) {
        let stepd = parent(task.id);
        kill(fs::read_to_string(self.path(&format!("slurmd-{node}.pid"))).unwrap().trim().parse().unwrap());
        kill(stepd);
        kill(task.id);
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        // Best effort: a test that fails has left anything in any state.
        let _jobs = self.command("scancel", &["--full", "--signal=KILL", "--state=RUNNING"]).output();
        let _jobs = self.command("scancel", &["--user=root"]).output();
        let daemons = NODES.iter().map(|node| format!("slurmd-{node}.pid"));
        let mut ids = Vec::new();
        for file in daemons.chain(["slurmctld.pid".into(), "munge.pid".into()]) {
            ids.extend(
                fs::read_to_string(self.path(&file)).ok().and_then(|id| id.trim().parse::<u32>().ok()),
            );
        }
        for id in ids.iter().filter(|&&id| is_alive(id)) {
            kill(*id);
        }
        for folder in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let id = folder.file_name().to_str().and_then(|id| id.parse::<u32>().ok());
            let own = format!("SLURM_CONF={}", self.path("slurm.conf").display());
            let is_own = strings(&folder.path().join("environ")).is_some_and(|set| set.contains(&own));
            if let Some(id) = id.filter(|_| is_own) {
                kill(id);
            }
        }
    }
}

/// The strings of a file of `/proc` that ends each with a zero.
fn strings(path: &Path) -> Option<Vec<String>> {
    let bytes = fs::read(path).ok()?;
    let parts = bytes.split(|&byte| byte == 0).filter(|part| !part.is_empty());
    Some(parts.map(|part| String::from_utf8_lossy(part).into_owned()).collect())
}

fn parent(id: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    line.trim().parse().unwrap()
}

/// Ends a process by its id; one that is gone already is no fault.
pub(crate) fn kill(id: u32) {
    Command::new("kill").args(["-KILL", &id.to_string()]).output().unwrap();
}

pub(crate) fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {said}", output.status);
    output
}

const SETTINGS: &str = "\
ClusterName=carousel
SlurmctldHost=HOSTNAME(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort=CONTROLLER
FirstJobId=FIRST
AuthType=auth/munge
AuthInfo=cred_expire=5,socket=FOLDER/munge.socket
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,bf_interval=1
ReturnToService=2
JobRequeue=1
KillWait=3
WaitTime=0
SlurmdTimeout=10
SlurmdParameters=config_overrides
StateSaveLocation=FOLDER/state
SlurmdSpoolDir=FOLDER/spool/%n
SlurmctldPidFile=FOLDER/slurmctld.pid
SlurmdPidFile=FOLDER/slurmd-%n.pid
SlurmctldLogFile=FOLDER/log/slurmctld.log
SlurmdLogFile=FOLDER/log/slurmd-%n.log
";
