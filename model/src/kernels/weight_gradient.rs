//! Weight gradients: dW[j][e] = sum over rows r of left[r][j] * right[r][e], one chain a lane, lanes added by the lane tree.
//!
//! The tree is folded on register tiles: finished subtrees wait on a small stack in the first-level cache, so summing by lanes costs no
//! pass over memory. Nothing here knows which weights these are.

use std::ops::Range;

use super::{
    Buffer, Context, Kernel, View,
    team::Pieces,
    vector::{LANES, Vector},
};
use crate::tree::completed;

/// Columns of one lane inside each time step's rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lane {
    pub(crate) first: usize,
    pub(crate) streams: usize,
}

/// How rows belong to lanes, and lanes to partial sums.
#[derive(Clone, Copy)]
pub(crate) struct Lanes<'a> {
    /// Time steps (T).
    pub(crate) steps: usize,
    /// Rows of a time step (B).
    pub(crate) streams: usize,
    pub(crate) lanes: &'a [Lane],
    /// Runs of lanes; each gives one sum.
    pub(crate) groups: &'a [Range<usize>],
}

/// Where the sums of each group go: one row-major (rows, columns) matrix a group.
pub(crate) struct Outputs<'a> {
    groups: Vec<Pieces<'a>>,
    columns: usize,
}

impl<'a> Outputs<'a> {
    /// The part `range` of each group's flat gradient as a matrix of `columns` columns.
    pub(crate) fn new(groups: impl Iterator<Item = &'a mut [f32]>, columns: usize) -> Self {
        Self { groups: groups.map(|flat| Pieces::new(flat, columns)).collect(), columns }
    }

    /// Writes part of a group's first row.
    ///
    /// # Safety
    /// No other thread touches these columns.
    pub(super) unsafe fn write(&self, group: usize, first: usize, values: &[f32]) {
        assert!(first + values.len() <= self.columns, "columns {first}+{}", values.len());
        // SAFETY: the columns lie inside row 0, and are this thread's alone.
        unsafe {
            let row = self.groups[group].address(0);
            std::ptr::copy_nonoverlapping(values.as_ptr(), row.add(first), values.len());
        }
    }
}

/// Panels side by side in the packed right operand.
const GROUP: usize = 3;
/// The tallest register tile times the widest.
const TILE: usize = 8 * GROUP;

/// The right operand, lane after lane, three panels side by side: a tile reads one run of memory. Group g of a matrix of R rows begins at
/// g * 48 * R; a last group of fewer panels has shorter rows.
#[derive(Default)]
pub(crate) struct PackedRight {
    data: Buffer,
    rows: usize,
    columns: usize,
}

impl PackedRight {
    fn groups(&self) -> usize {
        self.columns.div_ceil(GROUP * LANES)
    }

    /// Panels of this group.
    fn width(&self, group: usize) -> usize {
        (self.columns.div_ceil(LANES) - group * GROUP).min(GROUP)
    }
}

/// Packs the right operand (T·B rows) of weight gradients.
pub(crate) fn pack_right(ctx: Context<'_>, lanes: Lanes<'_>, right: View<'_>, packed: &mut PackedRight) {
    let rows = right.row_count();
    assert_eq!(rows, lanes.steps * lanes.streams, "rows of the window");
    let floats = right.panel_count() * LANES * rows;
    packed.data.grow(floats);
    (packed.rows, packed.columns) = (rows, right.columns());
    let total = right.panel_count();
    ctx.team.run_pieces(&mut packed.data[..floats], GROUP * LANES * rows, |_, group, piece| {
        let width = (total - group * GROUP).min(GROUP);
        for panel in 0..width {
            let mut to = piece[panel * LANES..].chunks_mut(width * LANES);
            lanes.in_order(|row| {
                let to = to.next().expect("one place a row");
                // SAFETY: the row exists; nobody writes the operand during this phase.
                let from = unsafe { &*right.at(group * GROUP + panel, row).cast::<[f32; LANES]>() };
                to[..LANES].copy_from_slice(from);
            });
        }
    });
}

impl Lanes<'_> {
    /// Calls with every row: lanes, in each time steps, in each streams.
    #[inline(always)]
    fn in_order(&self, mut visit: impl FnMut(usize)) {
        for lane in self.lanes {
            for step in 0..self.steps {
                let from = step * self.streams + lane.first;
                (from..from + lane.streams).for_each(&mut visit);
            }
        }
    }
}

/// A panel of the left operand with the first output row and the count of rows that it gives.
pub(crate) type LeftPanel<'a> = (View<'a>, usize, usize);

/// The whole gradient of one matrix.
pub(crate) fn weight_gradient(
    ctx: Context<'_>,
    lanes: Lanes<'_>,
    left: &[LeftPanel<'_>],
    right: &PackedRight,
    out: &Outputs<'_>,
) {
    let chunk = chunk_for(left.len(), ctx.team.members());
    ctx.team.run(left.len().div_ceil(chunk), |member, task| {
        let left = &left[task * chunk..left.len().min((task + 1) * chunk)];
        // SAFETY: every task runs once and the outputs are borrowed mutably.
        unsafe { gradient_task(ctx, member, lanes, (left, right), out) };
    });
}

/// Left panels a task takes: as many as leave every member several tasks, at most four, which fit the second-level cache.
pub(crate) fn chunk_for(panels: usize, members: usize) -> usize {
    (panels / (8 * members)).clamp(1, 4)
}

/// One task: these left panels against the whole right operand.
///
/// # Safety
/// Nobody else touches the output rows of these panels; nobody writes the operands.
pub(crate) unsafe fn gradient_task(
    ctx: Context<'_>,
    member: usize,
    lanes: Lanes<'_>,
    (left, right): (&[LeftPanel<'_>], &PackedRight),
    out: &Outputs<'_>,
) {
    let depth = usize::BITS as usize - lanes.lanes.len().leading_zeros() as usize + 1;
    let packed = left.len() * LANES * right.rows;
    let mut scratch = ctx.scratch.of(member, packed + depth * TILE * LANES);
    let (packed, stack) = scratch.split_at_mut(packed);
    ctx.isa.dispatch(Strips { lanes, left, right, out, packed, stack });
}

/// Left panels against the whole right operand.
struct Strips<'a, 'b> {
    lanes: Lanes<'a>,
    left: &'a [LeftPanel<'a>],
    right: &'a PackedRight,
    out: &'a Outputs<'b>,
    /// The left panels, lane after lane, cut to the height of a register tile.
    packed: &'a mut [f32],
    stack: &'a mut [f32],
}

/// Where a register tile lies: left panel, first column in it, right group, first panel in it.
#[derive(Clone, Copy)]
struct Tile {
    left: usize,
    column: usize,
    group: usize,
    panel: usize,
}

impl Kernel for Strips<'_, '_> {
    #[inline(always)]
    fn run<V: Vector>(mut self) {
        for left in 0..self.left.len() {
            self.pack_left::<V>(left);
        }
        for group in 0..self.right.groups() {
            for left in 0..self.left.len() {
                for column in (0..self.left[left].2).step_by(V::GRADIENT_ROWS) {
                    let mut panel = 0;
                    while panel < self.right.width(group) {
                        let width = V::GRADIENT_VECTORS.min(self.right.width(group) - panel);
                        let tile = Tile { left, column, group, panel };
                        // SAFETY: the caller of `gradient_task` gives exclusive outputs; the tile lies inside both operands.
                        unsafe { self.tile::<V>(tile, width) };
                        panel += width;
                    }
                }
            }
        }
    }
}

impl Strips<'_, '_> {
    /// Columns of the tile that begins at `column` of a panel.
    #[inline(always)]
    fn height<V: Vector>(column: usize) -> usize {
        V::GRADIENT_ROWS.min(LANES - column)
    }

    #[inline(always)]
    fn pack_left<V: Vector>(&mut self, left: usize) {
        let rows = self.right.rows;
        let view = self.left[left].0;
        for column in (0..LANES).step_by(V::GRADIENT_ROWS) {
            let height = Self::height::<V>(column);
            let start = (left * LANES + column) * rows;
            let mut to = self.packed[start..start + height * rows].chunks_exact_mut(height);
            self.lanes.in_order(|row| {
                let to = to.next().expect("one place a row");
                // SAFETY: the row exists; nobody writes the operand during this phase.
                let from = unsafe { &*view.at(0, row).cast::<[f32; LANES]>() };
                to.copy_from_slice(&from[column..column + height]);
            });
        }
    }

    #[inline(always)]
    unsafe fn tile<V: Vector>(&mut self, tile: Tile, width: usize) {
        // SAFETY: as the caller's.
        unsafe {
            match (Self::height::<V>(tile.column), width) {
                (8, 3) => self.groups::<V, 8, 3>(tile),
                (8, 2) => self.groups::<V, 8, 2>(tile),
                (8, _) => self.groups::<V, 8, 1>(tile),
                (6, _) => self.groups::<V, 6, 1>(tile),
                (_, _) => self.groups::<V, 4, 1>(tile),
            }
        }
    }

    #[inline(always)]
    unsafe fn groups<V: Vector, const R: usize, const N: usize>(&mut self, tile: Tile) {
        if R > V::GRADIENT_ROWS || N > V::GRADIENT_VECTORS {
            return;
        }
        for group in 0..self.lanes.groups.len() {
            let mut depth = 0;
            let mut acc = [[V::zero(); N]; R];
            for (index, lane) in self.lanes.lanes[self.lanes.groups[group].clone()].iter().enumerate() {
                if index > 0 {
                    // SAFETY: the stack has room for the tree's depth of tiles.
                    unsafe { push(self.stack, &mut depth, &acc) };
                }
                // SAFETY: as the caller's.
                acc = unsafe { self.lane_chain::<V, R, N>(*lane, tile) };
                for _ in 0..completed(index) {
                    // SAFETY: a trailing one of the index is a finished subtree on the stack.
                    unsafe { pop_and_add(self.stack, &mut depth, &mut acc) };
                }
            }
            while depth > 0 {
                // SAFETY: depth tiles are on the stack.
                unsafe { pop_and_add(self.stack, &mut depth, &mut acc) };
            }
            // SAFETY: as the caller's.
            unsafe { self.store(group, &acc, tile) };
        }
    }

    /// The chain of one lane for one tile: time steps outside, streams inside, from zero.
    #[inline(always)]
    unsafe fn lane_chain<V: Vector, const R: usize, const N: usize>(
        &self,
        lane: Lane,
        tile: Tile,
    ) -> [[V; N]; R] {
        let mut acc = [[V::zero(); N]; R];
        let rows = self.right.rows;
        let first = lane.first * self.lanes.steps;
        let step = self.right.width(tile.group) * LANES;
        let left = &self.packed[(tile.left * LANES + tile.column) * rows + first * R..];
        let right = &self.right.data[tile.group * GROUP * LANES * rows + first * step + tile.panel * LANES..];
        let count = lane.streams * self.lanes.steps;
        assert!(left.len() >= count * R && right.len() >= (count - 1) * step + N * LANES, "rows of a lane");
        let (left, right) = (left.as_ptr(), right.as_ptr());
        for row in 0..count {
            // SAFETY: checked above: R floats of `left` and N vectors of `right` in every row.
            unsafe {
                let right: [V; N] = std::array::from_fn(|v| V::load(right.add(row * step + v * LANES)));
                for (i, acc) in acc.iter_mut().enumerate() {
                    let left = V::splat(*left.add(row * R + i));
                    for (acc, right) in acc.iter_mut().zip(right) {
                        *acc = left.fma(right, *acc);
                    }
                }
            }
        }
        acc
    }

    #[inline(always)]
    unsafe fn store<V: Vector, const R: usize, const N: usize>(
        &self,
        group: usize,
        acc: &[[V; N]; R],
        tile: Tile,
    ) {
        let (_, row, count) = self.left[tile.left];
        for (i, acc) in acc.iter().enumerate().take(count.saturating_sub(tile.column)) {
            // SAFETY: this output row belongs to this task alone.
            let row = unsafe { self.out.groups[group].address(row + tile.column + i) };
            for (v, acc) in acc.iter().enumerate() {
                let at = (tile.group * GROUP + tile.panel + v) * LANES;
                let columns = (self.out.columns - at).min(LANES);
                // SAFETY: `columns` floats of the row begin at `at`.
                unsafe {
                    if columns == LANES {
                        acc.store(row.add(at));
                    } else {
                        std::ptr::copy_nonoverlapping(acc.to_array().as_ptr(), row.add(at), columns);
                    }
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn push<V: Vector, const R: usize, const N: usize>(
    stack: &mut [f32],
    depth: &mut usize,
    acc: &[[V; N]; R],
) {
    let base = &mut stack[*depth * TILE * LANES..(*depth + 1) * TILE * LANES];
    for (at, vector) in acc.iter().flatten().enumerate() {
        // SAFETY: R * N is at most TILE.
        unsafe { vector.store(base.as_mut_ptr().add(at * LANES)) };
    }
    *depth += 1;
}

/// The left subtree comes from the stack: left + right, in this order.
#[inline(always)]
unsafe fn pop_and_add<V: Vector, const R: usize, const N: usize>(
    stack: &[f32],
    depth: &mut usize,
    acc: &mut [[V; N]; R],
) {
    *depth -= 1;
    let base = &stack[*depth * TILE * LANES..(*depth + 1) * TILE * LANES];
    for (at, vector) in acc.iter_mut().flatten().enumerate() {
        // SAFETY: R * N is at most TILE.
        *vector = unsafe { V::load(base.as_ptr().add(at * LANES)) }.add(*vector);
    }
}
