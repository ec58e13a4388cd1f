//! The floats of the step under way: partial gradients, losses and carries as they come in, the reduced gradient, and
//! what was decided about it. Messages of another term or step are left aside without a word: they are late, not wrong.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use carousel_proto::{LaneTree, Node, Step, Term, lane_streams};

use crate::intake::{LaneLoss, Limits};
use crate::reduce::{Gradient, clip_scale, first_non_finite, norm, reduce};

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
            partials: BTreeMap::new(),
            losses: BTreeMap::new(),
            carries: BTreeMap::new(),
            result: ReducedStep::default(),
        }
    }

    /// Begins a step in a term; what was collected for another is dropped.
    pub(super) fn begin(&mut self, term: Term, step: Step) {
        if self.at != (term, step) {
            *self = Self { at: (term, step), ..Self::new(self.limits.clone()) };
        }
    }

    fn tree(&self) -> LaneTree {
        LaneTree::new(self.limits.lanes)
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
        let missing =
            self.tree().maximal_nodes(lanes.clone()).into_iter().find(|n| !self.partials.contains_key(n));
        if let Some(node) = missing {
            return Err(format!("it reported {} without its partial gradient of {node:?}", at.1));
        }
        self.losses.extend(losses.iter().map(|l| (l.lane, *l)));
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

    /// Finishes the lane tree and decides the clip.
    pub(super) fn reduce(&mut self, max_norm: Option<f64>, learning_rate: f32) {
        let layout = &self.limits.layout;
        let gradient = reduce(self.tree(), std::mem::take(&mut self.partials), layout);
        let grad_norm = norm(&gradient, layout);
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
        let gradient = Gradient { rows: result.rows.clone(), floats: result.floats.to_vec() };
        let parameter = first_non_finite(&gradient, &self.limits.layout);
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
