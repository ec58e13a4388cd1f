//! Gated recurrent unit.
//!
//! Cho et al., "Learning phrase representations using RNN encoder-decoder", EMNLP 2014, section 2.3, with the reset gate after the
//! recurrent product, as PyTorch's and cuDNN's. With x the input and h' the state before:
//!
//! ```text
//! r = sigmoid(W_ir x + b_ir + W_hr h' + b_hr)      z = sigmoid(W_iz x + b_iz + W_hz h' + b_hz)
//! m = W_hn h' + b_hn                               n = tanh(W_in x + b_in + r m)
//! h = (1 - z) n + z h'
//! ```
//!
//! Parameters: `weight_ih` (3H, in), `weight_hh` (3H, H), `bias_ih`, `bias_hh` (3H), rows r, z, n. The two parts of n are kept apart:
//! slot 2 has the input's, slot 3 the recurrent one, m.

use super::{
    Cotangent, Equations, Moment, Wiring,
    lstm::{one_minus_square, sigmoid_slope},
};
use crate::kernels::{
    Vector,
    math::{sigmoid, tanh},
};

pub(crate) struct Gru;

impl Equations for Gru {
    const WIRING: Wiring =
        Wiring { slots: 4, input: &[(0, 0), (1, 1), (2, 2)], hidden: &[(0, 0), (1, 1), (2, 3)] };
    const DIRECT: bool = true;

    #[inline(always)]
    fn forward<V: Vector>(s: &mut [V; 4], h: V, _c: V, _: &[V; 3]) -> (V, V) {
        let (r, z, m) = (sigmoid(s[0]), sigmoid(s[1]), s[3]);
        let n = tanh(r.fma(m, s[2]));
        *s = [r, z, n, m];
        let h = z.fma(h, V::splat(1.0).sub(z).mul(n));
        (h, h)
    }

    #[inline(always)]
    fn backward<V: Vector>(s: &mut [V; 4], at: &Moment<V>, _: &[V; 3]) -> Cotangent<V> {
        let [r, z, n, m] = *s;
        let dn = at.dh.mul(V::splat(1.0).sub(z)).mul(one_minus_square(n));
        let dz = at.dh.mul(at.h_before.sub(n)).mul(sigmoid_slope(z));
        *s = [dn.mul(m).mul(sigmoid_slope(r)), dz, dn, dn.mul(r)];
        Cotangent { h: at.dh.mul(z), c: V::zero() }
    }
}
