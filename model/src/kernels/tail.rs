//! The softmax of a tail: very many tokens, few rows, narrow weights. Logits are never kept: a chunk of the tokens is computed in the
//! cache, used, and computed again on the way back, which costs less than memory does.
//!
//! Every number has one shape. A row's sum of exp is taken for each chunk about the chunk's own maximum, and the chunks are joined in
//! their order in f64. The gradient of the rows is one chain for each chunk from zero, and the chunks are added in their order.

use super::{
    Buffer, Context, Kernel, LANES, Panels, Source, View,
    math::exp,
    pack::{pack_rows, pack_rows_as_columns},
    product::{Pair, Products, Start},
    softmax::{ROWS_AT_A_TIME, RowLoss, max_and_sum},
    team::{Pieces, Scratch},
    vector::Vector,
    weight_gradient::{Lanes, LeftPanel, Outputs, PackedRight, gradient_task, tasks_for},
};

/// Tokens of a chunk.
const CHUNK: usize = 1024;
/// Chunks whose row gradients wait to be added: enough work for many threads.
const BAND: usize = 64;

/// A tail's products: logits (R, N) = hidden (R, D) W^T, without biases.
#[derive(Clone, Copy)]
pub(crate) struct Tail<'a> {
    /// (N, D).
    pub(crate) weight: Source<'a>,
    /// (R, D).
    pub(crate) hidden: View<'a>,
    /// Room for a chunk, for each member of the team. Not the context's, which the products use.
    pub(crate) room: &'a Scratch,
}

/// One chunk's part of a row's softmax.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    max: f32,
    /// Of exp(logit - max).
    sum: f64,
    /// The target's logit, if it lies in this chunk.
    target: f32,
}

/// A row's whole softmax.
#[derive(Debug, Clone, Copy, Default)]
struct Whole {
    max: f32,
    sum: f64,
}

/// A run of tokens: first and count.
type Tokens = (usize, usize);

impl Tail<'_> {
    fn tokens(&self) -> usize {
        self.weight.values.len() / self.weight.row
    }

    fn chunks(&self) -> usize {
        self.tokens().div_ceil(CHUNK)
    }

    fn chunk(&self, chunk: usize) -> Tokens {
        (chunk * CHUNK, CHUNK.min(self.tokens() - chunk * CHUNK))
    }

    /// Floats of the two parts of a member's room: the chunk's logits, and its packed weights in either direction.
    fn room(&self) -> (usize, usize) {
        let columns = CHUNK.min(self.tokens());
        let across = columns.next_multiple_of(2 * LANES) * self.weight.row;
        let along = columns * self.weight.row.next_multiple_of(LANES);
        (View::floats(self.hidden.row_count(), columns), across.max(along))
    }

    /// A chunk's logits; columns past the tokens are minus infinity.
    fn logits<'r>(&self, ctx: Context<'_>, (first, count): Tokens, room: &'r mut [f32]) -> View<'r> {
        let (logits, packed) = room.split_at_mut(self.room().0);
        let logits = View::over(logits, self.hidden.row_count(), count);
        let (blocks, len) = (count.div_ceil(LANES), 2 * LANES * self.weight.row);
        let width = |pair: usize| (blocks - 2 * pair).min(2);
        let size = |block: usize| LANES.min(count - block * LANES);
        for (pair, packed) in packed.chunks_exact_mut(len).take(blocks.div_ceil(2)).enumerate() {
            let packed = &mut packed[..width(pair) * LANES * self.weight.row];
            for place in 0..width(pair) {
                let block = 2 * pair + place;
                let rows = (first + block * LANES, size(block));
                pack_rows_as_columns(ctx.isa, packed, (place, width(pair)), self.weight, rows);
            }
        }
        let starts: Vec<[f32; LANES]> = (0..blocks)
            .map(|block| std::array::from_fn(|i| if i < size(block) { 0.0 } else { f32::NEG_INFINITY }))
            .collect();
        let pair = |pair: usize| {
            let (width, right) = (width(pair), &packed[pair * len..]);
            let out = |b: usize| logits.panels(2 * pair + b, LANES);
            let start = [Start::Bias(&starts[2 * pair]), Start::Bias(&starts[2 * pair + width - 1])];
            let right = &right[..width * LANES * self.weight.row];
            Pair { right, out: [out(0), out(width - 1)], width, start }
        };
        // SAFETY: the logits lie in room that is borrowed mutably; `hidden` is another matrix, which nobody writes during this phase.
        unsafe { Products { left: &[self.hidden], pairs: 0..blocks.div_ceil(2), pair }.compute(ctx.isa) };
        logits
    }

    /// Calls with every chunk and its logits, on all threads.
    fn for_chunks(&self, ctx: Context<'_>, work: impl Fn(usize, View<'_>) + Sync) {
        let (logits, packed) = self.room();
        ctx.team.run(self.chunks(), |member, chunk| {
            let mut room = self.room.of(member, logits + packed);
            work(chunk, self.logits(ctx, self.chunk(chunk), &mut room));
        });
    }

    /// Every row's parts, chunk after chunk. `targets` are counted in the tail.
    fn parts(&self, ctx: Context<'_>, targets: &[u32]) -> Vec<Part> {
        let rows = self.hidden.row_count();
        let mut parts = vec![Part::default(); rows * self.chunks()];
        let pieces = Pieces::new(&mut parts, rows);
        self.for_chunks(ctx, |chunk, logits| {
            // SAFETY: every piece is taken once.
            let parts = unsafe { pieces.take(chunk) };
            for (at, parts) in parts.chunks_mut(ROWS_AT_A_TIME).enumerate() {
                let logits = logits.rows(at * ROWS_AT_A_TIME, parts.len());
                ctx.isa.dispatch(Sums { logits, parts });
            }
            for (row, (part, &target)) in parts.iter_mut().zip(targets).enumerate() {
                let column = (target as usize).wrapping_sub(chunk * CHUNK);
                if column < logits.columns() {
                    // SAFETY: row and column exist, and this task alone writes the logits.
                    part.target = unsafe { *logits.at(column / LANES, row).add(column % LANES) };
                }
            }
        });
        parts
    }

    /// Loss of every row, for targets counted in the tail. `scale` multiplies the gradient that follows.
    pub(crate) fn losses(&self, ctx: Context<'_>, targets: &[u32], scale: f64, losses: &mut Vec<RowLoss>) {
        let rows = self.hidden.row_count();
        assert_eq!(targets.len(), rows, "one target a row");
        losses.resize(rows, RowLoss::default());
        if rows == 0 {
            return;
        }
        let parts = self.parts(ctx, targets);
        let pieces = Pieces::new(losses, 1);
        ctx.team.run(rows, |_, row| {
            let Whole { max, sum } = whole(&parts, row, rows);
            let logit = parts[targets[row] as usize / CHUNK * rows + row].target;
            let loss = libm::log(sum) - (f64::from(logit) - f64::from(max));
            // SAFETY: every piece is taken once.
            let place = unsafe { pieces.take(row) };
            place[0] = RowLoss { max, factor: (scale / sum) as f32, loss };
        });
    }

    /// Writes the log-probability of every token, plus the row's `offset`, to columns `first..` of the rows of `out` (R, `columns`).
    pub(crate) fn log_probabilities(
        &self,
        ctx: Context<'_>,
        offsets: &[f64],
        (out, columns, first): (&mut [f32], usize, usize),
    ) {
        let rows = self.hidden.row_count();
        assert_eq!(offsets.len(), rows, "one offset a row");
        let parts = self.parts(ctx, &vec![0; rows]);
        let wholes: Vec<Whole> = (0..rows).map(|row| whole(&parts, row, rows)).collect();
        let pieces = Pieces::new(out, columns);
        self.for_chunks(ctx, |chunk, logits| {
            for (row, (whole, offset)) in wholes.iter().zip(offsets).enumerate() {
                let shift = offset - libm::log(whole.sum);
                for column in 0..logits.columns() {
                    // SAFETY: row and column exist; each task writes the columns of its chunk.
                    unsafe {
                        let logit = *logits.at(column / LANES, row).add(column % LANES);
                        let value = (f64::from(logit) - f64::from(whole.max) + shift) as f32;
                        pieces.address(row).add(first + chunk * CHUNK + column).write(value);
                    }
                }
            }
        });
    }
}

/// Joins a row's parts in the order of the chunks.
fn whole(parts: &[Part], row: usize, rows: usize) -> Whole {
    let of_row = || parts.iter().skip(row).step_by(rows);
    let max = of_row().fold(f32::NEG_INFINITY, |max, part| if part.max > max { part.max } else { max });
    let sum = of_row().map(|part| part.sum * libm::exp(f64::from(part.max) - f64::from(max))).sum();
    Whole { max, sum }
}

/// Largest logit and sum of up to 16 rows.
struct Sums<'a> {
    logits: View<'a>,
    parts: &'a mut [Part],
}

impl Kernel for Sums<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        for (part, (max, sum)) in self.parts.iter_mut().zip(max_and_sum::<V>(self.logits)) {
            (part.max, part.sum) = (max, sum);
        }
    }
}

/// What a tail's backward pass reads and writes.
pub(crate) struct TailGradient<'a, 'b> {
    pub(crate) tail: Tail<'a>,
    /// How the R rows belong to lanes.
    pub(crate) lanes: Lanes<'a>,
    /// (R) targets counted in the tail, and what [`Tail::losses`] left.
    pub(crate) targets: &'a [u32],
    pub(crate) losses: &'a [RowLoss],
    pub(crate) scale: f32,
    /// `tail.hidden`, packed.
    pub(crate) hidden: &'a PackedRight,
    /// (N, D) for each group.
    pub(crate) weight: Outputs<'b>,
}

impl TailGradient<'_, '_> {
    /// Fills the gradients of the weights, and that of the rows (R, D).
    pub(crate) fn run(&self, ctx: Context<'_>, gradient: &mut Panels) {
        let (rows, width) = (self.tail.hidden.row_count(), self.tail.weight.row);
        assert!(rows > 0 && rows == self.losses.len() && rows == self.targets.len(), "one target a row");
        let (chunks, floats) = (self.tail.chunks(), View::floats(rows, width));
        let mut shares = Buffer::zeroed(BAND.min(chunks) * floats);
        gradient.clear();
        for first in (0..chunks).step_by(BAND) {
            let count = BAND.min(chunks - first);
            let (logits, packed) = self.tail.room();
            ctx.team.run_pieces(&mut shares[..count * floats], floats, |member, chunk, share| {
                let mut room = self.tail.room.of(member, logits + packed);
                self.chunk((ctx, member), self.tail.chunk(first + chunk), &mut room, share);
            });
            let (data, panel_len) = gradient.data_mut();
            ctx.team.run_pieces(data, panel_len, |_, panel, data| {
                for share in shares[..count * floats].chunks_exact(floats) {
                    let panel = &share[panel * (floats / width.div_ceil(LANES))..][..rows * LANES];
                    data.iter_mut().zip(panel).for_each(|(sum, x)| *sum += x);
                }
            });
        }
    }

    /// One chunk: its weights' gradients, and its share of the rows' gradient.
    fn chunk(
        &self,
        (ctx, member): (Context<'_>, usize),
        tokens: Tokens,
        room: &mut [f32],
        share: &mut [f32],
    ) {
        let (rows, (first, count)) = (self.tail.hidden.row_count(), tokens);
        let logits = self.tail.logits(ctx, tokens, room);
        let panel = |panel: usize| -> LeftPanel<'_> {
            (logits.panels(panel, LANES), first + panel * LANES, LANES.min(count - panel * LANES))
        };
        let panels: Vec<LeftPanel<'_>> = (0..count.div_ceil(LANES)).map(panel).collect();
        for &(view, column, _) in &panels {
            ctx.isa.dispatch(Gradient { of: self, view, column });
        }
        let tasks = tasks_for(panels.len(), rows, 1);
        for task in 0..tasks {
            let left = &panels[panels.len() * task / tasks..panels.len() * (task + 1) / tasks];
            // SAFETY: the output rows are this chunk's; the logits were written by this task, the packed rows before this phase.
            unsafe { gradient_task(ctx, member, self.lanes, (left, self.hidden), &self.weight) };
        }
        let (logits, packed) = room.split_at_mut(self.tail.room().0);
        let logits = View::over(logits, rows, count);
        self.rows(ctx, (logits, tokens), packed, View::over(share, rows, self.tail.weight.row));
    }

    /// The rows' gradient through one chunk: logits' gradients times weights, from zero.
    fn rows(
        &self,
        ctx: Context<'_>,
        (logits, tokens): (View<'_>, Tokens),
        packed: &mut [f32],
        out: View<'_>,
    ) {
        let weight = self.tail.weight;
        let (steps, blocks) = (tokens.1, weight.row.div_ceil(LANES));
        let pieces = Pieces::new(packed, 1);
        // SAFETY: the room is this task's alone.
        unsafe { pack_rows(&pieces, weight, (&[tokens], steps), 0..steps) };
        let pair = |pair: usize| {
            let width = (blocks - 2 * pair).min(2);
            let right = &packed[pair * 2 * LANES * steps..][..width * LANES * steps];
            let block = |b: usize| out.panels(2 * pair + b, LANES);
            Pair { right, out: [block(0), block(width - 1)], width, start: [Start::Zero; 2] }
        };
        // SAFETY: `out` is this task's alone, and so are the logits.
        unsafe { Products { left: &[logits], pairs: 0..blocks.div_ceil(2), pair }.compute(ctx.isa) };
    }
}

/// One panel of logits becomes its gradient: exp(logit - max) * factor, minus the scale at the target.
struct Gradient<'a, 'b, 'c> {
    of: &'a TailGradient<'b, 'c>,
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
                let p = exp(V::load(at).sub(V::splat(loss.max))).mul(V::splat(loss.factor));
                p.store(at);
                let lane = (target as usize).wrapping_sub(self.column);
                if lane < LANES {
                    *at.add(lane) -= self.of.scale;
                }
            }
        }
    }
}
