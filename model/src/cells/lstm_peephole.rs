//! Long short-term memory with diagonal peephole connections: the gates see the cell state.
//!
//! Gers and Schmidhuber, "Recurrent nets that time and count", IJCNN 2000, in the notation of [`super::lstm`]:
//!
//! ```text
//! i = sigmoid(... + w_ci c')   f = sigmoid(... + w_cf c')   g = tanh(...)   c = f c' + i g
//! o = sigmoid(... + w_co c)    h = o tanh(c)
//! ```
//!
//! Parameters as the LSTM's, and `w_ci`, `w_cf`, `w_co` (H). Unlike the original, gradients flow through the peepholes in full.

use super::{
    Cotangent, Equations, Moment, Wiring,
    lstm::{one_minus_square, sigmoid_slope},
};
use crate::kernels::{
    Vector,
    math::{sigmoid, tanh},
};

pub(crate) struct LstmPeephole;

const GATES: &[(usize, usize)] = &[(0, 0), (1, 1), (2, 2), (3, 3)];

impl Equations for LstmPeephole {
    const WIRING: Wiring = Wiring { slots: 4, input: GATES, hidden: GATES };
    const CELL_STATE: bool = true;
    const PEEPHOLES: bool = true;
    const FORGET_BLOCK: Option<usize> = Some(1);

    #[inline(always)]
    fn forward<V: Vector>(z: &mut [V; 4], _h: V, c: V, [ci, cf, co]: &[V; 3]) -> (V, V) {
        let (i, f) = (sigmoid(ci.fma(c, z[0])), sigmoid(cf.fma(c, z[1])));
        let g = tanh(z[2]);
        let c = f.fma(c, i.mul(g));
        let o = sigmoid(co.fma(c, z[3]));
        *z = [i, f, g, o];
        (o.mul(tanh(c)), c)
    }

    #[inline(always)]
    fn backward<V: Vector>(z: &mut [V; 4], m: &Moment<V>, [ci, cf, co]: &[V; 3]) -> Cotangent<V> {
        let [i, f, g, o] = *z;
        let t = tanh(m.c);
        let d_o = m.dh.mul(t).mul(sigmoid_slope(o));
        let dc = m.dh.mul(o).fma(one_minus_square(t), m.dc);
        let dc = d_o.fma(*co, dc);
        let d_i = dc.mul(g).mul(sigmoid_slope(i));
        let d_f = dc.mul(m.c_before).mul(sigmoid_slope(f));
        *z = [d_i, d_f, dc.mul(i).mul(one_minus_square(g)), d_o];
        Cotangent { h: V::zero(), c: d_f.fma(*cf, d_i.fma(*ci, dc.mul(f))) }
    }
}
