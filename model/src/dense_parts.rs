//! The dense gradient in the parts in which it is finished on the way back: the decoder's first, then each layer's from the
//! top. A part is a run of the flat gradient of every group; whose memory it lies in is the caller's choice.

use std::ops::Range;

use crate::{ModelConfig, layout::ParameterLayout};

/// A finished part of the dense gradients.
#[derive(Debug, Clone, PartialEq)]
pub struct FinishedPart {
    /// Where it begins in the dense part.
    pub start: usize,
    /// One run of equal length for each group.
    pub groups: Vec<Vec<f32>>,
}

/// The runs of the parameters that are finished together, in parameter order: each layer, last the decoder. With tied weights
/// there is one: the decoder's gradient lies on both sides of the layers'.
pub(crate) fn part_ranges(config: &ModelConfig, layout: &ParameterLayout) -> Vec<Range<usize>> {
    let end = layout.len();
    if config.tied {
        return std::iter::once(0..end).collect();
    }
    let start_of = |name: &str| layout.get(name).expect("every model has this tensor").offset;
    let layers = (0..config.layers).map(|layer| start_of(&format!("rnn.weight_ih_l{layer}")));
    let starts: Vec<usize> = layers.chain([start_of(config.softmax.first_dense_tensor())]).collect();
    let ends = starts[1..].iter().copied().chain([end]);
    starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect()
}

/// Where gradients are written, part by part.
pub(crate) struct DenseParts<'c, D> {
    /// (start among the parameters, one run for each group) in parameter order; taken when finished.
    parts: Vec<(usize, Vec<D>)>,
    finished: &'c mut (dyn FnMut(usize, Vec<D>) + Send),
}

impl<'c, D: AsMut<[f32]>> DenseParts<'c, D> {
    /// `finished(part, its runs)` is called once for each.
    pub(crate) fn new(
        parts: Vec<(usize, Vec<D>)>,
        finished: &'c mut (dyn FnMut(usize, Vec<D>) + Send),
    ) -> Self {
        Self { parts, finished }
    }

    fn of_layer(&self, layer: usize) -> usize {
        if self.parts.len() == 1 { 0 } else { layer }
    }

    /// A layer's part: where it begins among the parameters, and each group's run of it.
    pub(crate) fn layer(&mut self, layer: usize) -> (Vec<&mut [f32]>, usize) {
        let part = self.of_layer(layer);
        self.slices(part)
    }

    /// The decoder's part.
    pub(crate) fn decoder(&mut self) -> (Vec<&mut [f32]>, usize) {
        self.slices(self.parts.len() - 1)
    }

    fn slices(&mut self, part: usize) -> (Vec<&mut [f32]>, usize) {
        let (start, groups) = &mut self.parts[part];
        (groups.iter_mut().map(D::as_mut).collect(), *start)
    }

    /// The decoder's gradient is done.
    pub(crate) fn decoder_done(&mut self) {
        if self.parts.len() > 1 {
            self.done(self.parts.len() - 1);
        }
    }

    /// A layer's gradient is done, and those of all above.
    pub(crate) fn layer_done(&mut self, layer: usize) {
        if self.parts.len() > 1 || layer == 0 {
            self.done(self.of_layer(layer));
        }
    }

    fn done(&mut self, part: usize) {
        let groups = std::mem::take(&mut self.parts[part].1);
        (self.finished)(part, groups);
    }
}
