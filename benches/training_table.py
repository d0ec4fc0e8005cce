#!/usr/bin/env python3
"""Trains a small language model with every optimizer and prints the tables of optimizers/README.md.

    cargo build --release
    python3 benches/training_table.py --jobs 2                  # all stages: many hours
    python3 benches/training_table.py --stage table --only "muon;freon, 5/8"

Criteria, fixed in advance:

* every row is given TRIALS learning rates with seed 11: a guess, half of it and twice it; then a rate beyond the edge if the best one is
  an edge, and otherwise one between the best and a neighbour; further ones beyond the edge as long as the best is an edge;
* these runs are as long as those that count: after 200 steps the best rate of `muon` is 0.035, after 1000 that is 0.11 worse than 0.02;
* rows that compute the polar factor of `muon` in another way, or change only what is evaluated, take its rate. Keys that only rename a
  rate have no row: `decay = "independent"`, `lmo = "plain_sign"`;
* the best of them is trained with the seeds 1, 2 and 3, which were not used for the choice. Stage `table`: nanogpt-char, 1000 steps.
  Stage `long`: the best ten rows of `table`, 4000 steps at the same rate. Stage `llama`: the same ten on llama-d128, 300 steps, tuned
  again with LLAMA_TRIALS rates. Stage `exact`: five seeds of rules whose default replaces a decomposition by products, and of the exact
  method at the same rate. Stage `minimax`: five seeds of Muon with the four-step schedule of its polar factor and with its default, at
  the rate of the default, on both models: whether the faster schedule may be the default;
* everything else is the stack's default: AdamW with lr 1e-3 for the parameters outside the main rule;
* cosine schedule after a warm-up of a tenth, one thread per run, embedded text; 1 % of it is for validation, all of it every 100 steps;
* "steps to 1.80": first validation loss at or below 1.80, interpolated. Differences to Muon are paired by seed, with the 95 % interval
  of Student's t; the p-values of one table are not corrected for its many rows.

Every result is written to a file of results at once and not repeated; a run is the same on every machine with the same instructions.
Needs Python 3 without packages.
"""
import argparse
import concurrent.futures
import json
import math
import os
import shutil
import statistics
import subprocess
import threading

TRIALS, MOST_TRIALS, TARGET, SEEDS = 4, 8, 1.80, (1, 2, 3)
LLAMA_TRIALS, BEST = 3, 10
# 97.5 % quantile of Student's t, by degrees of freedom
T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}

# row, stack, guess of the learning rate or the row whose rate it takes, further keys
ROWS = [
    ("adamw", "adamw", 6e-3, []),
    ("sgd", "sgd", 0.1, []),
    ("muon", "muon", 0.02, []),
    ("muon_eq", "muon_eq", 0.01, []),
    ("normuon", "normuon", 0.02, []),
    ("adamuon", "adamuon", 0.01, []),
    ("regularized_muon", "regularized_muon", 0.02, []),
    ("error_feedback_muon", "error_feedback_muon", 0.3, []),
    ("freon", "freon", 0.02, []),
    ("kaon", "kaon", 0.09, []),
    ("random_spectrum", "random_spectrum", 0.04, []),
    ("row_norm", "row_norm", 0.005, []),
    ("spectral", "spectral", 0.05, []),
    ("hybrid", "hybrid", 2e-4, []),
    ("ssd", "ssd", 0.05, []),
    ("polar_grad", "polar_grad", 0.05, []),
    ("scion", "scion", 4e-4, []),
    ("truncated_sgd", "truncated_sgd", 0.1, []),
    ("symmetric", "symmetric", 0.02, []),
    ("muown", "muown", 0.0035, []),
    ("soap", "soap", 3e-3, []),
    ("soap_muon", "soap_muon", 0.02, []),
]

FIXED_NORMS = ["optimizer.matrix.weight_decay=0"]
# What a rule can be set to do. A row is named after its stack and what is different.
OPTIONS = [
    ("soap, hyperball", "soap", 0.018, ["optimizer.matrix.norm_control={method = 'hyperball'}", *FIXED_NORMS]),
    ("muon_eq, longer", "muon_eq", 0.02, ["optimizer.matrix.equilibrate=longer"]),
    ("muon_eq, Aurora", "muon_eq", 0.02, ["optimizer.matrix.equilibrate=longer", "optimizer.matrix.iterations=2"]),
    ("normuon, longer", "normuon", 0.02, ["optimizer.matrix.axis=longer"]),
    ("muon, second moment", "muon", 0.1, ["optimizer.matrix.second_moment={}"]),
    ("muon, hyperball", "muon", 0.018, ["optimizer.matrix.norm_control={method = 'hyperball'}", *FIXED_NORMS]),
    ("muon, radial brake", "muon", 0.02, ["optimizer.matrix.norm_control={method = 'radial_brake'}"]),
    ("muon, relative", "muon", 0.02, ["optimizer.matrix.norm_control={method = 'relative'}"]),
    ("muon, floor", "muon", 0.02, ["optimizer.matrix.norm_control={method = 'floor'}", *FIXED_NORMS]),
    ("normuon, hyperball", "normuon", 0.018, ["optimizer.matrix.norm_control={method = 'hyperball'}", *FIXED_NORMS]),
    ("freon, 5/8", "freon", 0.02, ["optimizer.matrix.c=[5, 8]"]),
    ("freon, moving", "freon", 0.02, ["optimizer.matrix.c_start=[3, 8]", "optimizer.matrix.c=[5, 8]"]),
    ("muon, Schatten-4", "muon", "muon", ['optimizer.matrix.polar={method = "newton_schulz", norm = "schatten4"}']),
    ("muon, minimax", "muon", "muon", ["optimizer.matrix.polar.method=minimax"]),
    ("muon, minimax 3", "muon", "muon", ["optimizer.matrix.polar.method=minimax", "optimizer.matrix.polar.steps=3"]),
    ("muon, AOL", "muon", "muon", ['optimizer.matrix.polar={method = "newton_schulz", precondition = "aol"}']),
    ("muon, deepseekv4", "muon", "muon", ['optimizer.matrix.polar={method = "polynomial", coefficients = "deepseekv4"}']),
    ("symmetric, published", "symmetric", 0.005, ["optimizer.published=true"]),
    ("muon, lr_ratio", "muon", 0.02, ["optimizer.adamw.lr_ratio=0.1"]),
    ("muon, power", "muon", 0.02, ["schedule.kind=power"]),
    ("muon, split cool-down", "muon", 0.02, [
        "schedule.kind=wsd", "schedule.decay_fraction=0.8",
        'schedule.rule=[{optimizer = "adamw", kind = "wsd", decay_fraction = 0.4}]']),
    ("muon, momentum schedule", "muon", 0.02, ["schedule.momentum={}"]),
    ("muon, EMA-Nesterov", "muon", 0.02, ['optimizer.wrapper={kind = "ema_nesterov", prefill = 100}']),
    ("muon, outer Nesterov", "muon", 0.02, ['optimizer.wrapper={kind = "outer_nesterov"}']),
    ("muon, schedule-free", "muon", 0.02, ['optimizer.wrapper={kind = "schedule_free"}', "schedule.kind=constant"]),
    ("muon, average", "muon", "muon", ["train.average={}"]),
    ("soap, kl", "soap", 3e-3, ["optimizer.matrix.form=kl", "optimizer.matrix.every=1", "optimizer.matrix.beta2=0.9",
                                "optimizer.matrix.shampoo_beta=0.9"]),
]
ROWS += OPTIONS

TABLE = {"model": "nanogpt-char", "steps": 1000, "trials": TRIALS, "every": 100}
LONG = {**TABLE, "steps": 4000, "every": 200}
LLAMA = {"model": "llama-d128", "steps": 300, "trials": LLAMA_TRIALS, "every": 50}

# Rows of stage `exact`: a rule by products, and the keys of its exact method.
EXACT = [
    ("freon", ["optimizer.matrix.method=svd"]),
    ("regularized_muon", ["optimizer.matrix.polar.method=svd"]),
    ("error_feedback_muon", ["optimizer.matrix.polar.method=svd"]),
    ("polar_grad", ["optimizer.matrix.polar.method=svd"]),
    ("ssd", ["optimizer.matrix.polar.method=svd"]),
    ("spectral", ["optimizer.matrix.polar.method=gram_eigh"]),
    ("hybrid", ["optimizer.matrix.polar.method=gram_eigh"]),
]
# Rows of stage `minimax`.
MINIMAX = [("muon", ["optimizer.matrix.polar.method=minimax"])]
PAIRED_SEEDS = (1, 2, 3, 4, 5)


class Results:
    """All finished runs, by what was run."""

    def __init__(self, path):
        self.path, self.lock, self.runs = path, threading.Lock(), {}
        if os.path.exists(path):
            with open(path) as file:
                self.runs = json.load(file)

    def keep(self, key, result):
        with self.lock:
            self.runs[key] = result
            lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(self.runs.items()))
            with open(self.path + ".new", "w") as file:
                file.write("{\n" + lines + "\n}\n")
            os.replace(self.path + ".new", self.path)


class Runner:
    def __init__(self, args):
        self.args, self.results = args, Results(args.results)

    def run(self, stage, stack, lr, seed, keys):
        """The result of one training run, from the file of results or by running it."""
        key = " ".join([stage["model"], stack, f"lr={lr:.4g}", f"steps={stage['steps']}", f"seed={seed}", *keys])
        if key not in self.results.runs:
            self.results.keep(key, self.train(stage, stack, lr, seed, keys))
            print(f"{key}: {self.results.runs[key]['loss']}", flush=True)
        return self.results.runs[key]

    def train(self, stage, stack, lr, seed, keys):
        steps = stage["steps"]
        out = os.path.join(self.args.out, f"{threading.get_ident()}")
        shutil.rmtree(out, ignore_errors=True)
        sets = ["data.valid_fraction=0.01", f"train.valid_every={stage['every']}", "train.sample_tokens=0",
                "train.checkpoint_every=0", f"schedule.warmup={steps // 10}", *keys]
        command = [self.args.polaron, "train", "--model", stage["model"], "--optimizer", stack, "--lr", f"{lr:.4g}",
                   "--steps", str(steps), "--seed", str(seed), "--threads", "1", "--out", out]
        for key in sets:
            command += ["--set", key]
        done = subprocess.run(command, capture_output=True, text=True)
        # A diverged run ends with exit code 1: that is a result, not a failure of this script.
        if done.returncode not in (0, 1):
            raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
        result = read(out)
        shutil.rmtree(out)
        return result

    def tune(self, stage, stack, guess, keys):
        """The best of the rates that are tried, and all of them with their losses."""
        if isinstance(guess, str):
            return self.tune(stage, *next(row[1:] for row in ROWS if row[0] == guess))
        loss = lambda lr: self.run(stage, stack, lr, 11, keys)["loss"] or math.inf
        tried = {}
        while len(tried) < stage["trials"] or at_edge(tried) and len(tried) < MOST_TRIALS:
            lr = next_rate(tried, guess)
            tried[lr] = loss(lr)
        return min(tried, key=tried.get), dict(sorted(tried.items()))

    def row(self, stage, name, stack, guess, keys, tuned_in=None):
        lr, tried = self.tune(tuned_in or stage, stack, guess, keys)
        runs = [self.run(stage, stack, lr, seed, keys) for seed in SEEDS]
        return {"name": name, "lr": lr, "edge": at_edge(tried), "tried": tried, "runs": runs}


def at_edge(tried):
    return min(tried, key=tried.get) in (min(tried), max(tried))


def rounded(lr):
    return float(f"{lr:.3g}")


def next_rate(tried, guess):
    """The rate to try next: the first three around the guess, then beyond an edge or beside the best."""
    for lr in (guess, guess / 2, guess * 2):
        if rounded(lr) not in tried:
            return rounded(lr)
    rates = sorted(tried)
    best = min(rates, key=tried.get)
    place = rates.index(best)
    if place == 0:
        return rounded(best / 2)
    if place == len(rates) - 1:
        return rounded(best * 2)
    below, above = best / rates[place - 1], rates[place + 1] / best
    # The wider gap first, and of equal ones that on the side of the better neighbour.
    down = below > above * 1.01 or (above < below * 1.01 and tried[rates[place - 1]] < tried[rates[place + 1]])
    return rounded(best / below**0.5) if down else rounded(best * above**0.5)


def read(out):
    with open(os.path.join(out, "metrics.jsonl")) as file:
        events = [json.loads(line) for line in file if line.strip()]
    valid = [(e["step"], e["loss"]) for e in events if e["event"] == "valid"]
    end = next((e for e in events if e["event"] == "end"), {})
    good = end.get("status") == "finished" and valid
    steps = reached(valid)
    return {"loss": round(valid[-1][1], 5) if good else None, "reached": steps and round(steps, 1)}


def reached(valid):
    """The step at which the validation loss crosses TARGET, interpolated; None if it does not."""
    for (before, high), (step, loss) in zip(valid, valid[1:]):
        if loss <= TARGET < high:
            return before + (step - before) * (high - TARGET) / (high - loss)
    return None


def losses(row):
    return [math.inf if run["loss"] is None else run["loss"] for run in row["runs"]]


def interval(differences):
    """Mean and half the width of its 95 % interval."""
    n = len(differences)
    return statistics.mean(differences), T[n - 1] * statistics.stdev(differences) / n**0.5


def order(rows):
    return sorted(rows, key=lambda row: statistics.mean(losses(row)))


def show(rows, against="muon"):
    base = next((losses(row) for row in rows if row["name"] == against), None)
    print(f"\n| optimizer | rate | loss, mean of {len(SEEDS)} seeds | difference to {against} [95 %] | steps to {TARGET:.2f} |")
    print("|---|---|---|---|---|")
    for row in order(rows):
        found = losses(row)
        difference = "" if base is None or row["name"] == against else "diverged"
        if difference and all(map(math.isfinite, found)):
            mean, half = interval([a - b for a, b in zip(found, base)])
            difference = f"{mean:+.4f} [{mean - half:+.4f}, {mean + half:+.4f}]"
        steps = [run["reached"] for run in row["runs"]]
        steps = f"{statistics.mean(steps):.0f}" if all(steps) else "not by all"
        edge = ", at the edge" if row["edge"] else ""
        print(f"| `{row['name']}` | {row['lr']:.3g}{edge} | {statistics.mean(found):.4f} | {difference} | {steps} |")
    print("\nLosses of the rates that were tried:\n")
    for row in rows:
        print(f"{row['name']:34} " + "  ".join(f"{lr:.3g}: {loss:.3f}" for lr, loss in row["tried"].items()))


def stages(runner, pool, args):
    chosen = [row for row in ROWS if not args.only or row[0] in args.only.split(";")]
    wanted = args.stage.split(",")
    table = list(pool.map(lambda row: runner.row(TABLE, *row), chosen))
    if "table" in wanted:
        show(table)
    best = [row["name"] for row in order(table)[:BEST]]
    again = [row for row in chosen if row[0] in best]
    if "long" in wanted:
        print(f"\n{LONG['model']}, {LONG['steps']} steps:")
        show(list(pool.map(lambda row: runner.row(LONG, *row, tuned_in=TABLE), again)))
    rates = {row["name"]: row["lr"] for row in table}
    if "llama" in wanted:
        print(f"\n{LLAMA['model']}, {LLAMA['steps']} steps:")
        guessed = [(name, stack, rates[name], keys) for name, stack, _, keys in again]
        show(list(pool.map(lambda row: runner.row(LLAMA, *row), guessed)))
    if "exact" in wanted:
        paired(runner, pool, TABLE, rates, EXACT, ("by products", "exact"))
    if "minimax" in wanted:
        llama, _ = runner.tune(LLAMA, "muon", rates["muon"], [])
        paired(runner, pool, TABLE, rates, MINIMAX, ("default", "minimax"))
        paired(runner, pool, LLAMA, {"muon": llama}, MINIMAX, ("default", "minimax"))


def paired(runner, pool, stage, rates, pairs, heads):
    """Every rule without and with its further keys, at one rate."""
    pairs = [(name, keys) for name, keys in pairs if name in rates]
    work = [(name, keys, seed) for name, more in pairs for keys in ([], more) for seed in PAIRED_SEEDS]
    run = lambda name, keys, seed: runner.run(stage, name, rates[name], seed, keys)["loss"] or math.inf
    found = dict(zip([(name, tuple(keys), seed) for name, keys, seed in work], pool.map(lambda w: run(*w), work)))
    print(f"\n{stage['model']}, {stage['steps']} steps:\n")
    print(f"| rule | {heads[0]}, mean of {len(PAIRED_SEEDS)} seeds | {heads[1]} | difference [95 %] |\n|---|---|---|---|")
    for name, more in pairs:
        first, second = ([found[name, tuple(keys), seed] for seed in PAIRED_SEEDS] for keys in ([], more))
        mean, half = interval([a - b for a, b in zip(first, second)])
        print(f"| `{name}` | {statistics.mean(first):.4f} | {statistics.mean(second):.4f} | "
              f"{mean:+.4f} [{mean - half:+.4f}, {mean + half:+.4f}] |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--polaron", default="target/release/polaron")
    parser.add_argument("--out", default="table-runs", help="folder for the runs, which are deleted when they have ended")
    parser.add_argument("--results", default="benches/training_table.json")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--stage", default="table,long,llama,exact,minimax", help="comma separated")
    parser.add_argument("--only", help="rows, separated by semicolons")
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        stages(Runner(args), pool, args)


if __name__ == "__main__":
    main()
