//! A replica as the coordinator sees it: flat buffers of floats and the names and shapes of what they hold. It knows
//! nothing of what a model computes.

use carousel_proto::digest::{Digest, replica_digest};
use carousel_proto::gradient::GradientLayout;

/// A named tensor's place in a flat buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorShape {
    /// Its name (PyTorch's).
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
}

impl TensorShape {
    /// The number of floats.
    #[must_use]
    pub fn floats(&self) -> usize {
        self.shape.iter().product()
    }
}

/// How the flat buffers of a replica, of a stream's carry and of a gradient are laid out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaLayout {
    /// The parameters, in the order in which they stand in their flat buffer.
    pub parameters: Vec<TensorShape>,
    /// The optimizer's states; each is as long as the parameters.
    pub optimizer_state: Vec<String>,
    /// One stream's carry: (layers, hidden) tensors, in order.
    pub carry: Vec<TensorShape>,
    /// A gradient.
    pub gradient: GradientLayout,
}

impl ReplicaLayout {
    /// Floats of the flat parameters.
    #[must_use]
    pub fn parameter_floats(&self) -> usize {
        self.parameters.iter().map(TensorShape::floats).sum()
    }

    /// Floats of one stream's carry.
    #[must_use]
    pub fn carry_floats(&self) -> usize {
        self.carry.iter().map(TensorShape::floats).sum()
    }

    /// The name of the parameter that holds float `offset` of the flat parameters.
    #[must_use]
    pub fn parameter_at(&self, offset: usize) -> Option<&str> {
        let mut end = 0;
        let holds = |tensor: &&TensorShape| {
            end += tensor.floats();
            offset < end
        };
        self.parameters.iter().find(holds).map(|tensor| tensor.name.as_str())
    }

    /// The names of a replica's sections, in order: the parameters, then each optimizer state.
    pub fn sections(&self) -> impl Iterator<Item = &str> {
        std::iter::once("parameters").chain(self.optimizer_state.iter().map(String::as_str))
    }
}

/// A replica's flat buffers, one a section, each as long as the parameters.
pub type Sections = Vec<std::sync::Arc<Vec<f32>>>;

/// The digest of a replica held in sections.
#[must_use]
pub(crate) fn digest_of(layout: &ReplicaLayout, sections: &Sections) -> Digest {
    replica_digest(layout.sections().zip(sections.iter().map(|s| s.as_slice())))
}
