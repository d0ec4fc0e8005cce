#!/usr/bin/env python3
"""Trains five optimizers with every measurement on, and prints the tables of docs/DIAGNOSTICS.md.

    cargo build --release
    python3 benches/diagnostics.py                  # about three quarters of an hour on one thread; finished folders are read only
    python3 benches/diagnostics.py --costs          # a few minutes: what one measurement costs, in steps of training

llama-d64 on the embedded text, STEPS steps, the stack's own learning rate, seeds 1, 2 and 3. Everything is measured every EVERY steps, on
BATCHES fixed batches. A number of a run is the median over the measurements after step AFTER and, for probes, over the matrix roles of the
blocks; the tables show the mean over the seeds with the 95 % interval of Student's t. No test is made and nothing is corrected. Needs Python 3
without packages.
"""
import argparse
import json
import math
import os
import shutil
import statistics
import subprocess

STEPS, EVERY, BATCHES, AFTER, SEEDS = 400, 40, 4, 80, (1, 2, 3)
COST_STEPS = 40
OPTIMIZERS = ("adamw", "muon", "muon_eq", "freon", "kaon")
# 97.5 % quantile of Student's t with two degrees of freedom
T = 4.303
ROLES = ("attention_query", "attention_key", "attention_value", "attention_output", "gate", "up", "down")


def train(args, optimizer, seed, more=(), name=None):
    out = os.path.join(args.out, f"{name or optimizer}-{seed}")
    sets = [f"train.probe_every={EVERY}", f"train.sharpness_every={EVERY}", f"train.spectra_every={EVERY}", f"train.probe_batches={BATCHES}",
            "train.sample_tokens=0", *more]
    command = [args.polaron, "train", "--model", "llama-d64", "--optimizer", optimizer, "--steps", str(STEPS), "--seed", str(seed),
               "--threads", "1", "--out", out]
    for key in sets:
        command += ["--set", key]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    with open(os.path.join(out, "metrics.jsonl")) as file:
        return [json.loads(line) for line in file if line.strip()]


def median(values):
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def of(events, kind):
    return [event for event in events if event["event"] == kind and event["step"] > AFTER]


def probes(events):
    """Medians over the matrix roles and steps: alignment, best rate over rate, efficiency, and the swing of the best rate."""
    matrices = [event for event in of(events, "probe") if event["group"] in ROLES]
    swings = []
    for role in ROLES:
        best = [event["best_lr"] for event in matrices if event["group"] == role]
        swings += [math.log(after / before) for before, after in zip(best, best[1:]) if before and after and min(before, after) > 0]
    ratio = [1 / event["lr_ratio"] for event in matrices if event["lr_ratio"] and event["lr_ratio"] > 0]
    return {
        "alignment": median(event["alignment"] for event in matrices),
        "best rate / rate": median(ratio),
        "efficiency": median(event["efficiency"] for event in matrices),
        "swing": math.sqrt(statistics.mean(change**2 for change in swings)),
        "signal to noise": median(event["snr"] for event in matrices),
    }


def spectra(events):
    """Of the last record, means over the matrices of the blocks."""
    matrices = [matrix for matrix in of(events, "spectra")[-1]["matrices"] if matrix["name"].startswith("blocks.")]
    mean = lambda found: statistics.mean(found) if found else None
    return {
        "outliers": mean([matrix["bulk"]["outliers"] for matrix in matrices if matrix.get("bulk")]),
        "bulk scale": mean([matrix["bulk_scale"] for matrix in matrices if matrix.get("bulk_scale")]),
        "stable rank": mean([matrix["stable_rank"] for matrix in matrices]),
        "stable rank of the change": mean([matrix["since_start"]["stable_rank"] for matrix in matrices
                                           if matrix.get("since_start") and matrix["since_start"]["stable_rank"]]),
        "norm of the change": mean([matrix["since_start"]["norm"] for matrix in matrices if matrix.get("since_start")]),
    }


def sharpness(events):
    measured = [event for event in of(events, "sharpness") if event["sharpness"] is not None]
    valid = [event for event in events if event["event"] == "valid"]
    return {
        "validation loss": valid[-1]["loss"],
        "sharpness": median(event["sharpness"] for event in measured),
        "sharpness · lr / 2": median(event["sharpness"] / event["stable_below"] for event in measured if event["stable_below"]),
    }


def energy(events):
    records = [event for event in events if event["event"] == "energy"]
    compared = [event["rises"] for event in records if event.get("rises") is not None]
    losses = [event["objective"] for event in records]
    lost = records[0]["total"] - records[-1]["total"]
    return {
        "share of steps on which it rose": sum(compared) / len(compared),
        "… on which the loss alone rose": sum(after > before for before, after in zip(losses, losses[1:])) / len(compared),
        "share of the momentum": median(event["kinetic"] / event["total"] for event in records[1:]),
        "lost": lost,
        "dissipated / lost": sum(event["dissipated"] for event in records) / lost,
    }


def shown(values):
    if any(value is None for value in values):
        return "–"
    mean, half = statistics.mean(values), T * statistics.stdev(values) / len(values) ** 0.5
    digits = max(0, 2 - math.floor(math.log10(abs(mean)))) if mean else 2
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def show(title, rows):
    """Rows: name, and the numbers of every seed."""
    keys = list(rows[0][1][0])
    print(f"\n{title}\n\n| optimizer | " + " | ".join(keys) + " |\n|" + "---|" * (len(keys) + 1))
    for name, seeds in rows:
        print(f"| `{name}` | " + " | ".join(shown([numbers[key] for numbers in seeds]) for key in keys) + " |")


def user_seconds(args, sets, steps=COST_STEPS):
    """Processor time of a run of Muon with these keys, the smaller of two runs. Records of step 0 count too: `times` below."""
    out = os.path.join(args.out, "cost")
    command = [args.polaron, "train", "--model", "llama-d64", "--optimizer", "muon", "--steps", str(steps), "--threads", "1",
               "--out", out, "--set", "train.sample_tokens=0", "--set", "train.valid_every=0", "--set",
               "optimizer.matrix.weight_decay=0"]
    found = []
    for _ in range(2):
        shutil.rmtree(out, ignore_errors=True)
        before = os.times().children_user
        subprocess.run(command + [word for key in sets for word in ("--set", key)], capture_output=True, check=True)
        found.append(os.times().children_user - before)
    return min(found)


def costs(args):
    base, longer = user_seconds(args, []), user_seconds(args, [], 2 * COST_STEPS)
    step = (longer - base) / COST_STEPS
    print("\n| measurement | costs as much as so many steps |\n|---|---|")
    for key, sets, times in (
        ("`probe_every`, 16 batches, `probe_groups = \"all\"`", ["probe_every", "probe_groups=all"], 1),
        ("`probe_every`, 16 batches, `\"roles\"`", ["probe_every"], 1),
        ("`probe_every`, 4 batches, `\"roles\"`", ["probe_every", "probe_batches=4"], 1),
        ("`sharpness_every`, 16 batches", ["sharpness_every"], 1),
        ("`energy_every`, 16 batches", ["energy_every"], 2),
        ("`spectra_every`", ["spectra_every"], 2),
        ("`logits_every`", ["logits_every"], 1),
    ):
        keys = [f"train.{sets[0]}={COST_STEPS}", *(f"train.{key}" for key in sets[1:])]
        more = user_seconds(args, keys) - base
        cost = more / times / step
        print(f"| {key} | {f'{cost:.0f}' if cost >= 3 else 'less than 3'} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--polaron", default="target/release/polaron")
    parser.add_argument("--out", default="runs/diagnostics")
    parser.add_argument("--costs", action="store_true")
    args = parser.parse_args()
    if args.costs:
        return costs(args)
    runs = {optimizer: [train(args, optimizer, seed) for seed in SEEDS] for optimizer in OPTIMIZERS}
    for title, measure in (("Loss and sharpness", sharpness), ("Probes", probes), ("Spectra", spectra)):
        show(title, [(optimizer, [measure(events) for events in seeds]) for optimizer, seeds in runs.items()])
    energies = []
    for name, optimizer, more in (
        ("muon", "muon", []),
        ("muon, nesterov = false", "muon", ["optimizer.matrix.nesterov=false"]),
        ("regularized_muon", "regularized_muon", []),
    ):
        more = ["train.energy_every=1", "optimizer.matrix.weight_decay=0", "train.probe_every=0", "train.sharpness_every=0",
                "train.spectra_every=0", *more]
        folder = f"energy-{name}".replace(" ", "").replace(",", "-").replace("=", "-")
        energies.append((name, [energy(train(args, optimizer, seed, more, folder)) for seed in SEEDS]))
    show("Energy, every step", energies)


if __name__ == "__main__":
    main()
