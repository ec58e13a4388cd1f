//! Weights packed for the products: blocks of 16 columns, two blocks side by side, one row of a block for each step of the chain.
//!
//! Block b of a packed matrix with K steps lies in pair b / 2, which begins at (b / 2) * 32 * K; within a pair step k is one run of
//! 32 floats, in a last single block of 16.

use super::{
    Buffer,
    vector::{LANES, prefetch},
};

/// Rows ahead at which a strided copy asks for its source.
const AHEAD: usize = 12;

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
    pair: &mut [f32],
    (place, width): (usize, usize),
    source: Source<'_>,
    (first, count): (usize, usize),
) {
    let step = width * LANES;
    let part = &source.values[first * source.row..(first + count) * source.row];
    if count < LANES {
        pair.chunks_exact_mut(step).for_each(|step| step[place * LANES..(place + 1) * LANES].fill(0.0));
    }
    let quads = count / 4;
    let whole = source.row / 4 * 4;
    // Four steps of the chain at a time, all columns of the block: each line of the packed block is written once.
    for (at, steps) in pair.chunks_exact_mut(4 * step).enumerate().take(whole / 4) {
        for quad in 0..quads {
            let row = |i: usize| {
                let from = (4 * quad + i) * source.row + 4 * at;
                part[from..from + 4].as_array::<4>().copied().unwrap_or_default()
            };
            let place = place * LANES + 4 * quad;
            for (k, column) in transpose([row(0), row(1), row(2), row(3)]).iter().enumerate() {
                steps[k * step + place..k * step + place + 4].copy_from_slice(column);
            }
        }
    }
    for (column, row) in part.chunks_exact(source.row).enumerate() {
        let from = if column < 4 * quads { whole } else { 0 };
        for (k, &w) in row.iter().enumerate().skip(from) {
            pair[k * step + place * LANES + column] = w;
        }
    }
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

/// Packs block `place` of a part of a pair with columns `first..first + count` of the source's rows from `row` on, one a step: for
/// y = x W.
pub(crate) fn pack_columns(
    part: &mut [f32],
    (place, width): (usize, usize),
    source: Source<'_>,
    row: usize,
    (first, count): (usize, usize),
) {
    let rows = source.values[row * source.row..].chunks(source.row);
    for (step, from) in part.chunks_mut(width * LANES).zip(rows) {
        // Rows lie far apart, where no hardware prefetcher looks.
        prefetch(from.as_ptr().wrapping_add(AHEAD * source.row + first));
        let to = &mut step[place * LANES..(place + 1) * LANES];
        match from[first..first + count].as_array::<LANES>() {
            Some(whole) => to.copy_from_slice(whole),
            None => {
                to[..count].copy_from_slice(&from[first..first + count]);
                to[count..].fill(0.0);
            }
        }
    }
}
