//! Activation regularisation and temporal activation regularisation: what they add to the gradient of the last layer's output.
//!
//! Merity, McCann, Socher, "Revisiting activation regularization for language RNNs", 2017, equations 4 and 5, as the program of AWD-LSTM
//! computes them: with h_t the output of the last layer and m_t h_t the same after dropout,
//!
//! ```text
//! alpha mean((m_t h_t)²) + beta mean((h_t - h_(t-1))²)        means over streams, time steps (from the second) and units
//! ```
//!
//! Means are sums over this call's streams, divided by the size of the whole step, so that lanes and workers add up to them: the step's
//! targets stand for its positions, a position without a target adds nothing, and of T steps T - 1 have one before. What a layer
//! starts from, the carry, is no output of the window.

use crate::{
    IGNORED_TARGET, ModelConfig, Window,
    kernels::{LANES, Panels, Team},
};

/// The penalties of one window.
pub(crate) struct Penalty<'a> {
    window: &'a Window<'a>,
    streams: usize,
    /// 2 alpha over the step's outputs: what an output is multiplied by in the gradient.
    activation: f32,
    /// 2 beta over the step's changes.
    temporal: f32,
}

impl<'a> Penalty<'a> {
    pub(crate) fn new(config: &ModelConfig, window: &'a Window<'a>) -> Self {
        let outputs = window.step_tokens as f64 * config.hidden as f64;
        let changes = outputs * (window.steps - 1) as f64 / window.steps as f64;
        let over = |strength: f32, count: f64| match strength > 0.0 && count > 0.0 {
            true => (2.0 * f64::from(strength) / count) as f32,
            false => 0.0,
        };
        Self {
            window,
            streams: window.streams(),
            activation: over(config.regularisation.activation, outputs),
            temporal: over(config.regularisation.temporal_activation, changes),
        }
    }

    /// Adds the gradient of alpha's term. `output` from row `first` on is the (T·B, H) output after dropout, `gradient` its gradient.
    pub(crate) fn add_activation(
        &self,
        team: &Team,
        (output, first): (&Panels, usize),
        gradient: &mut Panels,
    ) {
        if self.activation == 0.0 {
            return;
        }
        let (data, panel_len) = gradient.data_mut();
        team.run_pieces(data, panel_len, |_, panel, data| {
            let output = output.panel_rows(panel, first).as_chunks::<LANES>().0;
            let rows = data.as_chunks_mut::<LANES>().0.iter_mut().zip(output);
            for ((gradient, output), &target) in rows.zip(self.window.targets) {
                if target != IGNORED_TARGET {
                    gradient.iter_mut().zip(output).for_each(|(g, h)| *g += self.activation * h);
                }
            }
        });
    }

    /// Adds the gradient of beta's term. `h` is the ((T+1)·B, H) carry and output before dropout, `gradient` (T·B, H) the output's.
    pub(crate) fn add_temporal(&self, team: &Team, h: &Panels, gradient: &mut Panels) {
        if self.temporal == 0.0 {
            return;
        }
        let (rows, targets) = (self.window.targets.len(), self.window.targets);
        let counts = |row: usize| row >= self.streams && row < rows && targets[row] != IGNORED_TARGET;
        let (data, panel_len) = gradient.data_mut();
        team.run_pieces(data, panel_len, |_, panel, data| {
            let h = h.panel_rows(panel, 0).as_chunks::<LANES>().0;
            for (row, gradient) in data.as_chunks_mut::<LANES>().0.iter_mut().enumerate().take(rows) {
                let (before, now) = (&h[row], &h[row + self.streams]);
                let after = h.get(row + 2 * self.streams).unwrap_or(now);
                let (came, goes) = (counts(row), counts(row + self.streams));
                for (i, gradient) in gradient.iter_mut().enumerate() {
                    let came = if came { now[i] - before[i] } else { 0.0 };
                    let goes = if goes { after[i] - now[i] } else { 0.0 };
                    *gradient += self.temporal * (came - goes);
                }
            }
        });
    }
}
