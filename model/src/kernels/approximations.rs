//! The elementary functions as the kernels compute them, one number at a time: for measuring their error, not for speed.

use super::{Isa, Kernel, math, vector::Vector};

/// A function of this crate's numerics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// e^x.
    Exp,
    /// Hyperbolic tangent.
    Tanh,
    /// 1 / (1 + e^-x).
    Sigmoid,
}

/// Replaces every number by the function's value, with the given instruction set's vectors.
pub fn apply(function: Function, isa: Isa, values: &mut [f32]) {
    isa.dispatch(Apply { function, values });
}

struct Apply<'a> {
    function: Function,
    values: &'a mut [f32],
}

impl Kernel for Apply<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        for chunk in self.values.chunks_mut(super::LANES) {
            let mut x = [0.0; super::LANES];
            x[..chunk.len()].copy_from_slice(chunk);
            let x = V::from_array(x);
            let y = match self.function {
                Function::Exp => math::exp(x),
                Function::Tanh => math::tanh(x),
                Function::Sigmoid => math::sigmoid(x),
            };
            chunk.copy_from_slice(&y.to_array()[..chunk.len()]);
        }
    }
}
