//! Column sums by lane: the gradients of biases and of diagonal weights.

use super::{
    Context, Kernel, View,
    vector::Vector,
    weight_gradient::{Lanes, LeftPanel, Outputs},
};
use crate::tree::LaneTree;

/// out[j] = sum over rows r of left[r][j], or of left[r][j] * times[r][j]: one chain a lane from zero (plain additions, or FMAs), lanes
/// added by the lane tree. `left` lists panels with the first output column and the count of columns they give.
pub(crate) fn lane_sums(
    ctx: Context<'_>,
    lanes: Lanes<'_>,
    left: &[LeftPanel<'_>],
    times: Option<&[View]>,
    out: &Outputs<'_>,
) {
    ctx.team.run(left.len(), |_, panel| {
        let (view, first, count) = left[panel];
        let times = times.map(|times| times[panel]);
        ctx.isa.dispatch(PanelSum { lanes, view, times, first, count, out });
    });
}

/// The sums of one panel, for every group.
pub(crate) struct PanelSum<'a, 'b> {
    pub(crate) lanes: Lanes<'a>,
    pub(crate) view: View<'a>,
    pub(crate) times: Option<View<'a>>,
    pub(crate) first: usize,
    pub(crate) count: usize,
    pub(crate) out: &'a Outputs<'b>,
}

impl Kernel for PanelSum<'_, '_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        for (group, range) in self.lanes.groups.iter().enumerate() {
            let mut tree = LaneTree::new();
            for lane in &self.lanes.lanes[range.clone()] {
                let mut acc = V::zero();
                for step in 0..self.lanes.steps {
                    let from = step * self.lanes.streams + lane.first;
                    for row in from..from + lane.streams {
                        // SAFETY: the row exists, and operands are not written during this phase.
                        acc = unsafe { self.next(acc, row) };
                    }
                }
                tree.push(acc, V::add);
            }
            let sum = tree.finish(V::add).unwrap_or(V::zero()).to_array();
            // SAFETY: these output columns belong to this panel alone.
            unsafe { self.out.write(group, self.first, &sum[..self.count]) };
        }
    }
}

impl PanelSum<'_, '_> {
    #[inline(always)]
    unsafe fn next<V: Vector>(&self, acc: V, row: usize) -> V {
        // SAFETY: the caller gives a row of both operands.
        unsafe {
            let x = V::load(self.view.at(0, row));
            match self.times {
                None => acc.add(x),
                Some(times) => x.fma(V::load(times.at(0, row)), acc),
            }
        }
    }
}
