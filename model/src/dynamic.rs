//! Dynamic evaluation: a model that goes on learning while it is measured. Krause, Kahembwe, Murray, Renals, "Dynamic
//! evaluation of neural sequence models", ICML 2018.
//!
//! The text is cut into segments. The loss of a segment is taken with the weights as they are, then they follow the gradient
//! `g` of the segment's mean loss, and fall back towards the trained weights `t`:
//!
//! - `sgd`: `w += lambda (t - w) - eta g`
//! - `rms` (section 4, equations 6 to 8): `w += lambda n (t - w) - eta g / (r + epsilon)`, where `r` is the root of the mean
//!   square of the training text's gradients, element by element, and `n = r / mean(r)`; `lambda n` is at most 1.
//!
//! Each element's update is one fixed expression of its own numbers in f32; the mean of `r` is one f64 sum in the order of the
//! parameters. So threads do not show in the bits. An embedding row that was never touched is where it was, and is not visited.

use std::collections::BTreeSet;

use rayon::prelude::*;

use crate::{
    GradientLayout, Gradients, LaneLoss, LanguageModel, ModelError, Parameters, Partial, Softmax,
    SoftmaxError, Window, optimizer::CHUNK, window::check_length,
};

/// Which way the weights follow a segment's gradient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DynamicRule<'a> {
    /// The same rate for every weight.
    Sgd,
    /// Rates and decays by the training gradients' size.
    Rms {
        /// Gathered over the training text.
        statistics: &'a GradientStatistics,
        /// Added to the root mean square, positive.
        epsilon: f32,
    },
}

/// Mean squares of gradients, one for each parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct GradientStatistics {
    sums: Vec<f32>,
    windows: u64,
}

impl GradientStatistics {
    /// Of no window yet, for a model of this many parameters.
    pub fn new(parameters: usize) -> Self {
        Self { sums: vec![0.0; parameters], windows: 0 }
    }

    /// Adds the squares of a window's gradient. The model must be one [without regularisation](crate::ModelConfig::without_regularisation).
    ///
    /// # Errors
    /// Those of [`LanguageModel::gradients`].
    pub fn add(
        &mut self,
        model: &mut LanguageModel,
        parameters: &Parameters,
        window: &Window<'_>,
        carries: &mut [f32],
    ) -> Result<(), ModelError> {
        check_length("gradient statistics", self.sums.len(), parameters.as_slice().len())?;
        let (mut gradients, layout) = whole_gradient(model, parameters, window, carries)?;
        let Partial { dense, rows, row_values } = &mut gradients.partials[0];
        fold_rows(&layout, dense, rows, row_values);
        let (embedding, sums) = self.sums.split_at_mut(layout.dense_offset);
        let square = |(sum, g): (&mut f32, &f32)| *sum += g * g;
        sums.par_chunks_mut(CHUNK)
            .zip(dense.par_chunks(CHUNK))
            .for_each(|(sums, g)| sums.iter_mut().zip(g).for_each(square));
        for (&row, g) in rows.iter().zip(row_values.chunks_exact(layout.row_width)) {
            let start = row as usize * layout.row_width;
            embedding[start..start + layout.row_width].iter_mut().zip(g).for_each(square);
        }
        self.windows += 1;
        model.recycle(gradients);
        Ok(())
    }

    /// Windows that were added.
    pub fn windows(&self) -> u64 {
        self.windows
    }

    /// Root mean squares.
    fn roots(&self) -> Vec<f32> {
        let windows = self.windows.max(1) as f32;
        self.sums.iter().map(|sum| (sum / windows).sqrt()).collect()
    }
}

/// A model under dynamic evaluation.
pub struct DynamicEvaluation {
    trained: Parameters,
    current: Parameters,
    pace: Pace,
    /// Embedding rows that are not where they were.
    touched: BTreeSet<u32>,
}

/// Rate and decay of each parameter.
enum Pace {
    Same { rate: f32, decay: f32 },
    Each { rates: Vec<f32>, decays: Vec<f32> },
}

impl DynamicEvaluation {
    /// Begins at the trained weights, with a rate (eta) and a decay towards them (lambda).
    ///
    /// # Errors
    /// A rate, decay or epsilon out of its range, or statistics of another model or of no window.
    pub fn new(
        trained: Parameters,
        rule: DynamicRule<'_>,
        (rate, decay): (f32, f32),
    ) -> Result<Self, ModelError> {
        let positive = rate.is_finite() && rate > 0.0;
        check(positive, "the dynamic rate", rate, "a finite number above 0")?;
        check((0.0..=1.0).contains(&decay), "the dynamic decay", decay, "0 to 1")?;
        let pace = match rule {
            DynamicRule::Sgd => Pace::Same { rate, decay },
            DynamicRule::Rms { statistics, epsilon } => {
                let positive = epsilon.is_finite() && epsilon > 0.0;
                check(positive, "the dynamic epsilon", epsilon, "a finite number above 0")?;
                check_length("gradient statistics", trained.as_slice().len(), statistics.sums.len())?;
                check(statistics.windows > 0, "windows of the gradient statistics", 0.0, "at least 1")?;
                each(&statistics.roots(), (rate, decay, epsilon))
            }
        };
        Ok(Self { current: trained.clone(), trained, pace, touched: BTreeSet::new() })
    }

    /// The loss of one segment by the weights as they are, then the update. `carries` moves on as in an evaluation. The model
    /// must be one [without regularisation](crate::ModelConfig::without_regularisation). Works on the current rayon pool.
    ///
    /// # Errors
    /// Those of [`LanguageModel::gradients`]; nothing is changed then.
    pub fn segment(
        &mut self,
        model: &mut LanguageModel,
        window: &Window<'_>,
        carries: &mut [f32],
    ) -> Result<Vec<LaneLoss>, ModelError> {
        let (mut gradients, layout) = whole_gradient(model, &self.current, window, carries)?;
        let losses = std::mem::take(&mut gradients.losses);
        self.follow(&layout, &mut gradients.partials[0]);
        model.recycle(gradients);
        Ok(losses)
    }

    /// The weights as they are now.
    pub fn parameters(&self) -> &Parameters {
        &self.current
    }

    fn follow(&mut self, layout: &GradientLayout, gradient: &mut Partial) {
        let Partial { dense, rows, row_values } = gradient;
        fold_rows(layout, dense, rows, row_values);
        let (trained, pace) = (self.trained.as_slice(), &self.pace);
        let offset = layout.dense_offset;
        let (embedding, weights) = self.current.as_mut_slice().split_at_mut(offset);
        weights.par_chunks_mut(CHUNK).zip(dense.par_chunks(CHUNK)).enumerate().for_each(|(at, (w, g))| {
            pace.step(offset + at * CHUNK, (w, trained), g);
        });
        self.touched.extend(rows.iter());
        let width = layout.row_width;
        let none = vec![0.0; width];
        for &row in &self.touched {
            let start = row as usize * width;
            let found = rows.binary_search(&row);
            let g = found.map_or(&none[..], |at| &row_values[at * width..(at + 1) * width]);
            pace.step(start, (&mut embedding[start..start + width], trained), g);
        }
    }
}

impl Pace {
    /// Moves the weights from parameter `start` on by as many gradients.
    fn step(&self, start: usize, (weights, trained): (&mut [f32], &[f32]), gradient: &[f32]) {
        let range = start..start + weights.len();
        let moved = |w: f32, t: f32, g: f32, rate: f32, decay: f32| w + (decay * (t - w) - rate * g);
        let weights = weights.iter_mut().zip(&trained[range.clone()]).zip(gradient);
        match self {
            Self::Same { rate, decay } => {
                weights.for_each(|((w, &t), &g)| *w = moved(*w, t, g, *rate, *decay))
            }
            Self::Each { rates, decays } => {
                let pace = rates[range.clone()].iter().zip(&decays[range]);
                weights
                    .zip(pace)
                    .for_each(|(((w, &t), &g), (&rate, &decay))| *w = moved(*w, t, g, rate, decay));
            }
        }
    }
}

fn check(holds: bool, option: &'static str, found: f32, expected: &'static str) -> Result<(), ModelError> {
    let found = f64::from(found);
    if holds { Ok(()) } else { Err(ModelError::EvaluationOption { option, found, expected }) }
}

fn each(roots: &[f32], (rate, decay, epsilon): (f32, f32, f32)) -> Pace {
    let mean = roots.iter().map(|&root| f64::from(root)).sum::<f64>() / roots.len() as f64;
    // A model whose every gradient was zero has no mean to be measured by, and nowhere to fall back from.
    let norm = |root: f32| if mean > 0.0 { f64::from(root) / mean } else { 0.0 };
    Pace::Each {
        rates: roots.iter().map(|root| rate / (root + epsilon)).collect(),
        decays: roots.iter().map(|&root| (f64::from(decay) * norm(root)).min(1.0) as f32).collect(),
    }
}

/// The gradient of a window's mean loss, all lanes in one, and how it is cut.
fn whole_gradient(
    model: &mut LanguageModel,
    parameters: &Parameters,
    window: &Window<'_>,
    carries: &mut [f32],
) -> Result<(Gradients, GradientLayout), ModelError> {
    if matches!(model.config().softmax, Softmax::Sampled { .. }) {
        return Err(SoftmaxError::Dynamic.into());
    }
    let all = 0..window.lanes.len();
    let gradients = model.gradients(parameters, window, carries, std::slice::from_ref(&all))?;
    Ok((gradients, model.config().gradient_layout()))
}

/// Tied weights: the rows are added to the dense part, and are gone.
fn fold_rows(layout: &GradientLayout, dense: &mut [f32], rows: &mut Vec<u32>, values: &mut Vec<f32>) {
    let Some(offset) = layout.rows_fold_into else { return };
    for (&row, values) in rows.iter().zip(values.chunks_exact(layout.row_width)) {
        let start = offset + row as usize * layout.row_width;
        dense[start..].iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }
    rows.clear();
    values.clear();
}
