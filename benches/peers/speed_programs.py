"""The programs that the speed suite compares: one training by polaron, and the same steps by a peer, each in a process of its own."""

import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

WORKER = Path(__file__).with_name("speed_worker.py")
MEBIBYTE = 2**20
QUIET = {  # one short validation, no sample, no checkpoints but the first and the last
    "train.sample_tokens": 0, "train.checkpoint_every": 0, "train.valid_every": 0, "train.valid_windows": 1,
    "train.valid_windows_end": 1,
}  # fmt: skip


class Failed(Exception):
    """a program ended with an error"""


def pinned(threads):
    """arguments of subprocess that keep a program on the first `threads` processors, as XLA has no other limit"""
    processors = sorted(os.sched_getaffinity(0))[:threads]
    return {"preexec_fn": lambda: os.sched_setaffinity(0, processors), "env": os.environ | {"JAX_PLATFORMS": "cpu"}}


def run(command, threads):
    """runs a command on `threads` processors; returns what it prints"""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **pinned(threads))
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Failed(f"{Path(command[0]).name} ended with {done.returncode}: {reason}")
    return done.stdout


def late(values):
    """the median over the second half"""
    return statistics.median(values[len(values) // 2 :])


def settings(keys):
    return [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]


def polaron(program, folder, line, optimizer, threads, steps, text):
    """Trains into a new folder and exports its first weights.  Returns seconds of a step and of its clip and update, the loss of
    every step, the largest memory, the operations of a step and the rate of a product of large matrices."""
    command = [program, "train", "--model", line.preset, "--optimizer", optimizer, "--data", text, "--steps", steps]
    run([*command, "--threads", threads, "--out", folder, *settings(QUIET | line.keys)], threads)
    run([program, "export", folder, "--step", 0, "--out", folder / "step0.safetensors"], threads)
    events = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
    train = [event for event in events if event["event"] == "train"]
    between = lambda key: late([b[key] - a[key] for a, b in zip(train, train[1:])])
    return {
        "step": between("seconds"),
        "update": between("optimizer_seconds"),
        "losses": [event["loss"] for event in train],
        "memory": events[-1]["peak_memory_bytes"] / MEBIBYTE,
        **limit(program, folder, threads),
    }


def limit(program, folder, threads):
    """what `polaron inspect` says: operations of a step, and the rate of a product on as many threads"""
    said = run([program, "inspect", folder / "config.toml", "--time"], threads)
    units = {"GFLOP": 1e9, "TFLOP": 1e12, "PFLOP": 1e15}
    number = lambda pattern: [float(n) * units[unit] for n, unit in re.findall(pattern, said)][0]
    return {
        "passes": number(r"([\d.]+) (.FLOP) forward and backward"),
        "updates": number(r"([\d.]+) (.FLOP) in the optimizer"),
        "rate": number(r"which is ([\d.]+) (GFLOP)/s now"),
    }


def peer(name, folder, threads, text, bf16):
    """the same steps by eager or compiled torch or by jax"""
    command = [sys.executable, WORKER, name, "--run", folder, "--text", text, "--threads", threads, *["--bf16"] * bf16]
    made = json.loads(run(command, threads).splitlines()[-1])
    update = made["update"]
    return {
        "step": late(made["seconds"]),
        "update": None if None in update else late(update),
        "losses": made["losses"],
        "memory": made["memory"] / MEBIBYTE,
        "imports": made["imports"] / MEBIBYTE,
    }
