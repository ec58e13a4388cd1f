//! Products with whole weight matrices, over all rows of a window: y = x W^T + b forward, dx = dy W backward.

use super::{
    Context, LANES, Packed, Panels, Source, View,
    pack::{pack_columns, pack_rows_as_columns},
    product::{Product, Start},
};

/// Rows handed out at a time: enough to use a packed pair often, few enough to share the work evenly.
const ROWS_AT_A_TIME: usize = 96;
/// Steps of a chain done before the next pass, so that a packed pair stays in the second-level cache.
const STEPS_AT_A_TIME: usize = 512;

/// Packs `W` (row-major) so that each block's 16 rows become columns. `blocks` gives first row and count of each block.
pub(crate) fn pack_for_output(
    ctx: Context<'_>,
    packed: &mut Packed,
    w: Source<'_>,
    blocks: &[(usize, usize)],
) {
    packed.shape(w.row, blocks.len());
    let (len, data) = (packed.pair_len(), packed.data_mut());
    ctx.team.run_pieces(data, len, |_, pair, piece| {
        let places = &blocks[2 * pair..blocks.len().min(2 * pair + 2)];
        for (place, &rows) in places.iter().enumerate() {
            pack_rows_as_columns(piece, (place, places.len()), w, rows);
        }
    });
}

/// Packs `W` (row-major) so that its rows are the steps of the chain: the given runs of rows, one after another.
pub(crate) fn pack_for_input(ctx: Context<'_>, packed: &mut Packed, w: Source<'_>, runs: &[(usize, usize)]) {
    let steps = runs.iter().map(|run| run.1).sum();
    packed.shape(steps, w.row.div_ceil(LANES));
    let blocks = w.row.div_ceil(LANES);
    let (len, data) = (packed.pair_len(), packed.data_mut());
    ctx.team.run_pieces(data, len, |_, pair, piece| {
        let width = (blocks - 2 * pair).min(2);
        for place in 0..width {
            let first = (2 * pair + place) * LANES;
            let mut rest = &mut *piece;
            for &(row, count) in runs {
                let (part, after) = rest.split_at_mut(count * width * LANES);
                pack_columns(part, (place, width), w, row, (first, (w.row - first).min(LANES)));
                rest = after;
            }
        }
    });
}

/// One product over all rows with a packed matrix. Panel `places[b]` of `out` receives block b; `bias[b]` starts it, without biases it
/// starts at zero.
pub(crate) fn dense(
    ctx: Context<'_>,
    left: &[View],
    right: &Packed,
    out: &mut Panels,
    (places, bias): (&[usize], &[[f32; LANES]]),
) {
    let out = out.view_mut();
    let rows = out.row_count();
    let chunks = rows.div_ceil(ROWS_AT_A_TIME);
    ctx.team.run(right.pair_count() * chunks, |_, task| {
        let (pair, chunk) = (task / chunks, task % chunks);
        let (from, to) = (rows * chunk / chunks, rows * (chunk + 1) / chunks);
        let width = right.width(pair);
        let block = |b: usize| out.panels(places[2 * pair + b], LANES).rows(from, to - from);
        let left: Vec<View> = left.iter().map(|v| v.rows(from, to - from)).collect();
        let start = match bias {
            [] => [Start::Zero; 2],
            bias => [Start::Bias(&bias[2 * pair]), Start::Bias(&bias[2 * pair + width - 1])],
        };
        let out = [block(0), block(width - 1)];
        let product = Product { left: &left, right: right.pair(pair), out, width, start };
        // SAFETY: each task writes its own panels and rows of `out`, which is borrowed mutably; `left` lies in other matrices.
        unsafe { product.compute(ctx.isa) };
    });
}

/// The decoder's matrix (V, H) with its two products. It is packed pair by pair as it is used: a whole packed copy would cost more
/// memory traffic than packing does.
#[derive(Clone, Copy)]
pub(crate) struct Decoder<'a> {
    pub(crate) weight: Source<'a>,
    pub(crate) bias: &'a [f32],
}

impl Decoder<'_> {
    /// logits (rows, V) = hidden W^T + bias.
    pub(crate) fn logits(&self, ctx: Context<'_>, hidden: View, logits: &mut Panels) {
        let out = logits.view_mut();
        let (vocabulary, width) = (self.bias.len(), self.weight.row);
        let blocks = vocabulary.div_ceil(LANES);
        ctx.team.run(blocks.div_ceil(2), |member, pair| {
            let count = (blocks - 2 * pair).min(2);
            let mut scratch = ctx.scratch.of(member, 2 * LANES * width);
            let packed = &mut scratch[..count * LANES * width];
            // Columns past the vocabulary get a logit of minus infinity: probability 0, whatever the softmax does.
            let mut bias = [[f32::NEG_INFINITY; LANES]; 2];
            for (place, bias) in bias.iter_mut().enumerate().take(count) {
                let first = (2 * pair + place) * LANES;
                let rows = (vocabulary - first).min(LANES);
                pack_rows_as_columns(packed, (place, count), self.weight, (first, rows));
                bias[..rows].copy_from_slice(&self.bias[first..first + rows]);
            }
            let block = |b: usize| out.panels(2 * pair + b, LANES);
            let start = [Start::Bias(&bias[0]), Start::Bias(&bias[count - 1])];
            let out = [block(0), block(count - 1)];
            let product = Product { left: &[hidden], right: packed, out, width: count, start };
            // SAFETY: each task writes its own panels of the logits, which are borrowed mutably; `hidden` is another matrix.
            unsafe { product.compute(ctx.isa) };
        });
    }

    /// Columns of the logits taken at a time by [`Self::hidden_gradient_task`].
    pub(crate) const CHUNK: usize = STEPS_AT_A_TIME;

    /// Tasks of one chunk's share of the hidden gradient: pairs of panels, in parts when there are few.
    pub(crate) fn hidden_gradient_tasks(&self, ctx: Context<'_>) -> usize {
        self.pairs() * self.parts(ctx)
    }

    fn pairs(&self) -> usize {
        self.weight.row.div_ceil(2 * LANES)
    }

    fn parts(&self, ctx: Context<'_>) -> usize {
        (2 * ctx.team.members()).div_ceil(self.pairs())
    }

    /// One task of: hidden gradient (rows, H) continues its chains over the logits' columns `first..first + count`.
    ///
    /// # Safety
    /// Each task of a chunk runs once, chunks follow each other, nobody else touches `gradient`, nobody writes these logits.
    pub(crate) unsafe fn hidden_gradient_task(
        &self,
        ctx: Context<'_>,
        (member, task): (usize, usize),
        logits: View,
        (first, count): (usize, usize),
        gradient: View,
    ) {
        let (rows, parts) = (gradient.row_count(), self.parts(ctx));
        let (pair, part) = (task / parts, task % parts);
        let (from, to) = (rows * part / parts, rows * (part + 1) / parts);
        let blocks = self.weight.row.div_ceil(LANES);
        let width = (blocks - 2 * pair).min(2);
        let mut scratch = ctx.scratch.of(member, 2 * LANES * count);
        let packed = &mut scratch[..width * LANES * count];
        for place in 0..width {
            let column = (2 * pair + place) * LANES;
            let columns = (self.weight.row - column).min(LANES);
            pack_columns(packed, (place, width), self.weight, first, (column, columns));
        }
        let block = |b: usize| gradient.panels(2 * pair + b, LANES).rows(from, to - from);
        let left = [logits.panels(first / LANES, count).rows(from, to - from)];
        let start = [if first == 0 { Start::Zero } else { Start::Accumulate }; 2];
        let out = [block(0), block(width - 1)];
        // SAFETY: each task writes its own panels and rows; the rest is the caller's promise.
        unsafe { Product { left: &left, right: packed, out, width, start }.compute(ctx.isa) };
    }
}
