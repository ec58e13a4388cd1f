//! Every way in which a file of weights can be wrong is told; what is right comes in the model's order.

use super::*;

fn config(tied: bool) -> ModelConfig {
    ModelConfig { vocabulary: 3, embedding: 2, hidden: 2, tied, ..ModelConfig::default() }
}

/// A tensor to be written: name, type, shape, bytes.
type Tensor = (String, Dtype, Vec<usize>, Vec<u8>);

/// One way to spoil a file.
type Spoiling = fn(&mut Vec<Tensor>);

/// The model's tensors, each filled with its own number.
fn tensors() -> Vec<Tensor> {
    let layout = config(false).parameter_layout().tensors;
    let tensor = |(n, t): (usize, &carousel_model::TensorSpec)| {
        (t.name.clone(), Dtype::F32, t.shape.clone(), floats(&vec![n as f32 + 0.5; t.len()]))
    };
    layout.iter().enumerate().map(tensor).collect()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Writes the tensors and reads them for a model.
fn import(tensors: &[Tensor], tied: bool, modules: &[(&str, &str)]) -> Result<Imported, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    let modules = modules.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
    let mut weights = Weights { path: path.display().to_string(), blake3: None, modules };
    let layout = config(tied).parameter_layout();
    let source = Source::read(&mut weights, &layout).map_err(|error| error.to_string())?;
    assert_eq!(weights.blake3.unwrap(), Digest::of_bytes(&fs::read(&path).unwrap()).to_string());
    source.parameters(&layout).map_err(|error| error.to_string())
}

#[test]
fn tensors_come_in_the_model_s_order_whatever_the_file_s() {
    let mut reversed = tensors();
    reversed.reverse();
    let imported = import(&reversed, false, &[]).unwrap();
    let sizes = [6, 16, 16, 8, 8, 6, 3];
    let expected: Vec<f32> = (0..7).flat_map(|n| vec![n as f32 + 0.5; sizes[n]]).collect();
    assert_eq!(imported, Imported { parameters: expected, converted: BTreeMap::new() });
}

#[test]
fn modules_have_other_names_in_other_programs() {
    let mut renamed = tensors();
    renamed.iter_mut().for_each(|t| t.0 = t.0.replace("rnn.", "net.lstm.").replace("encoder", "embed"));
    let modules = [("net.lstm", "rnn"), ("embed", "encoder")];
    assert_eq!(import(&renamed, false, &modules), import(&tensors(), false, &[]));
    let error = import(&renamed, false, &[]).unwrap_err();
    assert!(error.contains("no tensor encoder.weight") && error.contains("embed.weight"), "{error}");
    assert!(error.contains("model.weights.modules"), "{error}");
    let error = import(&[tensors(), vec![renamed[0].clone()]].concat(), false, &modules).unwrap_err();
    assert!(error.contains("embed.weight and encoder.weight are both encoder.weight"), "{error}");
}

#[test]
fn a_list_of_one_layer_modules_is_read_as_layers() {
    let mut list = tensors();
    list.iter_mut().for_each(|t| t.0 = t.0.replace("rnn.", "rnn.0."));
    assert_eq!(import(&list, false, &[]), import(&tensors(), false, &[]));
    assert_eq!(of_one_module("rnn.12.weight_hh_l0").unwrap(), "rnn.weight_hh_l12");
    assert_eq!([of_one_module("rnn.x.weight_hh_l0"), of_one_module("rnn.weight_hh_l0")], [None, None]);
}

#[test]
fn other_floating_point_types_are_converted_and_counted() {
    let mut mixed = tensors();
    mixed[0].1 = Dtype::F64;
    mixed[0].3 = [0.5f64; 6].iter().flat_map(|value| value.to_le_bytes()).collect();
    for at in [3, 4] {
        mixed[at].1 = Dtype::BF16;
        mixed[at].3 = mixed[at].3.chunks(4).flat_map(|b| [b[2], b[3]]).collect();
    }
    let imported = import(&mixed, false, &[]).unwrap();
    assert_eq!(imported.parameters, import(&tensors(), false, &[]).unwrap().parameters);
    assert_eq!(imported.converted, BTreeMap::from([("BF16", 2), ("F64", 1)]));
}

#[test]
fn a_tied_matrix_may_be_named_twice_but_only_as_one() {
    let mut twice = tensors();
    twice[5].3 = twice[0].3.clone();
    let parameters = import(&twice, true, &[]).unwrap().parameters;
    assert_eq!(parameters.len(), config(true).parameter_layout().len());
    assert!(import(&tensors(), true, &[]).unwrap_err().contains("model.tied = true"));
    twice.remove(5);
    assert_eq!(import(&twice, true, &[]).unwrap().parameters, parameters);
}

#[test]
fn what_does_not_fit_is_named() {
    let spoiled = |spoil: Spoiling| {
        let mut tensors = tensors();
        spoil(&mut tensors);
        import(&tensors, false, &[]).unwrap_err()
    };
    let cases: [(Spoiling, &str); 6] = [
        (|t| drop(t.remove(2)), "no tensor rnn.weight_hh_l0"),
        (|t| t[1].2 = vec![4, 4], "tensor rnn.weight_ih_l0: found [4, 4], expected [8, 2]"),
        (|t| t[3].1 = Dtype::I32, "tensor rnn.bias_ih_l0: found I32, expected F32, F64, F16 or BF16"),
        (
            |t| t[6].3[4..8].copy_from_slice(&f32::NAN.to_le_bytes()),
            "tensor decoder.bias: element 1 is NaN, expected finite",
        ),
        (
            |t| t.push(("rnn.weight_ih_l1".into(), Dtype::F32, vec![1], vec![0; 4])),
            "no place for rnn.weight_ih_l1",
        ),
        (
            |t| t.push(("rnn.bias_ih_l0_reverse".into(), Dtype::F32, vec![1], vec![0; 4])),
            "rnn.bias_ih_l0_reverse; it has",
        ),
    ];
    for (spoil, part) in cases {
        let error = spoiled(spoil);
        assert!(error.contains(part) && error.contains("weights.safetensors"), "{error}");
    }
}

#[test]
fn files_that_are_none_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let layout = config(false).parameter_layout();
    let read = |blake3: Option<&str>| {
        let blake3 = blake3.map(str::to_owned);
        let mut weights = Weights { path: path.display().to_string(), blake3, modules: BTreeMap::new() };
        let source = Source::read(&mut weights, &layout).map_err(|error| error.to_string())?;
        source.parameters(&layout).map_err(|error| error.to_string())
    };
    assert!(read(None).unwrap_err().contains("No such file"));
    fs::write(&path, b"not a safetensors file").unwrap();
    assert!(read(None).unwrap_err().contains("weights.safetensors: "));
    assert!(read(Some(&"0".repeat(64))).unwrap_err().contains("the configuration says 0000"));
    let file = fs::File::create(&path).unwrap();
    file.set_len(most_bytes(layout.len()) + 1).unwrap();
    assert!(read(None).unwrap_err().contains("expected at most"));
}
