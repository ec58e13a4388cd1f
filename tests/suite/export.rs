//! `carousel export` as its users call it. What is in the files is looked into beside the code (`src/export/tests.rs`).

use crate::program::Workshop;
use safetensors::SafeTensors;

const SHORT: &[&str] = &["--set", "train.steps=20"];

#[test]
fn a_state_dict_has_the_checkpoint_s_bits_and_both_names_of_a_tied_matrix() {
    let shop = Workshop::new();
    shop.trained("run", &[SHORT, &["--set", "model.tied=true", "--set", "model.embedding=13"]].concat());
    let out = shop.succeed(&["export", "run", "--format", "pytorch", "--out", "model.safetensors"]);
    assert!(out.starts_with("written     model.safetensors: 10 tensors, "), "{out}");
    let (exported, kept) = ["model.safetensors", "run/checkpoints/latest/model.safetensors"]
        .map(|name| std::fs::read(shop.path(name)).unwrap())
        .into();
    let (exported, kept) =
        (SafeTensors::deserialize(&exported).unwrap(), SafeTensors::deserialize(&kept).unwrap());
    assert_eq!(exported.len(), kept.len() + 1);
    for (name, tensor) in kept.tensors() {
        let other = exported.tensor(&name).unwrap();
        assert_eq!((other.shape(), other.data()), (tensor.shape(), tensor.data()), "{name}");
    }
    let (encoder, decoder) = ["encoder.weight", "decoder.weight"].map(|n| exported.tensor(n).unwrap()).into();
    assert_eq!(encoder.data(), decoder.data());
}

#[test]
fn what_cannot_be_exported_is_told_and_nothing_is_written() {
    let shop = Workshop::new();
    shop.trained("run", &[SHORT, &["--set", "model.cell=lstm_peephole"]].concat());
    let refused =
        |run: &str, format: &str, out: &str| shop.refused(&["export", run, "--format", format, "--out", out]);
    assert!(refused("run", "pytorch", "new").contains("PyTorch has no module for the cell lstm_peephole"));
    assert!(refused("nowhere", "onnx", "new").contains("nowhere"));
    assert!(refused("run", "onnx", "text.txt").contains("text.txt: exists"));
    assert!(refused("run", "onnx", "no/such/folder").contains("no/such/folder: No such file"));
    assert!(refused("run", "tensorflow", "new").contains("possible values: pytorch, onnx"));
    assert!(!shop.path("new").exists() && !shop.path("new.new").exists());
    let note = shop.succeed(&["export", "run/checkpoints/latest", "--format", "onnx", "--out", "model.onnx"]);
    assert!(note.starts_with("written     model.onnx: 17 tensors"), "{note}");
}

#[test]
fn a_cell_that_is_written_as_another_is_told() {
    let shop = Workshop::new();
    shop.trained("run", &[SHORT, &["--set", "model.cell=lstm_coupled"]].concat());
    let out = shop.succeed(&["export", "run", "--format", "pytorch", "--out", "model.safetensors"]);
    assert!(out.contains("note        lstm_coupled is written as an LSTM"), "{out}");
}
