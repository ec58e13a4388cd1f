//! Where the time of a step goes. Measures, decides nothing: no result depends on it.

use std::time::Instant;

/// The stages of a step, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Embedding rows looked up, dropout forward.
    Embedding,
    /// Weights packed and the products with the layers' inputs.
    InputProducts,
    /// The walks forward through time.
    Recurrence,
    /// The decoder's product.
    Logits,
    /// Softmax and cross-entropy.
    Loss,
    /// Gradients of the logits, of the decoder and of its input.
    DecoderBackward,
    /// The walks backward through time.
    RecurrenceBackward,
    /// Gradients of the layers' weights.
    WeightGradients,
    /// Gradients of the layers' inputs, dropout backward.
    InputGradients,
    /// Gradients of touched embedding rows.
    EmbeddingGradient,
}

impl Stage {
    /// All stages in their order.
    pub const ALL: [Stage; 10] = [
        Stage::Embedding,
        Stage::InputProducts,
        Stage::Recurrence,
        Stage::Logits,
        Stage::Loss,
        Stage::DecoderBackward,
        Stage::RecurrenceBackward,
        Stage::WeightGradients,
        Stage::InputGradients,
        Stage::EmbeddingGradient,
    ];

    /// A name for tables.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Embedding => "embedding",
            Stage::InputProducts => "input products",
            Stage::Recurrence => "recurrence",
            Stage::Logits => "logits",
            Stage::Loss => "loss",
            Stage::DecoderBackward => "decoder backward",
            Stage::RecurrenceBackward => "recurrence backward",
            Stage::WeightGradients => "weight gradients",
            Stage::InputGradients => "input gradients",
            Stage::EmbeddingGradient => "embedding gradient",
        }
    }
}

/// Seconds spent in each stage since it was started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch {
    last: Instant,
    seconds: [f64; Stage::ALL.len()],
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self { last: Instant::now(), seconds: [0.0; Stage::ALL.len()] }
    }

    /// The time since the last lap belongs to this stage.
    pub(crate) fn lap(&mut self, stage: Stage) {
        let now = Instant::now();
        self.seconds[stage as usize] += (now - self.last).as_secs_f64();
        self.last = now;
    }

    pub(crate) fn seconds(&self, stage: Stage) -> f64 {
        self.seconds[stage as usize]
    }
}
