#!/usr/bin/env python3
"""Reads the event file of a run with the package `tensorboard`, and compares it with metrics.jsonl.

    polaron train --model olmoe-tiny --steps 60 --set train.valid_every=10 --set train.spectra_every=20 --log-to tensorboard --out RUN
    python3 benches/peers/read_event_files.py RUN

Every number of metrics.jsonl must be in the event file once, with its step, in the same order and to single precision; wall times
must rise; and nothing else may be in the file except `train/tokens_per_second`. Needs: pip install tensorboard
"""

import json
import math
import struct
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def numbers(path, value):
    """Pairs of path and number, as the event file names them."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = [(item.get("name", index), item) for index, item in enumerate(value)]
    elif isinstance(value, (int, float)):
        yield path, struct.unpack("f", struct.pack("f", value))[0]
        return
    else:
        return
    for name, item in items:
        yield from numbers(f"{path}/{name}", item)


def main(run):
    expected = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        event = json.loads(line)
        kind, step = event.pop("event"), event.pop("step")
        if kind == "heads":
            event["largest"] = dict(enumerate(map(max, event["largest"])))
        for tag, number in numbers(kind, event):
            expected.setdefault(tag, []).append((step, number))
    reader = EventAccumulator(str(run), size_guidance={"scalars": 0})
    reader.Reload()
    found = {tag: reader.Scalars(tag) for tag in reader.Tags()["scalars"]}
    pace = found.pop("train/tokens_per_second")
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    for tag, points in found.items():
        assert [(point.step, point.value) for point in points] == expected[tag], tag
        times = [point.wall_time for point in points]
        assert times == sorted(times), tag
    assert [point.step for point in pace] == [step for step, _ in expected["train/loss"]]
    assert all(math.isfinite(point.value) and point.value > 0 for point in pace)
    steps = len(expected["train/loss"])
    print(f"{run}: {len(found)} series, {sum(map(len, found.values()))} numbers, {steps} training steps: all as in metrics.jsonl")
    for tag in ["train/loss", "train/tokens_per_second", "valid/loss", "valid/bits_per_byte", "valid/router/load_cv"]:
        if points := pace if tag == "train/tokens_per_second" else found.get(tag):
            print(f"  {tag:<24} {len(points):>4} points, last {points[-1].value:.6g} at step {points[-1].step}")


main(Path(sys.argv[1]))
