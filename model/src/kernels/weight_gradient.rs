//! Weight gradients: dW[j][e] = sum over rows r of left[r][j] * right[r][e], one chain a lane, lanes added by the lane tree.
//!
//! A lane's chain stays in a register tile from its first row to its last. The tree is folded on such tiles: finished subtrees wait on a
//! small stack in the first-level cache, so summing by lanes costs no pass over memory. Nothing here knows which weights these are.

use std::ops::Range;

use super::{
    Buffer, Context, Kernel, View,
    team::Pieces,
    vector::{LANES, Vector, prefetch, prefetch_for_writing},
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

/// Most panels side by side in the packed right operand.
const GROUP: usize = 3;
/// Most floats of a register tile.
const TILE: usize = 8 * GROUP * LANES;
/// Floats of packed left panels that a task takes at most: with a group of the right operand, they fit the second-level cache.
const LEFT_FLOATS: usize = 192 << 10;
/// Most left panels of a task.
const MOST_PANELS: usize = 12;
/// Rows ahead at which the operands are asked for.
const AHEAD: usize = 12;
/// Time steps ahead at which packing asks for a lane's rows: they lie too far apart for hardware prefetchers.
const STEPS_AHEAD: usize = 6;

/// The right operand, lane after lane, up to three panels side by side: a tile reads one run of memory. The panels are dealt evenly to
/// the groups; the group whose first panel is p begins at p * 16 * R for a matrix of R rows.
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
    fn panels(&self, group: usize) -> Range<usize> {
        let (panels, groups) = (self.columns.div_ceil(LANES), self.groups());
        panels * group / groups..panels * (group + 1) / groups
    }
}

/// Packs the right operand (T·B rows) of weight gradients.
pub(crate) fn pack_right(ctx: Context<'_>, lanes: Lanes<'_>, right: View<'_>, packed: &mut PackedRight) {
    let rows = right.row_count();
    assert_eq!(rows, lanes.steps * lanes.streams, "rows of the window");
    let floats = right.panel_count() * LANES * rows;
    packed.data.grow(floats);
    (packed.rows, packed.columns) = (rows, right.columns());
    let groups: Vec<Range<usize>> = (0..packed.groups()).map(|group| packed.panels(group)).collect();
    let pieces = Pieces::new(&mut packed.data[..floats], LANES * rows);
    ctx.team.run(groups.len(), |_, group| {
        let panels = groups[group].clone();
        // SAFETY: each group's run of memory is written by one task; the rows exist, and nobody writes the operand during this phase.
        unsafe { pack_group(lanes, right, panels.clone(), pieces.address(panels.start)) };
    });
}

/// Interleaves a group's panels, lane after lane.
unsafe fn pack_group(lanes: Lanes<'_>, right: View<'_>, panels: Range<usize>, mut to: *mut f32) {
    lanes.in_order(|row| {
        for panel in panels.clone() {
            prefetch(right.run(panel, row + STEPS_AHEAD * lanes.streams, 1).0);
            // SAFETY: the caller gives room for every row of the group's panels.
            unsafe { to.cast::<[f32; LANES]>().write(*right.at(panel, row).cast::<[f32; LANES]>()) };
            to = to.wrapping_add(LANES);
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
    let tasks = tasks_for(left.len(), right.rows, ctx.team.members());
    ctx.team.run(tasks, |member, task| {
        let left = &left[left.len() * task / tasks..left.len() * (task + 1) / tasks];
        // SAFETY: every task runs once and the outputs are borrowed mutably.
        unsafe { gradient_task(ctx, member, lanes, (left, right), out) };
    });
}

/// Tasks that left panels of this many rows are dealt to, evenly: as many panels each as fit the cache, at least four tasks a member.
pub(crate) fn tasks_for(panels: usize, rows: usize, members: usize) -> usize {
    let most = (LEFT_FLOATS / (LANES * rows)).clamp(1, MOST_PANELS);
    let tasks = panels.div_ceil(most).max(4 * members).next_multiple_of(members);
    tasks.min(panels)
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
    let packed = left.len() * LANES * right.rows;
    let depth = lanes.lanes.len().ilog2() as usize + 2;
    let mut scratch = ctx.scratch.of(member, packed + depth * TILE);
    let (packed, stack) = scratch.split_at_mut(packed);
    ctx.isa.dispatch(Strips { lanes, left, right, out, packed, stack });
}

/// Left panels against the whole right operand, one group of right panels after another.
struct Strips<'a, 'b> {
    lanes: Lanes<'a>,
    left: &'a [LeftPanel<'a>],
    right: &'a PackedRight,
    out: &'a Outputs<'b>,
    /// The left panels, lane after lane, cut to the height of a register tile.
    packed: &'a mut [f32],
    /// Sums of finished subtrees of the tile at work.
    stack: &'a mut [f32],
}

/// Where a register tile lies.
#[derive(Clone, Copy)]
struct Tile {
    /// Index of the left panel, and the first column in it.
    left: usize,
    column: usize,
    /// First panel of the right group, and how many the group has.
    first: usize,
    width: usize,
    /// First panel of the tile, counted in the group.
    panel: usize,
}

impl Kernel for Strips<'_, '_> {
    #[inline(always)]
    fn run<V: Vector>(mut self) {
        for left in 0..self.left.len() {
            self.pack_left::<V>(left);
        }
        for group in 0..self.right.groups() {
            let (first, width) = (self.right.panels(group).start, self.right.panels(group).len());
            for left in 0..self.left.len() {
                for column in (0..self.left[left].2).step_by(V::GRADIENT_ROWS) {
                    for panel in (0..width).step_by(V::GRADIENT_VECTORS) {
                        self.tile::<V>(Tile { left, column, first, width, panel });
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
            let to = &mut self.packed[start..start + height * rows];
            match height {
                8 => pack_columns::<8>(self.lanes, view, column, to),
                6 => pack_columns::<6>(self.lanes, view, column, to),
                _ => pack_columns::<4>(self.lanes, view, column, to),
            }
        }
    }

    #[inline(always)]
    fn tile<V: Vector>(&mut self, tile: Tile) {
        let vectors = V::GRADIENT_VECTORS.min(tile.width - tile.panel);
        for group in 0..self.lanes.groups.len() {
            match (Self::height::<V>(tile.column), vectors) {
                (8, 3) => self.sum::<V, 8, 3>(tile, group),
                (8, 2) => self.sum::<V, 8, 2>(tile, group),
                (8, _) => self.sum::<V, 8, 1>(tile, group),
                (6, _) => self.sum::<V, 6, 1>(tile, group),
                (_, _) => self.sum::<V, 4, 1>(tile, group),
            }
        }
    }

    /// One tile's sum over one group of lanes.
    #[inline(always)]
    fn sum<V: Vector, const R: usize, const N: usize>(&mut self, tile: Tile, group: usize) {
        // Tiles that this vector never asks for: saying so keeps their code out of the program.
        if R > V::GRADIENT_ROWS || N > V::GRADIENT_VECTORS {
            return;
        }
        self.ask_for_output::<R, N>(tile, group);
        let mut depth = 0;
        let mut acc = [[V::zero(); N]; R];
        for (index, lane) in self.lanes.lanes[self.lanes.groups[group].clone()].iter().enumerate() {
            if index > 0 {
                put(&acc, &mut self.stack[depth * TILE..(depth + 1) * TILE]);
                depth += 1;
            }
            acc = self.chain::<V, R, N>(tile, lane.first * self.lanes.steps, lane.streams * self.lanes.steps);
            for _ in 0..completed(index) {
                depth -= 1;
                add(&mut acc, &self.stack[depth * TILE..(depth + 1) * TILE]);
            }
        }
        for level in (0..depth).rev() {
            add(&mut acc, &self.stack[level * TILE..(level + 1) * TILE]);
        }
        self.store(&acc, tile, group);
    }

    /// One tile's chains over the rows of one lane, from zero. Rows are counted lane after lane.
    #[inline(always)]
    fn chain<V: Vector, const R: usize, const N: usize>(
        &self,
        tile: Tile,
        first: usize,
        count: usize,
    ) -> [[V; N]; R] {
        if count == 0 {
            // A lane without rows, which a tail of an adaptive softmax may have.
            return [[V::zero(); N]; R];
        }
        let (rows, step) = (self.right.rows, tile.width * LANES);
        let left = &self.packed[(tile.left * LANES + tile.column) * rows + first * R..][..count * R];
        let right = &self.right.data[tile.first * LANES * rows + first * step..][..count * step];
        assert!(tile.panel + N <= tile.width, "panels of the group");
        let (left, right) = (left.as_ptr(), right[tile.panel * LANES..].as_ptr());
        let mut acc = [[V::zero(); N]; R];
        for row in 0..count {
            prefetch(left.wrapping_add((row + AHEAD) * R));
            for v in 0..N {
                prefetch(right.wrapping_add((row + AHEAD) * step + v * LANES));
            }
            // SAFETY: `count` rows of both operands were checked above, R floats and N vectors each.
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

    /// Asks for the lines that [`Self::store`] will write: they come from memory while the chains run.
    #[inline(always)]
    fn ask_for_output<const R: usize, const N: usize>(&self, tile: Tile, group: usize) {
        let (_, row, count) = self.left[tile.left];
        for i in 0..R.min(count - tile.column) {
            // SAFETY: an address alone, inside this task's rows.
            let row = unsafe { self.out.groups[group].address(row + tile.column + i) };
            for line in 0..=N {
                prefetch_for_writing(row.wrapping_add((tile.first + tile.panel + line) * LANES));
            }
        }
    }

    #[inline(always)]
    fn store<V: Vector, const R: usize, const N: usize>(&self, acc: &[[V; N]; R], tile: Tile, group: usize) {
        let (_, row, count) = self.left[tile.left];
        for (i, acc) in acc.iter().enumerate().take(count - tile.column) {
            for (v, acc) in acc.iter().enumerate() {
                let column = (tile.first + tile.panel + v) * LANES;
                let columns = (self.out.columns - column).min(LANES);
                // SAFETY: this output row belongs to this task alone, and `columns` floats of it begin at `column`.
                unsafe {
                    let row = self.out.groups[group].address(row + tile.column + i).add(column);
                    if columns == LANES {
                        acc.store(row);
                    } else {
                        std::ptr::copy_nonoverlapping(acc.to_array().as_ptr(), row, columns);
                    }
                }
            }
        }
    }
}

/// Columns `column..column + R` of a left panel, lane after lane.
#[inline(always)]
fn pack_columns<const R: usize>(lanes: Lanes<'_>, view: View<'_>, column: usize, to: &mut [f32]) {
    let mut to = to.as_chunks_mut::<R>().0.iter_mut();
    lanes.in_order(|row| {
        let to = to.next().expect("one place a row");
        prefetch(view.run(0, row + STEPS_AHEAD * lanes.streams, 1).0);
        // SAFETY: the row exists; nobody writes the operand during this phase.
        let from = unsafe { &*view.at(0, row).cast::<[f32; LANES]>() };
        to.copy_from_slice(&from[column..column + R]);
    });
}

/// Leaves a tile on the stack.
#[inline(always)]
fn put<V: Vector, const R: usize, const N: usize>(acc: &[[V; N]; R], place: &mut [f32]) {
    let places = place.as_chunks_mut::<LANES>().0;
    for (place, acc) in places.iter_mut().zip(acc.as_flattened()) {
        *place = acc.to_array();
    }
}

/// left subtree + right subtree, in this order: the left one lies on the stack.
#[inline(always)]
fn add<V: Vector, const R: usize, const N: usize>(acc: &mut [[V; N]; R], left: &[f32]) {
    let left = left.as_chunks::<LANES>().0;
    for (acc, left) in acc.as_flattened_mut().iter_mut().zip(left) {
        *acc = V::from_array(*left).add(*acc);
    }
}
