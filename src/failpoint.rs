//! `CAROUSEL_FAILPOINT=POINT@STEP[:ACTION]`: has this process fail at a named place of a step, so that tests can show what
//! follows. The points are the worker's and the coordinator's; what failing means is said here. Without the variable
//! nothing is installed.

use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use carousel_proto::Step;

use crate::failure::Failure;

const VARIABLE: &str = "CAROUSEL_FAILPOINT";

/// A value of the variable that cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error("{VARIABLE}={given}: {problem}; expected POINT@STEP or POINT@STEP:ACTION")]
pub(crate) struct FailPlanError {
    given: String,
    problem: String,
}

/// One failure of this process: the first time the point is reached at the step or after it.
#[derive(Debug)]
struct FailPlan {
    point: &'static str,
    from: Step,
    action: Action,
    fired: AtomicBool,
}

/// What happens at the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// The process is gone at once, as by SIGKILL: no destructor runs, nothing is said.
    Abort,
    /// SIGSTOP: all threads stand still until a SIGCONT.
    Stop,
    Panic,
    /// This thread stands still; the others go on.
    Sleep(Duration),
    /// An allocation is refused, as on a machine without memory.
    OutOfMemory,
}

static PLAN: OnceLock<FailPlan> = OnceLock::new();

/// Installs what the variable asks for, if it is set.
pub(crate) fn arm() -> Result<(), Failure> {
    let Some(given) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let given = given.to_string_lossy().into_owned();
    let plan =
        FailPlan::parse(&given).map_err(|problem| Failure::bad_input(FailPlanError { given, problem }))?;
    PLAN.get_or_init(|| plan);
    carousel_worker::failpoint::install(reached);
    carousel_coordinator::failpoint::install(reached);
    Ok(())
}

fn points() -> impl Iterator<Item = &'static str> {
    let worker = carousel_worker::failpoint::FailPoint::ALL.iter().map(|point| point.name());
    worker.chain(carousel_coordinator::failpoint::FailPoint::ALL.iter().map(|point| point.name()))
}

fn reached(point: &'static str, step: Step) {
    let Some(plan) = PLAN.get().filter(|plan| plan.point == point && step >= plan.from) else { return };
    if !plan.fired.swap(true, Ordering::Relaxed) {
        // The proof that it fired, for whoever tests what follows.
        eprintln!("failpoint {point} at {step}: {:?}", plan.action);
        plan.action.take();
    }
}

impl FailPlan {
    fn parse(given: &str) -> Result<Self, String> {
        let (name, rest) = given.split_once('@').ok_or("no @ in it")?;
        let point = points().find(|point| *point == name);
        let known = || points().collect::<Vec<_>>().join(", ");
        let point = point.ok_or_else(|| format!("{name:?} is none of {}", known()))?;
        let (step, action) = rest.split_once(':').unwrap_or((rest, "abort"));
        let from = Step(step.parse().map_err(|_| format!("{step:?} is no step"))?);
        Ok(Self { point, from, action: Action::parse(action)?, fired: AtomicBool::new(false) })
    }
}

impl Action {
    fn parse(given: &str) -> Result<Self, String> {
        let unknown = || format!("{given:?} is none of abort, stop, panic, oom, sleep=MILLISECONDS");
        match given.split_once('=') {
            None if given == "abort" => Ok(Self::Abort),
            None if given == "stop" => Ok(Self::Stop),
            None if given == "panic" => Ok(Self::Panic),
            None if given == "oom" => Ok(Self::OutOfMemory),
            Some(("sleep", milliseconds)) => {
                Ok(Self::Sleep(Duration::from_millis(milliseconds.parse().map_err(|_| unknown())?)))
            }
            _ => Err(unknown()),
        }
    }

    fn take(self) {
        match self {
            Self::Abort => std::process::abort(),
            Self::Stop => stop_this_process(),
            Self::Panic => panic!("a failpoint asked for it"),
            Self::Sleep(time) => std::thread::sleep(time),
            Self::OutOfMemory => refuse_memory(),
        }
    }
}

fn stop_this_process() {
    let stopped = Command::new("kill").args(["-s", "STOP", &std::process::id().to_string()]).status();
    assert!(stopped.is_ok_and(|status| status.success()), "a process may stop itself");
}

/// No machine has as much: the allocator refuses, and the process ends as it does when memory has run out.
fn refuse_memory() {
    let all = std::alloc::Layout::array::<u8>(isize::MAX as usize).expect("the largest layout there is");
    std::alloc::handle_alloc_error(all);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_names_a_point_a_step_and_an_action() {
        let plan = FailPlan::parse("worker-computed@20").unwrap();
        assert_eq!((plan.point, plan.from, plan.action), ("worker-computed", Step(20), Action::Abort));
        let action =
            |given: &str| FailPlan::parse(&format!("coordinator-reduced@1:{given}")).map(|p| p.action);
        assert_eq!(action("stop"), Ok(Action::Stop));
        assert_eq!(action("panic"), Ok(Action::Panic));
        assert_eq!(action("oom"), Ok(Action::OutOfMemory));
        assert_eq!(action("sleep=250"), Ok(Action::Sleep(Duration::from_millis(250))));
    }

    #[test]
    fn what_cannot_be_followed_is_named() {
        let problem = |given: &str| FailPlan::parse(given).unwrap_err();
        assert_eq!(problem("worker-computed"), "no @ in it");
        assert!(problem("worker-compute@1").contains("is none of worker-assigned, worker-computed"));
        assert_eq!(problem("worker-computed@x"), "\"x\" is no step");
        for action in ["explode", "sleep", "sleep=x", "abort=1", ""] {
            assert!(problem(&format!("worker-computed@1:{action}")).contains("is none of abort"), "{action}");
        }
    }

    #[test]
    fn every_point_has_a_name_of_its_own() {
        let all: std::collections::BTreeSet<_> = points().collect();
        assert_eq!(all.len(), points().count(), "{all:?}");
        assert!(all.iter().all(|name| name.starts_with("worker-") || name.starts_with("coordinator-")));
    }
}
