"""Training steps of this crate and of PyTorch in turn on one machine, and the medians as ratios.

    cargo build --release -p carousel-model --example bench
    python3 against_pytorch.py TORCH_LM.PY BENCH THREADS PAIRS MODEL[:CELL]...

TORCH_LM.PY prints `tok/s=` and `GFLOP/s=` for `MODEL THREADS [GRU|RNN]`; BENCH is the built example. Needs torch in this Python.
"""
import re, statistics, subprocess, sys

PEER_CELL = {"lstm": [], "gru": ["GRU"], "rnn_tanh": ["RNN"]}


def run(command, *names):
    line = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()[-1]
    return [float(re.search(rf"{name}=([0-9.]+)", line).group(1)) for name in names]


def main():
    peer, bench, threads, pairs = sys.argv[1:5]
    for what in sys.argv[5:]:
        model, _, cell = what.partition(":")
        cell = cell or "lstm"
        rows = []
        for _ in range(int(pairs)):
            theirs, = run([sys.executable, peer, model, threads, *PEER_CELL[cell]], "tok/s")
            ours, fraction = run([bench, model, threads, "4", cell, "4"], "tok/s", "fraction")
            rows.append((theirs, ours, fraction, ours / theirs))
        best = max(row[1] for row in rows) / max(row[0] for row in rows)
        theirs, ours, fraction, ratio = (statistics.median(column) for column in zip(*rows))
        low, high = min(row[3] for row in rows), max(row[3] for row in rows)
        print(f"{model} {cell} threads={threads}: pytorch {theirs:.0f} tokens/s, carousel {ours:.0f}, "
              f"ratio {ours / theirs:.2f} (pairs {low:.2f} to {high:.2f}, median {ratio:.2f}), "
              f"best over best {best:.2f}, fraction of peak {fraction:.2f}", flush=True)


main()
