//! What a caller of this crate can get wrong. One variant for each thing to be done differently; each carries its numbers.

use thiserror::Error;

use crate::{Cell, SoftmaxError};

/// Why a model, a window or an optimizer state was refused. Nothing was computed, no argument was changed.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A size that must be at least one is zero.
    #[error("model.{0} must be at least 1")]
    ZeroSize(&'static str),
    /// The product of sizes does not fit the machine's address space.
    #[error("the model's sizes overflow: {0} has too many numbers")]
    TooLarge(String),
    /// Tied weights share one matrix, so both sides need one width.
    #[error(
        "model.tied needs model.embedding = model.hidden (of the last layer), found {embedding} and {hidden}"
    )]
    TiedWidths {
        /// Width of the embedding.
        embedding: usize,
        /// Width of the last layer.
        hidden: usize,
    },
    /// Neither one width for all layers nor one for each.
    #[error("model.hidden needs one width, or one for each of {layers} layers, found {found}")]
    Widths {
        /// Widths given.
        found: usize,
        /// Layers of the model.
        layers: usize,
    },
    /// The probability of dropping a unit.
    #[error("model.dropout must be at least 0 and below 1, found {0}")]
    Dropout(f32),
    /// Another probability.
    #[error("model.{key} must be at least 0 and below 1, found {found}")]
    Probability {
        /// Which.
        key: &'static str,
        /// Its value.
        found: f32,
    },
    /// The strength of a penalty.
    #[error("model.{key} must be finite and not negative, found {found}")]
    Strength {
        /// Which.
        key: &'static str,
        /// Its value.
        found: f32,
    },
    /// The half width of the uniform initial distribution.
    #[error("model.init must be finite and not negative, found {0}")]
    Init(f32),
    /// A forget gate's bias that is not a number, or of a cell without a learned forget gate.
    #[error(
        "model.forget_bias must be finite, and 0 unless the cell is {with_gate}, found {found} with {cell}",
        with_gate = Cell::names(Cell::has_forget_gate)
    )]
    ForgetBias {
        /// The bias.
        found: f32,
        /// The cell.
        cell: Cell,
    },
    /// A name of an initialisation that does not exist.
    #[error("unknown initialisation {0:?}: expected uniform, glorot, orthogonal or pytorch")]
    UnknownInitialisation(String),
    /// The softmax does not fit the model.
    #[error(transparent)]
    Softmax(#[from] SoftmaxError),
    /// A name of a cell that does not exist.
    #[error("unknown cell {0:?}: expected {known}", known = Cell::names(|_| true))]
    UnknownCell(String),
    /// A buffer has another length than the configuration and the window ask for.
    #[error("{what}: expected {expected} numbers, found {found}")]
    Length {
        /// Which argument.
        what: &'static str,
        /// Its length by the configuration.
        expected: usize,
        /// Its length as handed in.
        found: usize,
    },
    /// A token that is not of the vocabulary.
    #[error("{what}[{index}] is token {token}, but the vocabulary has {vocabulary}")]
    Token {
        /// `inputs`, `targets` or `tokens`.
        what: &'static str,
        /// Where.
        index: usize,
        /// The token found.
        token: u32,
        /// Size of the vocabulary.
        vocabulary: usize,
    },
    /// A window without steps, lanes or streams, or that counts no tokens.
    #[error("the window has no {0}")]
    EmptyWindow(&'static str),
    /// A group is not a run of the window's lanes.
    #[error("group {start}..{end} is not a run of the window's {lanes} lanes")]
    Group {
        /// First lane of the group, counted inside the window.
        start: usize,
        /// One past its last lane.
        end: usize,
        /// Lanes of the window.
        lanes: usize,
    },
    /// The instruction set asked for by the environment cannot be used.
    #[error("CAROUSEL_ISA={0:?}: expected avx512, avx2 or portable, as far as this processor has it")]
    Isa(String),
    /// The parameters belong to a model of other shapes.
    #[error("the parameters do not belong to this model: {0}")]
    ForeignParameters(String),
    /// An optimizer state lacks a buffer, has one too many or one of another length.
    #[error("optimizer state: {0}")]
    OptimizerState(String),
    /// An option of dynamic evaluation or of the cache out of its range.
    #[error("{option}: found {found}, expected {expected}")]
    EvaluationOption {
        /// Which one.
        option: &'static str,
        /// As given.
        found: f64,
        /// Its range.
        expected: &'static str,
    },
    /// An option of the optimizer that makes no sense.
    #[error("optimizer: {0}")]
    OptimizerOption(String),
}
