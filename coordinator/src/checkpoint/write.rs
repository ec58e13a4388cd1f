//! Writing a checkpoint: files, hashes, fsync. Where it ends up, and under which name, is `store`'s.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use carousel_proto::Step;
use carousel_proto::digest::{Digest, state_digest};
use ndarray::{Array3, ArrayView3, ShapeBuilder, s};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::{
    CARRIES_FILE, CheckpointError, FORMAT, FileHash, MODEL_FILE, OPTIMIZER_FILE, STATE_FILE, Snapshot,
    StateFile,
};
use crate::failpoint::{FailPoint, reach};
use crate::plan::{Epochs, RunPlan};
use crate::replica::{ReplicaLayout, TensorShape, digest_of};

/// What a run's checkpoints say beside the snapshot itself.
#[derive(Clone, Debug)]
pub struct Context {
    /// Names and shapes.
    pub layout: ReplicaLayout,
    /// Epochs and windows.
    pub plan: RunPlan,
    /// The digest of the run's tokens.
    pub data_digest: Digest,
    /// Targets in an epoch, over all streams.
    pub tokens_per_epoch: u64,
}

/// Writes every file of a checkpoint into `folder`, which must exist and be empty, and fsyncs them and the folder.
/// Returns the state's digest.
pub(crate) fn write_files(
    folder: &Path,
    snapshot: &Snapshot,
    context: &Context,
) -> Result<Digest, CheckpointError> {
    let mut files = BTreeMap::new();
    let mut put = |name: &str, bytes: Vec<u8>| {
        let hash = FileHash { bytes: bytes.len() as u64, blake3: Digest::of_bytes(&bytes).to_string() };
        files.insert(name.to_owned(), hash);
        write_durably(&folder.join(name), &bytes)
    };
    put(MODEL_FILE, parameter_file(snapshot, &context.layout))?;
    reach(FailPoint::HALF_WRITTEN, Step(snapshot.step));
    put(OPTIMIZER_FILE, optimizer_file(snapshot, &context.layout))?;
    put(CARRIES_FILE, carries_file(&snapshot.carries, &context.layout))?;
    let state = state_file(snapshot, context, files);
    let digest = Digest::from_hex(&state.digest).expect("a digest was just written as hexadecimal");
    let json =
        serde_json::to_vec_pretty(&state).expect("a state of numbers and names can be written as JSON");
    write_durably(&folder.join(STATE_FILE), &json)?;
    sync_folder(folder)?;
    reach(FailPoint::UNNAMED, Step(snapshot.step));
    Ok(digest)
}

fn state_file(snapshot: &Snapshot, context: &Context, files: BTreeMap<String, FileHash>) -> StateFile {
    let layout = &context.layout;
    let replica = digest_of(layout, &snapshot.sections);
    let schedule = snapshot.schedule.canonical_bytes();
    let digest = state_digest(Step(snapshot.step), &schedule, &replica, &snapshot.carries);
    let names = |tensors: &[TensorShape]| tensors.iter().map(|t| t.name.clone()).collect();
    StateFile {
        format: FORMAT,
        program_version: env!("CARGO_PKG_VERSION").into(),
        step: snapshot.step,
        epoch: context.plan.epoch_of(snapshot.step + 1),
        window: context.plan.place_of(snapshot.step + 1),
        schedule: snapshot.schedule.clone(),
        valid_loss: snapshot.valid_loss,
        streams: (snapshot.carries.len() / layout.carry_floats().max(1)) as u64,
        windows_per_epoch: match context.plan.epochs {
            Epochs::Even { updates } => updates,
            Epochs::Uneven { .. } => 0,
        },
        tokens_per_epoch: context.tokens_per_epoch,
        data_digest: context.data_digest.to_string(),
        replica_digest: replica.to_string(),
        digest: digest.to_string(),
        parameters: names(&layout.parameters),
        optimizer_state: layout.optimizer_state.clone(),
        carry: names(&layout.carry),
        files,
    }
}

fn parameter_file(snapshot: &Snapshot, layout: &ReplicaLayout) -> Vec<u8> {
    let tensors = named_tensors("", &snapshot.sections[0], layout);
    serialize(tensors, snapshot.step)
}

fn optimizer_file(snapshot: &Snapshot, layout: &ReplicaLayout) -> Vec<u8> {
    let states = layout.optimizer_state.iter().zip(&snapshot.sections[1..]);
    let tensors = states.flat_map(|(state, floats)| named_tensors(&format!("{state}."), floats, layout));
    serialize(tensors, snapshot.step)
}

fn named_tensors<'a>(
    prefix: &str,
    floats: &'a [f32],
    layout: &ReplicaLayout,
) -> Vec<(String, Vec<usize>, std::borrow::Cow<'a, [u8]>)> {
    let mut rest = floats;
    let cut = |tensor: &TensorShape| {
        let (own, after) = rest.split_at(tensor.floats());
        rest = after;
        (format!("{prefix}{}", tensor.name), tensor.shape.clone(), bytemuck::cast_slice(own).into())
    };
    layout.parameters.iter().map(cut).collect()
}

/// (streams, [h (layers, hidden)][c (layers, hidden)]) becomes h and c of (layers, streams, hidden), PyTorch's shape.
fn carries_file(carries: &[f32], layout: &ReplicaLayout) -> Vec<u8> {
    let per_stream = layout.carry_floats();
    let streams = carries.len() / per_stream;
    let mut offset = 0;
    let transposed = layout.carry.iter().map(|tensor| {
        let (layers, hidden) = (tensor.shape[0], tensor.shape[1]);
        let strides = (layers, streams, hidden).strides((hidden, per_stream, 1));
        let view =
            ArrayView3::from_shape(strides, &carries[offset..]).expect("carries are (streams, carry) floats");
        offset += tensor.floats();
        let floats: Vec<f32> = view.iter().copied().collect();
        (tensor.name.clone(), vec![layers, streams, hidden], bytemuck::cast_slice(&floats).to_vec().into())
    });
    serialize(transposed, 0)
}

/// The inverse of [`carries_file`] for one tensor: puts (layers, streams, hidden) at `offset` of every stream's carry.
pub(crate) fn place_carry(carries: &mut [f32], offset: usize, tensor: &Array3<f32>, per_stream: usize) {
    for (stream, carry) in carries.chunks_exact_mut(per_stream).enumerate() {
        let of_stream = tensor.slice(s![.., stream, ..]);
        carry[offset..].iter_mut().zip(&of_stream).for_each(|(to, from)| *to = *from);
    }
}

fn serialize<'a>(
    tensors: impl IntoIterator<Item = (String, Vec<usize>, std::borrow::Cow<'a, [u8]>)>,
    step: u64,
) -> Vec<u8> {
    let tensors: Vec<_> = tensors.into_iter().collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a tensor's bytes fit its shape");
        (name.as_str(), view)
    });
    // One key alone: a map of several would be written in hash order, and equal states would give unequal files.
    let metadata = HashMap::from([("step".to_owned(), step.to_string())]);
    safetensors::serialize(views, Some(metadata)).expect("tensors of known shape can be serialized")
}

fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(CheckpointError::io(path))
}

/// Makes a folder's entries durable: a renamed or created file is only there for sure after this.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), CheckpointError> {
    fs::File::open(folder).and_then(|f| f.sync_all()).map_err(CheckpointError::io(folder))
}
