#!/usr/bin/env python3
"""Times training steps of polaron and of PyTorch side by side: same weights, same batches, same optimizer, alternately.

    python benches/peers/speed.py --polaron target/release/polaron

Needs torch 2.15.0, numpy and safetensors (see README.md beside this file).  For every model, optimizer and number of threads
it runs polaron and PyTorch in turn, `--rounds` times, each in a process of its own, on the same excerpt of the embedded text.
A round's figure is the median over the second half of its steps, of the whole step (batch, forward, backward, clip, update)
and of clip and update alone.  Printed are the medians over the rounds, the ratio (above 1: polaron is faster) as the median
of the rounds' ratios with their range, and the losses of the last step, which must agree: otherwise it is not the same work.

PyTorch runs eagerly or, with `--compile`, through torch.compile (the model; optimizers stay eager, as they are by default).
Its Muon iterates in float32 as ours does, or with `--bf16` in bfloat16, which is its default.
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
EXCERPT = 400_000  # characters: a validation, which is not timed, stays short


def polaron(program, run, model, optimizer, threads, steps, text):
    """trains once; seconds of a step and of its update, and the last loss"""
    command = [program, "train", "--model", model, "--optimizer", optimizer, "--data", text, "--steps", steps]
    command += ["--threads", threads, "--out", run, "--set", "train.sample_tokens=0", "--set", "train.checkpoint_every=0"]
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

    def loss_of(inputs, targets):
        return F.cross_entropy(follow.decoder(weights, model, inputs).flatten(0, 1), targets.flatten())

    loss_of = torch.compile(loss_of) if args.compile else loss_of
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


def torch_run(args, run, weights, text, threads):
    command = [sys.executable, __file__, "--worker", "--run", run, "--weights", weights, "--text", text, "--threads", threads]
    command += ["--compile"] * args.compile + ["--bf16"] * args.bf16
    done = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(args, folder, text, model, optimizer, threads):
    ours, theirs = [], []
    for round in range(args.rounds):
        run = folder / f"{model}-{optimizer}-{threads}-{round}"
        ours.append(polaron(args.polaron, run, model, optimizer, threads, args.steps, text))
        weights = run / "step0.safetensors"
        subprocess.run([args.polaron, "export", run, "--step", "0", "--out", weights], check=True, capture_output=True)
        theirs.append(torch_run(args, run, weights, text, threads))
    median = lambda rows, key: 1e3 * statistics.median(row[key] for row in rows)
    ratios = sorted(b["step"] / a["step"] for a, b in zip(ours, theirs))
    gap = abs(ours[0]["loss"] - theirs[0]["loss"])
    print(f"{model:13} {optimizer:6} {threads:7} {median(ours, 'step'):9.1f} {median(theirs, 'step'):9.1f} "
          f"{statistics.median(ratios):6.2f} {ratios[0]:6.2f} {ratios[-1]:5.2f} "
          f"{median(ours, 'update'):9.1f} {median(theirs, 'update'):9.1f} {gap:9.1e}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--polaron", type=Path, default=Path("target/release/polaron"), help="the program")
    parser.add_argument("--models", default="llama-d64,llama-d128,llama-d256,nanogpt-char")
    parser.add_argument("--optimizers", default="adamw,muon")
    parser.add_argument("--cores", default="1,2", help="numbers of threads")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument("--bf16", action="store_true", help="torch's Muon in bfloat16")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--text", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return torch_worker(args)
    args.polaron = args.polaron.resolve()
    print("                                ms a step            torch / polaron      ms to clip and update  difference")
    print(f"{'model':13} {'':6} {'threads':>7} {'polaron':>9} {'torch':>9} {'median':>6} {'least':>6} {'most':>5} "
          f"{'polaron':>9} {'torch':>9} {'of losses':>9}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        text = Path(name) / "text.txt"
        text.write_bytes(gzip.open(TEXT).read()[:EXCERPT])
        for model in args.models.split(","):
            for optimizer in args.optimizers.split(","):
                for threads in args.cores.split(","):
                    compare(args, Path(name), text, model, optimizer, int(threads))


if __name__ == "__main__":
    main()
