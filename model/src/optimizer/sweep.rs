//! One pass of an optimizer over all parameters: weights, gradient and states side by side, in chunks over the threads.
//!
//! An optimizer is one expression of an element's own values ([`Rule`]); this file brings the values to it, whole vectors and
//! padded ends alike, so that an element's bits depend on nothing but its values. An embedding row that no token touched has a
//! gradient of zero and is updated as every other: weight decay, momentum and averages do not stop where no token came by.

use rayon::prelude::*;

use super::{CHUNK, GradientView, Update};
use crate::{
    GradientLayout,
    kernels::{Isa, Kernel, LANES, Vector},
};

/// The update of one element with `N` states, each element on its own.
pub(super) trait Rule<const N: usize>: Copy + Send + Sync {
    /// The weight and the states after the update, from those before it and the gradient as it came.
    fn update<V: Vector>(self, weight: V, gradient: V, states: [V; N]) -> (V, [V; N]);
}

/// How the gradient of an element comes from the reduced one: scaled to the global norm, clipped by value
/// (`torch.nn.utils.clip_grad_value_`), and with the weight decay that is part of it (L2).
#[derive(Debug, Clone, Copy)]
pub(super) struct Given {
    scale: f32,
    clip_value: f32,
    weight_decay: f32,
}

impl Given {
    /// `weight_decay` as in `torch.optim.SGD`: g + weight_decay · w.
    pub(super) fn new(update: Update, weight_decay: f32) -> Self {
        let clip_value = update.clip_value.unwrap_or(f32::INFINITY);
        Self { scale: update.scale, clip_value, weight_decay }
    }

    #[inline(always)]
    pub(super) fn gradient<V: Vector>(self, weight: V, gradient: V) -> V {
        let mut g = V::splat(self.scale).mul(gradient);
        if self.clip_value < f32::INFINITY {
            g = g.min(V::splat(self.clip_value)).max(V::splat(-self.clip_value));
        }
        // Without decay nothing is added: 0 times an infinite weight would not be zero.
        if self.weight_decay == 0.0 { g } else { V::splat(self.weight_decay).fma(weight, g) }
    }
}

/// What an update works on, whatever its rule.
pub(super) struct Target<'a> {
    pub isa: Isa,
    /// All parameters.
    pub values: &'a mut [f32],
    pub layout: &'a GradientLayout,
    pub gradient: GradientView<'a>,
}

impl Target<'_> {
    /// Updates every parameter and its states.
    pub(super) fn sweep<const N: usize>(self, states: [&mut [f32]; N], rule: impl Rule<N>) {
        let Self { isa, values, layout, gradient } = self;
        let (embedding, dense) = values.split_at_mut(layout.dense_offset);
        let (row_states, dense_states) = split(states, layout.dense_offset);
        let chunks = dense.par_chunks_mut(CHUNK).zip(gradient.dense.par_chunks(CHUNK));
        chunks.zip(chunked(dense_states, CHUNK, layout.dense_len)).for_each(
            |((weights, gradient), states)| {
                isa.dispatch(Step { weights, gradient, states, rule });
            },
        );
        let width = layout.row_width.max(1);
        let rows = (CHUNK / width).max(1);
        let zeros = vec![0.0; width];
        let states = chunked(row_states, rows * width, layout.dense_offset);
        embedding.par_chunks_mut(rows * width).zip(states).enumerate().for_each(
            |(block, (weights, mut states))| {
                for (row, weights) in weights.chunks_exact_mut(width).enumerate() {
                    let touched = gradient.rows.binary_search(&((block * rows + row) as u32));
                    let gradient =
                        touched.map_or(&zeros[..], |at| &gradient.row_values[at * width..][..width]);
                    let states = states.each_mut().map(|state| &mut state[row * width..][..width]);
                    isa.dispatch(Step { weights, gradient, states, rule });
                }
            },
        );
    }

    /// Updates the dense parameters and the touched rows alone: for a rule that leaves an element of gradient zero as it is.
    pub(super) fn sweep_touched(self, rule: impl Rule<0>) {
        let Self { isa, values, layout, gradient } = self;
        let (embedding, dense) = values.split_at_mut(layout.dense_offset);
        dense.par_chunks_mut(CHUNK).zip(gradient.dense.par_chunks(CHUNK)).for_each(|(weights, gradient)| {
            isa.dispatch(Step { weights, gradient, states: [], rule });
        });
        let width = layout.row_width;
        for (&token, gradient) in gradient.rows.iter().zip(gradient.row_values.chunks_exact(width.max(1))) {
            let weights = &mut embedding[token as usize * width..][..width];
            isa.dispatch(Step { weights, gradient, states: [], rule });
        }
    }
}

fn split<const N: usize>(states: [&mut [f32]; N], at: usize) -> ([&mut [f32]; N], [&mut [f32]; N]) {
    let mut dense: [&mut [f32]; N] = std::array::from_fn(|_| &mut [][..]);
    let mut rows: [&mut [f32]; N] = std::array::from_fn(|_| &mut [][..]);
    for (state, (rows, dense)) in states.into_iter().zip(rows.iter_mut().zip(&mut dense)) {
        (*rows, *dense) = state.split_at_mut(at);
    }
    (rows, dense)
}

/// The states' chunks side by side: of `size` floats each, but for the last, of `len` in all.
fn chunked<const N: usize>(states: [&mut [f32]; N], size: usize, len: usize) -> Vec<[&mut [f32]; N]> {
    let mut chunks = states.map(|state| state.chunks_mut(size));
    let next = |_| chunks.each_mut().map(|state| state.next().expect("states are as long as the parameters"));
    (0..len.div_ceil(size)).map(next).collect()
}

/// One chunk: all slices have one length.
struct Step<'a, const N: usize, R> {
    weights: &'a mut [f32],
    gradient: &'a [f32],
    states: [&'a mut [f32]; N],
    rule: R,
}

impl<const N: usize, R: Rule<N>> Kernel for Step<'_, N, R> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let (weights, last_weights) = self.weights.as_chunks_mut::<LANES>();
        let (gradient, last_gradient) = self.gradient.as_chunks::<LANES>();
        let mut parts = self.states.map(|state| state.as_chunks_mut::<LANES>());
        for (at, (w, g)) in weights.iter_mut().zip(gradient).enumerate() {
            let mut states = [V::zero(); N];
            for (state, (whole, _)) in states.iter_mut().zip(&parts) {
                *state = V::from_array(whole[at]);
            }
            let (new, states) = self.rule.update(V::from_array(*w), V::from_array(*g), states);
            *w = new.to_array();
            for (state, (whole, _)) in states.into_iter().zip(&mut parts) {
                whole[at] = state.to_array();
            }
        }
        let mut states = [V::zero(); N];
        for (state, (_, last)) in states.iter_mut().zip(&parts) {
            *state = padded(last);
        }
        let (new, states) = self.rule.update(padded(last_weights), padded(last_gradient), states);
        last_weights.copy_from_slice(&new.to_array()[..last_weights.len()]);
        for (state, (_, last)) in states.into_iter().zip(&mut parts) {
            last.copy_from_slice(&state.to_array()[..last.len()]);
        }
    }
}

/// Fewer than 16 floats, and zeros after them.
#[inline(always)]
fn padded<V: Vector>(part: &[f32]) -> V {
    let mut whole = [0.0; LANES];
    whole[..part.len()].copy_from_slice(part);
    V::from_array(whole)
}
