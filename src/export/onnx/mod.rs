//! An ONNX file: `tokens` (T, B) int64 and the state before in, `logits` (T, B, V) and the state after out, with ONNX's own LSTM,
//! GRU or RNN a layer. `messages` has the format, `graph` the nodes, `weights` the order of gates.

mod graph;
#[cfg(test)]
pub(super) mod interpreter;
pub(super) mod messages;
mod weights;

use prost::Message;

use super::ExportError;
use super::standard::Standard;
use messages::{Model, OperatorSet};

/// Its LSTM, GRU and RNN are of 14, its Squeeze and Split take axes as inputs since 13.
const OPERATOR_SET: i64 = 17;
/// The version of the file format that goes with it.
const IR_VERSION: i64 = 8;
/// What protobuf, and so every reader, can take.
const LIMIT: u64 = i32::MAX as u64;

/// The bytes of the file.
pub(super) fn file(model: Standard) -> Result<Vec<u8>, ExportError> {
    if model.is_adaptive() {
        return Err(ExportError::AdaptiveInOnnx);
    }
    let file = Model {
        ir_version: IR_VERSION,
        producer_name: "carousel".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(graph::of(model)),
        operator_sets: vec![OperatorSet { domain: String::new(), version: OPERATOR_SET }],
    };
    let found = file.encoded_len() as u64;
    if found > LIMIT {
        return Err(ExportError::TooLarge { found, limit: LIMIT });
    }
    Ok(file.encode_to_vec())
}
