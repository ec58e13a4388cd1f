//! Weights packed for the products: blocks of 16 columns, two blocks side by side, one row of a block for each step of the chain.
//!
//! Block b of a packed matrix with K steps lies in pair b / 2, which begins at (b / 2) * 32 * K; within a pair step k is one run of
//! 32 floats, in a last single block of 16.

use std::ops::Range;

use super::{
    Buffer, Isa, Kernel,
    team::Pieces,
    vector::{LANES, Vector, prefetch},
};

/// Floats ahead in its row at which a transposing copy asks for its source.
const AHEAD: usize = 64;

/// A packed right operand: K steps, `blocks` blocks of 16 columns.
#[derive(Default)]
pub(crate) struct Packed {
    data: Buffer,
    steps: usize,
    blocks: usize,
}

impl Packed {
    /// Makes room for this shape; contents must be packed anew.
    pub(crate) fn shape(&mut self, steps: usize, blocks: usize) {
        self.data.grow(steps * blocks * LANES);
        (self.steps, self.blocks) = (steps, blocks);
    }

    pub(crate) fn pair_count(&self) -> usize {
        self.blocks.div_ceil(2)
    }

    /// Blocks in this pair: 2, or 1 in a last single one.
    pub(crate) fn width(&self, pair: usize) -> usize {
        (self.blocks - 2 * pair).min(2)
    }

    /// One pair's floats.
    pub(crate) fn pair(&self, pair: usize) -> &[f32] {
        let start = pair * 2 * LANES * self.steps;
        &self.data[start..start + self.width(pair) * LANES * self.steps]
    }

    /// Floats of a full pair: at least one, so that data can be cut by it.
    pub(super) fn pair_len(&self) -> usize {
        (2 * LANES * self.steps).max(1)
    }

    /// All pairs, to be packed by different threads.
    pub(super) fn data_mut(&mut self) -> &mut [f32] {
        let len = self.steps * self.blocks * LANES;
        &mut self.data[..len]
    }
}

/// A row-major matrix to pack from.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) values: &'a [f32],
    /// Floats from one row to the next.
    pub(crate) row: usize,
}

/// Packs block `place` of a pair `width` blocks wide with `count` rows of the source from `first` on as its columns: for y = x W^T.
pub(crate) fn pack_rows_as_columns(
    isa: Isa,
    pair: &mut [f32],
    (place, width): (usize, usize),
    source: Source<'_>,
    (first, count): (usize, usize),
) {
    let rows = &source.values[first * source.row..(first + count) * source.row];
    isa.dispatch(Columns { block: &mut pair[place * LANES..], step: width * LANES, rows, row: source.row });
}

/// Up to 16 rows that become the columns of a block.
struct Columns<'a> {
    /// From the block's first float on, `step` floats from one step to the next.
    block: &'a mut [f32],
    step: usize,
    rows: &'a [f32],
    row: usize,
}

impl Kernel for Columns<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { block, step, rows, row } = self;
        let count = rows.len() / row;
        let whole = if count == LANES { row / LANES * LANES } else { 0 };
        for k in (0..whole).step_by(LANES) {
            let mut square = [V::zero(); LANES];
            for (i, from) in square.iter_mut().enumerate() {
                let at = &rows[i * row + k..i * row + k + LANES];
                prefetch(at.as_ptr().wrapping_add(AHEAD));
                // SAFETY: the slice has 16 floats.
                *from = unsafe { V::load(at.as_ptr()) };
            }
            for (i, column) in V::transpose(square).iter().enumerate() {
                let to = &mut block[(k + i) * step..(k + i) * step + LANES];
                // SAFETY: the slice has 16 floats.
                unsafe { column.store(to.as_mut_ptr()) };
            }
        }
        for k in whole..row {
            let to = &mut block[k * step..k * step + LANES];
            let column = |i: usize| if i < count { rows[i * row + k] } else { 0.0 };
            to.copy_from_slice(&std::array::from_fn::<f32, LANES, _>(column));
        }
    }
}

/// Sixteen rows become sixteen columns, four by four.
pub(super) fn transpose_arrays(rows: [[f32; LANES]; LANES]) -> [[f32; LANES]; LANES] {
    let mut columns = [[0.0; LANES]; LANES];
    for i in (0..LANES).step_by(4) {
        for j in (0..LANES).step_by(4) {
            let quad = |k: usize| -> [f32; 4] { std::array::from_fn(|l| rows[i + k][j + l]) };
            for (k, quad) in transpose([quad(0), quad(1), quad(2), quad(3)]).iter().enumerate() {
                columns[j + k][i..i + 4].copy_from_slice(quad);
            }
        }
    }
    columns
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn transpose(rows: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    use std::arch::x86_64::{_MM_TRANSPOSE4_PS, _mm_loadu_ps, _mm_storeu_ps};
    let mut columns = [[0.0; 4]; 4];
    // SAFETY: SSE is part of x86-64; each array holds the four floats that are read or written.
    unsafe {
        let [mut a, mut b, mut c, mut d] = rows.map(|row| _mm_loadu_ps(row.as_ptr()));
        _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
        for (column, vector) in columns.iter_mut().zip([a, b, c, d]) {
            _mm_storeu_ps(column.as_mut_ptr(), vector);
        }
    }
    columns
}

#[cfg(not(target_arch = "x86_64"))]
fn transpose(rows: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    std::array::from_fn(|i| std::array::from_fn(|j| rows[j][i]))
}

/// Packs steps `steps` of every pair with rows of the source, one a step, in the runs of rows that follow each other: for y = x W. A row
/// is read from end to end, as memory likes it.
///
/// # Safety
/// `data` has room for the packed matrix, and nobody else touches these steps of it.
pub(super) unsafe fn pack_rows(
    data: &Pieces<'_>,
    source: Source<'_>,
    (runs, total): (&[(usize, usize)], usize),
    steps: Range<usize>,
) {
    let mut before = 0;
    for &(first, count) in runs {
        for step in steps.start.max(before)..steps.end.min(before + count) {
            let from = (first + step - before) * source.row;
            // SAFETY: as the caller's.
            unsafe { pack_row(data, &source.values[from..from + source.row], (step, total)) };
        }
        before += count;
    }
}

/// One step of every pair.
unsafe fn pack_row(data: &Pieces<'_>, row: &[f32], (step, total): (usize, usize)) {
    let (pairs, rest) = row.as_chunks::<{ 2 * LANES }>();
    for (pair, floats) in pairs.iter().enumerate() {
        // SAFETY: this step of this pair has room for 32 floats, and is the caller's.
        unsafe {
            data.address(pair * 2 * LANES * total + step * 2 * LANES)
                .cast::<[f32; 2 * LANES]>()
                .write(*floats)
        };
    }
    let width = rest.len().div_ceil(LANES);
    if width > 0 {
        let mut floats = [0.0; 2 * LANES];
        floats[..rest.len()].copy_from_slice(rest);
        // SAFETY: this step of the last pair has room for its `width` blocks, and is the caller's.
        unsafe {
            let to = data.address(pairs.len() * 2 * LANES * total + step * width * LANES);
            std::ptr::copy_nonoverlapping(floats.as_ptr(), to, width * LANES);
        }
    }
}
