//! The replica: parameters, optimizer state and the carries of the assigned lanes, all at one committed step.

use std::ops::Range;

use carousel_model::{GradientView, LaneStreams, ModelError, Optimizer, Parameters, Update};
use carousel_proto::digest::{Digest, replica_digest};
use carousel_proto::v1::{CarrySource, Commit};
use carousel_proto::{Step, lane_streams};

use crate::intake::ReducedGradient;
use crate::settings::Settings;

/// Sections that make no replica.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// Too few or too many sections.
    #[error("a replica of {found} sections came, expected {expected}")]
    Sections {
        /// As came.
        found: usize,
        /// The parameters and each optimizer state.
        expected: usize,
    },
    /// The model or the optimizer refuses them.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Carries that were announced did not come, or not for these lanes.
    #[error("{found} carry floats are here for {lanes:?}, expected {expected}")]
    Carries {
        /// The lanes.
        lanes: Range<u32>,
        /// Floats here.
        found: usize,
        /// Floats needed.
        expected: usize,
    },
}

pub(crate) struct Replica {
    pub step: Step,
    pub parameters: Parameters,
    optimizer: Optimizer,
    lanes: Range<u32>,
    /// (streams of the lanes, carry), as of `step`.
    carries: Vec<f32>,
}

impl Replica {
    /// The state before the first step, from the seed alone.
    pub(crate) fn initial(settings: &Settings) -> Result<Self, ReplicaError> {
        let parameters = Parameters::initial(&settings.model, settings.seed);
        let optimizer = Optimizer::new(settings.optimizer, parameters.layout())?;
        Ok(Self { step: Step(0), parameters, optimizer, lanes: 0..0, carries: Vec::new() })
    }

    /// A replica as it came over the wire: the parameters, then each optimizer state.
    pub(crate) fn from_sections(
        settings: &Settings,
        step: Step,
        sections: Vec<Vec<f32>>,
    ) -> Result<Self, ReplicaError> {
        let mut optimizer = Optimizer::new(settings.optimizer, &settings.model.parameter_layout())?;
        let names: Vec<&'static str> = optimizer.state().iter().map(|(name, _)| *name).collect();
        let (found, expected) = (sections.len(), names.len() + 1);
        if found != expected {
            return Err(ReplicaError::Sections { found, expected });
        }
        let mut sections = sections.into_iter();
        let parameters = sections.next().expect("there is at least one section");
        let parameters = Parameters::from_flat(&settings.model, parameters)?;
        let state: Vec<(String, Vec<f32>)> = names.into_iter().map(String::from).zip(sections).collect();
        optimizer.load_state(&state)?;
        Ok(Self { step, parameters, optimizer, lanes: 0..0, carries: Vec::new() })
    }

    /// How many sections a replica has: the parameters and each optimizer state.
    pub(crate) fn section_count(settings: &Settings) -> Result<usize, ReplicaError> {
        let optimizer = Optimizer::new(settings.optimizer, &settings.model.parameter_layout())?;
        Ok(1 + optimizer.state().len())
    }

    /// The parameters and each optimizer state, by name.
    pub(crate) fn sections(&self) -> Vec<(&'static str, &[f32])> {
        let mut sections = vec![("parameters", self.parameters.as_slice())];
        sections.extend(self.optimizer.state());
        sections
    }

    pub(crate) fn digest(&self) -> Digest {
        replica_digest(self.sections())
    }

    /// The weights an evaluation uses where they are not the last ones: the average that some optimizers keep.
    pub(crate) fn averaged(&self, settings: &Settings) -> Result<Option<Parameters>, ReplicaError> {
        let average = self.optimizer.average().filter(|_| self.step > Step(0));
        Ok(average.map(|average| Parameters::from_flat(&settings.model, average.to_vec())).transpose()?)
    }

    /// The carries with which a step's window begins, for these lanes.
    pub(crate) fn carries(
        &mut self,
        settings: &Settings,
        lanes: Range<u32>,
        source: CarrySource,
        given: Option<Vec<f32>>,
    ) -> Result<Vec<f32>, ReplicaError> {
        let streams: usize = lanes_of(settings, lanes.clone()).iter().map(|lane| lane.streams).sum();
        let expected = streams * settings.model.carry_len();
        let carries = match source {
            CarrySource::Keep if self.lanes == lanes => std::mem::take(&mut self.carries),
            CarrySource::Zero => vec![0.0; expected],
            CarrySource::Given => given.unwrap_or_default(),
            _ => Vec::new(),
        };
        if carries.len() != expected {
            return Err(ReplicaError::Carries { lanes, found: carries.len(), expected });
        }
        (self.lanes, self.carries) = (lanes, carries.clone());
        Ok(carries)
    }

    /// The carries at the end of the committed window.
    pub(crate) fn keep_carries(&mut self, carries: Vec<f32>) {
        self.carries = carries;
    }

    /// There are none any more: whoever assigns lanes next gives them.
    pub(crate) fn forget_carries(&mut self) {
        (self.lanes, self.carries) = (0..0, Vec::new());
    }

    /// Makes the update that a commit decides.
    pub(crate) fn apply(
        &mut self,
        settings: &Settings,
        gradient: &ReducedGradient,
        commit: &Commit,
    ) -> Result<(), ReplicaError> {
        let layout = settings.model.gradient_layout();
        let (dense, row_values) = gradient.floats.split_at(layout.dense_len);
        let view = GradientView { dense, rows: &gradient.rows, row_values };
        let update = Update {
            step: commit.step,
            learning_rate: commit.learning_rate,
            scale: commit.clip_scale,
            clip_value: settings.clip_value,
            averaged_from: commit.averaged_from,
        };
        self.optimizer.apply(&mut self.parameters, &layout, view, update)?;
        self.step = Step(commit.step);
        Ok(())
    }
}

/// The lanes of a run of lanes, as the model wants them.
pub(crate) fn lanes_of(settings: &Settings, lanes: Range<u32>) -> Vec<LaneStreams> {
    let lane_of = |lane| {
        let streams = lane_streams(settings.streams, settings.lanes, lane);
        LaneStreams { lane: lane as usize, first_stream: streams.start as usize, streams: streams.len() }
    };
    lanes.map(lane_of).collect()
}
