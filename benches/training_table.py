#!/usr/bin/env python3
"""Trains nanogpt-char with every optimizer and prints the table of optimizers/README.md.

    cargo build --release
    python3 benches/training_table.py --out table-runs --jobs 2

Criteria, fixed in advance:

* every optimizer is given three learning rates, a factor 3 apart, around a guess; each is tried for
  TUNING_STEPS steps with seed 11, and the one with the lowest validation loss is chosen;
* the chosen rate is trained for STEPS steps with seeds 1 and 2, which were not used for the choice;
* AdamW for the parameters outside the main rule (embedding, gains) has lr 1e-3; everything else is the stack's
  default, except the `polar` of hybrid and spectral, which is `gram_polar_express`;
* one thread per run, embedded text; 1 % of it is for validation, all of it every 100 steps (tuning: at the end);
* "steps to 1.80": first validation loss at or below 1.80, interpolated; state: size of the optimizer's checkpoint.

When started again it continues: finished runs are not repeated. Needs Python 3 without packages.
"""
import argparse
import concurrent.futures
import json
import os
import statistics
import subprocess

STEPS, TUNING_STEPS, TARGET = 1000, 250, 1.80
GRAM = ["optimizer.matrix.polar.method=gram_polar_express"]

# optimizer, guess of the learning rate, additional keys
OPTIMIZERS = [
    ("adamw", 6e-3, []),
    ("muon", 0.02, []),
    ("muon_eq", 0.01, []),
    ("symmetric", 0.02, []),
    ("kaon", 0.03, []),
    ("freon", 0.02, []),
    ("sgd", 0.1, []),
    ("normuon", 0.02, []),
    ("adamuon", 0.01, []),
    ("scion", 4e-4, []),
    ("row_norm", 0.02, []),
    ("regularized_muon", 0.02, []),
    ("hybrid", 2e-4, GRAM),
    ("error_feedback_muon", 1.5, []),
    ("polar_grad", 0.01, []),
    ("random_spectrum", 0.02, []),
    ("spectral", 0.01, GRAM),
    ("ssd", 0.01, []),
]


def run(args, name, lr, steps, seed, extra):
    """One training run; returns its metrics."""
    out = os.path.join(args.out, f"{name}-lr{lr:.3g}-steps{steps}-s{seed}")
    metrics = os.path.join(out, "metrics.jsonl")
    if not finished(metrics):
        every = 100 if steps == STEPS else steps
        sets = ["data.valid_fraction=0.01", f"train.valid_every={every}", "train.sample_tokens=0",
                "train.checkpoint_every=1000", f"schedule.warmup={steps // 10}", *extra]
        command = [args.polaron, "train", "--model", "nanogpt-char", "--optimizer", name, "--lr", repr(lr),
                   "--steps", str(steps), "--seed", str(seed), "--threads", "1", "--out", out]
        for key in sets:
            command += ["--set", key]
        # A diverged run ends with exit code 1: that is a result, not a failure of this script.
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode not in (0, 1):
            raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return read(out, metrics)


def events(path):
    if not os.path.exists(path):
        return []
    with open(path) as file:
        return [json.loads(line) for line in file if line.strip()]


def finished(path):
    """Whether the run has a result: it finished or diverged, and was not interrupted."""
    return any(event["event"] == "end" and event["status"] != "interrupted" for event in events(path))


def read(out, path):
    valid = [(e["step"], e["loss"]) for e in events(path) if e["event"] == "valid"]
    end = next((e for e in events(path) if e["event"] == "end"), {})
    good = end.get("status") == "finished"
    state = 0
    for step in sorted(os.listdir(os.path.join(out, "checkpoints")))[-1:]:
        size = lambda name: os.path.getsize(os.path.join(out, "checkpoints", step, name))
        state = 4 * size("optimizer.safetensors") / size("model.safetensors")
    return {
        "loss": valid[-1][1] if good and valid else float("inf"),
        "reached": reached(valid),
        "share": end.get("optimizer_seconds", 0) / end["seconds"] if end.get("seconds") else float("nan"),
        "state": state,
    }


def reached(valid):
    """The step at which the validation loss crosses TARGET, interpolated; None if it does not."""
    for (before, high), (step, loss) in zip(valid, valid[1:]):
        if loss <= TARGET < high:
            return before + (step - before) * (high - TARGET) / (high - loss)
    return None


def row(args, name, guess, extra):
    grid = [guess / 3, guess, guess * 3]
    tuned = {lr: run(args, name, lr, TUNING_STEPS, 11, extra)["loss"] for lr in grid}
    best = min(grid, key=tuned.get)
    runs = [run(args, name, best, STEPS, seed, extra) for seed in (1, 2)]
    edge = best != guess
    return {"name": name, "lr": best, "edge": edge, "tuned": tuned, "runs": runs}


def show(rows):
    print("| optimizer | lr (grid: ÷3, ×1, ×3) | loss, seeds 1 / 2 | steps to 1.80 | share of the step | state, bytes per parameter |")
    print("|---|---|---|---|---|---|")
    for r in sorted(rows, key=lambda r: statistics.mean(x["loss"] for x in r["runs"])):
        losses = " / ".join(f"{x['loss']:.3f}" for x in r["runs"])
        steps = " / ".join("not" if x["reached"] is None else f"{x['reached']:.0f}" for x in r["runs"])
        share = statistics.mean(x["share"] for x in r["runs"])
        state = r["runs"][0]["state"]
        mark = ", at the edge" if r["edge"] else ""
        print(f"| `{r['name']}` | {r['lr']:.2g}{mark} | {losses} | {steps} | {100 * share:.0f} % | {state:.1f} |")
    print("\nTuning losses, by learning rate:\n")
    for r in rows:
        print(f"{r['name']:20} " + "  ".join(f"{lr:.2g}: {loss:.3f}" for lr, loss in r["tuned"].items()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--polaron", default="target/release/polaron")
    parser.add_argument("--out", default="table-runs")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", help="names, comma separated")
    args = parser.parse_args()
    chosen = [o for o in OPTIMIZERS if not args.only or o[0] in args.only.split(",")]
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        rows = list(pool.map(lambda o: row(args, *o), chosen))
    show(rows)


if __name__ == "__main__":
    main()
