//! A model as PyTorch's modules and ONNX's operators know it: their cells, their names, their order of gates. It knows neither
//! file format. A cell that is an LSTM with particular weights is written as that LSTM, and the user is told.

use carousel_model::{Cell, ModelConfig, Parameters};

use super::ExportError;

/// The recurrent modules both formats share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recurrence {
    Lstm,
    /// With `w_ci`, `w_cf`, `w_co`; ONNX only.
    LstmPeephole,
    Gru,
    RnnTanh,
    RnnRelu,
}

/// A tensor under its name in PyTorch's word language model.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tensor {
    pub name: String,
    /// Row-major.
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// A model without anything that is only ours.
#[derive(Clone, Debug)]
pub(super) struct Standard {
    pub recurrence: Recurrence,
    pub layers: usize,
    /// Units of each layer, from the input to the output.
    pub hidden: Vec<usize>,
    pub vocabulary: usize,
    /// In PyTorch's order; with tied weights without `decoder.weight`.
    pub tensors: Vec<Tensor>,
    /// What the user should know: where the file is laid out otherwise than the run's own weights.
    pub notes: Vec<&'static str>,
}

const COUPLED: &str = "lstm_coupled is written as an LSTM whose forget gate has the input gate's weights negated: \
     sigmoid(-x) = 1 - sigmoid(x). The same outputs; trained further elsewhere, the gates go their own ways";
const NO_FORGET: &str = "lstm_no_forget is written as an LSTM whose forget gate has weights 0 and bias 40: sigmoid(40) is 1 in \
     float32. The same outputs; trained further elsewhere, the gate may move";

const WIDTHS: &str = "the layers have widths of their own: each is a recurrent module of one layer (PyTorch: `rnn` is a \
     ModuleList; ONNX: a state in and out for each)";

const ADAPTIVE: &str =
    "head.* and tail.* are what torch.nn.AdaptiveLogSoftmaxWithLoss holds; there is no decoder";

/// Its sigmoid is 1 in float32, and in float64 1 - 4e-18.
const OPEN: f32 = 40.0;

impl Standard {
    /// # Errors
    /// A cell that no module of the other side computes, a tensor that it has no place for.
    pub(super) fn new(config: &ModelConfig, parameters: &Parameters) -> Result<Self, ExportError> {
        let (layout, values) = (parameters.layout(), parameters.as_slice());
        if let Some(unknown) = layout.tensors.iter().find(|tensor| !is_known(&tensor.name)) {
            return Err(ExportError::Unknown { name: unknown.name.clone() });
        }
        let copied = layout.tensors.iter().map(|tensor| Tensor {
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            values: values[tensor.offset..][..tensor.len()].to_vec(),
        });
        let mut tensors: Vec<Tensor> = copied.collect();
        let found = recurrence(config.cell);
        let (recurrence, note) = found.ok_or(ExportError::NoModule { cell: config.cell })?;
        tensors.iter_mut().for_each(|tensor| set_forget_gate(config.cell, tensor));
        let units = |layer| layout.get(&format!("rnn.weight_hh_l{layer}")).map(|tensor| tensor.shape[1]);
        let hidden: Vec<usize> = (0..).map_while(units).collect();
        let (layers, vocabulary) = (hidden.len(), config.vocabulary);
        let standard = Self { recurrence, layers, hidden, vocabulary, tensors, notes: Vec::new() };
        let widths = (!standard.is_one_module()).then_some(WIDTHS);
        let adaptive = standard.is_adaptive().then_some(ADAPTIVE);
        Ok(Self { notes: note.into_iter().chain(widths).chain(adaptive).collect(), ..standard })
    }

    /// Whether one recurrent module holds all layers; else each layer is a module of its own.
    pub(super) fn is_one_module(&self) -> bool {
        self.hidden.iter().all(|width| *width == self.hidden[0])
    }

    /// Whether an adaptive softmax stands in the decoder's place; PyTorch only.
    pub(super) fn is_adaptive(&self) -> bool {
        self.get("head.weight").is_some()
    }

    /// The tensor of this name.
    pub(super) fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}

/// The module that computes a cell, and what the user should know of it; `None`: there is none.
pub(super) fn recurrence(cell: Cell) -> Option<(Recurrence, Option<&'static str>)> {
    Some(match cell {
        Cell::Lstm => (Recurrence::Lstm, None),
        Cell::LstmPeephole => (Recurrence::LstmPeephole, None),
        Cell::LstmCoupled => (Recurrence::Lstm, Some(COUPLED)),
        Cell::LstmNoForget => (Recurrence::Lstm, Some(NO_FORGET)),
        Cell::Gru => (Recurrence::Gru, None),
        Cell::RnnTanh => (Recurrence::RnnTanh, None),
        Cell::RnnRelu => (Recurrence::RnnRelu, None),
        _ => return None,
    })
}

fn is_known(name: &str) -> bool {
    let of_layer = ["weight_ih", "weight_hh", "bias_ih", "bias_hh", "w_ci", "w_cf", "w_co"];
    let module = name.strip_prefix("rnn.").and_then(|rest| rest.split_once("_l"));
    let layer = module.is_some_and(|(kind, layer)| of_layer.contains(&kind) && layer.parse::<u32>().is_ok());
    let adaptive = name.starts_with("head.") || name.starts_with("tail.");
    layer || adaptive || ["encoder.weight", "decoder.weight", "decoder.bias"].contains(&name)
}

/// Rows i, f, g, o: gives the rows f the weights that make a standard LSTM of the two cells without a forget gate of their own.
fn set_forget_gate(cell: Cell, tensor: &mut Tensor) {
    if !tensor.name.starts_with("rnn.") {
        return;
    }
    let block = tensor.values.len() / 4;
    let (input, rest) = tensor.values.split_at_mut(block);
    match cell {
        Cell::LstmCoupled => {
            rest[..block].iter_mut().zip(input).for_each(|(forget, input)| *forget = -*input);
        }
        Cell::LstmNoForget => {
            rest[..block].fill(if tensor.name.starts_with("rnn.bias_ih") { OPEN } else { 0.0 });
        }
        _ => {}
    }
}
