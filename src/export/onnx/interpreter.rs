//! The operators that our graphs use, computed as ONNX's documentation writes them, in float64 and element by element: what an ONNX
//! file means, told by somebody who knows nothing of how it was made. For tests only.

use std::collections::BTreeMap;

use super::messages::{Attribute, Constant, ElementKind, Graph, Node};

#[derive(Clone, Debug, Default, PartialEq)]
struct Array {
    shape: Vec<usize>,
    values: Vec<f64>,
}

/// A graph and the values that are known by now.
pub(crate) struct Interpreter {
    graph: Graph,
    known: BTreeMap<String, Array>,
}

impl Interpreter {
    pub(crate) fn new(graph: Graph) -> Self {
        let known = graph.initializers.iter().map(|constant| (constant.name.clone(), read(constant)));
        let known: BTreeMap<String, Array> = known.collect();
        assert_eq!(known.len(), graph.initializers.len(), "names are given once");
        Self { graph, known }
    }

    pub(crate) fn give(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        assert!(self.graph.inputs.iter().any(|input| input.name == name), "the graph has no input {name}");
        let values = values.iter().map(|value| f64::from(*value)).collect();
        self.known.insert(name.into(), Array { shape: shape.into(), values });
    }

    pub(crate) fn give_tokens(&mut self, name: &str, shape: &[usize], tokens: &[u32]) {
        let values: Vec<f32> = tokens.iter().map(|token| *token as f32).collect();
        self.give(name, shape, &values);
    }

    /// Computes the nodes in their order.
    pub(crate) fn run(&mut self) {
        assert!(self.graph.inputs.iter().all(|input| self.known.contains_key(&input.name)));
        for node in self.graph.nodes.clone() {
            let get = |name: &String| {
                self.known.get(name).cloned().unwrap_or_else(|| panic!("{name} is not known"))
            };
            let given =
                node.inputs.iter().map(|name| if name.is_empty() { Array::default() } else { get(name) });
            let results = compute(&node, &given.collect::<Vec<_>>());
            assert_eq!(results.len(), node.outputs.len(), "{}", node.name);
            for (name, array) in node.outputs.iter().zip(results) {
                assert_eq!(array.shape.iter().product::<usize>(), array.values.len(), "{name}");
                assert!(self.known.insert(name.clone(), array).is_none(), "{name} is computed twice");
            }
        }
    }

    pub(crate) fn output(&self, name: &str) -> (Vec<usize>, Vec<f64>) {
        assert!(
            self.graph.outputs.iter().any(|output| output.name == name),
            "the graph has no output {name}"
        );
        let array = self.known[name].clone();
        (array.shape, array.values)
    }
}

fn read(constant: &Constant) -> Array {
    let shape: Vec<usize> = constant.shape.iter().map(|&n| n as usize).collect();
    let values: Vec<f64> = if constant.kind == i32::from(ElementKind::I64) {
        constant.bytes.chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect()
    } else {
        constant.bytes.chunks(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect()
    };
    assert_eq!(shape.iter().product::<usize>(), values.len(), "{}", constant.name);
    Array { shape, values }
}

fn attribute<'a>(node: &'a Node, name: &str) -> Option<&'a Attribute> {
    node.attributes.iter().find(|attribute| attribute.name == name)
}

fn compute(node: &Node, given: &[Array]) -> Vec<Array> {
    match node.operator.as_str() {
        "Gather" => vec![gather(&given[0], &given[1])],
        "Split" => split(&given[0], node.outputs.len()),
        "Squeeze" => {
            let axis = given[1].values[0] as usize;
            let mut squeezed = given[0].clone();
            assert_eq!(squeezed.shape.remove(axis), 1);
            vec![squeezed]
        }
        "Concat" => {
            let mut whole = given[0].clone();
            whole.shape[0] = given.iter().map(|part| part.shape[0]).sum();
            whole.values = given.iter().flat_map(|part| part.values.clone()).collect();
            vec![whole]
        }
        "Transpose" => vec![transpose(&given[0])],
        "MatMul" => vec![product(&given[0], &given[1])],
        "Add" => {
            let width = given[1].values.len();
            let sums =
                given[0].values.iter().enumerate().map(|(n, value)| value + given[1].values[n % width]);
            vec![Array { shape: given[0].shape.clone(), values: sums.collect() }]
        }
        "LSTM" | "GRU" | "RNN" => recurrence(node, given),
        other => panic!("{other}: not an operator we use"),
    }
}

fn gather(table: &Array, indices: &Array) -> Array {
    let width = table.shape[1];
    let rows = indices.values.iter().flat_map(|&row| &table.values[row as usize * width..][..width]);
    Array { shape: [&indices.shape[..], &[width]].concat(), values: rows.copied().collect() }
}

fn split(whole: &Array, parts: usize) -> Vec<Array> {
    let mut shape = whole.shape.clone();
    shape[0] /= parts;
    let chunks = whole.values.chunks(whole.values.len() / parts);
    chunks.map(|values| Array { shape: shape.clone(), values: values.to_vec() }).collect()
}

fn transpose(matrix: &Array) -> Array {
    let (rows, columns) = (matrix.shape[0], matrix.shape[1]);
    let places = (0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column));
    Array { shape: vec![columns, rows], values: places.map(|place| matrix.values[place]).collect() }
}

fn product(a: &Array, b: &Array) -> Array {
    let (inner, columns) = (b.shape[0], b.shape[1]);
    let row = |row: &[f64]| -> Vec<f64> {
        (0..columns).map(|j| (0..inner).map(|k| row[k] * b.values[k * columns + j]).sum()).collect()
    };
    let mut shape = a.shape.clone();
    *shape.last_mut().unwrap() = columns;
    Array { shape, values: a.values.chunks(inner).flat_map(row).collect() }
}

/// One direction of X (T, B, in), W (1, G H, in), R (1, G H, H), B (1, 2 G H), no lengths, the state (1, B, H) before, P.
struct Layer<'a> {
    node: &'a Node,
    hidden: usize,
    w: &'a [f64],
    r: &'a [f64],
    /// W's, then R's.
    biases: &'a [f64],
    /// i, o, f; empty without.
    peepholes: &'a [f64],
}

fn recurrence(node: &Node, given: &[Array]) -> Vec<Array> {
    let hidden = attribute(node, "hidden_size").unwrap().integer.unwrap() as usize;
    let [steps, streams, width] = given[0].shape[..] else { panic!("X has three axes") };
    let gates = match node.operator.as_str() {
        "LSTM" => 4,
        "GRU" => 3,
        _ => 1,
    };
    assert_eq!(given[1].shape, [1, gates * hidden, width]);
    assert_eq!(given[2].shape, [1, gates * hidden, hidden]);
    assert_eq!(given[3].shape, [1, 2 * gates * hidden]);
    let lstm = node.operator == "LSTM";
    let peepholes: &[f64] = given.get(7).map_or(&[], |array| &array.values);
    let layer =
        Layer { node, hidden, w: &given[1].values, r: &given[2].values, biases: &given[3].values, peepholes };
    let mut h = given[5].values.clone();
    let mut c = if lstm { given[6].values.clone() } else { vec![0.0; h.len()] };
    let mut all = Vec::new();
    for x in given[0].values.chunks(streams * width) {
        for stream in 0..streams {
            let place = stream * hidden..(stream + 1) * hidden;
            let x = &x[stream * width..][..width];
            let (next_h, next_c) = layer.step(x, &h[place.clone()], &c[place.clone()]);
            h[place.clone()].copy_from_slice(&next_h);
            c[place].copy_from_slice(&next_c);
        }
        all.extend(h.clone());
    }
    let state = |values| Array { shape: vec![1, streams, hidden], values };
    let mut results = vec![Array { shape: vec![steps, 1, streams, hidden], values: all }, state(h)];
    results.extend(lstm.then(|| state(c)));
    results
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Layer<'_> {
    fn of_input(&self, x: &[f64], gate: usize, unit: usize) -> f64 {
        let row = gate * self.hidden + unit;
        dot(&self.w[row * x.len()..][..x.len()], x) + self.biases[row]
    }

    fn of_hidden(&self, h: &[f64], gate: usize, unit: usize) -> f64 {
        let row = gate * self.hidden + unit;
        dot(&self.r[row * h.len()..][..h.len()], h) + self.biases[self.biases.len() / 2 + row]
    }

    fn peephole(&self, gate: usize, unit: usize) -> f64 {
        self.peepholes.get(gate * self.hidden + unit).copied().unwrap_or(0.0)
    }

    fn step(&self, x: &[f64], h: &[f64], c: &[f64]) -> (Vec<f64>, Vec<f64>) {
        (0..self.hidden).map(|unit| self.unit(x, h, c[unit], unit)).unzip()
    }

    /// The equations of ONNX's documentation, with its default activations.
    fn unit(&self, x: &[f64], h: &[f64], c: f64, unit: usize) -> (f64, f64) {
        let sum = |gate| self.of_input(x, gate, unit) + self.of_hidden(h, gate, unit);
        match self.node.operator.as_str() {
            "LSTM" => {
                let (i, f) = (sum(0) + self.peephole(0, unit) * c, sum(2) + self.peephole(2, unit) * c);
                let after = sigmoid(f) * c + sigmoid(i) * sum(3).tanh();
                let o = sigmoid(sum(1) + self.peephole(1, unit) * after);
                (o * after.tanh(), after)
            }
            "GRU" => {
                assert_eq!(attribute(self.node, "linear_before_reset").unwrap().integer, Some(1));
                let (z, r) = (sigmoid(sum(0)), sigmoid(sum(1)));
                let n = (self.of_input(x, 2, unit) + r * self.of_hidden(h, 2, unit)).tanh();
                ((1.0 - z) * n + z * h[unit], 0.0)
            }
            _ => match &attribute(self.node, "activations").unwrap().strings[0][..] {
                b"Tanh" => (sum(0).tanh(), 0.0),
                b"Relu" => (sum(0).max(0.0), 0.0),
                other => panic!("{other:?}: not an activation we use"),
            },
        }
    }
}
