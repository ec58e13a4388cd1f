//! Long short-term memory as first published, with nothing to forget by: f = 1, the constant error carousel itself.
//!
//! Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997, in the notation of [`super::lstm`]:
//!
//! ```text
//! i = sigmoid(...)   g = tanh(...)   o = sigmoid(...)   c = c' + i g   h = o tanh(c)
//! ```
//!
//! Parameters as the LSTM's, four blocks of rows i, f, g, o; the rows f are not used and their gradient is zero.

use super::{
    Cotangent, Equations, Moment, Wiring,
    lstm::{one_minus_square, sigmoid_slope},
};
use crate::kernels::{
    Vector,
    math::{sigmoid, tanh},
};

pub(crate) struct LstmNoForget;

const GATES: &[(usize, usize)] = &[(0, 0), (2, 1), (3, 2)];

impl Equations for LstmNoForget {
    const WIRING: Wiring = Wiring { slots: 3, input: GATES, hidden: GATES };
    const BLOCKS: usize = 4;
    const CELL_STATE: bool = true;

    #[inline(always)]
    fn forward<V: Vector>(z: &mut [V; 4], _h: V, c: V, _: &[V; 3]) -> (V, V) {
        let [i, g, o] = [sigmoid(z[0]), tanh(z[1]), sigmoid(z[2])];
        *z = [i, g, o, V::zero()];
        let c = i.fma(g, c);
        (o.mul(tanh(c)), c)
    }

    #[inline(always)]
    fn backward<V: Vector>(z: &mut [V; 4], m: &Moment<V>, _: &[V; 3]) -> Cotangent<V> {
        let [i, g, o, _] = *z;
        let t = tanh(m.c);
        let dc = m.dh.mul(o).fma(one_minus_square(t), m.dc);
        *z = [
            dc.mul(g).mul(sigmoid_slope(i)),
            dc.mul(i).mul(one_minus_square(g)),
            m.dh.mul(t).mul(sigmoid_slope(o)),
            V::zero(),
        ];
        Cotangent { h: V::zero(), c: dc }
    }
}
