//! Reading a checkpoint: check, then trust. Sizes come from the files' own system entries before memory is taken.

use std::fs;
use std::path::{Path, PathBuf};

use carousel_proto::Step;
use carousel_proto::digest::{Digest, state_digest};
use ndarray::Array3;
use safetensors::{Dtype, SafeTensors};

use super::write::place_carry;
use super::{
    CARRIES_FILE, Checkpoint, CheckpointError, FORMAT, MODEL_FILE, OPTIMIZER_FILE, STATE_FILE, Snapshot,
    StateFile,
};
use crate::replica::{ReplicaLayout, Sections, TensorShape, digest_of};

/// `state.json` lists names and hashes; it is never larger.
const MAX_STATE_BYTES: u64 = 16 << 20;

impl Checkpoint {
    /// Reads the checkpoint in `folder`: `state.json`, then the other files against their hashes, then the state
    /// against its digest.
    ///
    /// # Errors
    /// When anything is missing, damaged or inconsistent; nothing of it can be used then.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        let state = read_state(folder)?;
        let model = Tensors::read(folder, MODEL_FILE, &state)?;
        let optimizer = Tensors::read(folder, OPTIMIZER_FILE, &state)?;
        let carries = Tensors::read(folder, CARRIES_FILE, &state)?;
        let (layout, parameters) = model.parameters(&state.parameters)?;
        let mut sections: Sections = vec![parameters.into()];
        for name in &state.optimizer_state {
            sections.push(optimizer.section(name, &layout)?.into());
        }
        let carries = carries.carries(&state.carry)?;
        let layout = ReplicaLayout { optimizer_state: state.optimizer_state.clone(), ..layout };
        let snapshot = Snapshot {
            step: state.step,
            schedule: state.schedule.clone(),
            sections,
            carries,
            valid_loss: state.valid_loss,
        };
        check_digest(folder, &state, &snapshot, &layout)?;
        Ok(Self { path: folder.into(), state, snapshot })
    }

    /// The state's digest, which was checked when the checkpoint was opened.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::from_hex(&self.state.digest).expect("the digest was compared when the checkpoint was opened")
    }

    /// The digest of parameters and optimizer states.
    #[must_use]
    pub fn replica_digest(&self) -> Digest {
        Digest::from_hex(&self.state.replica_digest)
            .expect("the digest was compared when the checkpoint was opened")
    }
}

/// Whether each file of a checkpoint has the hash that was written for it. Cheaper than opening it: one file is in memory
/// at a time.
pub(crate) fn has_its_hashes(folder: &Path) -> bool {
    let check = || {
        let state = read_state(folder)?;
        [MODEL_FILE, OPTIMIZER_FILE, CARRIES_FILE]
            .iter()
            .try_for_each(|name| Tensors::read(folder, name, &state).map(drop))
    };
    check().is_ok()
}

pub(crate) fn read_state(folder: &Path) -> Result<StateFile, CheckpointError> {
    let path = folder.join(STATE_FILE);
    let bytes = read_limited(&path, MAX_STATE_BYTES)?;
    let state: StateFile = serde_json::from_slice(&bytes)
        .map_err(|source| CheckpointError::State { path: path.clone(), source })?;
    if state.format != FORMAT {
        return Err(CheckpointError::Format { path, found: state.format });
    }
    Ok(state)
}

fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, CheckpointError> {
    let bytes = fs::metadata(path).map_err(CheckpointError::io(path))?.len();
    if bytes > limit {
        let expected = format!("at most {limit} bytes");
        return Err(CheckpointError::Damaged {
            path: path.into(),
            found: format!("{bytes} bytes"),
            expected,
        });
    }
    fs::read(path).map_err(CheckpointError::io(path))
}

fn check_digest(
    folder: &Path,
    state: &StateFile,
    snapshot: &Snapshot,
    layout: &ReplicaLayout,
) -> Result<(), CheckpointError> {
    let replica = digest_of(layout, &snapshot.sections);
    let whole =
        state_digest(Step(state.step), &state.schedule.canonical_bytes(), &replica, &snapshot.carries);
    for (found, expected) in [(replica, &state.replica_digest), (whole, &state.digest)] {
        if found.to_string() != *expected {
            return Err(CheckpointError::Digest { path: folder.into(), found, expected: expected.clone() });
        }
    }
    Ok(())
}

/// A safetensors file whose hash was right.
struct Tensors {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Tensors {
    fn read(folder: &Path, name: &str, state: &StateFile) -> Result<Self, CheckpointError> {
        let path = folder.join(name);
        let damaged = |found: String, expected: String| CheckpointError::Damaged {
            path: path.clone(),
            found,
            expected,
        };
        let hash = state.files.get(name).ok_or_else(|| damaged("the file".into(), "nothing of it".into()))?;
        let size = fs::metadata(&path).map_err(CheckpointError::io(&path))?.len();
        if size != hash.bytes {
            return Err(damaged(format!("{size} bytes"), format!("{} bytes", hash.bytes)));
        }
        let bytes = fs::read(&path).map_err(CheckpointError::io(&path))?;
        let found = Digest::of_bytes(&bytes).to_string();
        if found != hash.blake3 {
            return Err(damaged(format!("BLAKE3 {found}"), hash.blake3.clone()));
        }
        Ok(Self { path, bytes })
    }

    fn parse(&self) -> Result<SafeTensors<'_>, CheckpointError> {
        SafeTensors::deserialize(&self.bytes)
            .map_err(|source| CheckpointError::Tensors { path: self.path.clone(), source })
    }

    fn wrong(&self, name: &str, found: String, expected: &str) -> CheckpointError {
        CheckpointError::Tensor {
            path: self.path.clone(),
            name: name.into(),
            found,
            expected: expected.into(),
        }
    }

    fn tensor(&self, file: &SafeTensors, name: &str) -> Result<(Vec<usize>, Vec<f32>), CheckpointError> {
        let view = file.tensor(name).map_err(|_| self.wrong(name, "none".into(), "an F32 tensor"))?;
        if view.dtype() != Dtype::F32 {
            return Err(self.wrong(name, format!("{:?}", view.dtype()), "F32"));
        }
        let floats = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        Ok((view.shape().to_vec(), floats.collect()))
    }

    /// The parameters in the order of `names`, and their layout.
    fn parameters(&self, names: &[String]) -> Result<(ReplicaLayout, Vec<f32>), CheckpointError> {
        let file = self.parse()?;
        let (mut layout, mut flat) = (ReplicaLayout::default(), Vec::new());
        for name in names {
            let (shape, floats) = self.tensor(&file, name)?;
            layout.parameters.push(TensorShape { name: name.clone(), shape });
            flat.extend(floats);
        }
        Ok((layout, flat))
    }

    /// One optimizer state, in the parameters' order.
    fn section(&self, state: &str, layout: &ReplicaLayout) -> Result<Vec<f32>, CheckpointError> {
        let file = self.parse()?;
        let mut flat = Vec::with_capacity(layout.parameter_floats());
        for parameter in &layout.parameters {
            let name = format!("{state}.{}", parameter.name);
            let (shape, floats) = self.tensor(&file, &name)?;
            if shape != parameter.shape {
                return Err(self.wrong(&name, format!("{shape:?}"), &format!("{:?}", parameter.shape)));
            }
            flat.extend(floats);
        }
        Ok(flat)
    }

    /// (streams, carry) floats from (layers, streams, hidden) tensors.
    fn carries(&self, names: &[String]) -> Result<Vec<f32>, CheckpointError> {
        let file = self.parse()?;
        let mut tensors = Vec::new();
        for name in names {
            let (shape, floats) = self.tensor(&file, name)?;
            let three = <[usize; 3]>::try_from(shape.as_slice())
                .map_err(|_| self.wrong(name, format!("{shape:?}"), "(layers, streams, hidden)"))?;
            // A tensor without floats may claim other dimensions whose product is beyond any memory.
            let tensor = Array3::from_shape_vec(three, floats);
            tensors.push(tensor.map_err(|_| self.wrong(name, format!("{shape:?}"), "a possible shape"))?);
        }
        let streams = tensors.first().map_or(0, |t| t.dim().1);
        if let Some(odd) = tensors.iter().position(|t| t.dim().1 != streams) {
            return Err(self.wrong(
                &names[odd],
                format!("{:?}", tensors[odd].dim()),
                "as many streams as the others",
            ));
        }
        let per_stream: usize = tensors.iter().map(|t| t.dim().0 * t.dim().2).sum();
        let mut carries = vec![0.0; streams * per_stream];
        let mut offset = 0;
        for tensor in &tensors {
            if per_stream > 0 {
                place_carry(&mut carries, offset, tensor, per_stream);
            }
            offset += tensor.dim().0 * tensor.dim().2;
        }
        Ok(carries)
    }
}
