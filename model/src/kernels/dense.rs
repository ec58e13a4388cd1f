//! Products with whole weight matrices, over all rows of a window: y = x W^T + b forward, dx = dy W backward.

use std::ops::Range;

use super::{
    Context, LANES, Packed, Panels, Source, View,
    pack::{pack_rows, pack_rows_as_columns},
    product::{Pair, Products, ROWS_AT_A_TIME, Start},
    team::Pieces,
};

/// Pairs of the decoder's matrix that are packed at a time: the hidden units pass over so many before they come again.
const PAIRS_AT_A_TIME: usize = 4;
/// Steps of a chain that a task packs.
const STEPS_AT_A_TIME: usize = 32;

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
            pack_rows_as_columns(ctx.isa, piece, (place, places.len()), w, rows);
        }
    });
}

/// Packs `W` (row-major) so that its rows are the steps of the chain: the given runs of rows, one after another.
pub(crate) fn pack_for_input(ctx: Context<'_>, packed: &mut Packed, w: Source<'_>, runs: &[(usize, usize)]) {
    let steps = runs.iter().map(|run| run.1).sum();
    packed.shape(steps, w.row.div_ceil(LANES));
    let pieces = Pieces::new(packed.data_mut(), 1);
    ctx.team.run(steps.div_ceil(STEPS_AT_A_TIME), |_, task| {
        let first = task * STEPS_AT_A_TIME;
        // SAFETY: each task packs its own steps.
        unsafe { pack_rows(&pieces, w, (runs, steps), first..steps.min(first + STEPS_AT_A_TIME)) };
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
    let cut = Cut::new(ctx, out.row_count(), right.pair_count());
    ctx.team.run(cut.tasks(), |_, task| {
        let (rows, pairs) = cut.task(task);
        let left: Vec<View> = left.iter().map(|v| v.rows(rows.start, rows.len())).collect();
        let pair = |pair: usize| {
            let width = right.width(pair);
            let block = |b: usize| out.panels(places[2 * pair + b], LANES).rows(rows.start, rows.len());
            let start = match bias {
                [] => [Start::Zero; 2],
                bias => [Start::Bias(&bias[2 * pair]), Start::Bias(&bias[2 * pair + width - 1])],
            };
            Pair { right: right.pair(pair), out: [block(0), block(width - 1)], width, start }
        };
        // SAFETY: each task writes its own panels and rows of `out`, which is borrowed mutably; `left` lies in other matrices.
        unsafe { Products { left: &left, pairs, pair }.compute(ctx.isa) };
    });
}

/// How a product over many rows is cut into tasks: rows outside, so that a member meets the same rows in neighbouring tasks.
struct Cut {
    rows: usize,
    chunks: usize,
    pairs: usize,
    ranges: usize,
}

impl Cut {
    fn new(ctx: Context<'_>, rows: usize, pairs: usize) -> Self {
        let members = ctx.team.members();
        let chunks = match rows.div_ceil(ROWS_AT_A_TIME) {
            1 => 1,
            many => many.next_multiple_of(members),
        };
        let ranges = (8 * members).div_ceil(chunks).min(pairs);
        Self { rows, chunks, pairs, ranges }
    }

    fn tasks(&self) -> usize {
        self.chunks * self.ranges
    }

    /// Rows and pairs of a task.
    fn task(&self, task: usize) -> (Range<usize>, Range<usize>) {
        let (chunk, range) = (task / self.ranges, task % self.ranges);
        let part = |total: usize, at: usize, of: usize| total * at / of..total * (at + 1) / of;
        (part(self.rows, chunk, self.chunks), part(self.pairs, range, self.ranges))
    }
}

/// The decoder's matrix (V, H) with its two products. It is packed part by part as it is used: a whole packed copy would cost more
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
        let pairs = self.bias.len().div_ceil(2 * LANES);
        let most = PAIRS_AT_A_TIME.min(pairs.div_ceil(4 * ctx.team.members()));
        let tasks = pairs.div_ceil(most);
        ctx.team.run(tasks, |member, task| {
            let pairs = pairs * task / tasks..pairs * (task + 1) / tasks;
            // SAFETY: each task writes its own panels of the logits, which are borrowed mutably; `hidden` is another matrix.
            unsafe { self.logits_task(ctx, member, pairs, (hidden, out)) };
        });
    }

    unsafe fn logits_task(
        &self,
        ctx: Context<'_>,
        member: usize,
        pairs: Range<usize>,
        (hidden, out): (View, View),
    ) {
        let (blocks, len) = (self.bias.len().div_ceil(LANES), 2 * LANES * self.weight.row);
        let width = |pair: usize| (blocks - 2 * pair).min(2);
        let mut scratch = ctx.scratch.of(member, pairs.len() * len);
        for (pair, packed) in pairs.clone().zip(scratch.chunks_exact_mut(len)) {
            for place in 0..width(pair) {
                let (first, rows) = self.block(2 * pair + place);
                let packed = &mut packed[..width(pair) * LANES * self.weight.row];
                pack_rows_as_columns(ctx.isa, packed, (place, width(pair)), self.weight, (first, rows));
            }
        }
        let bias: Vec<[f32; LANES]> =
            (2 * pairs.start..blocks.min(2 * pairs.end)).map(|block| self.bias(block)).collect();
        let first = pairs.start;
        let pair = |pair: usize| {
            let (width, at) = (width(pair), pair - first);
            let block = |b: usize| out.panels(2 * pair + b, LANES);
            let start = [Start::Bias(&bias[2 * at]), Start::Bias(&bias[2 * at + width - 1])];
            let right = &scratch[at * len..][..width * LANES * self.weight.row];
            Pair { right, out: [block(0), block(width - 1)], width, start }
        };
        // SAFETY: as the caller's.
        unsafe { Products { left: &[hidden], pairs, pair }.compute(ctx.isa) };
    }

    /// First token of a block, and how many it has.
    fn block(&self, block: usize) -> (usize, usize) {
        (block * LANES, (self.bias.len() - block * LANES).min(LANES))
    }

    /// Biases of a block. Columns past the vocabulary get a logit of minus infinity: probability 0, whatever the softmax does.
    fn bias(&self, block: usize) -> [f32; LANES] {
        let (first, count) = self.block(block);
        std::array::from_fn(|i| if i < count { self.bias[first + i] } else { f32::NEG_INFINITY })
    }

    /// Columns of the logits taken at a time on the way back.
    pub(crate) const CHUNK: usize = 1024;

    /// One chunk's share of the hidden gradient: (rows, H) continues its chains over the logits' columns `first..first + count`.
    pub(crate) fn hidden_gradient<'a>(
        &self,
        ctx: Context<'_>,
        logits: View<'a>,
        (first, count): (usize, usize),
        (packed, gradient): (&'a Packed, View<'a>),
    ) -> HiddenGradient<'a> {
        let cut = Cut::new(ctx, gradient.row_count(), packed.pair_count());
        HiddenGradient {
            left: logits.panels(first / LANES, count),
            packed,
            gradient,
            begins: first == 0,
            cut,
        }
    }

    /// Tasks that pack a chunk of `count` columns.
    pub(super) fn pack_tasks(count: usize) -> usize {
        count.div_ceil(STEPS_AT_A_TIME)
    }

    /// Packs a task's share of the chunk's weights.
    ///
    /// # Safety
    /// Each task runs once on pieces of [`Self::shape_chunk`].
    pub(super) unsafe fn pack_task(&self, pieces: &Pieces<'_>, task: usize, chunk: (usize, usize)) {
        let first = task * STEPS_AT_A_TIME;
        let steps = first..chunk.1.min(first + STEPS_AT_A_TIME);
        // SAFETY: each task packs its own steps.
        unsafe { pack_rows(pieces, self.weight, (&[chunk], chunk.1), steps) };
    }

    /// Shapes the packed weights of a chunk of `count` columns.
    pub(super) fn shape_chunk<'p>(&self, packed: &'p mut Packed, count: usize) -> Pieces<'p> {
        packed.shape(count, self.weight.row.div_ceil(LANES));
        Pieces::new(packed.data_mut(), 1)
    }
}

/// The product that [`Decoder::hidden_gradient`] describes, in tasks.
pub(crate) struct HiddenGradient<'a> {
    left: View<'a>,
    packed: &'a Packed,
    gradient: View<'a>,
    begins: bool,
    cut: Cut,
}

impl HiddenGradient<'_> {
    pub(crate) fn tasks(&self) -> usize {
        self.cut.tasks()
    }

    /// # Safety
    /// Each task of a chunk runs once, chunks follow each other, nobody else touches the gradient, nobody writes these logits.
    pub(crate) unsafe fn task(&self, ctx: Context<'_>, task: usize) {
        let (rows, pairs) = self.cut.task(task);
        let left = [self.left.rows(rows.start, rows.len())];
        let pair = |pair: usize| {
            let width = self.packed.width(pair);
            let block = |b: usize| self.gradient.panels(2 * pair + b, LANES).rows(rows.start, rows.len());
            let start = [if self.begins { Start::Zero } else { Start::Accumulate }; 2];
            Pair { right: self.packed.pair(pair), out: [block(0), block(width - 1)], width, start }
        };
        // SAFETY: each task writes its own panels and rows; the rest is the caller's promise.
        unsafe { Products { left: &left, pairs, pair }.compute(ctx.isa) };
    }
}
