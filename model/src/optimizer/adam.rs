//! Adam: Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1, in the form of `torch.optim.Adam`.
//!
//! With g = scale · gradient, for every element, embedding rows that were not touched (g = 0) included:
//!
//! ```text
//! m = fma(1 - beta1, g - m, m)                    v = fma((1 - beta2) g, g, beta2 v)
//! w = fma(-learning_rate / (1 - beta1^t), m / fma(sqrt(v), 1 / sqrt(1 - beta2^t), epsilon), w)
//! ```
//!
//! The factors outside the vectors are computed in f64 and rounded once; powers by repeated multiplication.

use rayon::prelude::*;

use super::{CHUNK, GradientView, Update};
use crate::{
    GradientLayout, ModelError,
    kernels::{Buffer, Isa, Kernel, LANES, Vector},
};

pub(crate) struct Adam {
    beta1: f64,
    beta2: f64,
    epsilon: f32,
    exp_avg: Buffer,
    exp_avg_sq: Buffer,
    powers: Powers,
}

/// beta1^t and beta2^t of some step t.
#[derive(Clone, Copy)]
struct Powers {
    step: u64,
    beta1: f64,
    beta2: f64,
}

/// The factors of one update.
#[derive(Clone, Copy)]
struct Factors {
    scale: f32,
    keep1: f32,
    beta2: f32,
    keep2: f32,
    rate: f32,
    root: f32,
    epsilon: f32,
}

impl Adam {
    pub(super) fn new(beta1: f32, beta2: f32, epsilon: f32, len: usize) -> Result<Self, ModelError> {
        let option = |text: String| Err(ModelError::OptimizerOption(text));
        for (name, beta) in [("beta1", beta1), ("beta2", beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return option(format!("{name} must be at least 0 and below 1, found {beta}"));
            }
        }
        if !epsilon.is_finite() || epsilon <= 0.0 {
            return option(format!("epsilon must be positive, found {epsilon}"));
        }
        let powers = Powers { step: 0, beta1: 1.0, beta2: 1.0 };
        let (exp_avg, exp_avg_sq) = (Buffer::zeroed(len), Buffer::zeroed(len));
        Ok(Self { beta1: decimal(beta1), beta2: decimal(beta2), epsilon, exp_avg, exp_avg_sq, powers })
    }

    pub(super) fn state(&self) -> Vec<(&'static str, &[f32])> {
        vec![("exp_avg", &*self.exp_avg), ("exp_avg_sq", &*self.exp_avg_sq)]
    }

    pub(super) fn load(&mut self, exp_avg: &[f32], exp_avg_sq: &[f32]) {
        self.exp_avg.copy_from_slice(exp_avg);
        self.exp_avg_sq.copy_from_slice(exp_avg_sq);
    }

    pub(super) fn apply(
        &mut self,
        isa: Isa,
        values: &mut [f32],
        layout: &GradientLayout,
        gradient: GradientView<'_>,
        update: Update,
    ) {
        let factors = self.factors(update);
        let (embedding, dense) = values.split_at_mut(layout.dense_offset);
        let (m_rows, m) = self.exp_avg.split_at_mut(layout.dense_offset);
        let (v_rows, v) = self.exp_avg_sq.split_at_mut(layout.dense_offset);
        let moments = m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK));
        let weights = dense.par_chunks_mut(CHUNK).zip(gradient.dense.par_chunks(CHUNK));
        weights.zip(moments).for_each(|((weights, gradient), (m, v))| {
            isa.dispatch(Step { weights, gradient, m, v, factors });
        });
        let width = layout.row_width.max(1);
        let zeros = vec![0.0; width];
        let moments = m_rows.par_chunks_mut(width).zip(v_rows.par_chunks_mut(width));
        embedding.par_chunks_mut(width).zip(moments).enumerate().for_each(|(token, (weights, (m, v)))| {
            let touched = gradient.rows.binary_search(&(token as u32));
            let gradient =
                touched.map_or(&zeros[..], |at| &gradient.row_values[at * width..(at + 1) * width]);
            isa.dispatch(Step { weights, gradient, m, v, factors });
        });
    }

    fn factors(&mut self, update: Update) -> Factors {
        if update.step < self.powers.step {
            self.powers = Powers { step: 0, beta1: 1.0, beta2: 1.0 };
        }
        while self.powers.step < update.step {
            self.powers.beta1 *= self.beta1;
            self.powers.beta2 *= self.beta2;
            self.powers.step += 1;
            if self.powers.beta1 == 0.0 && self.powers.beta2 == 0.0 {
                self.powers.step = update.step;
            }
        }
        let (correction1, correction2) = (1.0 - self.powers.beta1, 1.0 - self.powers.beta2);
        Factors {
            scale: update.scale,
            keep1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            keep2: (1.0 - self.beta2) as f32,
            rate: (-f64::from(update.learning_rate) / correction1) as f32,
            root: (1.0 / correction2.sqrt()) as f32,
            epsilon: self.epsilon,
        }
    }
}

/// The number a configuration wrote: the shortest decimal that rounds to `x`, so that 0.999 means 0.999 and not its nearest f32.
fn decimal(x: f32) -> f64 {
    x.to_string().parse().expect("a float's text is a number")
}

struct Step<'a> {
    weights: &'a mut [f32],
    gradient: &'a [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    factors: Factors,
}

impl Kernel for Step<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let whole = self.weights.len() / LANES * LANES;
        let (weights, last_weights) = self.weights.split_at_mut(whole);
        let (m, last_m) = self.m.split_at_mut(whole);
        let (v, last_v) = self.v.split_at_mut(whole);
        let (gradient, last_gradient) = self.gradient.split_at(whole);
        vectors::<V>(weights, gradient, m, v, self.factors);
        let pad = |part: &[f32]| {
            let mut whole = [0.0; LANES];
            whole[..part.len()].copy_from_slice(part);
            whole
        };
        let (mut w16, mut m16, mut v16) = (pad(last_weights), pad(last_m), pad(last_v));
        vectors::<V>(&mut w16, &pad(last_gradient), &mut m16, &mut v16, self.factors);
        let n = last_weights.len();
        last_weights.copy_from_slice(&w16[..n]);
        last_m.copy_from_slice(&m16[..n]);
        last_v.copy_from_slice(&v16[..n]);
    }
}

/// Whole vectors: all four slices have one length, a multiple of 16.
#[inline(always)]
fn vectors<V: Vector>(weights: &mut [f32], gradient: &[f32], m: &mut [f32], v: &mut [f32], f: Factors) {
    let moments = m.as_chunks_mut::<LANES>().0.iter_mut().zip(v.as_chunks_mut::<LANES>().0);
    let weights = weights.as_chunks_mut::<LANES>().0.iter_mut().zip(gradient.as_chunks::<LANES>().0);
    for ((w, g), (m, v)) in weights.zip(moments) {
        let g = V::splat(f.scale).mul(V::from_array(*g));
        let (old_m, old_v) = (V::from_array(*m), V::from_array(*v));
        let new_m = V::splat(f.keep1).fma(g.sub(old_m), old_m);
        let new_v = V::splat(f.keep2).mul(g).fma(g, V::splat(f.beta2).mul(old_v));
        let denominator = new_v.sqrt().fma(V::splat(f.root), V::splat(f.epsilon));
        *w = V::splat(f.rate).fma(new_m.div(denominator), V::from_array(*w)).to_array();
        *m = new_m.to_array();
        *v = new_v.to_array();
    }
}
