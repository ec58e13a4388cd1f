//! exp, tanh and sigmoid as polynomials over FMA: the same bits on every vector width, unlike a system's mathematics library.
//!
//! Method: exp by reduction to [-ln 2 / 2, ln 2 / 2] with a two-part ln 2 (Cody and Waite, "Software Manual for the Elementary
//! Functions", 1980, chapter 6); tanh by an odd polynomial near zero and by exp elsewhere (the same book, chapter 13).
//! The bounds at each function hold at every 1021st float of the whole range, where the worst seen are 0.99, 1.25 and 2.14 units in the
//! last place; `tests/model/approximations.rs` measures them again, and has an ignored test over every float.

use super::vector::Vector;

const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// ln 2 with the low mantissa bits cut, so that n * LN2_HIGH is exact for |n| < 2^9.
const LN2_HIGH: f32 = 355.0 / 512.0;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// 1.5 * 2^23: added to a small float, it leaves the nearest integer in the low mantissa bits.
const ROUNDER: f32 = 12_582_912.0;
const SIGN: u32 = 0x8000_0000;

/// e^x. At most 1.1 units in the last place where the result is normal; 0 below -104, infinity above 88.73; NaN stays NaN.
#[inline(always)]
pub(crate) fn exp<V: Vector>(x: V) -> V {
    let x = V::splat(-104.0).max(V::splat(89.0).min(x));
    let shifted = x.fma(V::splat(LOG2_E), V::splat(ROUNDER));
    let n = shifted.sub(V::splat(ROUNDER));
    let r = n.fma(V::splat(-LN2_HIGH), x);
    let r = n.fma(V::splat(-LN2_LOW), r);
    let mut p = V::splat(1.987_569_1e-4);
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p.fma(r, V::splat(c));
    }
    let p = p.fma(r.mul(r), r).add(V::splat(1.0));
    scale(p, n)
}

/// `p * 2^n` for whole n in [-151, 129], in two exact steps so that subnormal results round once at the end.
#[inline(always)]
fn scale<V: Vector>(p: V, n: V) -> V {
    let half = n.fma(V::splat(0.5), V::splat(ROUNDER)).sub(V::splat(ROUNDER));
    let rest = n.sub(half);
    let power = |n: V| n.add(V::splat(ROUNDER + 127.0)).to_exponent();
    p.mul(power(half)).mul(power(rest))
}

/// 1 / (1 + e^-x). At most 2.5 units in the last place where the result is normal; 0 and 1 at the infinities; NaN stays NaN.
#[inline(always)]
pub(crate) fn sigmoid<V: Vector>(x: V) -> V {
    let negative_abs = x.bit_or(V::splat(f32::from_bits(SIGN)));
    let e = exp(negative_abs);
    let numerator = x.select_greater(V::zero(), V::splat(1.0), e);
    numerator.div(e.add(V::splat(1.0)))
}

/// Hyperbolic tangent. At most 1.6 units in the last place; -1 and 1 at the infinities; keeps the sign of zero; NaN stays NaN.
#[inline(always)]
pub(crate) fn tanh<V: Vector>(x: V) -> V {
    let a = x.bit_and(!SIGN);
    let sign = x.bit_and(SIGN);
    let e = exp(a.add(a));
    let far = V::splat(1.0).sub(V::splat(2.0).div(e.add(V::splat(1.0))));
    let s = x.mul(x);
    let mut p = V::splat(-5.704_988_7e-3);
    for c in [2.063_909e-2, -5.373_972e-2, 1.333_144_2e-1, -3.333_328_4e-1] {
        p = p.fma(s, V::splat(c));
    }
    let near = p.fma(s.mul(a), a);
    a.select_greater(V::splat(0.625), far, near).bit_or(sign)
}
