//! PyTorch's tensors of a layer as ONNX's operators want them: another order of gates, one direction in front, both biases in one.
//!
//! ```text
//!                 PyTorch       ONNX
//! LSTM            i f g o       i o f c    (c is g)       peepholes: i o f
//! GRU             r z n         z r h      (h is n)       linear_before_reset = 1: the reset gate after the recurrent product
//! W, R            (G H, in)     (1, G H, in)
//! B               two (G H)     (1, 2 G H), W's then R's
//! P               three (H)     (1, 3 H)
//! ```

use super::super::standard::{Recurrence, Standard};
use super::messages::{Constant, ElementKind};

/// The operator's blocks of rows, as places among PyTorch's.
fn gates(recurrence: Recurrence) -> &'static [usize] {
    match recurrence {
        Recurrence::Lstm | Recurrence::LstmPeephole => &[0, 3, 1, 2],
        Recurrence::Gru => &[1, 0, 2],
        Recurrence::RnnTanh | Recurrence::RnnRelu => &[0],
    }
}

/// W, R, B and, with peepholes, P of a layer.
pub(super) fn of_layer(model: &Standard, layer: usize) -> Vec<Constant> {
    let take = |kind: &str| {
        let tensor = model.get(&format!("rnn.{kind}_l{layer}")).expect("a layer has its tensors");
        (tensor.shape.clone(), reordered(&tensor.values, gates(model.recurrence)))
    };
    let mut constants = Vec::new();
    for (operand, kind) in [("W", "weight_ih"), ("R", "weight_hh")] {
        let (shape, values) = take(kind);
        constants.push(floats(format!("{operand}_l{layer}"), &[1, shape[0], shape[1]], &values));
    }
    let ((shape, of_input), (_, of_hidden)) = (take("bias_ih"), take("bias_hh"));
    let biases = [of_input, of_hidden].concat();
    constants.push(floats(format!("B_l{layer}"), &[1, 2 * shape[0]], &biases));
    if model.recurrence == Recurrence::LstmPeephole {
        let peephole = |kind: &str| {
            let tensor = model.get(&format!("rnn.{kind}_l{layer}")).expect("a layer has its peepholes");
            tensor.values.as_slice()
        };
        let peepholes = ["w_ci", "w_co", "w_cf"].map(peephole).concat();
        constants.push(floats(format!("P_l{layer}"), &[1, peepholes.len()], &peepholes));
    }
    constants
}

/// The blocks of rows in another order.
fn reordered(values: &[f32], gates: &[usize]) -> Vec<f32> {
    let block = values.len() / gates.len();
    gates.iter().flat_map(|gate| &values[gate * block..][..block]).copied().collect()
}

/// A constant of the graph.
pub(super) fn floats(name: String, shape: &[usize], values: &[f32]) -> Constant {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let shape = shape.iter().map(|&n| n as i64).collect();
    Constant { shape, kind: ElementKind::F32.into(), name, bytes }
}
