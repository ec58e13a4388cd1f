"""Runs exported models in PyTorch and onnxruntime on the tokens of a case, and compares every number.

    export.py FOLDER      each CASE/ in it: case.json, expected.safetensors, model.onnx and, but for peepholes, model.safetensors

Prints one line a case; the exit code is 1 when a number differs by more than TOLERANCE.
"""

import json
import pathlib
import sys

import numpy
import onnx
import onnxruntime
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file

TOLERANCE = 2e-6


def recurrence(case, inputs, units, layers):
    if case["module"].startswith("rnn_"):
        return torch.nn.RNN(inputs, units, layers, nonlinearity=case["module"].removeprefix("rnn_"))
    return {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[case["module"]](inputs, units, layers)


class WordLanguageModel(torch.nn.Module):
    """One recurrent module, or, where the layers have widths of their own, one for each."""

    def __init__(self, case):
        super().__init__()
        widths = case["widths"]
        self.encoder = torch.nn.Embedding(case["vocabulary"], case["embedding"])
        self.decoder = torch.nn.Linear(widths[-1], case["vocabulary"])
        if case["tied"]:
            self.decoder.weight = self.encoder.weight
        if len(set(widths)) == 1:
            self.rnn = recurrence(case, case["embedding"], widths[0], len(widths))
        else:
            sizes = zip([case["embedding"], *widths], widths)
            self.rnn = torch.nn.ModuleList(recurrence(case, inputs, units, 1) for inputs, units in sizes)

    def forward(self, tokens, states):
        """states: for each of h (and c) a tensor a module; the states after come back likewise."""
        modules = self.rnn if isinstance(self.rnn, torch.nn.ModuleList) else [self.rnn]
        x, after = self.encoder(tokens), []
        for module, state in zip(modules, zip(*states, strict=True), strict=True):
            x, state = module(x, state if len(state) == 2 else state[0])
            after.append(state if isinstance(state, tuple) else (state,))
        return self.decoder(x), zip(*after)


def in_pytorch(folder, case, given):
    model = WordLanguageModel(case)
    state_dict = load_file(folder / "model.safetensors")
    model.load_state_dict(state_dict)
    # The recurrent part alone takes its share too.
    model.rnn.load_state_dict({n.removeprefix("rnn."): t for n, t in state_dict.items() if n.startswith("rnn.")})
    kinds = "hc" if case["module"] == "lstm" else "h"
    states = [[torch.from_numpy(given[name]) for name in case["inputs"] if name[0] == kind] for kind in kinds]
    with torch.no_grad():
        logits, after = model(torch.from_numpy(given["tokens"]), states)
    return [logits.numpy(), *(part.numpy() for state in after for part in state)]


def in_onnxruntime(folder, case, given):
    path = str(folder / "model.onnx")
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["tokens", *case["inputs"]]
    assert [value.name for value in session.get_outputs()] == case["outputs"]
    return session.run(None, {name: given[name] for name in ["tokens", *case["inputs"]]})


def main():
    cases = sorted(path.parent for path in pathlib.Path(sys.argv[1]).glob("*/case.json"))
    worst = 0.0
    for folder in cases:
        case = json.loads((folder / "case.json").read_text())
        given = load_arrays(folder / "expected.safetensors")
        expected = [given[name] for name in case["outputs"]]
        programs = {"onnxruntime": in_onnxruntime}
        if (folder / "model.safetensors").exists():
            programs["pytorch"] = in_pytorch
        for program, run in programs.items():
            found = run(folder, case, given)
            assert len(found) == len(expected), (folder.name, program, len(found))
            assert all(f.shape == e.shape for f, e in zip(found, expected)), (folder.name, program)
            apart = max(float(numpy.abs(f - e).max()) for f, e in zip(found, expected))
            print(f"{folder.name:24} {program:12} {apart:.1e}")
            worst = max(worst, apart)
    assert cases, "no case"
    return 1 if not worst <= TOLERANCE else 0


sys.exit(main())
