//! The batch scripts on a real Slurm: each test proves that the fault fired, and compares with a quiet local run.

use std::fs;

use crate::deploy;
use crate::program::{Workshop, eventually};
use crate::slurm_lab::{Slurm, kill, succeed};

/// Some seconds, with a checkpoint early.
const LONG: &[&str] = &["--set", "train.steps=2500"];

struct Laboratory {
    slurm: Slurm,
    shop: Workshop,
    quiet: String,
}

impl Laboratory {
    fn open() -> Option<Self> {
        let slurm = Slurm::open()?;
        let shop = Workshop::new();
        let quiet = shop.trained("quiet", LONG);
        let config = shop.read("run.toml").replace("epochs = 1", "steps = 2500");
        shop.write("run.toml", &config);
        shop.succeed(&["certs", "certs"]);
        Some(Self { slurm, shop, quiet })
    }

    /// Queues a script; gives the job.
    fn submit(&self, script: &str, further: &[&str], set: &[(&str, &str)]) -> String {
        let mut command = self.slurm.command("sbatch", &["--parsable", "--cpus-per-task=1"]);
        command.args(further).arg(deploy("slurm").join(script)).current_dir(self.shop.path("."));
        command
            .env("CAROUSEL_BIN", env!("CARGO_BIN_EXE_carousel"))
            .env("CAROUSEL_PAUSE", "1")
            .env("CAROUSEL_CERTS", "certs");
        command.env("CAROUSEL_CONFIG", "run.toml").env("CAROUSEL_RUN", "run").envs(set.iter().copied());
        String::from_utf8(succeed(&mut command).stdout).unwrap().trim().to_owned()
    }

    /// One job on four nodes, in the middle of its training.
    fn training(&self) -> String {
        let job = self.submit("carousel.sbatch", &["--output=log"], &[]);
        self.wait_for(&job, "checkpoints/step-00000040");
        job
    }

    fn said(&self, log: &str) -> String {
        fs::read_to_string(self.shop.path(log)).unwrap_or_default()
    }

    fn wait_for(&self, job: &str, part: &str) {
        let found = eventually(|| self.said("log").contains(part).then_some(()));
        assert!(found.is_some(), "job {job} does not say {part:?}: {}", self.said("log"));
    }

    fn assert_complete(&self, job: &str) {
        assert_eq!(self.slurm.ended(job), "COMPLETED 0:0", "{}", self.said("log"));
        assert_eq!(self.shop.digest("run"), self.quiet, "{}", self.said("log"));
        let left = ["coordinator", "worker"].map(|role| self.slurm.tasks(job, role).len());
        assert_eq!(left, [0, 0], "no task is left");
    }
}

#[test]
fn a_killed_task_is_launched_again_and_the_bits_stay() {
    let Some(lab) = Laboratory::open() else { return };
    let job = lab.training();
    let workers = lab.slurm.tasks(&job, "worker");
    assert_eq!(workers.len(), 4);
    let killed = workers.iter().find(|task| task.node == "n3").unwrap();
    kill(killed.id);
    lab.wait_for(&job, "worker on n3 ended with 137");
    kill(lab.slurm.tasks(&job, "coordinator")[0].id);
    lab.wait_for(&job, "coordinator on n1 ended with 137");
    lab.assert_complete(&job);
    assert_eq!(lab.slurm.field(&job, "Restarts"), "0");
}

#[test]
fn a_lost_node_costs_its_lanes_a_move_and_not_the_job() {
    let Some(lab) = Laboratory::open() else { return };
    let job = lab.training();
    let workers = lab.slurm.tasks(&job, "worker");
    let lost = workers.iter().find(|task| task.node == "n4").unwrap();
    lab.slurm.lose("n4", lost);
    lab.wait_for(&job, "left        worker");
    lab.assert_complete(&job);
    assert_eq!(lab.slurm.field(&job, "Restarts"), "0");
}

#[test]
fn a_requeued_job_goes_on_where_it_was() {
    let Some(lab) = Laboratory::open() else { return };
    let job = lab.training();
    lab.slurm.asked("scontrol", &["requeue", &job]);
    lab.assert_complete(&job);
    assert_eq!(lab.slurm.field(&job, "Restarts"), "1");
    assert!(lab.said("log").contains("start 1:"), "{}", lab.said("log"));
}

/// The signal that `--signal=B:TERM@120` asks for reaches the batch shell alone, as this one does.
#[test]
fn a_job_that_comes_to_its_time_limit_checkpoints_and_queues_itself_again() {
    let Some(lab) = Laboratory::open() else { return };
    let job = lab.training();
    lab.slurm.asked("scancel", &["--batch", "--signal=TERM", &job]);
    lab.wait_for(&job, "the job is queued again");
    lab.assert_complete(&job);
    assert_eq!(lab.slurm.field(&job, "Restarts"), "1");
}

#[test]
fn a_cancelled_job_stays_cancelled() {
    let Some(lab) = Laboratory::open() else { return };
    let job = lab.training();
    lab.slurm.asked("scancel", &[&job]);
    assert!(lab.slurm.ended(&job).starts_with("CANCELLED"));
    assert!(!lab.said("log").contains("queued again"), "{}", lab.said("log"));
}

#[test]
fn bad_input_and_an_absent_coordinator_fail_closed() {
    let Some(lab) = Laboratory::open() else { return };
    let absent = [("CAROUSEL_CONFIG", "absent.toml")];
    let job = lab.submit("carousel.sbatch", &["--nodes=2", "--output=log"], &absent);
    assert_eq!(lab.slurm.ended(&job), "FAILED 2:0", "{}", lab.said("log"));
    assert!(!lab.said("log").contains("coordinator on n1 ended with 2 (try"), "it is not tried again");
    let nobody = [("CAROUSEL_JOB", "1"), ("CAROUSEL_TRIES", "2")];
    let job = lab.submit("carousel-array.sbatch", &["--array=1", "--output=log-%a"], &nobody);
    assert_eq!(lab.slurm.ended(&job), "FAILED 1:0", "{}", lab.said("log-1"));
    assert!(lab.said("log-1").contains("job 1 is not running (try 2 of 2)"), "{}", lab.said("log-1"));
    assert!(!lab.shop.path("run").exists(), "nobody has trained");
}

#[test]
fn a_coordinator_and_an_array_of_workers_give_the_same_bits() {
    let Some(lab) = Laboratory::open() else { return };
    let job = lab.submit("carousel-array.sbatch", &["--output=log"], &[]);
    let after = format!("--dependency=after:{job}");
    let further = ["--array=1-3", &after, "--output=log-%a"];
    let workers = lab.submit("carousel-array.sbatch", &further, &[("CAROUSEL_JOB", &job)]);
    lab.assert_complete(&job);
    for index in 1..=3 {
        let ended = lab.slurm.ended(&format!("{workers}_{index}"));
        assert_eq!(ended, "COMPLETED 0:0", "{}", lab.said(&format!("log-{index}")));
    }
    assert!(lab.said("log").contains("joined      worker 3"), "{}", lab.said("log"));
}
