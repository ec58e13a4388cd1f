//! Exported models compute what ours do: read by PyTorch and onnxruntime where a Python has them, and always by a small
//! interpreter of ONNX's operators and by our own model.

use std::path::Path;
use std::process::Command;

use carousel_model::{Cell, LanguageModel, ModelConfig, Parameters, Softmax};
use prost::Message;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::onnx::interpreter::Interpreter;
use super::onnx::messages::Model;
use super::standard::recurrence;
use super::{Format, Standard, bytes};

const STEPS: usize = 7;
const STREAMS: usize = 3;
const VOCABULARY: usize = 11;

/// Far above what float32 loses in seven steps, far below what any gate in the wrong place makes.
const NEAR: f64 = 2e-6;

/// A model with weights, tokens, a state before, and what our model makes of them.
struct Case {
    config: ModelConfig,
    parameters: Parameters,
    /// (T, B)
    tokens: Vec<u32>,
    /// (B, carry)
    before: Vec<f32>,
    after: Vec<f32>,
    /// (T, B, V)
    logits: Vec<f32>,
}

impl Case {
    fn new(cell: Cell, layers: usize, tied: bool) -> Self {
        let embedding = if tied { 6 } else { 5 };
        let base = ModelConfig { cell, layers, tied, embedding, ..ModelConfig::default() };
        Self::of(ModelConfig { vocabulary: VOCABULARY, hidden: 6, init: 0.7, ..base })
    }

    /// Layers of 7, 4 and 6 units.
    fn uneven(cell: Cell) -> Self {
        Self::of(Self::new(cell, 3, true).config.with_widths(&[7, 4, 6]))
    }

    fn of(config: ModelConfig) -> Self {
        let parameters = Parameters::initial(&config, 5);
        let tokens: Vec<u32> = (0..STEPS * STREAMS).map(|n| (n * n * 7 + n) as u32 % 11).collect();
        let before: Vec<f32> =
            (0..STREAMS * config.carry_len()).map(|n| (n % 13) as f32 / 13.0 - 0.4).collect();
        let (after, logits) = outputs(&config, &parameters, &tokens, &before);
        Self { config, parameters, tokens, before, after, logits }
    }

    fn name(&self) -> String {
        let tied = if self.config.tied { "-tied" } else { "" };
        let uneven = if self.is_uneven() { "-uneven" } else { "" };
        format!("{}-{}{tied}{uneven}", self.config.cell, self.config.layers)
    }

    fn is_uneven(&self) -> bool {
        self.config.width(0) != self.config.hidden
    }

    fn all() -> Vec<Self> {
        let each = |cell| {
            [
                Self::new(cell, 1, false),
                Self::new(cell, 2, false),
                Self::new(cell, 3, true),
                Self::uneven(cell),
            ]
        };
        Cell::ALL.into_iter().filter(|cell| recurrence(*cell).is_some()).flat_map(each).collect()
    }

    fn exported(&self, format: Format) -> Result<Vec<u8>, String> {
        let standard = Standard::new(&self.config, &self.parameters).map_err(|error| error.to_string())?;
        bytes(standard, format).map_err(|error| error.to_string())
    }

    /// The state's tensors: name, shape, values; `when` is 0 before and n after.
    fn state(&self, carries: &[f32], when: &str) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        let (mut tensors, mut offset) = (Vec::new(), 0);
        for tensor in self.config.carry_tensors() {
            let (layers, hidden) = (tensor.layers, tensor.hidden);
            let at = |layer, stream| stream * self.config.carry_len() + offset + layer * hidden;
            let rows = (0..layers).flat_map(|layer| (0..STREAMS).map(move |stream| (layer, stream)));
            let values = rows.flat_map(|(layer, stream)| carries[at(layer, stream)..][..hidden].to_vec());
            let name = match tensor.name.split_once('_') {
                Some((state, layer)) => format!("{state}{when}_{layer}"),
                None => format!("{}{when}", tensor.name),
            };
            tensors.push((name, vec![layers, STREAMS, hidden], values.collect()));
            offset += layers * hidden;
        }
        tensors
    }

    /// What a reader gets beside the tokens.
    fn inputs(&self) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        self.state(&self.before, "0")
    }

    /// What it must give.
    fn outputs(&self) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        let logits = ("logits".to_owned(), vec![STEPS, STREAMS, VOCABULARY], self.logits.clone());
        std::iter::once(logits).chain(self.state(&self.after, "n")).collect()
    }
}

/// The state after, and the logits of every step.
fn outputs(
    config: &ModelConfig,
    parameters: &Parameters,
    tokens: &[u32],
    before: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let mut model = LanguageModel::new(config.clone()).unwrap();
    let (mut carries, mut all) = (before.to_vec(), Vec::new());
    for step in tokens.chunks(STREAMS) {
        let mut logits = vec![0.0; STREAMS * config.vocabulary];
        model.next_logits(parameters, step, &mut carries, &mut logits).unwrap();
        all.extend(logits);
    }
    (carries, all)
}

fn apart(found: &[f64], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(f, e)| (f - f64::from(*e)).abs()).fold(0.0, f64::max)
}

#[test]
fn onnx_s_operators_compute_what_the_model_does() {
    for case in Case::all() {
        let file = Model::decode(&*case.exported(Format::Onnx).unwrap()).unwrap();
        let mut interpreter = Interpreter::new(file.graph.unwrap());
        case.inputs().iter().for_each(|(name, shape, values)| interpreter.give(name, shape, values));
        interpreter.give_tokens("tokens", &[STEPS, STREAMS], &case.tokens);
        interpreter.run();
        for (name, shape, values) in case.outputs() {
            let (found_shape, found) = interpreter.output(&name);
            assert_eq!(found_shape, shape, "{}: {name}", case.name());
            let apart = apart(&found, &values);
            assert!(apart < NEAR, "{}: {name} is {apart:e} apart", case.name());
        }
    }
}

/// `torch.nn.LSTM` computes what our LSTM does (the reference vectors of `model/tests`): so the cells that are written as one must
/// still be themselves as our LSTM.
#[test]
fn the_state_dict_is_the_model_under_pytorch_s_names() {
    for case in Case::all() {
        let Ok(file) = case.exported(Format::Pytorch) else {
            assert_eq!(case.config.cell, Cell::LstmPeephole, "{}", case.name());
            continue;
        };
        let file = SafeTensors::deserialize(&file).unwrap();
        let rewritten = matches!(case.config.cell, Cell::LstmCoupled | Cell::LstmNoForget);
        let cell = if rewritten { Cell::Lstm } else { case.config.cell };
        let config = ModelConfig { cell, tied: false, ..case.config.clone() };
        let layout = config.parameter_layout();
        assert_eq!(file.len(), layout.tensors.len(), "{}", case.name());
        let mut values = Vec::new();
        for tensor in &layout.tensors {
            let name = match (case.is_uneven(), tensor.name.rsplit_once("_l")) {
                (true, Some((kind, layer))) => format!("{kind}_l0").replace("rnn.", &format!("rnn.{layer}.")),
                _ => tensor.name.clone(),
            };
            let found = file.tensor(&name).unwrap();
            assert_eq!((found.shape(), found.dtype()), (tensor.shape.as_slice(), Dtype::F32));
            values.extend(found.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())));
        }
        let parameters = Parameters::from_flat(&config, values).unwrap();
        let (after, logits) = outputs(&config, &parameters, &case.tokens, &case.before);
        let widened: Vec<f64> = after.iter().chain(&logits).map(|value| f64::from(*value)).collect();
        let apart = apart(&widened, &[case.after.clone(), case.logits.clone()].concat());
        assert!(apart < NEAR, "{}: {apart:e} apart", case.name());
    }
}

#[test]
fn equal_models_give_equal_files_and_others_do_not() {
    for format in [Format::Pytorch, Format::Onnx] {
        let file = |cell| Case::new(cell, 2, false).exported(format).unwrap();
        assert_eq!(file(Cell::Gru), file(Cell::Gru));
        assert_ne!(file(Cell::Gru), file(Cell::Lstm));
    }
}

#[test]
fn peepholes_are_refused_where_pytorch_has_none() {
    let error = Case::new(Cell::LstmPeephole, 1, false).exported(Format::Pytorch).unwrap_err();
    assert!(error.contains("lstm_peephole") && error.contains("--format onnx"), "{error}");
}

#[test]
fn a_cell_that_is_only_ours_is_refused_by_its_name() {
    let ours: Vec<Cell> = Cell::ALL.into_iter().filter(|cell| recurrence(*cell).is_none()).collect();
    assert!(ours.contains(&Cell::Residual), "{ours:?}");
    for (cell, format) in ours.into_iter().flat_map(|cell| [(cell, Format::Pytorch), (cell, Format::Onnx)]) {
        let error = Case::new(cell, 1, false).exported(format).unwrap_err();
        assert!(error.contains(cell.name()) && error.contains("model.safetensors"), "{error}");
    }
}

#[test]
fn an_adaptive_softmax_goes_to_pytorch_under_its_names_and_not_to_onnx() {
    let softmax = Softmax::Adaptive { cutoffs: vec![3, 6], div_value: 2.0, head_bias: false };
    let case = Case::of(ModelConfig { softmax, ..Case::new(Cell::Gru, 2, false).config });
    let file = case.exported(Format::Pytorch).unwrap();
    let file = SafeTensors::deserialize(&file).unwrap();
    let layout = case.parameters.layout();
    assert_eq!(file.len(), layout.tensors.len());
    assert!(layout.get("tail.1.0.weight").is_some() && layout.get("decoder.weight").is_none());
    for tensor in &layout.tensors {
        let values: &[f32] = &case.parameters.as_slice()[tensor.offset..][..tensor.len()];
        let found = file.tensor(&tensor.name).unwrap();
        let floats = found.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        assert!(floats.eq(values.iter().copied()) && found.shape() == tensor.shape, "{}", tensor.name);
    }
    let error = case.exported(Format::Onnx).unwrap_err();
    assert!(error.contains("ONNX has no adaptive softmax"), "{error}");
}

/// With PyTorch, onnx and onnxruntime themselves. `CAROUSEL_PYTHON` names a Python that has them, and then they must be there;
/// else `python3` is tried.
#[test]
fn pytorch_and_onnxruntime_compute_what_the_model_does() {
    let named = std::env::var("CAROUSEL_PYTHON");
    let python = named.clone().unwrap_or_else(|_| "python3".into());
    let modules = "import torch, onnx, onnxruntime, safetensors, numpy";
    let has_them = Command::new(&python).args(["-c", modules]).output().is_ok_and(|o| o.status.success());
    if !has_them {
        assert!(named.is_err(), "CAROUSEL_PYTHON: {python} cannot {modules}");
        println!("SKIPPED: {python} cannot {modules}; CAROUSEL_PYTHON may name one that can");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cases = Case::all();
    cases.iter().for_each(|case| write(case, &folder.path().join(case.name())));
    let in_pytorch = cases.iter().filter(|case| case.exported(Format::Pytorch).is_ok()).count();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/export.py");
    let output = Command::new(&python).arg(script).arg(folder.path()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{out}");
    assert!(output.status.success(), "{out}{err}");
    assert_eq!(out.lines().count(), cases.len() + in_pytorch, "a line a case and program: {out}");
}

fn write(case: &Case, folder: &Path) {
    std::fs::create_dir(folder).unwrap();
    std::fs::write(folder.join("model.onnx"), case.exported(Format::Onnx).unwrap()).unwrap();
    if let Ok(file) = case.exported(Format::Pytorch) {
        std::fs::write(folder.join("model.safetensors"), file).unwrap();
    }
    let config = &case.config;
    let module = match config.cell {
        Cell::Gru | Cell::RnnTanh | Cell::RnnRelu => config.cell.name(),
        _ => "lstm",
    };
    let (inputs, outputs) = (case.inputs(), case.outputs());
    let names = |tensors: &[(String, Vec<usize>, Vec<f32>)]| -> Vec<String> {
        tensors.iter().map(|(name, ..)| name.clone()).collect()
    };
    let widths: Vec<usize> = (0..config.layers).map(|layer| config.width(layer)).collect();
    let json = serde_json::json!({
        "module": module, "tied": config.tied, "vocabulary": config.vocabulary, "embedding": config.embedding,
        "widths": widths, "inputs": names(&inputs), "outputs": names(&outputs),
    });
    std::fs::write(folder.join("case.json"), json.to_string()).unwrap();
    let tokens: Vec<i64> = case.tokens.iter().map(|token| i64::from(*token)).collect();
    let tensors = [inputs, outputs].concat();
    let mut views = vec![(
        "tokens".to_owned(),
        TensorView::new(Dtype::I64, vec![STEPS, STREAMS], bytemuck::cast_slice(&tokens)).unwrap(),
    )];
    views.extend(tensors.iter().map(|(name, shape, values)| {
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytemuck::cast_slice(values)).unwrap())
    }));
    let bytes = safetensors::serialize(views, None).unwrap();
    std::fs::write(folder.join("expected.safetensors"), bytes).unwrap();
}
