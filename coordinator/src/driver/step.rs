//! The floats of the step under way: partial gradients, losses and carries as they come in, the reduced gradient, and
//! what was decided about it. Messages of another term or step are left aside without a word: they are late, not wrong.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use carousel_proto::gradient::{BLOCK, Gradient, Slice, clip_scale, norm};
use carousel_proto::{LaneTree, Node, Step, Term, WorkerId, lane_streams};

use crate::intake::{LaneLoss, Limits, ReducedSlice};
use crate::protocol::Exchange;

/// A step whose gradient has been reduced.
#[derive(Debug, Default)]
pub(crate) struct ReducedStep {
    /// The touched embedding rows.
    pub rows: Vec<u32>,
    /// The dense part, then the touched rows.
    pub floats: Arc<Vec<f32>>,
    /// The norm before the clip.
    pub grad_norm: f64,
    pub clip_scale: f32,
    pub learning_rate: f32,
    /// Targets of the step and their summed loss (nats).
    pub tokens: u64,
    pub loss_sum: f64,
}

pub(super) struct StepWork {
    limits: Arc<Limits>,
    at: (Term, Step),
    exchange: Exchange,
    /// Mesh: who owns which slice, in order.
    owners: Vec<WorkerId>,
    slices: BTreeMap<WorkerId, ReducedSlice>,
    partials: BTreeMap<Node, Gradient>,
    losses: BTreeMap<u32, LaneLoss>,
    carries: BTreeMap<u32, (Range<u32>, Vec<f32>)>,
    result: ReducedStep,
}

impl StepWork {
    pub(super) fn new(limits: Arc<Limits>) -> Self {
        Self {
            limits,
            at: (Term(0), Step(0)),
            exchange: Exchange::Star,
            owners: Vec::new(),
            slices: BTreeMap::new(),
            partials: BTreeMap::new(),
            losses: BTreeMap::new(),
            carries: BTreeMap::new(),
            result: ReducedStep::default(),
        }
    }

    /// Begins a step in a term; what was collected for another is dropped.
    pub(super) fn begin(&mut self, at: (Term, Step), exchange: Exchange, owners: Vec<WorkerId>) {
        *self = Self { at, exchange, owners, ..Self::new(self.limits.clone()) };
    }

    fn tree(&self) -> LaneTree {
        LaneTree::new(self.limits.lanes)
    }

    /// The one slice of a coordinator that reduces for everyone.
    fn whole(&self) -> Slice {
        self.limits.layout.gradient.slices(1).remove(0)
    }

    pub(super) fn partial(
        &mut self,
        at: (Term, Step),
        lanes: &Range<u32>,
        node: Node,
        gradient: Gradient,
    ) -> Result<(), String> {
        if at != self.at {
            return Ok(());
        }
        if !self.tree().maximal_nodes(lanes.clone()).contains(&node) {
            return Err(format!("it sent {node:?} of the lane tree, it has lanes {lanes:?}"));
        }
        self.partials.insert(node, gradient);
        Ok(())
    }

    /// Whether the report belongs to this step, and then that everything of these lanes is here.
    pub(super) fn report(
        &mut self,
        at: (Term, Step),
        lanes: &Range<u32>,
        losses: &[LaneLoss],
    ) -> Result<bool, String> {
        if at != self.at {
            return Ok(false);
        }
        if !losses.iter().map(|l| l.lane).eq(lanes.clone()) {
            return Err(format!("it reported losses of other lanes than its own, {lanes:?}"));
        }
        let mut nodes = self.tree().maximal_nodes(lanes.clone()).into_iter();
        let missing = nodes.find(|node| !self.partials.contains_key(node));
        if let Some(node) = missing.filter(|_| self.exchange == Exchange::Star) {
            return Err(format!("it reported {} without its partial gradient of {node:?}", at.1));
        }
        self.losses.extend(losses.iter().map(|l| (l.lane, *l)));
        Ok(true)
    }

    /// Whether the report belongs to this step, and then that it is of a whole slice.
    pub(super) fn slice(
        &mut self,
        at: (Term, Step),
        worker: WorkerId,
        slice: ReducedSlice,
    ) -> Result<bool, String> {
        if at != self.at || self.exchange == Exchange::Star {
            return Ok(false);
        }
        let layout = &self.limits.layout.gradient;
        let own = self.owners.iter().position(|owner| *owner == worker);
        let own = own.and_then(|i| layout.slices(self.owners.len()).into_iter().nth(i));
        let own = own.ok_or_else(|| "it reduced a slice of a step it has no part in".to_owned())?;
        let (found, expected) = (slice.squares.dense.len(), own.dense.len().div_ceil(BLOCK));
        if found != expected || slice.squares.rows.len() > own.rows.len() {
            return Err(format!("it reported {found} blocks of its slice, which has {expected}"));
        }
        self.slices.insert(worker, slice);
        Ok(true)
    }

    pub(super) fn carries(
        &mut self,
        at: (Term, Step),
        lanes: &Range<u32>,
        of: Range<u32>,
        floats: Vec<f32>,
    ) -> Result<(), String> {
        if at != self.at {
            return Ok(());
        }
        if of != *lanes {
            return Err(format!("it sent carries of lanes {of:?}, it has {lanes:?}"));
        }
        self.carries.insert(of.start, (of, floats));
        Ok(())
    }

    /// Whether the acknowledgement belongs to this step, and then that the carries came before it.
    pub(super) fn acknowledge(&self, at: (Term, Step), lanes: &Range<u32>) -> Result<bool, String> {
        if at != self.at {
            return Ok(false);
        }
        let here = lanes.is_empty() || self.carries.get(&lanes.start).is_some_and(|(of, _)| of == lanes);
        if here {
            Ok(true)
        } else {
            Err(format!("it acknowledged {} without the carries of its lanes", at.1))
        }
    }

    /// Decides the clip; in a star the lane tree is finished before it.
    pub(super) fn reduce(&mut self, max_norm: Option<f64>, learning_rate: f32) {
        let (gradient, grad_norm) = match self.exchange {
            Exchange::Star => self.reduce_whole(),
            Exchange::Mesh => (Gradient::default(), self.norm_of_slices()),
        };
        self.result = ReducedStep {
            rows: gradient.rows,
            floats: Arc::new(gradient.floats),
            grad_norm,
            clip_scale: clip_scale(grad_norm, max_norm),
            learning_rate,
            tokens: self.losses.values().map(|l| l.tokens).sum(),
            loss_sum: self.losses.values().map(|l| l.sum).sum(),
        };
    }

    fn reduce_whole(&mut self) -> (Gradient, f64) {
        let layout = &self.limits.layout.gradient;
        let whole = self.whole();
        let gradient = layout.reduce(self.tree(), std::mem::take(&mut self.partials), &whole);
        let grad_norm = norm(&[layout.square_sums(&gradient, &whole)]);
        (gradient, grad_norm)
    }

    fn norm_of_slices(&self) -> f64 {
        let in_order = self.owners.iter().map(|owner| self.slices[owner].squares.clone());
        norm(&in_order.collect::<Vec<_>>())
    }

    /// The reduced step, once [`StepWork::reduce`] has made it.
    pub(super) fn result(&self) -> &ReducedStep {
        &self.result
    }

    /// What is NaN or infinite in this step, by name: the first parameter whose gradient is, or the loss.
    pub(super) fn non_finite(&self) -> Option<String> {
        let result = &self.result;
        if result.grad_norm.is_finite() && result.loss_sum.is_finite() {
            return None;
        }
        let layout = &self.limits.layout;
        let offset = match self.exchange {
            Exchange::Star => {
                let gradient = Gradient { rows: result.rows.clone(), floats: result.floats.to_vec() };
                layout.gradient.first_non_finite(&gradient, &self.whole())
            }
            Exchange::Mesh => {
                self.slices.values().filter_map(|s| s.not_finite).min().map(|offset| offset as usize)
            }
        };
        let parameter = offset.and_then(|offset| layout.parameter_at(offset));
        Some(parameter.map_or_else(|| "the loss".to_owned(), |name| format!("the gradient of {name}")))
    }

    fn carry_range(&self, lanes: &Range<u32>) -> Range<usize> {
        if lanes.is_empty() {
            return 0..0;
        }
        let streams = |lane| lane_streams(self.limits.streams, self.limits.lanes, lane);
        let per_stream = self.limits.layout.carry_floats();
        streams(lanes.start).start as usize * per_stream..streams(lanes.end - 1).end as usize * per_stream
    }

    /// The committed carries of some lanes.
    pub(super) fn carries_of(&self, committed: &[f32], lanes: &Range<u32>) -> Vec<f32> {
        committed[self.carry_range(lanes)].to_vec()
    }

    /// Puts the step's carries in the place of the committed ones.
    pub(super) fn take_carries(&mut self, committed: &mut [f32]) {
        for (lanes, floats) in std::mem::take(&mut self.carries).into_values() {
            committed[self.carry_range(&lanes)].copy_from_slice(&floats);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::{ReplicaLayout, TensorShape};
    use carousel_proto::gradient::GradientLayout;

    const NOW: (Term, Step) = (Term(2), Step(5));
    const LATE: (Term, Step) = (Term(1), Step(5));

    /// 7 streams in 3 lanes (2, 2, 3), two dense floats, a carry of one float.
    fn work() -> StepWork {
        let carry = vec![TensorShape { name: "h".into(), shape: vec![1, 1] }];
        let layout = ReplicaLayout {
            gradient: GradientLayout { dense: 2, rows: 9, width: 1, ..GradientLayout::default() },
            carry,
            ..ReplicaLayout::default()
        };
        let mut work = StepWork::new(Limits { layout, streams: 7, lanes: 3 }.into());
        work.begin(NOW, Exchange::Star, vec![]);
        work
    }

    fn node(level: u32, index: u32) -> Node {
        Node { level, index }
    }

    fn gradient(a: f32, b: f32) -> Gradient {
        Gradient { rows: vec![], floats: vec![a, b] }
    }

    fn losses(lanes: Range<u32>) -> Vec<LaneLoss> {
        lanes.map(|lane| LaneLoss { lane, tokens: 4, sum: 1.5 }).collect()
    }

    #[test]
    fn a_step_comes_together() {
        let mut work = work();
        work.partial(NOW, &(0..2), node(1, 0), gradient(3.0, 0.0)).unwrap();
        assert_eq!(work.report(NOW, &(0..2), &losses(0..2)), Ok(true));
        work.partial(NOW, &(2..3), node(1, 1), gradient(0.0, 4.0)).unwrap();
        assert_eq!(work.report(NOW, &(2..3), &losses(2..3)), Ok(true));
        work.reduce(Some(1.0), 0.5);
        let result = work.result();
        assert_eq!((result.floats.as_slice(), result.grad_norm), (&[3.0, 4.0][..], 5.0));
        assert_eq!((result.tokens, result.loss_sum, result.learning_rate), (12, 4.5, 0.5));
        assert_eq!(work.non_finite(), None);
    }

    #[test]
    fn what_is_late_is_left_aside() {
        let mut work = work();
        assert_eq!(work.partial(LATE, &(0..1), node(0, 0), gradient(9.0, 9.0)), Ok(()));
        assert!(work.partials.is_empty(), "a late gradient is not taken");
        assert_eq!(work.report(LATE, &(0..1), &losses(0..1)), Ok(false));
        assert_eq!(work.carries(LATE, &(0..1), 0..1, vec![7.0; 2]), Ok(()));
        assert_eq!(work.acknowledge(LATE, &(0..1)), Ok(false));
        assert!(work.acknowledge(NOW, &(0..1)).is_err(), "late carries are not this step's");
    }

    #[test]
    fn what_breaks_the_contract_is_told() {
        let mut work = work();
        let error = work.partial(NOW, &(0..1), node(1, 0), gradient(1.0, 1.0)).unwrap_err();
        assert!(error.contains("it has lanes 0..1"), "{error}");
        let error = work.report(NOW, &(0..1), &losses(0..1)).unwrap_err();
        assert!(error.contains("without its partial gradient"), "{error}");
        work.partial(NOW, &(0..1), node(0, 0), gradient(1.0, 1.0)).unwrap();
        assert!(work.report(NOW, &(0..1), &losses(1..2)).is_err(), "losses of another's lane");
        assert!(work.carries(NOW, &(0..1), 1..2, vec![0.0; 2]).is_err(), "carries of another's lane");
    }

    #[test]
    fn carries_land_at_their_streams() {
        let mut work = work();
        let mut committed = vec![0.0; 7];
        work.carries(NOW, &(1..3), 1..3, vec![1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert_eq!(work.acknowledge(NOW, &(1..3)), Ok(true));
        assert_eq!(work.acknowledge(NOW, &(0..0)), Ok(true), "a worker without lanes has no carries");
        work.take_carries(&mut committed);
        assert_eq!(committed, [0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(work.carries_of(&committed, &(0..2)), [0.0, 0.0, 1.0, 2.0]);
    }

    #[test]
    fn the_loss_is_named_when_only_it_is_not_finite() {
        let mut work = work();
        work.partial(NOW, &(0..3), node(2, 0), gradient(1.0, 1.0)).unwrap();
        work.report(
            NOW,
            &(0..3),
            &[LaneLoss { lane: 0, tokens: 1, sum: f64::NAN }, losses(1..2)[0], losses(2..3)[0]],
        )
        .unwrap();
        work.reduce(None, 0.1);
        assert_eq!(work.non_finite().unwrap(), "the loss");
    }
}
