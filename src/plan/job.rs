//! From a configuration to what its steps cost, whoever computes them: the only place where a plan reads the model's shape.

use carousel_model::{ModelConfig, Optimizer, softmax_share, step_flops};

use super::cost::Job;
use crate::config::Config;
use crate::failure::Failure;
use crate::launch;

/// Backward costs twice what forward does.
const FORWARD: f64 = 1.0 / 3.0;

pub(super) fn of(config: &Config, model: &ModelConfig) -> Result<Job, Failure> {
    let train = &config.train;
    let (streams, window, accumulate) =
        (train.streams as usize, train.window as usize, train.accumulate as usize);
    let parameters = model.parameter_layout();
    let optimizer = Optimizer::new(train.optimizer.0.for_model(), &parameters)?;
    Ok(Job {
        flops: step_flops(model, (streams * window * accumulate) as f64),
        parameters: parameters.len(),
        states: optimizer.state().len(),
        layout: launch::gradient_layout(config, model),
        parts: parts(model, accumulate),
        streams,
        window,
        accumulate,
        lanes: train.lanes,
        carry: model.carry_len(),
        activations: activations(model),
        vocabulary: model.vocabulary,
    })
}

/// The decoder's gradient first, then the layers' from the top; with tied weights, or several windows, all at the end.
fn parts(model: &ModelConfig, accumulate: usize) -> Vec<(f64, f64)> {
    if model.tied || accumulate > 1 {
        return vec![(1.0, 1.0)];
    }
    let (parameters, gradient) = (model.parameter_layout(), model.gradient_layout());
    let mut floats = vec![0.0; model.layers + 1];
    for tensor in parameters.tensors.iter().filter(|tensor| tensor.offset >= gradient.dense_offset) {
        let layer = tensor.name.rsplit_once("_l").and_then(|(_, number)| number.parse::<usize>().ok());
        floats[layer.unwrap_or(model.layers)] += tensor.len() as f64;
    }
    let (all, softmax) = (floats.iter().sum::<f64>(), softmax_share(model));
    let of_layers: f64 = floats[..model.layers].iter().sum();
    let mut done = FORWARD + (1.0 - FORWARD) * softmax;
    let mut parts = vec![(floats[model.layers] / all, done)];
    for layer in floats[..model.layers].iter().rev() {
        done += (1.0 - FORWARD) * (1.0 - softmax) * layer / of_layers;
        parts.push((layer / all, done));
    }
    parts
}

/// Gates, states and their gradients of each layer; logits once.
fn activations(model: &ModelConfig) -> usize {
    let layers: usize = (0..model.layers).map(|layer| 10 * model.width(layer)).sum();
    2 * model.embedding + layers + model.vocabulary
}
