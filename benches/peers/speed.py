#!/usr/bin/env python3
"""Times polaron and other programs on the same work, in turn, and prints tables.

    python benches/peers/speed.py --polaron target/release/polaron            # everything: hours
    python benches/peers/speed.py --quick --lines llama-d64,families --cores 1
    python benches/peers/speed.py --list                                      # the lines

Needs torch 2.15.0, jax, numpy, safetensors and transformers (see README.md beside this file).  Training: for every line, optimizer and
number of threads it runs polaron, then eager torch, compiled torch and JAX on the same first weights, batches and recipe,
`--rounds` times, each in a process of its own that is kept on as many processors as it has threads.  A round's figure is the
median over the second half of its steps, for the whole step (batch, forward, backward, clip, update) and for clip and update
alone, so that compiling is left out.  Ratios are above 1 where polaron is faster: the median of the rounds' ratios, with their
range.  Memory is the largest resident memory of the process.

The losses of every step must agree within 1e-4, otherwise the line says that the programs did not do the same work, and the exit
code is 1, as it is if a program fails.

Compiled: torch.compile around model and loss; the optimizers stay eager, which is PyTorch's default.  JAX: the whole step is one
compiled program that overwrites weights and states.  Muon iterates in float32 everywhere, or with `--bf16` torch's in bfloat16,
which is PyTorch's default.

A second table compares polaron with the machine: operations of a step by the formulas of `polaron inspect`, over the rate of a product of
two 1024 x 1024 matrices by polaron on as many threads, measured after each run.  A last one generates text beside `transformers`.
"""

import argparse
import gzip
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import speed_generation
import speed_lines
import speed_programs
from speed_programs import Failed

TEXT = Path(__file__).parents[2] / "datasets" / "data" / "shakespeare.txt.gz"
EXCERPT = 400_000  # characters
TOLERANCE = 1e-4
QUICK_STEPS = 4


def measure(args, folder, line, optimizer, threads, text):
    """`--rounds` times every program in turn; returns what each measured, or why it failed"""
    found = {name: [] for name in ("polaron", *args.peers)}
    for round in range(args.rounds):
        run = folder / f"{line.name}-{optimizer}-{threads}-{round}"
        for name, rounds in found.items():
            try:
                if name == "polaron":
                    rounds.append(speed_programs.polaron(args.polaron, run, line, optimizer, threads, args.steps or line.steps, text))
                else:
                    rounds.append(speed_programs.peer(name, run, threads, text, args.bf16))
            except Failed as error:
                print(f"{line.name}, {optimizer}, {threads} threads, {name}: {error}", file=sys.stderr)
                if name == "polaron":
                    return None
    return found


def median(rounds, key):
    return statistics.median(row[key] for row in rounds)


def times(rounds):
    """milliseconds of a step, and which part of it clip and update take"""
    step = f"{1e3 * median(rounds, 'step'):.1f}"
    parts = [row["update"] / row["step"] for row in rounds if row["update"] is not None]
    return f"{step} ({statistics.median(parts):.0%})" if parts else step


def difference(ours, theirs):
    """the largest between the losses of any step, and whether the programs did the same work"""
    pairs = [zip(a["losses"], b["losses"], strict=True) for rounds in theirs for a, b in zip(ours, rounds)]
    differences = [abs(a - b) for pair in pairs for a, b in pair]
    same = all(gap <= TOLERANCE for gap in differences)  # not max(): a NaN must fail
    text = f"{max(differences):.0e}" if differences else "-"
    return text if same else f"**not the same work: {text}**", same


def row(found):
    """the cells of a line, and whether every program did the same work"""
    ours = found["polaron"]
    cells = [times(ours), f"{median(ours, 'memory'):.0f}"]
    theirs = [rounds for name, rounds in found.items() if name != "polaron"]
    for rounds in theirs:
        if not rounds:
            cells += ["failed", "", ""]
            continue
        ratios = sorted(b["step"] / a["step"] for a, b in zip(ours, rounds))
        spread = f" ({ratios[0]:.2f} to {ratios[-1]:.2f})" if len(ratios) > 1 else ""
        cells += [times(rounds), f"**{statistics.median(ratios):.2f}**{spread}", f"{median(rounds, 'memory'):.0f}"]
    text, same = difference(ours, theirs)
    return [*cells, text], same and all(theirs)


def limit_row(rounds):
    """operations and rates of a line, and where its time goes"""
    passes, updates = (median(rounds, key) for key in ("passes", "updates"))
    parts = []
    for each in rounds:
        ideal = [each[key] / each["rate"] / each["step"] for key in ("passes", "updates")]
        update = each["update"] / each["step"]
        parts.append((sum(ideal), 1 - update - ideal[0], update - ideal[1]))
    shares = [f"{statistics.median(part):.0%}" for part in zip(*parts)]
    reached = statistics.median((passes + updates) / each["step"] for each in rounds)
    return [f"{passes / 1e9:.2f} + {updates / 1e9:.2f}", f"{reached / 1e9:.0f}", f"{median(rounds, 'rate') / 1e9:.0f}", *shares]


def print_row(cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def print_heads(heads):
    print_row(heads)
    print_row(["---"] * len(heads))


def train(args, folder, text):
    """prints both tables of the training; returns whether every line was the same work"""
    heads = ["line", "optimizer", "threads", "polaron, ms a step (of which clip and update)", "MiB"]
    for name in args.peers:
        heads += [f"{name}, ms a step", f"{name} / polaron", "MiB"]
    print_heads([*heads, "difference of losses"])
    limits, good, imports = [], True, {}
    for line in args.lines:
        for optimizer in args.optimizers:
            for threads in args.cores:
                place = [line.name, optimizer, threads]
                found = measure(args, folder, line, optimizer, threads, text)
                if found is None:
                    good = False
                    print_row([*place, "failed"])
                    continue
                cells, same = row(found)
                good &= same
                print_row([*place, *cells])
                limits.append([*place, *limit_row(found["polaron"])])
                imports |= {name: median(rounds, "imports") for name, rounds in found.items() if rounds and name != "polaron"}
                if args.json:
                    with args.json.open("a") as file:
                        print(json.dumps({"line": line.name, "optimizer": optimizer, "threads": threads, **found}), file=file)
    print("\nOf the memory, taken before the first weight: " + ", ".join(f"{name} {size:.0f} MiB" for name, size in imports.items()) + ".\n")
    print_heads([
        "line", "optimizer", "threads", "GFLOP: passes + update", "GFLOP/s", "product's GFLOP/s", "products at that rate",
        "rest of forward and backward", "rest of clip and update",
    ])  # fmt: skip
    for cells in limits:
        print_row(cells)
    return good


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = lambda text: [name for name in text.split(",") if name]
    numbers = lambda text: [int(number) for number in text.split(",")]
    everything = ",".join([*speed_lines.GROUPS, speed_generation.GROUP])
    parser.add_argument("--polaron", type=Path, default=Path("target/release/polaron"), help="path of the program")
    parser.add_argument("--lines", type=names, default=everything, help=f"groups or names of lines (default {everything})")
    parser.add_argument("--peers", type=names, default="eager,compiled,jax", help="of the training (default eager,compiled,jax)")
    parser.add_argument("--optimizers", type=names, default="adamw,muon")
    parser.add_argument("--cores", type=numbers, default="1,2", help="numbers of threads")
    parser.add_argument("--steps", type=int, help="default: 40 to 6, by the size of the model")
    parser.add_argument("--rounds", type=int, help="default 3")
    parser.add_argument("--quick", action="store_true", help=f"one round of {QUICK_STEPS} steps: shows that every line works")
    parser.add_argument("--bf16", action="store_true", help="torch's Muon in bfloat16")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also add what was measured to FILE, a line of JSON each")
    parser.add_argument("--list", action="store_true", help="print the lines and exit")
    args = parser.parse_args()
    args.rounds = args.rounds or (1 if args.quick else 3)
    args.steps = args.steps or (QUICK_STEPS if args.quick else None)
    args.generates = speed_generation.GROUP in args.lines
    try:
        args.lines = speed_lines.chosen([name for name in args.lines if name != speed_generation.GROUP])
    except ValueError as error:
        parser.error(str(error))
    if unknown := [name for name in args.peers if name not in ("eager", "compiled", "jax")]:
        parser.error(f"unknown peers {unknown}; there are eager, compiled and jax")
    args.polaron = args.polaron.resolve()
    return args


def main():
    args, start, good = arguments(), time.monotonic(), True
    if args.list:
        for line in speed_lines.LINES:
            print(f"{line.group:14}{line.name:18}{line.preset:14}{line.steps:3} steps  {line.keys or ''}")
        return
    with tempfile.TemporaryDirectory() as name:
        folder, text = Path(name), Path(name) / "text.txt"
        text.write_bytes(gzip.open(TEXT).read()[:EXCERPT])
        if args.lines:
            good &= train(args, folder, text)
        if args.generates:
            print()
            good &= speed_generation.table(args, folder, text, print_heads, print_row)
    print(f"\n{(time.monotonic() - start) / 60:.1f} minutes")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
