//! The nodes of a language model: Gather, for each layer the recurrent operator and a Squeeze of its one direction, MatMul, Add. The
//! layers' states stand in one tensor (L, B, H) outside, as PyTorch has them, and are split inside; where layers have widths of their
//! own, each has its state (1, B, H) outside too.

use super::super::standard::{Recurrence, Standard};
use super::messages::{
    Attribute, AttributeKind, Axis, Constant, ElementKind, Extent, Graph, Kind, Node, Shape, TensorKind,
    Value,
};
use super::weights::{floats, of_layer};

const ENCODER: &str = "encoder.weight";
const DECODER: &str = "decoder.weight";
const BIAS: &str = "decoder.bias";
/// The second axis of an operator's output: its directions.
const DIRECTION: &str = "direction";

/// The whole graph; the model's tensors are its initializers.
pub(super) fn of(model: Standard) -> Graph {
    let mut nodes = vec![node("Gather", [ENCODER, "tokens"], ["x_l0"])];
    let whole = model.is_one_module() && model.layers > 1;
    let split = states(model.recurrence).iter().filter(|_| whole).map(|state| split(model.layers, state));
    nodes.extend(split);
    nodes.extend((0..model.layers).flat_map(|layer| layer_nodes(&model, layer)));
    let joined = states(model.recurrence).iter().filter(|_| whole).map(|state| join(model.layers, state));
    nodes.extend(joined);
    nodes.extend(decoder(&model));
    Graph {
        nodes,
        name: "language_model".into(),
        inputs: inputs(&model),
        outputs: outputs(&model),
        initializers: constants(model),
    }
}

/// The state's tensors: h, and c of an LSTM.
fn states(recurrence: Recurrence) -> &'static [&'static str] {
    match recurrence {
        Recurrence::Lstm | Recurrence::LstmPeephole => &["h", "c"],
        _ => &["h"],
    }
}

/// The state outside, before (`0`) or after (`n`): each tensor's name, layers and units.
fn ports(model: &Standard, state: &str, when: &str) -> Vec<(String, usize, usize)> {
    if model.is_one_module() {
        return vec![(format!("{state}{when}"), model.layers, model.hidden[0])];
    }
    let widths = model.hidden.iter().enumerate();
    widths.map(|(layer, hidden)| (format!("{state}{when}_l{layer}"), 1, *hidden)).collect()
}

/// The name of a layer's state inside.
fn inside(model: &Standard, state: &str, when: &str, layer: usize) -> String {
    match model.is_one_module() && model.layers > 1 {
        true => part(state, when, layer),
        false => ports(model, state, when).swap_remove(layer).0,
    }
}

fn part(state: &str, when: &str, layer: usize) -> String {
    format!("{state}{when}_of_l{layer}")
}

fn split(layers: usize, state: &str) -> Node {
    let parts = (0..layers).map(|layer| part(state, "0", layer));
    Node { attributes: vec![integer("axis", 0)], ..node("Split", [format!("{state}0")], parts) }
}

fn join(layers: usize, state: &str) -> Node {
    let parts = (0..layers).map(|layer| part(state, "n", layer));
    Node { attributes: vec![integer("axis", 0)], ..node("Concat", parts, [format!("{state}n")]) }
}

fn layer_nodes(model: &Standard, layer: usize) -> [Node; 2] {
    let own = |operand: &str| format!("{operand}_l{layer}");
    // No lengths of sequences: all are whole.
    let mut inputs = vec![own("x"), own("W"), own("R"), own("B"), String::new()];
    inputs.extend(states(model.recurrence).iter().map(|state| inside(model, state, "0", layer)));
    if model.recurrence == Recurrence::LstmPeephole {
        inputs.push(own("P"));
    }
    let mut outputs = vec![own("y")];
    outputs.extend(states(model.recurrence).iter().map(|state| inside(model, state, "n", layer)));
    let (operator, mut attributes) = operator(model.recurrence);
    attributes.push(integer("hidden_size", model.hidden[layer] as i64));
    [
        Node { attributes, ..node(operator, inputs, outputs) },
        node("Squeeze", [own("y"), DIRECTION.into()], [format!("x_l{}", layer + 1)]),
    ]
}

fn operator(recurrence: Recurrence) -> (&'static str, Vec<Attribute>) {
    let activation = |name: &str| Attribute {
        name: "activations".into(),
        strings: vec![name.into()],
        kind: AttributeKind::Strings.into(),
        ..Attribute::default()
    };
    match recurrence {
        Recurrence::Lstm | Recurrence::LstmPeephole => ("LSTM", Vec::new()),
        Recurrence::Gru => ("GRU", vec![integer("linear_before_reset", 1)]),
        Recurrence::RnnTanh => ("RNN", vec![activation("Tanh")]),
        Recurrence::RnnRelu => ("RNN", vec![activation("Relu")]),
    }
}

fn decoder(model: &Standard) -> [Node; 3] {
    let weight = if model.get(DECODER).is_some() { DECODER } else { ENCODER };
    let permutation = Attribute {
        name: "perm".into(),
        integers: vec![1, 0],
        kind: AttributeKind::Integers.into(),
        ..Attribute::default()
    };
    [
        Node { attributes: vec![permutation], ..node("Transpose", [weight], ["decoder"]) },
        node("MatMul", [format!("x_l{}", model.layers), "decoder".into()], ["products"]),
        node("Add", ["products", BIAS], ["logits"]),
    ]
}

fn inputs(model: &Standard) -> Vec<Value> {
    let tokens = value("tokens", ElementKind::I64, [named("T"), named("B")].into());
    std::iter::once(tokens).chain(state_values(model, "0")).collect()
}

fn outputs(model: &Standard) -> Vec<Value> {
    let vocabulary = Extent::Fixed(model.vocabulary as i64);
    let logits = value("logits", ElementKind::F32, [named("T"), named("B"), vocabulary].into());
    std::iter::once(logits).chain(state_values(model, "n")).collect()
}

fn state_values(model: &Standard, when: &str) -> Vec<Value> {
    let fixed = |n: usize| Extent::Fixed(n as i64);
    let ports = states(model.recurrence).iter().flat_map(|state| ports(model, state, when));
    let values = ports.map(|(name, layers, hidden)| {
        value(&name, ElementKind::F32, [fixed(layers), named("B"), fixed(hidden)].into())
    });
    values.collect()
}

fn constants(model: Standard) -> Vec<Constant> {
    let mut constants: Vec<Constant> = (0..model.layers).flat_map(|layer| of_layer(&model, layer)).collect();
    let axis = 1i64.to_le_bytes().to_vec();
    constants.push(Constant {
        shape: vec![1],
        kind: ElementKind::I64.into(),
        name: DIRECTION.into(),
        bytes: axis,
    });
    let outer = model.tensors.into_iter().filter(|tensor| !tensor.name.starts_with("rnn."));
    constants.extend(outer.map(|tensor| floats(tensor.name, &tensor.shape, &tensor.values)));
    constants
}

fn node<S: Into<String>, R: Into<String>>(
    operator: &str,
    inputs: impl IntoIterator<Item = S>,
    outputs: impl IntoIterator<Item = R>,
) -> Node {
    let outputs: Vec<String> = outputs.into_iter().map(Into::into).collect();
    Node {
        name: format!("{operator}:{}", outputs[0]),
        inputs: inputs.into_iter().map(Into::into).collect(),
        outputs,
        operator: operator.into(),
        attributes: Vec::new(),
    }
}

fn integer(name: &str, value: i64) -> Attribute {
    let kind = AttributeKind::Integer.into();
    Attribute { name: name.into(), integer: Some(value), kind, ..Attribute::default() }
}

fn value(name: &str, element: ElementKind, extents: Vec<Extent>) -> Value {
    let axes = extents.into_iter().map(|extent| Axis { extent: Some(extent) }).collect();
    let tensor = TensorKind { element: element.into(), shape: Some(Shape { axes }) };
    Value { name: name.into(), kind: Some(Kind { tensor: Some(tensor) }) }
}

fn named(axis: &str) -> Extent {
    Extent::Named(axis.into())
}
