//! How a replica comes and goes: made, delivered, pulled from peers, served to them, copied for a checkpoint.

use std::sync::Arc;

use bytes::Bytes;
use carousel_proto::Step;
use carousel_proto::v1::{
    DigestReport, LoadFailed, Progress, PullReply, PullRequest, Ready, from_worker::Message,
};

use super::{Trainer, TrainerError};
use crate::deposit;
use crate::failpoint::{FailPoint, reach};
use crate::outbox::SessionOver;
use crate::protocol::{Event, Fault, LoadSource};
use crate::pull;
use crate::replica::Replica;

type Pulled = Result<Vec<Vec<f32>>, pull::PullError>;

impl Trainer {
    pub(super) fn load(&mut self, step: Step, source: LoadSource) -> Result<Event, TrainerError> {
        let sections = std::mem::take(&mut self.inbox.sections);
        self.replica = Some(match source {
            LoadSource::Seed => Replica::initial(&self.settings)?,
            LoadSource::Peers => match self.pull(step)? {
                Ok(sections) => Replica::from_sections(&self.settings, step, sections)?,
                Err(error) => {
                    tracing::warn!("the replica of {step} could not be pulled: {error}");
                    return Ok(Event::LoadFailed { step });
                }
            },
            LoadSource::Coordinator | LoadSource::Held => {
                Replica::from_sections(&self.settings, step, sections)?
            }
        });
        Ok(Event::Loaded { step })
    }

    fn pull(&mut self, step: Step) -> Result<Pulled, TrainerError> {
        let peers = std::mem::take(&mut self.inbox.peers);
        let (sections, floats) =
            (Replica::section_count(&self.settings)?, self.settings.model.parameter_layout().len());
        let size = pull::Size { sections, floats };
        let (outbox, door) = (self.link.outbox.clone(), self.link.peers.door());
        let sign_of_life = move || {
            // A session that is over is noticed by whoever reads from it.
            outbox.send_from_reactor(Message::Progress(Progress {}));
        };
        Ok(self.link.runtime.block_on(pull::pull((&peers, &door), step, size, sign_of_life)))
    }

    /// A part of the replica for a newcomer; none when it is not of this step any more.
    pub(crate) fn serve(&self, request: &PullRequest) -> Option<PullReply> {
        let replica = self.replica.as_ref().filter(|replica| replica.step.0 == request.step)?;
        let sections = replica.sections();
        let (_, floats) = sections.get(request.section as usize)?;
        let first = usize::try_from(request.first).ok()?;
        reach(FailPoint::SERVING, replica.step);
        let part = floats.get(first..first.checked_add(request.floats as usize)?)?;
        Some(PullReply { data: Bytes::copy_from_slice(bytemuck::cast_slice(part)) })
    }

    pub(super) fn tell_ready(&self, step: Step) -> Result<(), TrainerError> {
        let replica = self.replica.as_ref().ok_or(Fault::NoReplica)?;
        let replica_digest = replica.digest().as_bytes().to_vec().into();
        Ok(self.link.outbox.send(Message::Ready(Ready { step: step.0, replica_digest }))?)
    }

    pub(super) fn tell_load_failed(&self, step: Step) -> Result<(), SessionOver> {
        self.link.outbox.send(Message::LoadFailed(LoadFailed { step: step.0 }))
    }

    pub(super) fn tell_digest(&self) -> Result<(), TrainerError> {
        let replica = self.replica.as_ref().ok_or(Fault::NoReplica)?;
        let replica_digest = replica.digest().as_bytes().to_vec().into();
        let report = DigestReport { step: replica.step.0, replica_digest };
        Ok(self.link.outbox.send(Message::DigestReport(report))?)
    }

    /// Copies the replica as it is now; the copy goes to the coordinator while steps go on.
    pub(super) fn deposit(&self, step: Step) {
        let Some(replica) = self.replica.as_ref().filter(|replica| replica.step == step) else { return };
        let copy = |(name, floats): (&'static str, &[f32])| (name, Arc::new(floats.to_vec()));
        let sections = replica.sections().into_iter().map(copy).collect();
        let client = self.link.tokens.client();
        reach(FailPoint::DEPOSITING, step);
        self.link.runtime.spawn(deposit::deposit(client, (self.link.own, step), sections));
    }
}
