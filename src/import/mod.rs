//! `model.weights`: a run's first weights from a PyTorch state dict. Everything in the file is checked against the model before
//! any of it is used: nothing missing, nothing left over, every shape, every number finite. The file's hash is part of what the run
//! is, beside configuration, data and seed.

mod convert;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use carousel_coordinator::Sections;
use carousel_model::{ModelConfig, Optimizer, ParameterLayout};
use carousel_proto::digest::Digest;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use crate::config::Weights;
use crate::failure::Failure;

/// Why a run cannot start from a file of weights.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    #[error("model.weights: {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("model.weights: {path}: found {found} bytes, expected at most {limit} for this model")]
    TooLarge { path: PathBuf, found: u64, limit: u64 },
    #[error("model.weights: {path}: {source}")]
    Broken { path: PathBuf, source: SafeTensorError },
    #[error("model.weights: {path}: the file has BLAKE3 {found}, the configuration says {expected}")]
    Hash { path: PathBuf, found: Digest, expected: String },
    #[error("model.weights: {path}: tensor {name}: found {found}, expected {expected}")]
    Tensor { path: PathBuf, name: String, found: String, expected: String },
    #[error("model.weights: {path}: no tensor {name}; the file has {there}. {HINT}")]
    Missing { path: PathBuf, name: String, there: String },
    #[error("model.weights: {path}: the model has no place for {names}; it has {known}. {HINT}")]
    LeftOver { path: PathBuf, names: String, known: String },
    #[error("model.weights: {path}: {first} and {second} are both {name}")]
    Twice { path: PathBuf, first: String, second: String, name: String },
    #[error("model.weights: {path}: tensor {name}: element {index} is {value}, expected finite numbers")]
    NotFinite { path: PathBuf, name: String, index: usize, value: f32 },
    #[error("model.weights: {path}: decoder.weight is not encoder.weight, which model.tied = true makes one")]
    NotTied { path: PathBuf },
}

const HINT: &str = "model.weights.modules gives modules other names, as { lstm = \"rnn\" }";

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        Self::bad_input(error)
    }
}

/// A file of weights: read whole, hashed, not looked into yet.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    modules: BTreeMap<String, String>,
    bytes: Vec<u8>,
}

/// Weights in the model's order.
#[derive(Debug, PartialEq)]
pub(crate) struct Imported {
    pub parameters: Vec<f32>,
    /// How many tensors were of another type than F32, by type.
    pub converted: BTreeMap<&'static str, usize>,
}

/// The header of a file, and eight bytes (F64) each for every parameter and a tied matrix's second copy.
fn most_bytes(parameters: usize) -> u64 {
    (100 << 20) + 16 * parameters as u64
}

impl Source {
    /// Reads the file, and writes its hash into the configuration, or compares it with the one that is there.
    ///
    /// # Errors
    /// When it cannot be read, is larger than any file of this model, or is another one.
    pub(crate) fn read(weights: &mut Weights, layout: &ParameterLayout) -> Result<Self, ImportError> {
        let path = PathBuf::from(&weights.path);
        let io = |source| ImportError::Io { path: path.clone(), source };
        let (found, limit) = (fs::metadata(&path).map_err(io)?.len(), most_bytes(layout.len()));
        if found > limit {
            return Err(ImportError::TooLarge { path, found, limit });
        }
        let bytes = fs::read(&path).map_err(io)?;
        let found = Digest::of_bytes(&bytes);
        let expected = weights.blake3.get_or_insert_with(|| found.to_string());
        if *expected != found.to_string() {
            return Err(ImportError::Hash { path, found, expected: expected.clone() });
        }
        Ok(Self { path, modules: weights.modules.clone(), bytes })
    }

    /// The parameters in the order of the layout.
    ///
    /// # Errors
    /// When the file is not a model of this layout.
    pub(crate) fn parameters(&self, layout: &ParameterLayout) -> Result<Imported, ImportError> {
        let path = || self.path.clone();
        let file = SafeTensors::deserialize(&self.bytes)
            .map_err(|source| ImportError::Broken { path: path(), source })?;
        let mut tensors = self.by_our_names(&file)?;
        let mut imported =
            Imported { parameters: Vec::with_capacity(layout.len()), converted: BTreeMap::new() };
        for tensor in &layout.tensors {
            let there = || list(tensors.keys());
            let missing = || ImportError::Missing { path: path(), name: tensor.name.clone(), there: there() };
            let view = tensors.get(&tensor.name).ok_or_else(missing)?;
            let values = self.values(&tensor.name, view, &tensor.shape, &mut imported.converted)?;
            imported.parameters.extend(values);
        }
        self.check_tied(&tensors, layout)?;
        let known: BTreeSet<&String> = layout.tensors.iter().map(|tensor| &tensor.name).collect();
        tensors.retain(|name, _| !known.contains(name) && name != DECODER);
        if tensors.is_empty() {
            return Ok(imported);
        }
        Err(ImportError::LeftOver { path: path(), names: list(tensors.keys()), known: list(known) })
    }

    /// The file's tensors, their modules renamed.
    fn by_our_names<'a>(
        &self,
        file: &SafeTensors<'a>,
    ) -> Result<BTreeMap<String, TensorView<'a>>, ImportError> {
        let mut tensors = BTreeMap::new();
        let mut originals: BTreeMap<String, String> = BTreeMap::new();
        let mut all = file.tensors();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        for (original, view) in all {
            let name = self.renamed(&original);
            if let Some(first) = originals.insert(name.clone(), original.clone()) {
                return Err(ImportError::Twice { path: self.path.clone(), first, second: original, name });
            }
            tensors.insert(name, view);
        }
        Ok(tensors)
    }

    fn renamed(&self, name: &str) -> String {
        let module = |(from, to): (&String, &String)| {
            let rest = name.strip_prefix(from.as_str())?.strip_prefix('.')?;
            Some(format!("{to}.{rest}"))
        };
        let renamed = self.modules.iter().find_map(module).unwrap_or_else(|| name.to_owned());
        of_one_module(&renamed).unwrap_or(renamed)
    }

    fn values(
        &self,
        name: &str,
        view: &TensorView<'_>,
        shape: &[usize],
        converted: &mut BTreeMap<&'static str, usize>,
    ) -> Result<Vec<f32>, ImportError> {
        let wrong = |found: String, expected: String| ImportError::Tensor {
            path: self.path.clone(),
            name: name.into(),
            found,
            expected,
        };
        if view.shape() != shape {
            return Err(wrong(format!("{:?}", view.shape()), format!("{shape:?}")));
        }
        let (dtype, values) = convert::to_f32(view)
            .ok_or_else(|| wrong(format!("{:?}", view.dtype()), "F32, F64, F16 or BF16".into()))?;
        if view.dtype() != Dtype::F32 {
            *converted.entry(dtype).or_default() += 1;
        }
        match values.iter().position(|value| !value.is_finite()) {
            Some(index) => {
                let (path, name, value) = (self.path.clone(), name.to_owned(), values[index]);
                Err(ImportError::NotFinite { path, name, index, value })
            }
            None => Ok(values),
        }
    }

    /// A state dict names a tied matrix twice.
    fn check_tied(
        &self,
        tensors: &BTreeMap<String, TensorView<'_>>,
        layout: &ParameterLayout,
    ) -> Result<(), ImportError> {
        let (Some(decoder), Some(encoder), None) =
            (tensors.get(DECODER), tensors.get(ENCODER), layout.get(DECODER))
        else {
            return Ok(());
        };
        let same = (decoder.dtype(), decoder.shape(), decoder.data())
            == (encoder.dtype(), encoder.shape(), encoder.data());
        if same { Ok(()) } else { Err(ImportError::NotTied { path: self.path.clone() }) }
    }
}

/// `rnn.1.weight_ih_l0`, of a list of one-layer modules, is `rnn.weight_ih_l1`.
fn of_one_module(name: &str) -> Option<String> {
    let (layer, rest) = name.strip_prefix("rnn.")?.split_once('.')?;
    let kind = rest.strip_suffix("_l0")?;
    layer.parse::<u32>().ok().map(|layer| format!("rnn.{kind}_l{layer}"))
}

const ENCODER: &str = "encoder.weight";
const DECODER: &str = "decoder.weight";

/// A few names, and how many more.
fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    match names.len() {
        0 => "none".into(),
        1..=12 => names.join(", "),
        n => format!("{} and {} more", names[..12].join(", "), n - 12),
    }
}

/// The initial replica: the file's parameters, and the optimizer at its beginning.
///
/// # Errors
/// As [`Source::read`] and [`Source::parameters`].
pub(crate) fn replica(
    weights: &mut Weights,
    model: &ModelConfig,
    optimizer: impl FnOnce(&ParameterLayout) -> Result<Optimizer, Failure>,
) -> Result<Sections, Failure> {
    let layout = model.parameter_layout();
    let imported = Source::read(weights, &layout)?.parameters(&layout)?;
    for (dtype, tensors) in &imported.converted {
        eprintln!("note: model.weights: {tensors} tensors of {dtype} were converted to F32");
    }
    let optimizer = optimizer(&layout)?;
    let states = optimizer.state().into_iter().map(|(_, state)| Arc::new(state.to_vec()));
    Ok(std::iter::once(Arc::new(imported.parameters)).chain(states).collect())
}

/// For a run that is gone on with: the file is not needed, but where it is there it must be the run's own.
///
/// # Errors
/// When it cannot be read though it is there.
pub(crate) fn identify(weights: &mut Weights, own: Option<&Weights>) -> Result<(), ImportError> {
    let path = PathBuf::from(&weights.path);
    if weights.blake3.is_some() {
        return Ok(());
    }
    weights.blake3 = match fs::read(&path) {
        Ok(bytes) => Some(Digest::of_bytes(&bytes).to_string()),
        Err(source) if source.kind() == io::ErrorKind::NotFound => own.and_then(|own| own.blake3.clone()),
        Err(source) => return Err(ImportError::Io { path, source }),
    };
    Ok(())
}
