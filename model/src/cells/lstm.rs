//! Long short-term memory with forget gate.
//!
//! Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997; the forget gate: Gers, Schmidhuber, Cummins,
//! "Learning to forget", Neural Computation 12(10), 2000. With x the input and (h', c') the state before:
//!
//! ```text
//! i = sigmoid(W_ii x + b_ii + W_hi h' + b_hi)      f = sigmoid(W_if x + b_if + W_hf h' + b_hf)
//! g = tanh(W_ig x + b_ig + W_hg h' + b_hg)         o = sigmoid(W_io x + b_io + W_ho h' + b_ho)
//! c = f c' + i g                                   h = o tanh(c)
//! ```
//!
//! Parameters: `weight_ih` (4H, in), `weight_hh` (4H, H), `bias_ih`, `bias_hh` (4H), rows i, f, g, o.

use super::{Cotangent, Equations, Moment, Wiring};
use crate::kernels::{
    Vector,
    math::{sigmoid, tanh},
};

pub(crate) struct Lstm;

const GATES: &[(usize, usize)] = &[(0, 0), (1, 1), (2, 2), (3, 3)];

impl Equations for Lstm {
    const WIRING: Wiring = Wiring { slots: 4, input: GATES, hidden: GATES };
    const CELL_STATE: bool = true;
    const FORGET_BLOCK: Option<usize> = Some(1);

    #[inline(always)]
    fn forward<V: Vector>(z: &mut [V; 4], _h: V, c: V, _: &[V; 3]) -> (V, V) {
        let [i, f, g, o] = [sigmoid(z[0]), sigmoid(z[1]), tanh(z[2]), sigmoid(z[3])];
        *z = [i, f, g, o];
        let c = f.fma(c, i.mul(g));
        (o.mul(tanh(c)), c)
    }

    #[inline(always)]
    fn backward<V: Vector>(z: &mut [V; 4], m: &Moment<V>, _: &[V; 3]) -> Cotangent<V> {
        let [i, f, g, o] = *z;
        let t = tanh(m.c);
        let dc = m.dh.mul(o).fma(one_minus_square(t), m.dc);
        *z = [
            dc.mul(g).mul(sigmoid_slope(i)),
            dc.mul(m.c_before).mul(sigmoid_slope(f)),
            dc.mul(i).mul(one_minus_square(g)),
            m.dh.mul(t).mul(sigmoid_slope(o)),
        ];
        Cotangent { h: V::zero(), c: dc.mul(f) }
    }
}

/// Derivative of sigmoid where its value is s: s (1 - s).
#[inline(always)]
pub(super) fn sigmoid_slope<V: Vector>(s: V) -> V {
    s.mul(V::splat(1.0).sub(s))
}

/// Derivative of tanh where its value is t: 1 - t².
#[inline(always)]
pub(super) fn one_minus_square<V: Vector>(t: V) -> V {
    V::splat(1.0).sub(t.mul(t))
}
