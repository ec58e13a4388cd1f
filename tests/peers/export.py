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


class WordLanguageModel(torch.nn.Module):
    def __init__(self, case):
        super().__init__()
        self.encoder = torch.nn.Embedding(case["vocabulary"], case["embedding"])
        sizes = (case["embedding"], case["hidden"], case["layers"])
        modules = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
        if case["module"] in modules:
            self.rnn = modules[case["module"]](*sizes)
        else:
            self.rnn = torch.nn.RNN(*sizes, nonlinearity=case["module"].removeprefix("rnn_"))
        self.decoder = torch.nn.Linear(case["hidden"], case["vocabulary"])
        if case["tied"]:
            self.decoder.weight = self.encoder.weight

    def forward(self, tokens, state):
        y, state = self.rnn(self.encoder(tokens), state)
        return self.decoder(y), state


def in_pytorch(folder, case, given):
    model = WordLanguageModel(case)
    state_dict = load_file(folder / "model.safetensors")
    model.load_state_dict(state_dict)
    # The recurrent module alone takes its share too.
    alone = type(model.rnn)(model.rnn.input_size, model.rnn.hidden_size, model.rnn.num_layers)
    alone.load_state_dict({n.removeprefix("rnn."): t for n, t in state_dict.items() if n.startswith("rnn.")})
    state = tuple(torch.from_numpy(given[name]) for name in ("h0", "c0") if name in given)
    with torch.no_grad():
        logits, after = model(torch.from_numpy(given["tokens"]), state if len(state) == 2 else state[0])
    after = after if isinstance(after, tuple) else (after,)
    return [logits.numpy(), *(part.numpy() for part in after)]


def in_onnxruntime(folder, case, given):
    path = str(folder / "model.onnx")
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return session.run(None, {name: given[name] for name in names})


def main():
    cases = sorted(path.parent for path in pathlib.Path(sys.argv[1]).glob("*/case.json"))
    worst = 0.0
    for folder in cases:
        case = json.loads((folder / "case.json").read_text())
        given = load_arrays(folder / "expected.safetensors")
        expected = [given[name] for name in ("logits", "hn", "cn") if name in given]
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
