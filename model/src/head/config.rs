//! Which softmax a model ends in, and what its sizes follow from. No arithmetic of the softmax itself.

use thiserror::Error;

use crate::ModelConfig;

/// How the last layer's output becomes a distribution over the vocabulary.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Softmax {
    /// One logit for every token.
    #[default]
    Full,
    /// Adaptive softmax: Grave, Joulin, Cissé, Grangier, Jégou, "Efficient softmax approximation for GPUs", ICML 2017, with the names,
    /// shapes and defaults of `torch.nn.AdaptiveLogSoftmaxWithLoss`. Tokens must be numbered by falling frequency.
    Adaptive {
        /// First token of each cluster, ascending, at least 1 and below the vocabulary. The head has the tokens before the first, and
        /// one logit for each cluster. None: the head has all tokens.
        cutoffs: Vec<usize>,
        /// Cluster i (from 0) reads the hidden units through a projection to floor(H / div_value^(i + 1)) numbers.
        div_value: f32,
        /// Whether the head's logits have biases; the tails' have none.
        head_bias: bool,
    },
    /// Sampled softmax in training: Bengio and Senécal, "Adaptive importance sampling to accelerate training of a neural probabilistic
    /// language model", IEEE Transactions on Neural Networks 2008, in the form of Jean, Cho, Memisevic, Bengio, ACL 2015, with the
    /// sampler and the corrections of TensorFlow's `sampled_softmax_loss`. Everything else than training sees the full softmax. Tokens
    /// must be numbered by falling frequency.
    Sampled {
        /// Tokens drawn in each step, all different and the same for all targets.
        samples: usize,
    },
}

/// Why a softmax does not fit its model.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SoftmaxError {
    /// Weights are tied.
    #[error("model.tied goes with softmax = \"full\" alone, found {0:?}")]
    Tied(&'static str),
    /// Smoothed targets.
    #[error("model.label_smoothing goes with softmax = \"full\" alone, found {0:?}")]
    Smoothing(&'static str),
    /// The gradient of a sampled loss is not that of the loss that is evaluated.
    #[error("dynamic evaluation needs a full or adaptive softmax, found \"sampled\"")]
    Dynamic,
    /// The cutoffs.
    #[error(
        "model.softmax.cutoffs must ascend, from 1 at least and below the vocabulary of {vocabulary} tokens, found {found:?}"
    )]
    Cutoffs {
        /// As configured.
        found: Vec<usize>,
        /// Tokens known.
        vocabulary: usize,
    },
    /// The factor by which projections shrink.
    #[error("model.softmax.div_value must be a finite number of at least 1, found {0}")]
    DivValue(f32),
    /// A projection to nothing.
    #[error(
        "model.softmax.cutoffs: {hidden} hidden units divided by {div_value} for each cluster leave none for cluster {cluster}; expected fewer cutoffs or a smaller div_value"
    )]
    NoWidth {
        /// Which cluster, from 1.
        cluster: usize,
        /// Units of the last layer.
        hidden: usize,
        /// As configured.
        div_value: f32,
    },
    /// Too few or too many tokens to draw.
    #[error(
        "model.softmax.samples must be at least 1 and at most {most}, half the vocabulary, found {found}"
    )]
    Samples {
        /// As configured.
        found: usize,
        /// Half the vocabulary.
        most: usize,
    },
    /// Rows of embedding and decoder travel together.
    #[error(
        "softmax = \"sampled\" needs model.embedding = model.hidden (of the last layer), found {embedding} and {hidden}"
    )]
    Widths {
        /// Width of the embedding.
        embedding: usize,
        /// Units of the last layer.
        hidden: usize,
    },
}

/// The tokens of a tail, and what it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// Its first token.
    pub(crate) first: usize,
    /// How many it has.
    pub(crate) tokens: usize,
    /// Floats that the hidden units are projected to (D).
    pub(crate) width: usize,
}

impl Softmax {
    /// The name in configurations.
    pub fn name(&self) -> &'static str {
        match self {
            Softmax::Full => "full",
            Softmax::Adaptive { .. } => "adaptive",
            Softmax::Sampled { .. } => "sampled",
        }
    }

    /// Checks it against the model it belongs to.
    pub(crate) fn validate(&self, model: &ModelConfig) -> Result<(), SoftmaxError> {
        if model.tied && *self != Softmax::Full {
            return Err(SoftmaxError::Tied(self.name()));
        }
        if model.regularisation.label_smoothing > 0.0 && *self != Softmax::Full {
            return Err(SoftmaxError::Smoothing(self.name()));
        }
        match self {
            Softmax::Full => Ok(()),
            Softmax::Adaptive { cutoffs, div_value, .. } => adaptive(model, cutoffs, *div_value),
            Softmax::Sampled { samples } => sampled(model, *samples),
        }
    }

    /// The tails of an adaptive softmax; none of another.
    pub(crate) fn clusters(&self, model: &ModelConfig) -> Vec<Cluster> {
        let Softmax::Adaptive { cutoffs, div_value, .. } = self else { return Vec::new() };
        let ends = cutoffs.iter().skip(1).copied().chain([model.vocabulary]);
        let mut divisor = 1.0;
        let cluster = |(&first, end): (&usize, usize)| {
            divisor *= f64::from(*div_value);
            let width = (model.hidden as f64 / divisor).floor() as usize;
            Cluster { first, tokens: end.saturating_sub(first), width }
        };
        cutoffs.iter().zip(ends).map(cluster).collect()
    }

    /// Logits of an adaptive softmax's head: its own tokens, then the clusters.
    pub(crate) fn head_logits(&self, model: &ModelConfig) -> usize {
        match self {
            Softmax::Adaptive { cutoffs, .. } => {
                cutoffs.first().map_or(model.vocabulary, |&first| first + cutoffs.len())
            }
            Softmax::Full | Softmax::Sampled { .. } => model.vocabulary,
        }
    }

    /// Names and shapes of the softmax's own tensors, in the order of the parameters.
    pub(crate) fn tensors(&self, model: &ModelConfig) -> Vec<(String, Vec<usize>)> {
        let (logits, hidden) = (self.head_logits(model), model.hidden);
        let Softmax::Adaptive { head_bias, .. } = self else {
            let weight = (!model.tied).then(|| ("decoder.weight".to_owned(), vec![logits, hidden]));
            return weight.into_iter().chain([("decoder.bias".to_owned(), vec![logits])]).collect();
        };
        let mut tensors = vec![("head.weight".to_owned(), vec![logits, hidden])];
        tensors.extend(head_bias.then(|| ("head.bias".to_owned(), vec![logits])));
        for (index, Cluster { tokens, width, .. }) in self.clusters(model).into_iter().enumerate() {
            tensors.push((format!("tail.{index}.0.weight"), vec![width, hidden]));
            tensors.push((format!("tail.{index}.1.weight"), vec![tokens, width]));
        }
        tensors
    }

    /// The first of these tensors whose gradient is part of the dense one; the others follow it.
    pub(crate) fn first_dense_tensor(&self) -> &'static str {
        match self {
            Softmax::Full => "decoder.weight",
            Softmax::Adaptive { .. } => "head.weight",
            Softmax::Sampled { .. } => "decoder.bias",
        }
    }
}

impl ModelConfig {
    /// Whether the decoder's gradient is rows that were touched, behind those of the embedding.
    pub(crate) fn decoder_rows(&self) -> bool {
        matches!(self.softmax, Softmax::Sampled { .. })
    }

    /// Rows that the gradient of a step can touch: so many windows of so many positions (T·B), each window with samples of its own.
    pub fn most_touched_rows(&self, positions: usize, windows: usize) -> usize {
        let in_all = |of_window: usize| of_window.saturating_mul(windows).min(self.vocabulary);
        let decoder = match self.softmax {
            Softmax::Sampled { samples } => in_all(positions.saturating_add(samples)),
            Softmax::Full | Softmax::Adaptive { .. } => 0,
        };
        in_all(positions) + decoder
    }
}

fn adaptive(model: &ModelConfig, cutoffs: &[usize], div_value: f32) -> Result<(), SoftmaxError> {
    let ascending = cutoffs.windows(2).all(|pair| pair[0] < pair[1]);
    let inside = cutoffs.iter().all(|&cutoff| (1..model.vocabulary).contains(&cutoff));
    if !ascending || !inside {
        return Err(SoftmaxError::Cutoffs { found: cutoffs.to_vec(), vocabulary: model.vocabulary });
    }
    if !(div_value.is_finite() && div_value >= 1.0) {
        return Err(SoftmaxError::DivValue(div_value));
    }
    match model.softmax.clusters(model).iter().position(|cluster| cluster.width == 0) {
        None => Ok(()),
        Some(at) => Err(SoftmaxError::NoWidth { cluster: at + 1, hidden: model.hidden, div_value }),
    }
}

fn sampled(model: &ModelConfig, samples: usize) -> Result<(), SoftmaxError> {
    let (embedding, hidden, most) = (model.embedding, model.hidden, model.vocabulary / 2);
    if embedding != hidden {
        return Err(SoftmaxError::Widths { embedding, hidden });
    }
    let fits = (1..=most).contains(&samples);
    fits.then_some(()).ok_or(SoftmaxError::Samples { found: samples, most })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Regularisation;

    fn model(softmax: Softmax) -> ModelConfig {
        ModelConfig { vocabulary: 100, embedding: 32, hidden: 32, softmax, ..ModelConfig::default() }
    }

    fn adaptive(cutoffs: &[usize], div_value: f32) -> Softmax {
        Softmax::Adaptive { cutoffs: cutoffs.to_vec(), div_value, head_bias: false }
    }

    #[test]
    fn clusters_are_those_of_pytorch() {
        let model = model(adaptive(&[10, 40, 90], 3.0));
        let found: Vec<_> =
            model.softmax.clusters(&model).iter().map(|c| (c.first, c.tokens, c.width)).collect();
        assert_eq!(found, [(10, 30, 10), (40, 50, 3), (90, 10, 1)]);
        assert!(Softmax::Full.clusters(&model).is_empty());
    }

    #[test]
    fn each_wrong_option_is_named() {
        let check = |softmax: Softmax| softmax.validate(&model(softmax.clone()));
        assert_eq!(check(adaptive(&[], 4.0)), Ok(()));
        assert_eq!(check(adaptive(&[1, 99], 1.0)), Ok(()));
        for wrong in [&[0][..], &[100], &[20, 20], &[30, 20]] {
            let expected = SoftmaxError::Cutoffs { found: wrong.to_vec(), vocabulary: 100 };
            assert_eq!(check(adaptive(wrong, 4.0)), Err(expected));
        }
        assert_eq!(check(adaptive(&[5], 0.5)), Err(SoftmaxError::DivValue(0.5)));
        assert!(matches!(check(adaptive(&[5], f32::NAN)), Err(SoftmaxError::DivValue(_))));
        let expected = SoftmaxError::NoWidth { cluster: 3, hidden: 32, div_value: 4.0 };
        assert_eq!(check(adaptive(&[5, 6, 7], 4.0)), Err(expected));
        assert_eq!(check(Softmax::Sampled { samples: 50 }), Ok(()));
        for found in [0, 51] {
            assert_eq!(
                check(Softmax::Sampled { samples: found }),
                Err(SoftmaxError::Samples { found, most: 50 })
            );
        }
        let softmax = Softmax::Sampled { samples: 5 };
        let uneven = ModelConfig { embedding: 31, ..model(softmax.clone()) };
        assert_eq!(uneven.validate(), Err(SoftmaxError::Widths { embedding: 31, hidden: 32 }.into()));
        let tied = ModelConfig { tied: true, ..model(softmax) };
        assert_eq!(tied.validate(), Err(SoftmaxError::Tied("sampled").into()));
        let regularisation = Regularisation { label_smoothing: 0.25, ..Regularisation::default() };
        let smooth = ModelConfig { regularisation, ..model(adaptive(&[5], 4.0)) };
        assert_eq!(smooth.validate(), Err(SoftmaxError::Smoothing("adaptive").into()));
    }
}
