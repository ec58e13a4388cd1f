//! The committed state as the coordinator keeps it: carries, schedule, and for a while a replica. How it comes from a
//! checkpoint, goes into one, and is gone back to.

use std::time::Duration;

use carousel_proto::v1;
use carousel_proto::{Step, Term};

use super::Driver;
use super::records::told;
use crate::checkpoint::{Checkpoint, CheckpointError, Saved, Snapshot};
use crate::committed::Committed;
use crate::intake::Limits;
use crate::observer::Report;
use crate::protocol::{Event, Origin};
use crate::replica::Sections;
use crate::run::RunError;
use crate::schedule::ScheduleState;

/// The committed state a run starts from.
pub(crate) struct StartState {
    pub schedule: ScheduleState,
    pub carries: Vec<f32>,
    pub replica: Option<Sections>,
    /// What the last step's commit said, for a worker that missed it.
    pub last_commit: Option<v1::Commit>,
}

/// The committed state of a checkpoint, or of a run that has none yet.
pub(crate) fn start_state(checkpoint: Option<&Checkpoint>, limits: &Limits) -> (Origin, StartState) {
    let Some(checkpoint) = checkpoint else {
        let carries = vec![0.0; limits.streams as usize * limits.layout.carry_floats()];
        let (schedule, replica, last_commit) = (ScheduleState::new(), None, None);
        return (Origin::Seed, StartState { schedule, carries, replica, last_commit });
    };
    let Snapshot { schedule, carries, sections, .. } = checkpoint.snapshot.clone();
    let state = StartState { schedule, carries, replica: Some(sections), last_commit: None };
    (Origin::Checkpoint(checkpoint.replica_digest()), state)
}

/// What a checkpoint takes along at its boundary.
pub(super) struct Boundary {
    step: Step,
    schedule: ScheduleState,
    carries: Vec<f32>,
    valid_loss: Option<f64>,
}

impl Driver<'_> {
    /// Keeps what no replica holds, for a coordinator that is started after this one was lost.
    pub(super) fn save_committed(&mut self, term: Term, step: Step) {
        let milliseconds = |took: Duration| u32::try_from(took.as_millis()).unwrap_or(u32::MAX);
        let committed = Committed {
            term: term.0,
            step: step.0,
            record: self.records.last_record().cloned(),
            schedule: self.schedule.clone(),
            validation: self.records.validation_of(step),
            step_ms: self.machine.recent_steps().map(milliseconds).collect(),
            carries: (&self.carries).into(),
        };
        self.records.save(&committed);
    }

    pub(super) fn snapshot(&mut self, step: Step) {
        let (schedule, carries) = (self.schedule.clone(), self.carries.clone());
        let valid_loss = self.records.validation_of(step);
        self.boundary = Some(Boundary { step, schedule, carries, valid_loss });
    }

    /// The replica of the snapshot is here: it is written by another thread.
    pub(super) fn write_checkpoint(&mut self, step: Step) {
        let boundary = self.boundary.take().filter(|boundary| boundary.step == step);
        let Boundary { schedule, carries, valid_loss, .. } =
            boundary.expect("a checkpoint begins with its snapshot");
        let deposited = self.deposited.take().filter(|(of, _)| *of == step).map(|(_, sections)| sections);
        let sections = deposited.or_else(|| self.replica.clone());
        let sections = sections.expect("a checkpoint is written when its replica is here");
        let snapshot = Snapshot { step: step.0, schedule, sections, carries, valid_loss };
        if let Err(error) = self.records.begin_checkpoint(snapshot) {
            self.checkpoint_saved(Saved { step: step.0, result: Err(error) });
        }
    }

    pub(super) fn checkpoint_saved(&mut self, saved: Saved) {
        self.records.saved(&saved);
        let step = Step(saved.step);
        match saved.result {
            Ok((path, digest)) => {
                self.unsaved = None;
                self.observer.observe(Report::Checkpoint { step: step.0, path: &path, digest });
                self.grant_checkpoints(step, &Ok(told(step.0, &path, digest)));
                self.events.push_back(Event::CheckpointWritten { step });
            }
            Err(error) => {
                self.observer.observe(Report::Unsaved { step: step.0, problem: &error });
                self.grant_checkpoints(step, &Err(error.to_string()));
                self.unsaved = Some(error);
                self.events.push_back(Event::CheckpointFailed { step });
            }
        }
    }

    /// Every replica of the committed state is gone: back to the last checkpoint, and to the same bits again.
    pub(super) fn roll_back(&mut self) -> Result<(), RunError> {
        let checkpoint = match self.records.latest() {
            Ok(found) => {
                let passed_over = &found.passed_over;
                passed_over.iter().for_each(|problem| tracing::warn!("passed over a checkpoint: {problem}"));
                Some(found.checkpoint)
            }
            Err(CheckpointError::None { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let step = Step(checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.state.step));
        self.records.go_back(step)?;
        let digest = checkpoint.as_ref().map(Checkpoint::replica_digest);
        let (_, state) = start_state(checkpoint.as_ref(), &self.limits);
        (self.schedule, self.carries, self.replica) = (state.schedule, state.carries, state.replica);
        (self.last_commit, self.asked, self.deposited) = (None, None, None);
        self.observer.observe(Report::RolledBack { step: step.0 });
        self.events.push_back(Event::RolledBack { step, digest });
        Ok(())
    }
}
