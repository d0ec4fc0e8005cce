#!/usr/bin/env python3
"""Repeats a polaron run in PyTorch: same initial weights, same batches, same recipe; the losses must agree step by step.

    polaron train --model llama-d64 --optimizer adamw --data tinyshakespeare.txt --steps 25 --out runs/follow
    polaron export runs/follow --step 0 --out step0.safetensors
    python benches/peers/follow.py --run runs/follow --weights step0.safetensors --text tinyshakespeare.txt --steps 20

Needs torch 2.15.0, numpy and safetensors (see README.md beside this file).  Prints one line per step that the run has logged:
loss and gradient norm (before clipping) of polaron and of PyTorch, and the difference of the losses.  Exit code 1 when a
difference is larger than --tolerance, 2 when the run cannot be repeated by this program.

Supports nanogpt-char, llama-*, qwen3-tiny, gemma3-tiny, olmoe-tiny and mixed forms of them, the stacks sgd, adamw and muon, one text
file, the char and the byte tokenizer.  Everything else in a configuration (biases, rules, other matrix keys) is refused, never ignored.  Micro-batches are not
repeated: the mean over them is the mean over the batch.  Why 1e-4: both programs compute in float32 and sum in different orders,
which changes the first loss by less than 1e-6; a loss that jumps (learning rate too high, warm-up too short) multiplies that by
a hundred.
"""
import argparse
import json
import math
import sys
import tomllib
from pathlib import Path

import recipe
import torch
import torch_peer
from recipe import refuse


def logged_steps(run):
    """0-based step -> the run's train event"""
    events = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    return {event["step"] - 1: event for event in events if event["event"] == "train"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run folder with config.toml and metrics.jsonl")
    parser.add_argument("--weights", type=Path, required=True, help="the weights of step 0 of the run, from polaron export")
    parser.add_argument("--text", type=Path, required=True, help="the text that the run was trained on")
    parser.add_argument("--steps", type=int, default=20, help="number of steps to compare (default 20)")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest allowed difference of the losses (default 1e-4)")
    parser.add_argument("--float64", action="store_true", help="compute in float64: shows how much of a difference is rounding")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = tomllib.loads((args.run / "config.toml").read_text())
    weights = torch_peer.initial_weights(args.weights, torch.float64 if args.float64 else torch.float32)
    tokens, vocabulary = recipe.training_tokens(args.text, config["data"]["tokenizer"], config["data"]["valid_fraction"])
    rows = config["model"].get("vocab_size") or vocabulary
    if weights["embed.weight"].shape[0] != rows:
        refuse(f"{args.text} needs {rows} tokens, the embedding has {weights['embed.weight'].shape[0]}; is it the text of this run?")
    logged, differences = logged_steps(args.run), []
    training = torch_peer.Training(config, weights, tokens)
    print(f"{'step':>5} {'polaron':>12} {'torch':>12} {'difference':>12}   {'norm polaron':>12} {'norm torch':>12}")
    for step in range(args.steps):
        made, event = training.step(step), logged.get(step)
        if event is None:
            continue
        loss, lr = made["loss"], config["optimizer"]["lr"] * recipe.schedule_factor(config["schedule"], step, config["train"]["steps"])
        differences.append(abs(event["loss"] - loss))
        print(f"{step + 1:5} {event['loss']:12.7f} {loss:12.7f} {event['loss'] - loss:12.2e}   {event['grad_norm']:12.7f} {made['norm']:12.7f}")
        if not math.isclose(event["lr"], lr, rel_tol=1e-6):
            print(f"      learning rate: polaron {event['lr']}, torch {lr}")
    if not differences:
        refuse(f"{args.run}/metrics.jsonl has no train event in the first {args.steps} steps; log every step")
    passed = all(d <= args.tolerance for d in differences)  # not max(): a NaN must fail
    print(f"{'PASS' if passed else 'FAIL'}: largest difference {max(differences):.2e} over {len(differences)} logged steps, "
          f"tolerance {args.tolerance:.0e}")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        refuse(error)
    except KeyError as error:
        refuse(f"the run or its weights lack {error}; were they written by another version of polaron?")
