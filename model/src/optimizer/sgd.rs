//! Plain stochastic gradient descent: w = fma(-learning_rate, scale · gradient, w). No state; untouched embedding rows stay as they are.

use rayon::prelude::*;

use super::{CHUNK, GradientView, Update};
use crate::{
    GradientLayout,
    kernels::{Isa, Kernel, LANES, Vector},
};

pub(crate) struct Sgd;

impl Sgd {
    pub(super) fn apply(
        &self,
        isa: Isa,
        values: &mut [f32],
        layout: &GradientLayout,
        gradient: GradientView<'_>,
        update: Update,
    ) {
        let (embedding, dense) = values.split_at_mut(layout.dense_offset);
        dense.par_chunks_mut(CHUNK).zip(gradient.dense.par_chunks(CHUNK)).for_each(|(weights, gradient)| {
            isa.dispatch(Step { weights, gradient, update });
        });
        let rows = gradient.rows.iter().zip(gradient.row_values.chunks_exact(layout.row_width.max(1)));
        for (&token, gradient) in rows {
            let start = token as usize * layout.row_width;
            let weights = &mut embedding[start..start + layout.row_width];
            isa.dispatch(Step { weights, gradient, update });
        }
    }
}

struct Step<'a> {
    weights: &'a mut [f32],
    gradient: &'a [f32],
    update: Update,
}

impl Kernel for Step<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let (rate, scale) = (V::splat(-self.update.learning_rate), V::splat(self.update.scale));
        let step = |w: V, g: V| rate.fma(scale.mul(g), w);
        let (weights, last_weights) = self.weights.as_chunks_mut::<LANES>();
        let (gradient, last_gradient) = self.gradient.as_chunks::<LANES>();
        for (w, g) in weights.iter_mut().zip(gradient) {
            *w = step(V::from_array(*w), V::from_array(*g)).to_array();
        }
        let pad = |part: &[f32]| {
            let mut whole = [0.0; LANES];
            whole[..part.len()].copy_from_slice(part);
            V::from_array(whole)
        };
        let last = step(pad(last_weights), pad(last_gradient)).to_array();
        last_weights.copy_from_slice(&last[..last_weights.len()]);
    }
}
