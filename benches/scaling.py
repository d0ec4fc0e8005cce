#!/usr/bin/env python3
"""Measures time and memory of a training step by parameters, tokens, experts and threads; writes tables and a chart.

    cargo build --release
    python3 benches/scaling.py --out scaling-runs        # writes scaling-runs/scaling.svg and scaling.md too

* time: median over all steps except the first; "optimizer" is clipping and the update;
* memory: peak of the whole process, including the first checkpoint and the embedded text;
* state: bytes of the optimizer's tensors in the checkpoint, which must be the number that the plan documents (4 bytes per
  number, "2 buffers" are 2 numbers per parameter); the exit code is 1 if they differ.

One thread, except in the sweep over threads. A finished run is not repeated. Needs Python 3 without packages.
"""
import argparse
import json
import math
import os
import statistics
import struct
import subprocess
import sys

LLAMA = ["--model", "llama-d128"]
OLMOE = ["--model", "olmoe-tiny"]
BOTH = ["adamw", "muon"]


def llama(d_model, layers, batch=8):
    return LLAMA, {"model.d_model": d_model, "model.layers": layers, "train.batch": batch}


# name of the sweep -> its runs, each (value that varies, flags, keys, optimizer, threads)
def sweeps():
    sizes = [(64, 4), (128, 4), (256, 6), (384, 7), (512, 9)]
    threads = [count for count in (1, 2, 4, 8, 16) if count <= (os.cpu_count() or 1)]
    batches = [2, 4, 8, 16, 32, 64]
    experts = [4, 8, 16, 32, 64]
    return {
        "parameters": [("parameters", *llama(*size), name, 1) for size in sizes for name in BOTH],
        "tokens": [("tokens", *llama(128, 4, batch), name, 1) for batch in batches for name in BOTH],
        "experts": [(count, OLMOE, {"model.experts": count, "train.batch": 8}, name, 1)
                    for count in experts for name in BOTH],
        "threads": [(count, *llama(256, 6), name, count) for count in threads for name in BOTH],
    }


def run(args, flags, keys, optimizer, threads):
    """Makes one run and returns its folder."""
    parts = [flags[1], optimizer, f"steps{args.steps}", f"threads{threads}", *(f"{key.split('.')[1]}{value}" for key, value in keys.items())]
    out = os.path.join(args.out, "-".join(map(str, parts)))
    keys = {**keys, "train.sample_tokens": 0, "train.valid_every": 0, "train.valid_windows_end": 1}
    command = [args.polaron, "train", *flags, "--optimizer", optimizer, "--steps", str(args.steps),
               "--threads", str(threads), "--out", out]
    for key, value in keys.items():
        command += ["--set", f"{key}={value}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return out


def measure(out):
    """The measurements of one step, read from a run folder."""
    with open(os.path.join(out, "metrics.jsonl")) as file:
        events = [json.loads(line) for line in file]
    steps = [event for event in events if event["event"] == "train"]
    end = events[-1]
    between = lambda key: statistics.median(b[key] - a[key] for a, b in zip(steps, steps[1:]))
    checkpoints = os.path.join(out, "checkpoints")
    last = os.path.join(checkpoints, max(os.listdir(checkpoints)))
    parameters, documented = plan(os.path.join(out, "plan.txt"))
    return {
        "parameters": parameters,
        "tokens": steps[1]["tokens"] - steps[0]["tokens"],
        "seconds": between("seconds"),
        "optimizer": between("optimizer_seconds"),
        "memory": end["peak_memory_bytes"] or math.nan,
        "state": tensor_bytes(os.path.join(last, "optimizer.safetensors")),
        "documented": documented,
    }


def plan(path):
    """Number of parameters, and bytes of state that the plan documents."""
    with open(path) as file:
        head, *rows = file.read().splitlines()
    params, state = head.index("params"), head.index("state")
    count = total = 0
    for row in rows:
        if row.startswith("covered"):
            break
        number = int(row[:params + len("params")].split()[-1].replace(",", ""))
        words = row[state:].strip()
        count += number
        total += 4 * number * {"none": 0, "1 buffer": 1, "2 buffers": 2}[words]
    return count, total


def tensor_bytes(path):
    """Bytes of the tensors of a safetensors file."""
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    return sum(tensor["data_offsets"][1] - tensor["data_offsets"][0]
               for name, tensor in header.items() if name != "__metadata__")


def table(sweep, points):
    lines = [f"## {sweep.capitalize()}", "",
             f"| {sweep} | optimizer | parameters | tokens | step, ms | optimizer, ms | tokens/s | peak memory, MB "
             "| state, bytes per parameter |",
             "|---:|---|---:|---:|---:|---:|---:|---:|---:|"]
    for x, name, m in points:
        same = "" if m["state"] == m["documented"] else f", but documented {m['documented'] / m['parameters']:.3f}"
        lines.append(f"| {x:,} | {name} | {m['parameters']:,} | {m['tokens']:,} | {1e3 * m['seconds']:.1f} "
                     f"| {1e3 * m['optimizer']:.1f} | {m['tokens'] / m['seconds']:,.0f} | {m['memory'] / 1e6:.0f} "
                     f"| {m['state'] / m['parameters']:.3f}{same} |")
    return "\n".join(lines) + "\n"


WIDTH, HEIGHT, MARGIN = 320, 220, 46
COLOURS = {"adamw": "#c05020", "muon": "#2060c0"}


def chart(results):
    """Two panels for every sweep, one for the time of a step and one for memory; both axes are logarithmic."""
    panels = []
    for row, (sweep, points) in enumerate(results.items()):
        for column, (label, key, unit) in enumerate([("step, ms", "seconds", 1e3), ("peak memory, MB", "memory", 1e-6)]):
            values = [(x, name, unit * m[key]) for x, name, m in points]
            panels.append(f'<g transform="translate({column * WIDTH},{row * HEIGHT})">'
                          f"{panel(sweep, label, values)}</g>")
    size = f'width="{2 * WIDTH}" height="{len(results) * HEIGHT}"'
    style = 'font-family="sans-serif" font-size="11" fill="#444"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}><rect {size} fill="#fff"/>{"".join(panels)}</svg>\n'


def panel(sweep, label, values):
    xs, ys = sorted({x for x, _, _ in values}), [y for _, _, y in values]
    place = lambda value, low, high: 0.5 if low == high else math.log(value / low) / math.log(high / low)
    at_x = lambda x: MARGIN + place(x, xs[0], xs[-1]) * (WIDTH - 2 * MARGIN)
    at_y = lambda y: HEIGHT - MARGIN - place(y, min(ys), max(ys)) * (HEIGHT - 2 * MARGIN)
    parts = [f'<text x="{MARGIN}" y="20">{label}, by {sweep}</text>',
             f'<path d="M{MARGIN},{MARGIN}V{HEIGHT - MARGIN}H{WIDTH - MARGIN}" stroke="#888" fill="none"/>']
    for x in xs:
        parts.append(f'<text x="{at_x(x):.1f}" y="{HEIGHT - MARGIN + 15}" text-anchor="middle">{short(x)}</text>')
    for y in {min(ys), max(ys)}:
        parts.append(f'<text x="{MARGIN - 4}" y="{at_y(y) + 4:.1f}" text-anchor="end">{short(y)}</text>')
    for row, (name, colour) in enumerate(COLOURS.items()):
        line = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, own, y in values if own == name)
        parts.append(f'<polyline points="{line}" stroke="{colour}" fill="none" stroke-width="2"/>')
        parts.append(f'<text x="{WIDTH - MARGIN}" y="{20 + 13 * row}" text-anchor="end" fill="{colour}">{name}</text>')
    return "".join(parts)


def short(value):
    for size, letter in [(1e6, " M"), (1e3, " k")]:
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--polaron", default="target/release/polaron")
    parser.add_argument("--out", default="scaling-runs")
    parser.add_argument("--steps", type=int, default=6, help="number of steps of every run, at least 2")
    parser.add_argument("--only", help="sweeps, comma separated: " + ", ".join(sweeps()))
    args = parser.parse_args()
    chosen = args.only.split(",") if args.only else list(sweeps())
    unknown = [name for name in chosen if name not in sweeps()]
    if unknown or args.steps < 2:
        parser.error(f"there is no sweep {unknown[0]}" if unknown else "--steps must be at least 2")
    results = {}
    for sweep in chosen:
        results[sweep] = []
        for x, flags, keys, optimizer, threads in sweeps()[sweep]:
            m = measure(run(args, flags, keys, optimizer, threads))
            results[sweep].append((m.get(x, x), optimizer, m))
            print(f"{sweep}: {m.get(x, x):,}, {optimizer}", file=sys.stderr)
    tables = "\n".join(table(sweep, points) for sweep, points in results.items())
    for name, text in [("scaling.md", tables), ("scaling.svg", chart(results))]:
        with open(os.path.join(args.out, name), "w") as file:
            file.write(text)
    print(tables)
    if any(m["state"] != m["documented"] for points in results.values() for _, _, m in points):
        raise SystemExit("error: the state of an optimizer does not have the documented size, see the last column")


if __name__ == "__main__":
    main()
