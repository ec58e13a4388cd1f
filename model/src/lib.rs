//! Recurrent language models on the CPU: pure computation with one promise, that equal inputs give equal bits.
//!
//! What is here: the shapes of a model, its parameters, forward and backward over one window, the loss, the optimizers, and the
//! kernels under them. What is not: files, sockets, clocks that decide anything, async, tokenizers, or any other crate of the workspace.
//!
//! Laws that hold for every public function:
//!
//! - The result is a function of the arguments alone. Thread count, instruction set, the grouping of streams into calls and of lanes
//!   into partials change no bit of it.
//! - All work runs on the current rayon pool.
//! - What a caller can get wrong is a [`ModelError`], never a panic.

mod activation;
mod bench;
mod cells;
mod config;
mod dense_parts;
mod dropout;
mod dynamic;
mod embedding;
mod error;
mod head;
mod initial;
mod kernels;
mod language_model;
mod layer;
mod layout;
mod masks;
mod neural_cache;
mod optimizer;
mod orthogonal;
mod parameters;
mod pass;
mod philox;
mod regularisation;
mod stopwatch;
mod tree;
pub mod trials;
mod weight_drop;
mod window;

pub use bench::{BenchOptions, BenchReport, Phase, bench, softmax_share, step_flops};
pub use cells::Cell;
pub use config::ModelConfig;
pub use dense_parts::FinishedPart;
pub use dynamic::{DynamicEvaluation, DynamicRule, GradientStatistics};
pub use error::ModelError;
pub use head::{Softmax, SoftmaxError};
pub use initial::Initialisation;
pub use kernels::{Isa, approximations};
pub use language_model::{LanguageModel, Scores};
pub use layout::{CarryTensor, GradientLayout, ParameterLayout, TensorSpec};
pub use masks::GivenMasks;
pub use neural_cache::{CacheOptions, NeuralCache};
pub use optimizer::{AVERAGE, GradientView, Optimizer, OptimizerConfig, Update};
pub use parameters::Parameters;
pub use philox::philox4x32;
pub use regularisation::Regularisation;
pub use stopwatch::Stage;
pub use window::{Gradients, IGNORED_TARGET, LaneLoss, LaneStreams, Partial, Window};
