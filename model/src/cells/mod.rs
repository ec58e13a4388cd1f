//! The recurrent cells as equations on vectors of 16 units. One file a cell, and the list of them; nothing here knows memory, time or
//! threads. docs/extending.md says how one is added.
//!
//! Weights have PyTorch's blocks of rows (LSTM i, f, g, o; GRU r, z, n). A cell keeps up to four vectors a unit and step, its slots:
//! pre-activations first, after `forward` what `backward` needs, after `backward` the gradients of the pre-activations.

mod gru;
mod list;
mod lstm;
mod lstm_coupled;
mod lstm_no_forget;
mod lstm_peephole;
mod residual;
mod rnn;

use crate::kernels::Vector;

use list::cells;

cells! { $
    /// Long short-term memory with forget gate.
    Lstm = "lstm" in lstm,
    /// Gated recurrent unit.
    Gru = "gru" in gru,
    /// Simple recurrent network, hyperbolic tangent.
    RnnTanh = "rnn_tanh" in rnn,
    /// Simple recurrent network, rectifier.
    RnnRelu = "rnn_relu" in rnn,
    /// LSTM of 1997: the forget gate is 1.
    LstmNoForget = "lstm_no_forget" in lstm_no_forget,
    /// LSTM with diagonal peephole connections.
    LstmPeephole = "lstm_peephole" in lstm_peephole,
    /// LSTM whose forget gate is 1 - input gate.
    LstmCoupled = "lstm_coupled" in lstm_coupled,
    /// Simple recurrent network whose output is added to its state.
    Residual = "residual" in residual,
}

/// Which block of weight rows feeds which slot: (block, slot) pairs in the order of the weight rows.
pub(crate) struct Wiring {
    pub(crate) slots: usize,
    /// Of `weight_ih` and `bias_ih`.
    pub(crate) input: &'static [(usize, usize)],
    /// Of `weight_hh` and `bias_hh`.
    pub(crate) hidden: &'static [(usize, usize)],
}

impl Wiring {
    /// Whether the chain of this slot begins with the input's product (else with the hidden bias).
    pub(crate) fn starts_from_input(&self, slot: usize) -> bool {
        self.input.iter().any(|wire| wire.1 == slot)
    }

    /// The block of hidden weights that goes on with this slot.
    pub(crate) fn hidden_block(&self, slot: usize) -> Option<usize> {
        self.hidden.iter().find(|wire| wire.1 == slot).map(|wire| wire.0)
    }
}

/// What the backward step of a cell reads beside its slots, for 16 units at one step.
pub(crate) struct Moment<V> {
    pub(crate) h_before: V,
    pub(crate) c_before: V,
    pub(crate) h: V,
    pub(crate) c: V,
    /// Gradient of h, whole.
    pub(crate) dh: V,
    /// Gradient of c from the step after.
    pub(crate) dc: V,
}

/// Gradients handed to the step before, beside those that go through the recurrent weights.
pub(crate) struct Cotangent<V> {
    /// Of h, by element; read only when `DIRECT`.
    pub(crate) h: V,
    /// Of c.
    pub(crate) c: V,
}

/// A cell's equations, and what the rest of the program has to know of it.
pub(crate) trait Equations {
    const WIRING: Wiring;
    /// Slots in use, at most 4.
    const SLOTS: usize = Self::WIRING.slots;
    /// Blocks of H rows in `weight_ih` and `weight_hh` (PyTorch's count), those without a wire included.
    const BLOCKS: usize = Self::WIRING.input.len();
    /// Whether there is a state c beside h.
    const CELL_STATE: bool = false;
    /// Whether h reaches the next h by element, without weights.
    const DIRECT: bool = false;
    /// Whether there are `w_ci`, `w_cf`, `w_co`.
    const PEEPHOLES: bool = false;
    /// The block of `bias_ih` that opens a learned forget gate.
    const FORGET_BLOCK: Option<usize> = None;

    /// From pre-activations and the state before: the state (h, c). Leaves in `z` what `backward` needs.
    fn forward<V: Vector>(z: &mut [V; 4], h: V, c: V, peepholes: &[V; 3]) -> (V, V);

    /// Replaces what `forward` left in `z` by gradients of the pre-activations.
    fn backward<V: Vector>(z: &mut [V; 4], moment: &Moment<V>, peepholes: &[V; 3]) -> Cotangent<V>;
}
