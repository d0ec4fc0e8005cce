#!/usr/bin/env python3
"""Times training steps of polaron and of PyTorch in turn: same weights, same batches, same optimizer.

    python benches/peers/speed.py --polaron target/release/polaron

Needs torch 2.15.0, numpy and safetensors (see README.md beside this file).  For every model, optimizer
and number of threads it runs polaron, eager PyTorch and compiled PyTorch in turn, `--rounds` times, each in a separate
process, on the same excerpt of the embedded text.  A round's figure is the median over the second half of its steps, for the whole
step (batch, forward, backward, clip, update) and for clip and update alone.  It prints the medians over the rounds, the ratios
(above 1: polaron is faster) as the median of the rounds' ratios with their range, and the largest difference between the losses
of the last step.  These losses must agree, otherwise the two programs did not do the same work.

Compiled means torch.compile around model and loss; the optimizers stay eager, which is PyTorch's default.
Its Muon iterates in float32 like polaron's, or with `--bf16` in bfloat16, which is PyTorch's default.
"""
import argparse
import gzip
import json
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

TEXT = Path(__file__).parents[2] / "datasets" / "data" / "shakespeare.txt.gz"
EXCERPT = 400_000  # characters
STEPS = {"llama-d64": 40, "nanogpt-char": 40, "llama-d128": 16, "llama-d256": 8}


def polaron(program, run, model, optimizer, threads, steps, text):
    """trains once; returns the seconds of a step and of its update, and the last loss"""
    command = [program, "train", "--model", model, "--optimizer", optimizer, "--data", text, "--steps", steps]
    command += ["--threads", threads, "--out", run, "--set", "train.sample_tokens=0", "--set", "train.checkpoint_every=0"]
    command += ["--set", "train.valid_windows=1", "--set", "train.valid_windows_end=1"]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    train = [event for event in events if event["event"] == "train"]
    seconds = [b["seconds"] - a["seconds"] for a, b in zip(train, train[1:])]
    update = [b["optimizer_seconds"] - a["optimizer_seconds"] for a, b in zip(train, train[1:])]
    late = len(seconds) // 2
    return {"step": statistics.median(seconds[late:]), "update": statistics.median(update[late:]), "loss": train[-1]["loss"]}


def torch_worker(args):
    """the same in PyTorch; prints one line of JSON"""
    import torch
    import torch.nn.functional as F

    import follow

    torch.set_num_threads(args.threads)
    config = tomllib.loads((args.run / "config.toml").read_text())
    weights = follow.initial_weights(args.weights, torch.float32)
    tokens, _ = follow.training_tokens(args.text, config["data"]["tokenizer"], config["data"]["valid_fraction"])
    model, train, clip = config["model"], config["train"], config["optimizer"]["clip"]
    if args.bf16:
        follow.muon_in_native_precision = lambda: None
    optimizers = follow.make_optimizers(config["optimizer"], weights)
    peaks = [(group, group["lr"]) for optimizer in optimizers for group in optimizer.param_groups]

    tables = follow.rope_tables(model, torch.float32)

    def loss_of(inputs, targets):
        return F.cross_entropy(follow.decoder(weights, model, inputs, tables).flatten(0, 1), targets.flatten())

    loss_of = torch.compile(loss_of) if args.mode == "compiled" else loss_of
    seconds, update = [], []
    for step in range(train["steps"]):
        start = time.perf_counter()
        factor = follow.schedule_factor(config["schedule"], step, train["steps"])
        for group, peak in peaks:
            group["lr"] = peak * factor
        loss = loss_of(*follow.batch(tokens, step, train["data_seed"], train["batch"], model["context"]))
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        between = time.perf_counter()
        torch.nn.utils.clip_grad_norm_(weights.values(), clip)
        for optimizer in optimizers:
            optimizer.step()
        seconds.append(time.perf_counter() - start)
        update.append(time.perf_counter() - between)
    late = len(seconds) // 2
    print(json.dumps({"step": statistics.median(seconds[late:]), "update": statistics.median(update[late:]), "loss": loss.item()}))


def torch_run(args, mode, run, weights, text, threads):
    command = [sys.executable, __file__, "--worker", "--mode", mode, "--run", run, "--weights", weights, "--text", text, "--threads", threads]
    command += ["--bf16"] * args.bf16
    done = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(args, folder, text, model, optimizer, threads):
    ours, theirs = [], {mode: [] for mode in args.modes}
    for round in range(args.rounds):
        run = folder / f"{model}-{optimizer}-{threads}-{round}"
        ours.append(polaron(args.polaron, run, model, optimizer, threads, args.steps or STEPS.get(model, 20), text))
        weights = run / "step0.safetensors"
        subprocess.run([args.polaron, "export", run, "--step", "0", "--out", weights], check=True, capture_output=True)
        for mode, rows in theirs.items():
            rows.append(torch_run(args, mode, run, weights, text, threads))
    median = lambda rows, key: 1e3 * statistics.median(row[key] for row in rows)
    cells = [model, optimizer, threads, f"{median(ours, 'step'):.1f}", f"{median(ours, 'update'):.1f}"]
    for rows in theirs.values():
        ratios = sorted(b["step"] / a["step"] for a, b in zip(ours, rows))
        cells += [f"{median(rows, 'step'):.1f}", f"{median(rows, 'update'):.1f}"]
        cells += [f"**{statistics.median(ratios):.2f}** ({ratios[0]:.2f} to {ratios[-1]:.2f})"]
    gap = max(abs(ours[0]["loss"] - rows[0]["loss"]) for rows in theirs.values())
    print_row(cells + [f"{gap:.0e}"])


def print_row(cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--polaron", type=Path, default=Path("target/release/polaron"), help="path of the program")
    parser.add_argument("--models", default="llama-d64,llama-d128,llama-d256,nanogpt-char")
    parser.add_argument("--optimizers", default="adamw,muon")
    parser.add_argument("--cores", default="1,2", help="numbers of threads")
    parser.add_argument("--steps", type=int, help="default: 40 to 8, by the size of the model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--modes", default="eager,compiled", help="how PyTorch runs")
    parser.add_argument("--bf16", action="store_true", help="torch's Muon in bfloat16")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--mode", help=argparse.SUPPRESS)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--text", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return torch_worker(args)
    args.polaron = args.polaron.resolve()
    args.modes = args.modes.split(",")
    heads = ["model", "optimizer", "threads", "polaron, ms per step", "of which clip and update"]
    for mode in args.modes:
        heads += [f"torch {mode}", "of which clip and update", f"torch {mode} / polaron"]
    print_row(heads + ["difference of losses"])
    print_row(["---"] * (len(heads) + 1))
    with tempfile.TemporaryDirectory() as name:
        text = Path(name) / "text.txt"
        text.write_bytes(gzip.open(TEXT).read()[:EXCERPT])
        for model in args.models.split(","):
            for optimizer in args.optimizers.split(","):
                for threads in args.cores.split(","):
                    compare(args, Path(name), text, model, optimizer, int(threads))


if __name__ == "__main__":
    main()
