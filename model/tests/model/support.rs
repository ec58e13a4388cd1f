//! Reading the reference vectors, and saying so when they are not there.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use carousel_model::ModelConfig;
use safetensors::{Dtype, SafeTensors};

/// The folder of reference vectors: `CAROUSEL_GOLDEN`, or `../shared/golden` beside the project. None, said aloud, when it is absent;
/// a panic where tests must not be skipped (`CI` is set).
pub(crate) fn golden_folder() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/golden");
    let folder = std::env::var_os("CAROUSEL_GOLDEN").map_or(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    let ci = std::env::var_os("CI").is_some_and(|ci| !ci.is_empty());
    assert!(!ci, "reference vectors are missing at {}", folder.display());
    // Not eprintln!, which the test harness hides when a test passes.
    let message = format!("SKIPPED: no reference vectors at {} (set CAROUSEL_GOLDEN)\n", folder.display());
    std::io::stderr().write_all(message.as_bytes()).expect("standard error can be written");
    None
}

/// One file of reference vectors.
pub(crate) struct Golden {
    bytes: Vec<u8>,
    /// Sizes and hyperparameters.
    pub(crate) case: serde_json::Value,
}

impl Golden {
    pub(crate) fn open(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().as_ref().expect("the file has metadata");
        let case = serde_json::from_str(&metadata["case"]).unwrap();
        Self { bytes, case }
    }

    fn tensor(&self, name: &str) -> Option<Vec<u8>> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        tensors.tensor(name).ok().map(|view| {
            assert!(matches!(view.dtype(), Dtype::F64 | Dtype::I64), "{name}");
            view.data().to_vec()
        })
    }

    pub(crate) fn floats(&self, name: &str) -> Vec<f64> {
        let data = self.tensor(name).unwrap_or_else(|| panic!("no tensor {name}"));
        data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
    }

    /// A gradient that PyTorch did not compute is zero.
    pub(crate) fn floats_or_zero(&self, name: &str, len: usize) -> Vec<f64> {
        if self.tensor(name).is_some() { self.floats(name) } else { vec![0.0; len] }
    }

    pub(crate) fn integers(&self, name: &str) -> Vec<i64> {
        let data = self.tensor(name).unwrap_or_else(|| panic!("no tensor {name}"));
        data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect()
    }

    /// (L, B, H) tensors `h` and `c` under a prefix as the carries of B streams.
    pub(crate) fn carries(&self, prefix: &str, config: &ModelConfig, streams: usize) -> Vec<f64> {
        let states = config.carry_tensors();
        let tensors: Vec<Vec<f64>> =
            states.iter().map(|state| self.floats(&format!("{prefix}{}", state.name))).collect();
        let mut carries = Vec::new();
        for stream in 0..streams {
            for tensor in &tensors {
                for layer in 0..config.layers {
                    let from = (layer * streams + stream) * config.hidden;
                    carries.extend(&tensor[from..from + config.hidden]);
                }
            }
        }
        carries
    }
}
