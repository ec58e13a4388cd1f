//! Checkpoints beside the run: the carries and the schedule are taken at a boundary, the replica comes from a worker that
//! copied it there, and the file is written while steps go on. Waited for are only the last checkpoint of a run and one that
//! is not on disk when the next is due.

use carousel_proto::Step;

use super::{Action, Machine, Phase, Task};

/// Where a checkpoint under way stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Idle,
    /// The replica of this step was asked for.
    Awaiting(Step),
    /// The driver writes this step.
    Writing(Step),
}

/// What is saved and what is to be saved.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Saving {
    stage: Stage,
    /// A checkpoint is to be made at the next boundary.
    wanted: bool,
    /// The last one that is whole.
    written: Option<Step>,
}

impl Saving {
    pub(super) fn wrote(&mut self, step: Step) {
        self.stage = Stage::Idle;
        self.written = Some(step);
    }

    /// The worker that had copied the replica is gone, and the copy with it.
    pub(super) fn source_lost(&mut self) {
        if matches!(self.stage, Stage::Awaiting(_)) {
            *self = Self { stage: Stage::Idle, wanted: true, ..*self };
        }
    }

    pub(super) fn rolled_back(&mut self, to: Option<Step>) {
        let stage = if self.awaits_a_replica() { Stage::Idle } else { self.stage };
        *self = Self { stage, wanted: false, written: to };
    }

    pub(super) fn written(&self) -> Option<Step> {
        self.written
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.stage != Stage::Idle
    }

    pub(super) fn awaits_a_replica(&self) -> bool {
        matches!(self.stage, Stage::Awaiting(_))
    }

    /// Whether this step is on disk or on its way there.
    fn has(&self, step: Step) -> bool {
        self.written == Some(step)
            || matches!(self.stage, Stage::Awaiting(under_way) | Stage::Writing(under_way) if under_way == step)
    }
}

impl Machine {
    /// A checkpoint is due. Only one that is due before the one before it is on disk has the run wait: which steps are kept
    /// does not depend on the disk.
    pub(super) fn start_checkpoint(&mut self, actions: &mut Vec<Action>) {
        let there = self.saving.has(self.step);
        if self.saving.stage != Stage::Idle && !there {
            self.phase = Phase::Saving;
            self.waiting_since = self.now;
            return;
        }
        self.tasks.pop_front();
        self.saving.wanted |= !there;
        self.save_if_wanted(actions);
        self.advance(actions);
    }

    /// An operator wants one: it is made when the steps come by a boundary, beside the run as any other. Nobody can copy
    /// a replica while nobody holds it; the driver refuses such a wish before.
    pub(super) fn checkpoint_requested(&mut self) {
        self.saving.wanted |= !self.saving.has(self.step);
    }

    pub(super) fn save_if_wanted(&mut self, actions: &mut Vec<Action>) {
        // The seed's state is nobody's to save: it is made again at any time.
        if !self.saving.wanted || self.saving.stage != Stage::Idle || self.step == Step(0) {
            return;
        }
        let step = self.step;
        self.saving.wanted = false;
        actions.push(Action::Snapshot { step });
        if self.replica_at_hand {
            self.saving.stage = Stage::Writing(step);
            actions.push(Action::WriteCheckpoint { step });
        } else {
            self.saving.stage = Stage::Awaiting(step);
            self.ask_for_a_replica(actions);
        }
    }

    pub(super) fn save_what_was_awaited(&mut self, step: Step, actions: &mut Vec<Action>) {
        if self.saving.stage == Stage::Awaiting(step) {
            self.saving.stage = Stage::Writing(step);
            actions.push(Action::WriteCheckpoint { step });
        }
    }

    /// Before the end: the state must be on disk, or have failed to get there.
    pub(super) fn await_checkpoint(&mut self, actions: &mut Vec<Action>) {
        if self.saving.written == Some(self.step) {
            self.tasks.pop_front();
            return self.advance(actions);
        }
        self.saving.wanted |= !self.saving.has(self.step);
        self.save_if_wanted(actions);
        self.phase = Phase::Saving;
        self.waiting_since = self.now;
    }

    pub(super) fn checkpoint_written(&mut self, step: Step, actions: &mut Vec<Action>) {
        if self.saving.stage == Stage::Writing(step) {
            self.saving.wrote(step);
            self.saving_went_on(actions);
        }
    }

    /// A full disk does not end a run; older checkpoints remain, and the next one may find room.
    pub(super) fn checkpoint_failed(&mut self, step: Step, actions: &mut Vec<Action>) {
        if self.saving.stage != Stage::Writing(step) {
            return;
        }
        self.saving.stage = Stage::Idle;
        if self.phase == Phase::Saving
            && step == self.step
            && self.tasks.front() == Some(&Task::AwaitCheckpoint)
        {
            self.tasks.pop_front();
        }
        self.saving_went_on(actions);
    }

    fn saving_went_on(&mut self, actions: &mut Vec<Action>) {
        if self.phase == Phase::Saving || (self.phase == Phase::Gathering && self.needs_nobody()) {
            self.advance(actions);
        }
    }

    /// Whether what is due can be done without any worker: the end, once its checkpoint is the driver's to write.
    pub(super) fn needs_nobody(&self) -> bool {
        match self.tasks.front() {
            Some(Task::Finish(_)) => true,
            Some(Task::AwaitCheckpoint) => self.saving.has(self.step) && !self.saving.awaits_a_replica(),
            _ => false,
        }
    }

    /// The committed state is the seed's, or in a checkpoint already.
    pub(super) fn nothing_to_save(&self) -> bool {
        self.step == Step(0) || self.saving.written == Some(self.step)
    }
}
