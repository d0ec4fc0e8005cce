"""The memory that `polaron inspect` predicts, and the peak that a run of two steps has.

    cargo build --release
    python3 benches/memory.py             # about five minutes, and up to 6 GB
    python3 benches/memory.py llama       # only configurations with this in their name

Prints a Markdown table. Fails if a prediction is off by more than 15 %.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
POLARON = ROOT / "target/release/polaron"
TOLERANCE = 0.15

# Name, stack, keys.
CONFIGURATIONS = [
    ("llama-d256", "adamw", {}),
    ("llama-d256", "muon", {"train.recompute": "true"}),
    ("gemma3-tiny", "muon", {"train.batch": "64"}),
    ("olmoe-tiny", "muon", {"train.batch": "64", "train.accumulation": "2"}),
    ("gpt-oss-tiny", "adamw", {"train.batch": "64", "model.vocab_size": "20000"}),
    ("gpt2-124m", "muon", {"train.batch": "1", "model.vocab_size": "50257"}),
    ("gpt2-124m", "adamw", {"train.batch": "1", "model.vocab_size": "50257", "train.recompute": "true"}),
    ("llama2-130m", "adamw", {"train.batch": "4", "model.vocab_size": "32000"}),
    ("qwen3-tiny", "muon_eq", {"train.batch": "96", "train.recompute": "true"}),
    ("llama-d128", "sgd", {"train.batch": "128"}),
    ("llama2-130m", "muon", {"train.batch": "2", "model.vocab_size": "32000", "train.recompute": "true"}),
    ("gpt2-124m", "adamw", {"train.batch": "2", "model.vocab_size": "50257"}),
]


def megabytes(text):
    return float(re.search(r"memory +about ([0-9,]+) MB to train", text).group(1).replace(",", ""))


def measure(preset, stack, keys, folder):
    keys = {"train.steps": "2", "train.valid_windows_end": "1", "train.sample_tokens": "0", **keys}
    lines = {"model": [f'preset = "{preset}"'], "optimizer": [f'stack = "{stack}"'], "train": []}
    for key, value in keys.items():
        section, name = key.split(".")
        lines[section].append(f"{name} = {value}")
    config = folder / "config.toml"
    config.write_text("".join(f"[{section}]\n" + "\n".join(keys) + "\n" for section, keys in lines.items()))
    predicted = megabytes(subprocess.run([POLARON, "inspect", config], check=True, text=True, capture_output=True).stdout)
    run = folder / "run"
    subprocess.run([POLARON, "train", config, "--out", run, "--force"], check=True, capture_output=True)
    end = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    return predicted, end["peak_memory_bytes"] / 1e6


def main():
    words = sys.argv[1:]
    print("| preset | optimizer | keys | predicted, MB | measured, MB | predicted / measured |\n|---|---|---|---|---|---|")
    failed = False
    for preset, stack, keys in CONFIGURATIONS:
        if words and not any(word in preset for word in words):
            continue
        with tempfile.TemporaryDirectory() as folder:
            predicted, measured = measure(preset, stack, keys, Path(folder))
        ratio = predicted / measured
        failed |= abs(ratio - 1) > TOLERANCE
        said = ", ".join(f"`{key} = {value}`" for key, value in keys.items())
        print(f"| `{preset}` | {stack} | {said} | {predicted:,.0f} | {measured:,.0f} | {ratio:.2f} |", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
