//! `carousel export`: a trained model in other people's formats. Weights only: what a run needs to go on (optimizer, carries,
//! schedule) stays in its checkpoints.

mod onnx;
mod pytorch;
mod standard;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::checkpoint_model::CheckpointModel;
use crate::failure::Failure;
use crate::place;
use standard::Standard;

/// Write a trained model in another program's format
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  carousel export runs/rust-source --format pytorch --out rust-source.safetensors\n  carousel export runs/rust-source/checkpoints/best --format onnx --out rust-source.onnx"
)]
pub(crate) struct Arguments {
    /// A run's folder or a checkpoint in one
    #[arg(value_name = "RUN_OR_CHECKPOINT")]
    path: PathBuf,
    /// pytorch: a safetensors state dict; onnx: a graph with the recurrent operators of ONNX
    #[arg(long, value_enum)]
    format: Format,
    /// The file to write; it must not exist yet
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Pytorch,
    Onnx,
}

/// Why a model was not exported.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(
        "PyTorch has no module for the cell {cell}: export it with --format onnx, whose LSTM has peepholes"
    )]
    NotInPyTorch { cell: String },
    #[error(
        "neither PyTorch nor ONNX has a module for the cell {cell}: read the weights from the checkpoint's model.safetensors, and \
         compute its equations there (model/src/cells)"
    )]
    NoModule { cell: carousel_model::Cell },
    #[error("ONNX has no adaptive softmax: export the model with --format pytorch")]
    AdaptiveInOnnx,
    #[error("{name}: neither PyTorch's modules nor ONNX's operators have such a tensor")]
    Unknown { name: String },
    #[error("{found} bytes of weights: an ONNX file has less than {limit} (2 GiB, the limit of protobuf)")]
    TooLarge { found: u64, limit: u64 },
    #[error("{path}: exists; name another file by --out")]
    Exists { path: PathBuf },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        Self::bad_input(error)
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let out = &arguments.out;
    if out.exists() {
        return Err(ExportError::Exists { path: out.clone() }.into());
    }
    let model = CheckpointModel::open(&place::copy(&arguments.path)?.path)?;
    let config = crate::launch::model_config(&model.config, model.vocabulary)?;
    let standard = Standard::new(&config, &model.parameters)?;
    let (tensors, notes) = (standard.tensors.len(), standard.notes.clone());
    let bytes = bytes(standard, arguments.format)?;
    write(out, &bytes).map_err(|source| ExportError::Io { path: out.clone(), source })?;
    println!("written     {}: {tensors} tensors, {} bytes", out.display(), bytes.len());
    notes.iter().for_each(|note| println!("note        {note}"));
    Ok(())
}

fn bytes(standard: Standard, format: Format) -> Result<Vec<u8>, ExportError> {
    match format {
        Format::Pytorch => pytorch::file(&standard),
        Format::Onnx => onnx::file(standard),
    }
}

/// Beside, fsynced, renamed: a file under the name that was asked for is whole.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let fill = || {
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    fill().inspect_err(|_| fs::remove_file(&beside).unwrap_or_default())
}
