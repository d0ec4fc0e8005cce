#!/usr/bin/env python3
"""Repeats a polaron run in PyTorch: same initial weights, same batches, same recipe; the losses must agree step by step.

    polaron train --model llama-d64 --optimizer adamw --data tinyshakespeare.txt --steps 25 --out runs/follow
    polaron export runs/follow --step 0 --out step0.safetensors
    python benches/peers/follow.py --run runs/follow --weights step0.safetensors --text tinyshakespeare.txt --steps 20

Needs torch 2.15.0, numpy and safetensors (see README.md beside this file).  Prints one line per step that the run has logged:
loss and gradient norm (before clipping) of polaron and of PyTorch, and the difference of the losses.  Exit code 1 when a
difference is larger than --tolerance, 2 when the run cannot be repeated by this program.

Supports nanogpt-char, llama-* and mixed forms of the two, the stacks sgd, adamw and muon, one text file, the char and the byte
tokenizer.  Everything else in a configuration (rules, other matrix keys) is refused, never ignored.  Micro-batches are not
repeated: the mean over them is the mean over the batch.  Why 1e-4: both programs compute in float32 and sum in different orders,
which changes the first loss by less than 1e-6; a loss that jumps (learning rate too high, warm-up too short) multiplies that by
a hundred.
"""
import argparse
import inspect
import json
import math
import sys
import textwrap
import tomllib
from pathlib import Path

import torch
import torch.nn.functional as F
import torch.optim._muon as torch_muon
from safetensors.torch import load_file

U64 = 2**64 - 1
MUON_SCALES = {"original": "original", "match_rms_adamw": "match_rms_adamw", "spectral": "spectral_unclamped"}  # ours -> torch's


def refuse(message):
    print(f"follow.py: {message}", file=sys.stderr)
    sys.exit(2)


# ---------------------------------------------------------------------------------- data
def splitmix64(state):
    """first output of the SplitMix64 generator whose state is `state`"""
    z = (state + 0x9E3779B97F4A7C15) & U64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & U64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & U64
    return z ^ (z >> 31)


def training_tokens(path, tokenizer, valid_fraction):
    """tokens of the training split, and the vocabulary size"""
    raw = Path(path).read_bytes()
    text = raw.decode("utf-8") if tokenizer == "char" else raw
    vocabulary = sorted(set(text)) if tokenizer == "char" else range(256)
    index = {c: i for i, c in enumerate(vocabulary)}
    tokens = torch.tensor([index[c] for c in text])
    return tokens[: int(len(tokens) * (1.0 - valid_fraction))], len(vocabulary)


def batch(tokens, step, data_seed, rows, context):
    """inputs and targets [rows, context] of a 0-based step; depends only on its arguments"""
    draws = (splitmix64((splitmix64(data_seed) + step * rows + i) & U64) for i in range(rows))
    starts = torch.tensor([(x * (len(tokens) - context)) >> 64 for x in draws])
    at = starts[:, None] + torch.arange(context)
    return tokens[at], tokens[at + 1]


# ---------------------------------------------------------------------------------- model
def rope_tables(model, dtype):
    """cosines and sines [context, head_dim / 2], base 10,000; none without rotary positions"""
    if model["position"] != "rotary":
        return None
    half = model["d_model"] // model["heads"] // 2
    frequency = 1.0 / 10_000.0 ** (torch.arange(half, dtype=torch.float64) / half)
    angle = torch.outer(torch.arange(model["context"], dtype=torch.float64), frequency)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def rope(x, tables):
    """rotate-half pairing: entry i turns with entry i + half; x is [batch, heads, context, head_dim]"""
    cos, sin = tables
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)


def attention(q, k, v, heads, turn):
    """causal softmax attention of [batch, context, d_model]; `turn` is applied to queries and keys"""
    rows, context, d_model = q.shape
    q, k, v = (x.view(rows, context, heads, d_model // heads).transpose(1, 2) for x in (q, k, v))
    mixed = F.scaled_dot_product_attention(turn(q), turn(k), v, is_causal=True)
    return mixed.transpose(1, 2).reshape(rows, context, d_model)


def decoder(weights, model, tokens, tables):
    """logits [batch, context, vocab]; `weights` by exported name, `model` is the [model] table of config.toml, `tables` is what
    rope_tables returns"""
    turn = lambda x: x if tables is None else rope(x, tables)

    def norm(name, x):
        if model["norm"] == "layer_norm":
            return F.layer_norm(x, x.shape[-1:], weights[name], None, 1e-5)
        return F.rms_norm(x, x.shape[-1:], weights[name], 1e-5)

    x = weights["embed.weight"][tokens]
    if tables is None:
        x = x + weights["position.weight"][: tokens.shape[1]]
    for i in range(model["layers"]):
        linear = lambda name, x: F.linear(x, weights[f"blocks.{i}.{name}.weight"])
        y = norm(f"blocks.{i}.norm1.weight", x)
        if model["projection"] == "fused":
            q, k, v = linear("attn.qkv", y).chunk(3, -1)
        else:
            q, k, v = linear("attn.wq", y), linear("attn.wk", y), linear("attn.wv", y)
        x = x + linear("attn.wo", attention(q, k, v, model["heads"], turn))
        y = norm(f"blocks.{i}.norm2.weight", x)
        if model["feed_forward"] == "gelu":
            y = F.gelu(linear("mlp.up", y))
        else:
            y = F.silu(linear("mlp.gate", y)) * linear("mlp.up", y)
        x = x + linear("mlp.down", y)
    return F.linear(norm("norm.weight", x), weights["embed.weight" if model["tied_head"] else "head.weight"])


# ---------------------------------------------------------------------------------- optimizers
def schedule_factor(schedule, step, steps):
    """factor of the learning rates at a 0-based step of `steps`"""
    warmup, low = schedule["warmup"], schedule["min_factor"]
    if step < warmup:
        return (step + 1) / (warmup + 1 if schedule["warmup_rule"] == "nanogpt" else warmup)
    if schedule["kind"] == "constant":
        return 1.0
    if schedule["kind"] == "cosine":
        progress = min(1.0, (step - warmup) / max(1, steps - warmup))
        return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress))
    refuse(f"schedule {schedule['kind']!r} is not repeated here; use constant or cosine")


def muon_in_native_precision():
    """Makes torch.optim.Muon iterate in the dtype of its input: its own source without the rounding to bfloat16."""
    function = torch_muon._zeropower_via_newtonschulz
    source = textwrap.dedent(inspect.getsource(function))
    if source.count("dtype=torch.bfloat16") != 1:
        refuse(f"torch {torch.__version__} has a different Newton-Schulz; this program was written for 2.15.0")
    scope = dict(vars(torch_muon))
    exec(compile(source.replace("dtype=torch.bfloat16", "dtype=grad.dtype"), torch_muon.__file__, "exec"), scope)  # noqa: S102
    torch_muon._zeropower_via_newtonschulz = scope[function.__name__]


class DecoupledSgd(torch.optim.SGD):
    """torch's heavy ball; the decay shrinks the weights (AdamW's way) instead of being added to the gradient"""

    def __init__(self, groups, lr, **kw):
        decays = [group.pop("weight_decay") for group in groups]
        super().__init__(groups, lr=lr, **kw)
        for group, decay in zip(self.param_groups, decays):
            group["decoupled_decay"] = decay

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(1 - group["lr"] * group["decoupled_decay"])
        super().step()


def make_optimizers(config, weights):
    """the torch optimizers of a stack; refuses unknown settings"""
    stack, lr, decay, adamw = config["stack"], config["lr"], config["weight_decay"], config["adamw"]
    matrix = dict(config.get("matrix", {}))
    vectors = [p for p in weights.values() if p.ndim == 1]
    hidden = [p for name, p in weights.items() if p.ndim == 2 and name.startswith("blocks.")]
    edges = [p for name, p in weights.items() if p.ndim == 2 and not name.startswith("blocks.")]
    groups = lambda matrices, decay: [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    adam = {"betas": (adamw["beta1"], adamw["beta2"]), "eps": adamw["eps"]}
    if config.get("rule"):
        refuse("[[optimizer.rule]] tables are not repeated here")
    if stack == "adamw":
        made = [torch.optim.AdamW(groups(hidden + edges, decay), lr=lr, **adam)]
    elif stack == "sgd":
        momentum, nesterov = matrix.pop("momentum", 0.9), matrix.pop("nesterov", False)
        made = [DecoupledSgd(groups(hidden + edges, decay), lr=lr, momentum=momentum, nesterov=nesterov)]
    elif stack == "muon":
        muon_in_native_precision()
        scale = MUON_SCALES.get(matrix.pop("scale", "original")) or refuse("torch's Muon has no scale `none`")
        made = [torch.optim.Muon(hidden, lr=lr, weight_decay=decay, momentum=matrix.pop("momentum", 0.95),
                                 nesterov=matrix.pop("nesterov", True), adjust_lr_fn=scale),
                torch.optim.AdamW(groups(edges, adamw["weight_decay"]), lr=adamw["lr"], **adam)]
    else:
        refuse(f"stack {stack!r} is not repeated here; use sgd, adamw or muon")
    if matrix:
        refuse(f"[optimizer.matrix] keys {sorted(matrix)} are not repeated here")
    return made


# ---------------------------------------------------------------------------------- the comparison
def logged_steps(run):
    """0-based step -> the run's train event"""
    events = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    return {event["step"] - 1: event for event in events if event["event"] == "train"}


def initial_weights(path, dtype):
    return {name: torch.nn.Parameter(value.to(dtype)) for name, value in load_file(path).items()}


def follow(config, weights, tokens, logged, steps):
    """trains and yields (step, event of the run, loss, gradient norm, learning rate) for every logged step"""
    model, train = config["model"], config["train"]
    clip = config["optimizer"].get("clip") or math.inf
    optimizers = make_optimizers(config["optimizer"], weights)
    peaks = [(group, group["lr"]) for optimizer in optimizers for group in optimizer.param_groups]
    tables = rope_tables(model, next(iter(weights.values())).dtype)
    for step in range(steps):
        factor = schedule_factor(config["schedule"], step, train["steps"])
        for group, peak in peaks:
            group["lr"] = peak * factor
        inputs, targets = batch(tokens, step, train["data_seed"], train["batch"], model["context"])
        loss = F.cross_entropy(decoder(weights, model, inputs, tables).flatten(0, 1), targets.flatten())
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(weights.values(), clip)
        for optimizer in optimizers:
            optimizer.step()
        if step in logged:
            yield step, logged[step], loss.item(), norm.item(), config["optimizer"]["lr"] * factor


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
    weights = initial_weights(args.weights, torch.float64 if args.float64 else torch.float32)
    tokens, vocabulary = training_tokens(args.text, config["data"]["tokenizer"], config["data"]["valid_fraction"])
    if weights["embed.weight"].shape[0] != vocabulary:
        refuse(f"{args.text} has {vocabulary} tokens, the embedding {weights['embed.weight'].shape[0]}; is it the text of this run?")
    logged, differences = logged_steps(args.run), []
    print(f"{'step':>5} {'polaron':>12} {'torch':>12} {'difference':>12}   {'norm polaron':>12} {'norm torch':>12}")
    for step, event, loss, norm, lr in follow(config, weights, tokens, logged, args.steps):
        differences.append(abs(event["loss"] - loss))
        print(f"{step + 1:5} {event['loss']:12.7f} {loss:12.7f} {event['loss'] - loss:12.2e}   {event['grad_norm']:12.7f} {norm:12.7f}")
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
