//! Softmax with cross-entropy over logits in panels: the loss of each row, and the gradient in place of the logits.
//!
//! Sums over the vocabulary run in 16 partial sums by column mod 16, which is what a panel's vector is, then through a fixed tree. The
//! vocabulary's products backward take the logits in chunks, while the chunk's gradient is still in the cache.

use super::{
    Context, Decoder, Kernel, LANES, Packed, Panels, View,
    math::exp,
    sums::PanelSum,
    team::Pieces,
    vector::{Vector, prefetch},
    weight_gradient::{Lanes, LeftPanel, Outputs, PackedRight, gradient_task, tasks_for},
};
use crate::IGNORED_TARGET;

/// Rows of one task of the loss: enough chains to hide exp's latency.
pub(super) const ROWS_AT_A_TIME: usize = 16;
/// Panels ahead at which their rows are asked for: each lies on pages of its own, where no hardware prefetcher looks.
const AHEAD: usize = 4;

/// What the softmax of a row needs again, and its loss.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RowLoss {
    /// Largest logit.
    pub(super) max: f32,
    /// Gradient scale over the sum of exp(logit - max); 0 for an ignored target.
    pub(super) factor: f32,
    /// Cross-entropy in nats; 0 for an ignored target.
    pub(crate) loss: f64,
}

impl RowLoss {
    /// Gradient of the row's own logit, after [`row_losses_with_own`].
    pub(crate) fn own_gradient(&self, logit: f32, scale: f64) -> f32 {
        let p = libm::exp(f64::from(logit) - f64::from(self.max)) * f64::from(self.factor);
        (p - scale) as f32
    }
}

/// Loss of every row of the logits. `scale` multiplies the gradient that follows.
pub(crate) fn row_losses(
    ctx: Context<'_>,
    logits: View,
    targets: &[u32],
    scale: f64,
    losses: &mut [RowLoss],
) {
    row_losses_with_own(ctx, (logits, None), targets, scale, losses);
}

/// As [`row_losses`], where a row whose target is not among the columns may bring the target's logit along.
pub(crate) fn row_losses_with_own(
    ctx: Context<'_>,
    (logits, own): (View, Option<&[Option<f32>]>),
    targets: &[u32],
    scale: f64,
    losses: &mut [RowLoss],
) {
    assert!(targets.len() == losses.len() && targets.len() == logits.row_count(), "one target a row");
    assert!(own.is_none_or(|own| own.len() == targets.len()), "one place a row for a logit of its own");
    let pieces = Pieces::new(losses, ROWS_AT_A_TIME);
    ctx.team.run(pieces.count(), |_, piece| {
        // SAFETY: every piece is taken once.
        let losses = unsafe { pieces.take(piece) };
        let row = piece * ROWS_AT_A_TIME;
        let (logits, targets) = (logits.rows(row, losses.len()), &targets[row..row + losses.len()]);
        let own = own.map(|own| &own[row..row + losses.len()]);
        ctx.isa.dispatch(Losses { logits, targets, own, scale, losses });
    });
}

struct Losses<'a> {
    logits: View<'a>,
    targets: &'a [u32],
    own: Option<&'a [Option<f32>]>,
    scale: f64,
    losses: &'a mut [RowLoss],
}

impl Kernel for Losses<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let sums = max_and_sum::<V>(self.logits);
        for (row, &(max, sum)) in sums.iter().enumerate().take(self.losses.len()) {
            self.losses[row] = match self.own.and_then(|own| own[row]) {
                None => self.row(row, max, sum),
                Some(own) => self.row_with_own(own, max, sum),
            };
        }
    }
}

/// Of each of up to 16 rows: the largest logit, and the sum of exp(logit - largest).
#[inline(always)]
pub(super) fn max_and_sum<V: Vector>(logits: View<'_>) -> [(f32, f64); ROWS_AT_A_TIME] {
    let rows = logits.row_count();
    let mut max = [V::splat(f32::NEG_INFINITY); ROWS_AT_A_TIME];
    let mut sum = [V::zero(); ROWS_AT_A_TIME];
    for panel in 0..logits.panel_count() {
        for (row, max) in max.iter_mut().enumerate().take(rows) {
            prefetch(logits.run(panel + AHEAD, row, 1).0);
            // SAFETY: the row exists; nobody writes logits during this phase.
            *max = max.max(unsafe { V::load(logits.at(panel, row)) });
        }
    }
    let max = max.map(|max| tree(max.to_array(), |a, b| if a > b { a } else { b }));
    for panel in 0..logits.panel_count() {
        for (row, sum) in sum.iter_mut().enumerate().take(rows) {
            prefetch(logits.run(panel + AHEAD, row, 1).0);
            // SAFETY: as above.
            let logit = unsafe { V::load(logits.at(panel, row)) };
            *sum = sum.add(exp(logit.sub(V::splat(max[row]))));
        }
    }
    std::array::from_fn(|row| (max[row], tree(sum[row].to_array().map(f64::from), |a, b| a + b)))
}

impl Losses<'_> {
    #[inline(always)]
    fn row(&self, row: usize, max: f32, sum: f64) -> RowLoss {
        let target = self.targets[row];
        if target == IGNORED_TARGET {
            return RowLoss { max, factor: 0.0, loss: 0.0 };
        }
        let (panel, lane) = (target as usize / LANES, target as usize % LANES);
        // SAFETY: targets were checked against the vocabulary.
        let logit = unsafe { *self.logits.at(panel, row).add(lane) };
        let loss = libm::log(sum) - (f64::from(logit) - f64::from(max));
        RowLoss { max, factor: (self.scale / sum) as f32, loss }
    }

    /// With the target's logit beside the columns'.
    #[inline(always)]
    fn row_with_own(&self, own: f32, max: f32, sum: f64) -> RowLoss {
        let top = if own > max { own } else { max };
        let of = |logit: f32| libm::exp(f64::from(logit) - f64::from(top));
        let sum = sum * of(max) + of(own);
        let loss = libm::log(sum) - (f64::from(own) - f64::from(top));
        RowLoss { max: top, factor: (self.scale / sum) as f32, loss }
    }
}

/// The fixed tree over 16 partials: halves are folded onto each other.
#[inline(always)]
pub(super) fn tree<T: Copy>(mut partials: [T; LANES], join: impl Fn(T, T) -> T) -> T {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            partials[i] = join(partials[i], partials[i + half]);
        }
    }
    partials[0]
}

/// What the decoder's backward pass reads and writes.
pub(crate) struct SoftmaxGradient<'a, 'b> {
    pub(crate) decoder: Decoder<'a>,
    pub(crate) lanes: Lanes<'a>,
    /// (T·B) targets and what `row_losses` left.
    pub(crate) targets: &'a [u32],
    pub(crate) losses: &'a [RowLoss],
    /// What the target's share of the gradient is multiplied by.
    pub(crate) scale: f32,
    /// Taken from every column's gradient, in rows with a target: label smoothing's share.
    pub(crate) smoothing: f32,
    /// (T·B, H) the decoder's input, packed.
    pub(crate) hidden: &'a PackedRight,
    pub(crate) weight: Outputs<'b>,
    /// None: no biases.
    pub(crate) bias: Option<Outputs<'b>>,
}

impl SoftmaxGradient<'_, '_> {
    /// Turns logits into their gradients, fills the decoder's gradients and the gradient of its input (T·B, H). `packed` is room for a
    /// chunk's weights.
    pub(crate) fn run(
        &self,
        ctx: Context<'_>,
        logits: &mut Panels,
        (hidden_gradient, packed): (&mut Panels, &mut Packed),
    ) {
        let (logits, gradient) = (logits.view_mut(), hidden_gradient.view_mut());
        assert!(logits.row_count() == self.losses.len() && logits.row_count() == self.targets.len());
        for first in (0..logits.columns()).step_by(Decoder::CHUNK) {
            let range = (first, Decoder::CHUNK.min(logits.columns() - first));
            let panels = self.chunk(logits, range.0, range.1);
            self.logit_gradients(ctx, &panels, range, packed);
            let hidden = self.decoder.hidden_gradient(ctx, logits, range, (packed, gradient));
            let weight_tasks = tasks_for(panels.len(), logits.row_count(), ctx.team.members());
            ctx.team.run(hidden.tasks() + weight_tasks, |member, task| {
                // SAFETY: every task runs once, chunk after chunk; logits are only read; `gradient` and the outputs are borrowed
                // mutably, and different tasks write different parts of them.
                unsafe {
                    if task < hidden.tasks() {
                        hidden.task(ctx, task);
                    } else {
                        let bound = |task: usize| panels.len() * task / weight_tasks;
                        let task = task - hidden.tasks();
                        let left = &panels[bound(task)..bound(task + 1)];
                        gradient_task(ctx, member, self.lanes, (left, self.hidden), &self.weight);
                    }
                }
            });
        }
    }

    /// The chunk's logits become their gradients, with the sums for the biases; its weights are packed.
    fn logit_gradients(
        &self,
        ctx: Context<'_>,
        panels: &[LeftPanel<'_>],
        range: (usize, usize),
        packed: &mut Packed,
    ) {
        let pieces = self.decoder.shape_chunk(packed, range.1);
        ctx.team.run(panels.len() + Decoder::pack_tasks(range.1), |_, task| {
            let Some(&(view, column, count)) = panels.get(task) else {
                // SAFETY: every task runs once.
                return unsafe { self.decoder.pack_task(&pieces, task - panels.len(), range) };
            };
            ctx.isa.dispatch(Gradient { of: self, view, column });
            if let (lanes, Some(out)) = (self.lanes, &self.bias) {
                ctx.isa.dispatch(PanelSum { lanes, view, times: None, first: column, count, out });
            }
        });
    }

    /// The chunk's panels with their first column and count of columns.
    fn chunk<'v>(&self, logits: View<'v>, first: usize, count: usize) -> Vec<LeftPanel<'v>> {
        let starts = (first..first + count).step_by(LANES);
        starts
            .map(|column| {
                (logits.panels(column / LANES, LANES), column, LANES.min(logits.columns() - column))
            })
            .collect()
    }
}

/// One panel of logits becomes its gradient: exp(logit - max) * factor, minus the smoothing, and minus the scale at the target.
struct Gradient<'a, 'b, 'c> {
    of: &'a SoftmaxGradient<'b, 'c>,
    view: View<'a>,
    column: usize,
}

impl Kernel for Gradient<'_, '_, '_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        for (row, (loss, &target)) in self.of.losses.iter().zip(self.of.targets).enumerate() {
            let at = self.view.at(0, row);
            // SAFETY: this panel is this task's alone.
            unsafe {
                let mut p = exp(V::load(at).sub(V::splat(loss.max))).mul(V::splat(loss.factor));
                if self.of.smoothing != 0.0 && loss.factor != 0.0 {
                    p = p.sub(V::splat(self.of.smoothing));
                }
                p.store(at);
                let lane = (target as usize).wrapping_sub(self.column);
                if lane < LANES {
                    *at.add(lane) -= self.of.scale;
                }
            }
        }
    }
}
