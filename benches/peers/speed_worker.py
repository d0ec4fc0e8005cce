#!/usr/bin/env python3
"""Repeats the steps of a polaron run by PyTorch or JAX, for speed.py.  Prints a line of JSON: seconds of every step and of its clip
and update, losses, largest memory, and memory after the imports."""

import argparse
import json
import tomllib
from pathlib import Path

import recipe


def memory(name):
    """bytes of this process; VmHWM: the largest so far, VmRSS: now"""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def training(args, config, tokens):
    """the peer's training, and the memory before it"""
    weights = args.run / "step0.safetensors"
    if args.program == "jax":
        import jax_peer

        imports = memory("VmRSS")
        return jax_peer.Training(config, jax_peer.initial_weights(weights), tokens), imports
    import torch
    import torch_peer

    imports = memory("VmRSS")
    torch.set_num_threads(args.threads)
    if args.bf16:
        torch_peer.muon_in_native_precision = lambda: None
    weights = torch_peer.initial_weights(weights, torch.float32)
    return torch_peer.Training(config, weights, tokens, compiled=args.program == "compiled"), imports


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", choices=["eager", "compiled", "jax"])
    parser.add_argument("--run", type=Path, required=True, help="run folder, with step0.safetensors")
    parser.add_argument("--text", type=Path, required=True, help="the text that the run was trained on")
    parser.add_argument("--threads", type=int, required=True, help="torch's threads; jax takes every processor that it may use")
    parser.add_argument("--bf16", action="store_true", help="torch's Muon in bfloat16")
    args = parser.parse_args()
    config = tomllib.loads((args.run / "config.toml").read_text())
    tokens, _ = recipe.training_tokens(args.text, config["data"]["tokenizer"], config["data"]["valid_fraction"])
    peer, imports = training(args, config, tokens)
    steps = [peer.step(index) for index in range(config["train"]["steps"])]
    print(json.dumps({
        "seconds": [step["seconds"] for step in steps],
        "update": [step["update"] for step in steps],
        "losses": [step["loss"] for step in steps],
        "memory": memory("VmHWM"),
        "imports": imports,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
