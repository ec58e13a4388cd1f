//! The masks of one step, all of them functions of (seed, step, place): nothing is stored, and who asks first does not matter.
//! What a mask is laid on is `dropout`'s, `weight_drop`'s and `embedding`'s.

use crate::{
    ModelConfig,
    dropout::Dropout,
    philox::{self, Purpose, philox4x32},
    weight_drop::WeightDrop,
};

/// Places in a counter that units, which have small ones, never take.
const ROWS: u32 = u32::MAX;
const WEIGHTS: u32 = u32::MAX - 1;
/// The time of a mask that is the same at all times.
const LOCKED: u32 = u32::MAX;

/// Masks that are handed in instead of drawn, so that another implementation's can be followed. Already scaled by 1 / (1 - p).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GivenMasks {
    /// (V) of the embedding's rows; empty: none is dropped.
    pub rows: Vec<f32>,
    /// (B, units) of each place, the same at all times: the embedding's output, then each layer's. Empty: no unit is dropped there.
    pub units: Vec<Vec<f32>>,
    /// (blocks · H, H) of each layer's `weight_hh`: which are kept. Empty: all. They are scaled by the model's `weight_drop`.
    pub weights: Vec<Vec<bool>>,
}

/// All masks of one step.
#[derive(Clone, Copy)]
pub(crate) struct Masks<'a> {
    config: &'a ModelConfig,
    key: [u32; 2],
    given: Option<&'a GivenMasks>,
    /// Global index of each column's stream.
    streams: &'a [u32],
}

impl<'a> Masks<'a> {
    pub(crate) fn new(
        config: &'a ModelConfig,
        (seed, step): (u64, u64),
        streams: &'a [u32],
        given: Option<&'a GivenMasks>,
    ) -> Self {
        let counter = [step as u32, (step >> 32) as u32, 0, Purpose::DropoutKey as u32];
        let [k0, k1, _, _] = philox4x32(counter, philox::key(seed));
        Self { config, key: [k0, k1], given, streams }
    }

    /// The units' mask at place 0, the embedding's output, or l, the output of layer l - 1; none when nothing is dropped there.
    pub(crate) fn units(&self, place: usize) -> Option<Dropout<'a>> {
        if let Some(given) = self.given {
            let mask = given.units.get(place).filter(|mask| !mask.is_empty())?;
            return Some(Dropout::given(mask, self.streams));
        }
        let keep = Keep::dropping(self.config.dropout_at(place))?;
        let time = self.config.regularisation.locked_dropout.then_some(LOCKED);
        Some(Dropout::drawn(self.key, keep, (place as u32, time), self.streams))
    }

    /// The mask of a layer's recurrent weights; none when nothing is dropped.
    pub(crate) fn weights(&self, layer: usize) -> Option<WeightDrop<'a>> {
        let keep = Keep::dropping(self.config.regularisation.weight_drop)?;
        match self.given {
            Some(given) => {
                let kept = given.weights.get(layer).filter(|kept| !kept.is_empty())?;
                Some(WeightDrop::given(kept, keep))
            }
            None => Some(WeightDrop::drawn(self.key, keep, [layer as u32, WEIGHTS])),
        }
    }

    /// What each position's embedding is multiplied by; none when no row is dropped.
    pub(crate) fn rows(&self, tokens: &[u32]) -> Option<Vec<f32>> {
        if let Some(given) = self.given {
            let factor = |&token: &u32| given.rows.get(token as usize).copied().unwrap_or(0.0);
            return (!given.rows.is_empty()).then(|| tokens.iter().map(factor).collect());
        }
        let keep = Keep::dropping(self.config.regularisation.dropout_embedding)?;
        let factor = |&token: &u32| keep.factor(philox4x32([token, 0, 0, ROWS], self.key)[0]);
        Some(tokens.iter().map(factor).collect())
    }
}

/// What is kept of what a probability drops.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keep {
    /// A word below this is kept.
    threshold: u64,
    /// 1 / (1 - p): what is kept is multiplied by it.
    pub(crate) scale: f32,
}

impl Keep {
    /// None when nothing is dropped.
    pub(crate) fn dropping(probability: f32) -> Option<Self> {
        if probability == 0.0 {
            return None;
        }
        let keep = 1.0 - f64::from(probability);
        Some(Self { threshold: (keep * 4_294_967_296.0) as u64, scale: (1.0 / keep) as f32 })
    }

    pub(crate) fn keeps(&self, word: u32) -> bool {
        u64::from(word) < self.threshold
    }

    pub(crate) fn factor(&self, word: u32) -> f32 {
        if self.keeps(word) { self.scale } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Regularisation;

    fn config() -> ModelConfig {
        let regularisation = Regularisation { dropout_embedding: 0.3, ..Regularisation::default() };
        ModelConfig { regularisation, ..ModelConfig::default() }
    }

    #[test]
    fn rows_are_dropped_whole_for_a_step_and_keep_their_share() {
        let config = config();
        let tokens: Vec<u32> = (0..20_000).collect();
        let rows = |seed, step| Masks::new(&config, (seed, step), &[], None).rows(&tokens).unwrap();
        let mask = rows(1, 2);
        let kept = mask.iter().filter(|&&x| x != 0.0).count() as f64 / mask.len() as f64;
        assert!((kept - 0.7).abs() < 0.01, "{kept}");
        assert!(mask.iter().all(|&x| x == 0.0 || (x - 1.0 / 0.7).abs() < 1e-6));
        let again = Masks::new(&config, (1, 2), &[7], None).rows(&[5, 900, 5]).unwrap();
        assert_eq!(again, [mask[5], mask[900], mask[5]], "a function of the token alone");
        for other in [rows(2, 2), rows(1, 3), rows(1, 2 + (1 << 32))] {
            let same = mask.iter().zip(&other).filter(|(a, b)| a == b).count() as f64 / 20_000.0;
            assert!((same - 0.58).abs() < 0.02, "independent: {same}");
        }
        let off = ModelConfig::default();
        assert!(Masks::new(&off, (1, 2), &[], None).rows(&tokens).is_none());
    }
}
