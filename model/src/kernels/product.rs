//! The product of activations in panels with packed weights: C[r][j] = chain over k of fma(a[r][k], b[k][j], acc).
//!
//! One chain for each element, k in order, starting from C, a bias or zero. Rows and columns are tiled, the chain never is, so the bits
//! equal those of the naive loop whatever the tile.

use std::ops::Range;

use super::{
    Isa, Kernel, View,
    vector::{LANES, Vector, prefetch, prefetch_for_writing, prefetch_to_second_level},
};

/// What the chains start from.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a> {
    /// The values that C holds.
    Accumulate,
    /// One vector, the same for every row.
    Bias(&'a [f32; LANES]),
    Zero,
}

/// Steps ahead of the chain at which the right operand is asked for.
const AHEAD: usize = 16;
/// Steps of a chain that many rows do before they go on: as many runs of a pair as fill two thirds of a 48 KiB first-level cache.
const STEPS_AT_A_TIME: usize = 256;
/// Most rows of [`Products`] that go through the pairs together.
pub(super) const ROWS_AT_A_TIME: usize = 360;
/// Floats of the left operand that go through the pairs together: half of a 2 MiB second-level cache.
const LEFT_FLOATS: usize = 256 << 10;

/// One pair of blocks (or a last single one) for some rows.
pub(crate) struct Product<'a> {
    /// Left operand: the chain runs through these matrices' columns one after another. All have the same rows.
    pub(crate) left: &'a [View<'a>],
    /// Packed right operand of this pair: K runs of `width * 16` floats.
    pub(crate) right: &'a [f32],
    /// Panel of 16 columns that receives each block; both the same for a single block. Same rows as `left`.
    pub(crate) out: [View<'a>; 2],
    /// Blocks: 1 or 2.
    pub(crate) width: usize,
    /// Of each block.
    pub(crate) start: [Start<'a>; 2],
    /// What this thread will read next as a right operand: it is brought to the second-level cache, evenly along the chains. The
    /// third level gives about as many floats a second as a few rows use, so that none of its time may be left.
    pub(crate) next: &'a [f32],
    /// What this thread will read and write soon beside the operands: asked for along the chains.
    pub(crate) soon: &'a [Run],
}

/// A run of memory: its first float and how many there are. Never read through, only asked for.
pub(crate) type Run = (*const f32, usize);

impl Product<'_> {
    /// Computes the product.
    ///
    /// # Safety
    /// No other thread touches the rows of `out`, nobody writes the rows of `left`, and the matrices behind the views are alive.
    pub(crate) unsafe fn compute(&self, isa: Isa) {
        let steps: usize = self.left.iter().map(|v| v.columns()).sum();
        assert_eq!(self.right.len(), steps * self.width * LANES, "right operand");
        let rows = self.out[0].row_count();
        assert!(self.left.iter().all(|v| v.row_count() == rows) && self.out[1].row_count() == rows, "rows");
        isa.dispatch(self);
    }
}

/// One pair of blocks for all rows of [`Products`]: fields as in [`Product`].
pub(crate) struct Pair<'a> {
    pub(crate) right: &'a [f32],
    pub(crate) out: [View<'a>; 2],
    pub(crate) width: usize,
    pub(crate) start: [Start<'a>; 2],
}

/// The products of many rows with several pairs, in an order that keeps a part of the left operand in the second-level cache while all
/// pairs pass over it.
pub(crate) struct Products<'a, F> {
    /// As in [`Product`].
    pub(crate) left: &'a [View<'a>],
    /// Indices of the pairs, and each one's operands. All have the rows of `left`.
    pub(crate) pairs: Range<usize>,
    pub(crate) pair: F,
}

impl<'a, F: Fn(usize) -> Pair<'a>> Products<'a, F> {
    /// Computes the products.
    ///
    /// # Safety
    /// As of [`Product::compute`], for every pair.
    pub(crate) unsafe fn compute(&self, isa: Isa) {
        let rows = self.left.first().map_or(0, |view| view.row_count());
        let chunks = rows.div_ceil(ROWS_AT_A_TIME);
        for chunk in 0..chunks {
            let (from, to) = (rows * chunk / chunks, rows * (chunk + 1) / chunks);
            // SAFETY: as the caller's.
            unsafe { self.rows(isa, (from, to - from)) };
        }
    }

    unsafe fn rows(&self, isa: Isa, (row, rows): (usize, usize)) {
        let mut done = 0;
        for view in self.left {
            for part in parts(*view, LEFT_FLOATS / rows) {
                let left = [part.rows(row, rows)];
                let steps = part.columns();
                for pair in self.pairs.clone() {
                    let Pair { right, out, width, start } = (self.pair)(pair);
                    let right = &right[done * width * LANES..(done + steps) * width * LANES];
                    let out = out.map(|out| out.rows(row, rows));
                    let start = if done == 0 { start } else { [Start::Accumulate; 2] };
                    let next = if pair + 1 < self.pairs.end { (self.pair)(pair + 1).right } else { &[] };
                    let next = &next[next.len().min(done * 2 * LANES)..];
                    // SAFETY: as the caller's.
                    unsafe {
                        Product { left: &left, right, out, width, start, next, soon: &[] }.compute(isa)
                    };
                }
                done += steps;
            }
        }
    }
}

/// The caller of `compute` has promised exclusive access.
impl Kernel for &Product<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        // SAFETY: `compute` checked the lengths and passed on its caller's promise.
        unsafe { blocks::<V>(self) }
    }
}

/// Many rows go through the chain in parts, so that a part of the right operand stays in the first-level cache for all of them.
#[inline(always)]
unsafe fn blocks<V: Vector>(p: &Product<'_>) {
    if p.out[0].row_count() <= 3 * V::TILE_ROWS {
        // SAFETY: as the caller's.
        return unsafe { vectors::<V>(p) };
    }
    let mut start = p.start;
    let mut right = p.right;
    for view in p.left {
        for part in parts(*view, STEPS_AT_A_TIME) {
            let now;
            (now, right) = right.split_at(part.columns() * p.width * LANES);
            let next = if right.is_empty() { p.next } else { right };
            let next = &next[..next.len().min(now.len())];
            let soon = if right.is_empty() { p.soon } else { &[] };
            // SAFETY: as the caller's.
            unsafe { vectors::<V>(&Product { left: &[part], right: now, start, next, soon, ..*p }) };
            start = [Start::Accumulate; 2];
        }
    }
}

/// Cuts a matrix into runs of nearly equally many panels, of at most `most` columns.
fn parts(view: View<'_>, most: usize) -> impl Iterator<Item = View<'_>> {
    let (panels, count) = (view.panel_count(), view.columns().div_ceil(most.max(LANES) / LANES * LANES));
    (0..count).map(move |part| {
        let (from, to) = (panels * part / count, panels * (part + 1) / count);
        view.panels(from, view.columns().min(to * LANES) - from * LANES)
    })
}

#[inline(always)]
unsafe fn vectors<V: Vector>(p: &Product<'_>) {
    // SAFETY: as the caller's; a block offset of 16 floats stays inside each step's run.
    unsafe {
        if p.width == 2 && V::TILE_VECTORS == 2 {
            row_blocks::<V, 2>(p, 0);
        } else {
            for block in 0..p.width {
                row_blocks::<V, 1>(p, block);
            }
        }
    }
}

/// Cuts the rows into tiles of nearly equal height.
#[inline(always)]
unsafe fn row_blocks<V: Vector, const N: usize>(p: &Product<'_>, block: usize) {
    let rows = p.out[0].row_count();
    let tiles = rows.div_ceil(V::TILE_ROWS);
    let steps = p.right.len() / (p.width * LANES);
    let pace = p.next.len().div_ceil(tiles * steps);
    let mut soon = Soon::new(p.soon, tiles * steps.div_ceil(LANES));
    for tile in 0..tiles {
        let (from, to) = (rows * tile / tiles, rows * (tile + 1) / tiles);
        let next = Next { at: p.next.as_ptr().wrapping_add(tile * steps * pace), pace };
        // SAFETY: as the caller's; from < to <= rows, at most TILE_ROWS apart.
        unsafe {
            match to - from {
                1 => tile_of::<V, 1, N>(p, (from, block), next, &mut soon),
                2 => tile_of::<V, 2, N>(p, (from, block), next, &mut soon),
                3 => tile_of::<V, 3, N>(p, (from, block), next, &mut soon),
                4 => tile_of::<V, 4, N>(p, (from, block), next, &mut soon),
                5 => tile_of::<V, 5, N>(p, (from, block), next, &mut soon),
                6 => tile_of::<V, 6, N>(p, (from, block), next, &mut soon),
                7 => tile_of::<V, 7, N>(p, (from, block), next, &mut soon),
                8 => tile_of::<V, 8, N>(p, (from, block), next, &mut soon),
                9 => tile_of::<V, 9, N>(p, (from, block), next, &mut soon),
                10 => tile_of::<V, 10, N>(p, (from, block), next, &mut soon),
                11 => tile_of::<V, 11, N>(p, (from, block), next, &mut soon),
                _ => tile_of::<V, 12, N>(p, (from, block), next, &mut soon),
            }
        }
    }
}

/// Where a tile asks for what comes next, and how many floats it goes on with every step.
#[derive(Clone, Copy)]
struct Next {
    at: *const f32,
    pace: usize,
}

/// Runs of memory asked for line by line, some lines with every panel.
struct Soon<'a> {
    runs: &'a [Run],
    done: usize,
    lines: usize,
}

impl<'a> Soon<'a> {
    fn new(runs: &'a [Run], panels: usize) -> Self {
        let lines: usize = runs.iter().map(|run| run.1.div_ceil(LANES)).sum();
        Self { runs, done: 0, lines: lines.div_ceil(panels) }
    }

    #[inline(always)]
    fn ask(&mut self) {
        for _ in 0..self.lines {
            let Some(&(start, len)) = self.runs.first() else { return };
            prefetch_for_writing(start.wrapping_add(self.done));
            self.done += LANES;
            if self.done >= len {
                (self.runs, self.done) = (&self.runs[1..], 0);
            }
        }
    }
}

/// One register tile: R rows, N blocks, the whole chain.
#[inline(always)]
unsafe fn tile_of<V: Vector, const R: usize, const N: usize>(
    p: &Product<'_>,
    (row, block): (usize, usize),
    mut next: Next,
    soon: &mut Soon<'_>,
) {
    // A tile taller than this vector's registers is never asked for; saying so keeps its code out of the program.
    if R > V::TILE_ROWS {
        return;
    }
    // SAFETY: as the caller's.
    let mut acc = unsafe { starts::<V, R, N>(p, row, block) };
    let step = p.width * LANES;
    let mut b = p.right.as_ptr().wrapping_add(block * LANES);
    for left in p.left {
        let mut remaining = left.columns();
        let first = left.start.cast_const().wrapping_add(row * LANES);
        let mut a = first;
        // The next tile's place in C, a row with every panel.
        let mut below = row + R..p.out[0].row_count().min(row + 2 * R);
        while remaining > 0 {
            let steps = remaining.min(LANES);
            // The next panel's rows lie on another page, where no hardware prefetcher looks. After the last come the next tile's.
            let ahead =
                if remaining > LANES { a.wrapping_add(left.panel) } else { first.wrapping_add(R * LANES) };
            for i in 0..R {
                prefetch(ahead.wrapping_add(i * LANES));
            }
            soon.ask();
            if let Some(row) = below.next() {
                for v in 0..N {
                    prefetch_for_writing(p.out[block + v].at(0, row));
                }
            }
            // SAFETY: `steps` columns of this panel exist for the R rows from `row` on, and as many runs of `step` floats at b.
            unsafe { chain::<V, R, N>(&mut acc, (a, b), (step, steps), next) };
            next.at = next.at.wrapping_add(steps * next.pace);
            b = b.wrapping_add(steps * step);
            a = a.wrapping_add(left.panel);
            remaining -= steps;
        }
    }
    for (i, acc) in acc.iter().enumerate() {
        for (v, acc) in acc.iter().enumerate() {
            // SAFETY: row + i is a row of `out`, and this thread's alone.
            unsafe { acc.store(p.out[block + v].at(0, row + i)) };
        }
    }
}

/// What a tile's chains start from.
#[inline(always)]
unsafe fn starts<V: Vector, const R: usize, const N: usize>(
    p: &Product<'_>,
    row: usize,
    block: usize,
) -> [[V; N]; R] {
    let mut acc = [[V::zero(); N]; R];
    for (i, acc) in acc.iter_mut().enumerate() {
        for (v, acc) in acc.iter_mut().enumerate() {
            *acc = match p.start[block + v] {
                Start::Zero => V::zero(),
                Start::Bias(bias) => V::from_array(*bias),
                // SAFETY: row + i is a row of `out`.
                Start::Accumulate => unsafe { V::load(p.out[block + v].at(0, row + i)) },
            };
        }
    }
    acc
}

/// Up to 16 steps of the chain, the columns of one panel.
#[inline(always)]
unsafe fn chain<V: Vector, const R: usize, const N: usize>(
    acc: &mut [[V; N]; R],
    (a, b): (*const f32, *const f32),
    (step, steps): (usize, usize),
    next: Next,
) {
    for k in 0..steps {
        // SAFETY: the caller gives `steps` runs at b and `steps` columns of R rows at a.
        unsafe {
            let right: [V; N] = std::array::from_fn(|v| V::load(b.add(k * step + v * LANES)));
            for v in 0..N {
                prefetch(b.wrapping_add((k + AHEAD) * step + v * LANES));
            }
            prefetch_to_second_level(next.at.wrapping_add(k * next.pace));
            for (i, acc) in acc.iter_mut().enumerate() {
                let left = V::splat(*a.add(i * LANES + k));
                for (acc, right) in acc.iter_mut().zip(right) {
                    *acc = left.fma(right, *acc);
                }
            }
        }
    }
}
