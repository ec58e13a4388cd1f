//! The product of activations in panels with packed weights: C[r][j] = chain over k of fma(a[r][k], b[k][j], acc).
//!
//! One chain for each element, k in order, starting from C, a bias or zero. Rows and columns are tiled, the chain never is, so the bits
//! equal those of the naive loop whatever the tile.

use super::{
    Isa, Kernel, View,
    vector::{LANES, Vector, prefetch},
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

/// Steps ahead of the chain at which the right operand is asked for: it may come from memory.
const AHEAD: usize = 24;

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
}

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

/// The caller of `compute` has promised exclusive access.
impl Kernel for &Product<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        // SAFETY: `compute` checked the lengths and passed on its caller's promise.
        unsafe { blocks::<V>(self) }
    }
}

#[inline(always)]
unsafe fn blocks<V: Vector>(p: &Product<'_>) {
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
    for tile in 0..tiles {
        let (from, to) = (rows * tile / tiles, rows * (tile + 1) / tiles);
        // SAFETY: as the caller's; from < to <= rows, at most TILE_ROWS apart.
        unsafe {
            match to - from {
                1 => tile_of::<V, 1, N>(p, from, block),
                2 => tile_of::<V, 2, N>(p, from, block),
                3 => tile_of::<V, 3, N>(p, from, block),
                4 => tile_of::<V, 4, N>(p, from, block),
                5 => tile_of::<V, 5, N>(p, from, block),
                6 => tile_of::<V, 6, N>(p, from, block),
                7 => tile_of::<V, 7, N>(p, from, block),
                8 => tile_of::<V, 8, N>(p, from, block),
                9 => tile_of::<V, 9, N>(p, from, block),
                10 => tile_of::<V, 10, N>(p, from, block),
                11 => tile_of::<V, 11, N>(p, from, block),
                _ => tile_of::<V, 12, N>(p, from, block),
            }
        }
    }
}

/// One register tile: R rows, N blocks, the whole chain.
#[inline(always)]
unsafe fn tile_of<V: Vector, const R: usize, const N: usize>(p: &Product<'_>, row: usize, block: usize) {
    // A tile taller than this vector's registers is never asked for; saying so keeps its code out of the program.
    if R > V::TILE_ROWS {
        return;
    }
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
    let step = p.width * LANES;
    let mut b = p.right.as_ptr().wrapping_add(block * LANES);
    for left in p.left {
        let mut remaining = left.columns();
        let mut a = left.start.cast_const().wrapping_add(row * LANES);
        while remaining > 0 {
            let steps = remaining.min(LANES);
            // The next panel's rows lie on another page, where no hardware prefetcher looks.
            for i in 0..R {
                prefetch(a.wrapping_add(left.panel + i * LANES));
            }
            // SAFETY: `steps` columns of this panel exist for the R rows from `row` on, and as many runs of `step` floats at b.
            unsafe { chain::<V, R, N>(&mut acc, a, b, step, steps) };
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

/// Up to 16 steps of the chain, the columns of one panel.
#[inline(always)]
unsafe fn chain<V: Vector, const R: usize, const N: usize>(
    acc: &mut [[V; N]; R],
    a: *const f32,
    b: *const f32,
    step: usize,
    steps: usize,
) {
    for k in 0..steps {
        // SAFETY: the caller gives `steps` runs at b and `steps` columns of R rows at a.
        unsafe {
            let right: [V; N] = std::array::from_fn(|v| V::load(b.add(k * step + v * LANES)));
            for v in 0..N {
                prefetch(b.wrapping_add((k + AHEAD) * step + v * LANES));
            }
            for (i, acc) in acc.iter_mut().enumerate() {
                let left = V::splat(*a.add(i * LANES + k));
                for (acc, right) in acc.iter_mut().zip(right) {
                    *acc = left.fma(right, *acc);
                }
            }
        }
    }
}
