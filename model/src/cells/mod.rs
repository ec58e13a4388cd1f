//! The recurrent cells as equations on vectors of 16 units. One file a cell; nothing here knows memory, time or threads.
//!
//! Weights have PyTorch's blocks of rows (LSTM i, f, g, o; GRU r, z, n). A cell keeps up to four vectors a unit and step, its slots:
//! pre-activations first, after `forward` what `backward` needs, after `backward` the gradients of the pre-activations.

mod gru;
mod lstm;
mod lstm_coupled;
mod lstm_no_forget;
mod lstm_peephole;
mod rnn;

pub(crate) use gru::Gru;
pub(crate) use lstm::Lstm;
pub(crate) use lstm_coupled::LstmCoupled;
pub(crate) use lstm_no_forget::LstmNoForget;
pub(crate) use lstm_peephole::LstmPeephole;
pub(crate) use rnn::{RnnRelu, RnnTanh};

use crate::{config::Cell, kernels::Vector};

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

/// A cell's equations.
pub(crate) trait Equations {
    /// Slots in use, at most 4.
    const SLOTS: usize;
    /// Whether there is a state c beside h.
    const CELL_STATE: bool;
    /// Whether h reaches the next h by element, without weights.
    const DIRECT: bool = false;
    const WIRING: Wiring;

    /// From pre-activations and the state before: the state (h, c). Leaves in `z` what `backward` needs.
    fn forward<V: Vector>(z: &mut [V; 4], h: V, c: V, peepholes: &[V; 3]) -> (V, V);

    /// Replaces what `forward` left in `z` by gradients of the pre-activations.
    fn backward<V: Vector>(z: &mut [V; 4], moment: &Moment<V>, peepholes: &[V; 3]) -> Cotangent<V>;
}

/// Evaluates an expression with `$e` bound to the cell's equations.
macro_rules! with_equations {
    ($cell:expr, $e:ident => $body:expr) => {
        match $cell {
            $crate::Cell::Lstm => {
                type $e = $crate::cells::Lstm;
                $body
            }
            $crate::Cell::RnnTanh => {
                type $e = $crate::cells::RnnTanh;
                $body
            }
            $crate::Cell::RnnRelu => {
                type $e = $crate::cells::RnnRelu;
                $body
            }
            $crate::Cell::Gru => {
                type $e = $crate::cells::Gru;
                $body
            }
            $crate::Cell::LstmNoForget => {
                type $e = $crate::cells::LstmNoForget;
                $body
            }
            $crate::Cell::LstmPeephole => {
                type $e = $crate::cells::LstmPeephole;
                $body
            }
            $crate::Cell::LstmCoupled => {
                type $e = $crate::cells::LstmCoupled;
                $body
            }
        }
    };
}
pub(crate) use with_equations;

impl Cell {
    pub(crate) fn wiring(self) -> &'static Wiring {
        with_equations!(self, E => const { &<E as Equations>::WIRING })
    }
}
