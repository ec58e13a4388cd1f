//! The reference vectors of PyTorch in float64: losses, gradients, norms, carries and weights of consecutive windows.

use crate::support::{Golden, golden_folder};
use std::ops::Range;

use carousel_model::{
    GivenMasks, GradientLayout, Gradients, LaneStreams, LanguageModel, ModelConfig, Optimizer,
    OptimizerConfig, Parameters, Regularisation, Update, Window,
};

const LOSS: f64 = 1e-6;
const GRADIENT: f64 = 1e-5;
const WEIGHT: f64 = 1e-6;

#[test]
fn lstm() {
    follow("lstm");
}

#[test]
fn gru() {
    follow("gru");
}

#[test]
fn rnn_tanh() {
    follow("rnn_tanh");
}

#[test]
fn rnn_relu() {
    follow("rnn_relu");
}

#[test]
fn lstm_no_forget() {
    follow("lstm_no_forget");
}

#[test]
fn lstm_peephole() {
    follow("lstm_peephole");
}

#[test]
fn lstm_coupled() {
    follow("lstm_coupled");
}

fn follow(cell: &str) {
    let Some(folder) = golden_folder() else { return };
    let golden = Golden::open(&folder.join(format!("lm_{cell}.safetensors")));
    let size = |name: &str| golden.case[name].as_u64().expect(name) as usize;
    let config = ModelConfig {
        cell: golden.case["cell"].as_str().unwrap().parse().unwrap(),
        vocabulary: size("vocab"),
        embedding: size("embedding"),
        hidden: size("hidden"),
        layers: size("layers"),
        tied: false,
        init: 0.1,
        ..ModelConfig::default()
    };
    let (streams, steps) = (size("batch"), size("bptt"));
    let mut run = Run::new(config, &golden);
    for window in 0..size("windows") {
        run.window(&golden, window, (steps, streams));
    }
}

/// A model on its way through the file's windows.
struct Run {
    config: ModelConfig,
    model: LanguageModel,
    parameters: Parameters,
    optimizer: Optimizer,
    layout: GradientLayout,
    carries: Vec<f32>,
}

impl Run {
    fn new(config: ModelConfig, golden: &Golden) -> Self {
        let layout = config.parameter_layout();
        let flat: Vec<f32> = layout
            .tensors
            .iter()
            .flat_map(|t| golden.floats(&format!("init.{}", t.name)))
            .map(|x| x as f32)
            .collect();
        let streams = golden.case["batch"].as_u64().unwrap() as usize;
        Self {
            model: LanguageModel::new(config.clone()).unwrap(),
            parameters: Parameters::from_flat(&config, flat).unwrap(),
            optimizer: Optimizer::new(OptimizerConfig::Sgd { weight_decay: 0.0 }, &layout).unwrap(),
            layout: config.gradient_layout(),
            carries: golden.carries("init.", &config, streams).iter().map(|&x| x as f32).collect(),
            config,
        }
    }

    /// The gradient of a window, flat, after its loss was compared.
    fn gradients(
        &mut self,
        golden: &Golden,
        window: usize,
        (steps, streams): (usize, usize),
        loss_name: &str,
    ) -> Vec<f32> {
        let tokens: Vec<u32> = golden.integers("tokens").iter().map(|&t| t as u32).collect();
        let from = window * steps * streams;
        let (lanes, groups) = uneven_lanes(streams);
        let window_of = Window {
            seed: 1,
            step: window as u64,
            steps,
            lanes: &lanes,
            inputs: &tokens[from..from + steps * streams],
            targets: &tokens[from + streams..from + streams + steps * streams],
            step_tokens: (steps * streams) as u64,
        };
        let mut gradients =
            self.model.gradients(&self.parameters, &window_of, &mut self.carries, &groups).unwrap();
        let loss = gradients.losses.iter().map(|lane| lane.sum).sum::<f64>() / (steps * streams) as f64;
        let wanted = golden.floats(loss_name)[0];
        assert!((loss - wanted).abs() <= LOSS * wanted, "loss of window {window}: {loss}, expected {wanted}");
        self.flat(&mut gradients)
    }

    fn window(&mut self, golden: &Golden, window: usize, (steps, streams): (usize, usize)) {
        let name = |what: &str| format!("w{window}.{what}");
        let flat = self.gradients(golden, window, (steps, streams), &name("loss"));
        for tensor in &self.config.parameter_layout().tensors {
            let wanted = golden.floats_or_zero(&name(&format!("grad.{}", tensor.name)), tensor.len());
            let found = &flat[tensor.offset..tensor.offset + tensor.len()];
            close(&format!("gradient of {} in window {window}", tensor.name), found, &wanted, GRADIENT);
        }
        self.step(golden, window, &flat);
        let wanted = golden.carries(&format!("w{window}."), &self.config, streams);
        close(&format!("carries after window {window}"), &self.carries, &wanted, GRADIENT);
    }

    /// The groups added, as one flat gradient of all parameters.
    fn flat(&self, gradients: &mut Gradients) -> Vec<f32> {
        let mut flat = vec![0.0; self.layout.dense_offset + self.layout.dense_len];
        for partial in &gradients.partials {
            flat[self.layout.dense_offset..].iter_mut().zip(&partial.dense).for_each(|(a, b)| *a += b);
            let width = self.layout.row_width;
            for (&row, values) in partial.rows.iter().zip(partial.row_values.chunks_exact(width)) {
                flat[row as usize * width..].iter_mut().zip(values).for_each(|(a, b)| *a += b);
            }
        }
        flat
    }

    fn step(&mut self, golden: &Golden, window: usize, flat: &[f32]) {
        let norm = flat.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>().sqrt();
        let wanted = golden.floats(&format!("w{window}.grad_norm"))[0];
        assert!(
            (norm - wanted).abs() <= GRADIENT * wanted,
            "norm of window {window}: {norm}, expected {wanted}"
        );
        let clip = golden.case["clip"].as_f64().unwrap();
        let width = self.layout.row_width;
        let rows: Vec<u32> = (0..self.config.vocabulary as u32).collect();
        let (row_values, dense) = flat.split_at(self.layout.dense_offset);
        assert_eq!(row_values.len(), rows.len() * width);
        let gradient = carousel_model::GradientView { dense, rows: &rows, row_values };
        let update = Update {
            step: window as u64 + 1,
            learning_rate: golden.case["lr"].as_f64().unwrap() as f32,
            scale: (clip / (norm + 1e-6)).min(1.0) as f32,
            ..Update::default()
        };
        self.optimizer.apply(&mut self.parameters, &self.layout, gradient, update).unwrap();
        for tensor in &self.config.parameter_layout().tensors {
            let wanted = golden.floats(&format!("w{window}.param.{}", tensor.name));
            let found = self.parameters.tensor(&tensor.name).unwrap();
            close(&format!("{} after window {window}", tensor.name), found, &wanted, WEIGHT);
        }
    }
}

/// Tied weights under explicit masks: whole embedding rows, units of the input, between layers and of the output, recurrent weights.
#[test]
fn lstm_under_given_masks() {
    let Some(folder) = golden_folder() else { return };
    let golden = Golden::open(&folder.join("masked_lm_lstm.safetensors"));
    let size = |name: &str| golden.case[name].as_u64().expect(name) as usize;
    let (streams, steps, layers) = (size("batch"), size("bptt"), size("layers"));
    let weight_drop = golden.case["dropout"].as_f64().unwrap() as f32;
    let config = ModelConfig {
        vocabulary: size("vocab"),
        embedding: size("embedding"),
        hidden: size("hidden"),
        layers,
        tied: true,
        regularisation: Regularisation { weight_drop, ..Regularisation::default() },
        ..ModelConfig::default()
    };
    let mask = |name: &str| golden.floats(&format!("mask.{name}"));
    let scaled = |name: &str| mask(name).iter().map(|&m| m as f32).collect::<Vec<f32>>();
    let between = (0..layers - 1).map(|layer| scaled(&format!("hidden{layer}")));
    let kept = |layer: usize| mask(&format!("weight_hh_l{layer}")).iter().map(|&m| m != 0.0).collect();
    let masks = GivenMasks {
        rows: scaled("embedding_rows"),
        units: [scaled("input")].into_iter().chain(between).chain([scaled("output")]).collect(),
        weights: (0..layers).map(kept).collect(),
    };
    let mut run = Run::new(config.clone(), &golden);
    run.model = run.model.with_masks(masks);
    let gradients = run.gradients(&golden, 0, (steps, streams), "loss");
    for tensor in &config.parameter_layout().tensors {
        let wanted = golden.floats(&format!("grad.{}", tensor.name));
        let found = &gradients[tensor.offset..tensor.offset + tensor.len()];
        close(&format!("gradient of {}", tensor.name), found, &wanted, GRADIENT);
    }
    close("carries", &run.carries, &golden.carries("", &config, streams), GRADIENT);
}

/// Lanes of two streams, of one, and of the rest, the first two in a group of their own: the sums must not notice.
fn uneven_lanes(streams: usize) -> (Vec<LaneStreams>, Vec<Range<usize>>) {
    let bounds = [0, 2, 3, streams].map(|bound| bound.min(streams));
    let lanes = bounds.windows(2).enumerate().filter(|(_, pair)| pair[0] < pair[1]);
    let lanes: Vec<LaneStreams> = lanes
        .map(|(lane, pair)| LaneStreams { lane, first_stream: pair[0], streams: pair[1] - pair[0] })
        .collect();
    let mut groups = vec![0..lanes.len().min(2), lanes.len().min(2)..lanes.len()];
    groups.retain(|group| !group.is_empty());
    (lanes, groups)
}

/// Within `tolerance` of the largest absolute value expected.
fn close(what: &str, found: &[f32], wanted: &[f64], tolerance: f64) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    let largest = wanted.iter().fold(0f64, |m, x| m.max(x.abs()));
    for (at, (&found, &wanted)) in found.iter().zip(wanted).enumerate() {
        let off = (f64::from(found) - wanted).abs();
        assert!(off <= tolerance * largest, "{what}[{at}]: {found}, expected {wanted}, largest {largest}");
    }
}
