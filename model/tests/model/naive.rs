//! A one-layer tanh network in f64, written from its equations and as slow as can be: what dynamic evaluation and the cache
//! are checked against. Gradients are differences of losses.

use carousel_model::{Cell, ModelConfig, ParameterLayout, Parameters};

pub(crate) fn config(tied: bool) -> ModelConfig {
    ModelConfig {
        cell: Cell::RnnTanh,
        vocabulary: 6,
        embedding: if tied { 5 } else { 3 },
        hidden: 5,
        layers: 1,
        tied,
        init: 0.7,
        ..ModelConfig::default()
    }
}

/// The network with its weights.
pub(crate) struct Naive {
    config: ModelConfig,
    layout: ParameterLayout,
    pub(crate) weights: Vec<f64>,
}

impl Naive {
    pub(crate) fn new(config: &ModelConfig, parameters: &Parameters) -> Self {
        let weights = parameters.as_slice().iter().map(|&w| f64::from(w)).collect();
        Self { config: config.clone(), layout: config.parameter_layout(), weights }
    }

    fn at(&self, tensor: &str, index: usize) -> f64 {
        self.weights[self.layout.get(tensor).unwrap().offset + index]
    }

    /// One step of one stream: `h` becomes tanh(W x + b + U h + c).
    pub(crate) fn step(&self, token: u32, h: &mut Vec<f64>) {
        let (e, n) = (self.config.embedding, self.config.hidden);
        let unit = |i: usize| {
            let x = |j: usize| self.at("encoder.weight", token as usize * e + j);
            let input: f64 = (0..e).map(|j| self.at("rnn.weight_ih_l0", i * e + j) * x(j)).sum();
            let recurrent: f64 = (0..n).map(|j| self.at("rnn.weight_hh_l0", i * n + j) * h[j]).sum();
            (input + recurrent + self.at("rnn.bias_ih_l0", i) + self.at("rnn.bias_hh_l0", i)).tanh()
        };
        *h = (0..n).map(unit).collect();
    }

    /// The probability of every token after output `h`.
    pub(crate) fn probabilities(&self, h: &[f64]) -> Vec<f64> {
        let name = if self.config.tied { "encoder.weight" } else { "decoder.weight" };
        let n = self.config.hidden;
        let logit = |v: usize| {
            let products = (0..n).map(|j| self.at(name, v * n + j) * h[j]);
            products.sum::<f64>() + self.at("decoder.bias", v)
        };
        let weights: Vec<f64> = (0..self.config.vocabulary).map(|v| logit(v).exp()).collect();
        let total: f64 = weights.iter().sum();
        weights.iter().map(|w| w / total).collect()
    }

    /// The summed loss of `tokens[1..]`, with `h` before and after.
    pub(crate) fn loss(&self, tokens: &[u32], h: &mut Vec<f64>) -> f64 {
        let mut loss = 0.0;
        for pair in tokens.windows(2) {
            self.step(pair[0], h);
            loss -= self.probabilities(h)[pair[1] as usize].ln();
        }
        loss
    }

    /// The gradient of the mean loss of `tokens[1..]` from `h`, by central differences.
    pub(crate) fn gradient(&mut self, tokens: &[u32], h: &[f64]) -> Vec<f64> {
        let (width, weights) = (1e-5, self.weights.len());
        let mut moved = |at: usize, by: f64| {
            let before = self.weights[at];
            self.weights[at] = before + by;
            let loss = self.loss(tokens, &mut h.to_vec());
            self.weights[at] = before;
            loss / (tokens.len() - 1) as f64
        };
        (0..weights).map(|at| (moved(at, width) - moved(at, -width)) / (2.0 * width)).collect()
    }
}

/// Some tokens with repetitions in them.
pub(crate) fn tokens(count: usize, seed: u32) -> Vec<u32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    (0..count).map(|at| if at % 3 == 2 { 4 } else { next() % 6 }).collect()
}
