//! A safetensors state dict that `load_state_dict` takes unchanged: `encoder` (`torch.nn.Embedding`), `rnn` (`torch.nn.LSTM`, `GRU`
//! or `RNN`), `decoder` (`torch.nn.Linear`), as in PyTorch's word language model. Equal models give equal bytes.

use std::collections::HashMap;

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::ExportError;
use super::standard::{Recurrence, Standard, Tensor};

/// The bytes of the file.
pub(super) fn file(model: &Standard) -> Result<Vec<u8>, ExportError> {
    if model.recurrence == Recurrence::LstmPeephole {
        return Err(ExportError::NotInPyTorch { cell: "lstm_peephole".into() });
    }
    let mut tensors: Vec<(String, &Tensor)> = model.tensors.iter().map(|t| (name(model, t), t)).collect();
    if model.get("decoder.weight").is_none() && !model.is_adaptive() {
        // A state dict names a shared matrix twice.
        let shared = model.get("encoder.weight").expect("every model has an embedding");
        tensors.push(("decoder.weight".into(), shared));
    }
    let views = tensors.into_iter().map(|(name, tensor)| (name, view(tensor)));
    // One entry: two would come in the order of a hash.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    Ok(safetensors::serialize(views, Some(metadata))
        .expect("a model's tensors have names and sizes of their own"))
}

/// `rnn.weight_ih_l1` where one module has all layers, `rnn.1.weight_ih_l0` where each is one.
fn name(model: &Standard, tensor: &Tensor) -> String {
    let parts = tensor.name.strip_prefix("rnn.").and_then(|rest| rest.rsplit_once("_l"));
    match parts {
        Some((kind, layer)) if !model.is_one_module() => format!("rnn.{layer}.{kind}_l0"),
        _ => tensor.name.clone(),
    }
}

fn view(tensor: &Tensor) -> TensorView<'_> {
    let bytes = bytemuck::cast_slice(&tensor.values);
    TensorView::new(Dtype::F32, tensor.shape.clone(), bytes).expect("a tensor has its shape's floats")
}
