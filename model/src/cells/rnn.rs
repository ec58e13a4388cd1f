//! The simple recurrent network, with a hyperbolic tangent or a rectifier.
//!
//! Elman, "Finding structure in time", Cognitive Science 14(2), 1990; the rectifier: Le, Jaitly, Hinton, "A simple way to initialize
//! recurrent networks of rectified linear units", 2015. With x the input and h' the state before:
//!
//! ```text
//! h = tanh(W x + b_ih + W_hh h' + b_hh)      or      h = max(0, W x + b_ih + W_hh h' + b_hh)
//! ```
//!
//! Parameters: `weight_ih` (H, in), `weight_hh` (H, H), `bias_ih`, `bias_hh` (H).

use super::{Cotangent, Equations, Moment, Wiring, lstm::one_minus_square};
use crate::kernels::{Vector, math::tanh};

pub(crate) struct RnnTanh;
pub(crate) struct RnnRelu;

const ONE: &[(usize, usize)] = &[(0, 0)];

impl Equations for RnnTanh {
    const WIRING: Wiring = Wiring { slots: 1, input: ONE, hidden: ONE };

    #[inline(always)]
    fn forward<V: Vector>(z: &mut [V; 4], _h: V, _c: V, _: &[V; 3]) -> (V, V) {
        let h = tanh(z[0]);
        (h, h)
    }

    #[inline(always)]
    fn backward<V: Vector>(z: &mut [V; 4], m: &Moment<V>, _: &[V; 3]) -> Cotangent<V> {
        z[0] = m.dh.mul(one_minus_square(m.h));
        Cotangent { h: V::zero(), c: V::zero() }
    }
}

impl Equations for RnnRelu {
    const WIRING: Wiring = Wiring { slots: 1, input: ONE, hidden: ONE };

    /// A NaN stays one: zero is not greater than it, so it is chosen.
    #[inline(always)]
    fn forward<V: Vector>(z: &mut [V; 4], _h: V, _c: V, _: &[V; 3]) -> (V, V) {
        let h = V::zero().select_greater(z[0], V::zero(), z[0]);
        (h, h)
    }

    #[inline(always)]
    fn backward<V: Vector>(z: &mut [V; 4], m: &Moment<V>, _: &[V; 3]) -> Cotangent<V> {
        z[0] = m.h.select_greater(V::zero(), m.dh, V::zero());
        Cotangent { h: V::zero(), c: V::zero() }
    }
}
