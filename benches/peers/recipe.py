"""What every peer must know of a polaron run: its tokens, batches, schedule and model. Needs numpy only."""

import math
import sys
from pathlib import Path

import numpy as np

U64 = 2**64 - 1

# Keys of [model] that configurations of earlier versions lack, and their defaults.
DEFAULTS = {
    "kv_heads": 0, "head_dim": 0, "norm_eps": 1e-5, "norm_bias": False, "post_norm": False, "qk_norm": "none", "rope_base": 1e4,
    "rope_base_sliding": 0.0, "attention_bias": False, "sinks": False, "sliding_window": 32, "full_every": 1,
    "feed_forward_bias": False, "experts": 0, "top_k": 0, "router": "softmax_then_top_k", "expert_bias": False,
    "aux_load_balance": 0.0, "aux_z": 0.0, "scale_embedding": False, "parametrization": "standard", "vocab_size": 0,
}  # fmt: skip
# The values that the peers can repeat, where they cannot repeat all.
REPEATED = {
    "norm_bias": [False], "attention_bias": [False], "sinks": [False], "feed_forward_bias": [False], "expert_bias": [False],
    "router": ["softmax_then_top_k"], "feed_forward": ["gelu", "swi_glu", "ge_glu"], "aux_load_balance": [0], "aux_z": [0],
    "parametrization": ["standard"],
}  # fmt: skip


def refuse(message):
    print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    sys.exit(2)


# ---------------------------------------------------------------------------------- data
def splitmix64(state):
    """first output of the SplitMix64 generator whose state is `state`"""
    z = (state + 0x9E3779B97F4A7C15) & U64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & U64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & U64
    return z ^ (z >> 31)


def training_tokens(path, tokenizer, valid_fraction):
    """tokens of the training split, and the number of different tokens"""
    raw = Path(path).read_bytes()
    text = raw.decode("utf-8") if tokenizer == "char" else raw
    vocabulary = sorted(set(text)) if tokenizer == "char" else range(256)
    index = {c: i for i, c in enumerate(vocabulary)}
    tokens = np.array([index[c] for c in text], dtype=np.int64)
    return tokens[: int(len(tokens) * (1.0 - valid_fraction))], len(vocabulary)


def batch(tokens, step, data_seed, rows, context):
    """inputs and targets [rows, context] of a 0-based step; depends only on its arguments"""
    draws = (splitmix64((splitmix64(data_seed) + step * rows + i) & U64) for i in range(rows))
    starts = np.array([(x * (len(tokens) - context)) >> 64 for x in draws])
    at = starts[:, None] + np.arange(context)
    return tokens[at], tokens[at + 1]


# ---------------------------------------------------------------------------------- model
def model_of(config):
    """the [model] table of config.toml with every key, and the sizes that follow from others; refuses what is not repeated"""
    model = DEFAULTS | config["model"]
    for key, values in REPEATED.items():
        if model[key] not in values:
            refuse(f"model.{key} = {model[key]!r} is not repeated here; use one of {values}")
    model["kv_heads"] = model["kv_heads"] or model["heads"]
    model["head_dim"] = model["head_dim"] or model["d_model"] // model["heads"]
    return model


def window(model, layer):
    """how many tokens a query of a 0-based layer sees, itself included; None if it sees the whole context"""
    slides = (layer + 1) % model["full_every"] != 0
    return model["sliding_window"] if slides and model["sliding_window"] < model["context"] else None


def rope_angles(model, layer):
    """angles [context, head_dim / 2] of a layer, in float64; None without rotary positions"""
    if model["position"] != "rotary":
        return None
    slides = (layer + 1) % model["full_every"] != 0
    base = (slides and model["rope_base_sliding"]) or model["rope_base"]
    half = model["head_dim"] // 2
    return np.outer(np.arange(model["context"]), 1.0 / base ** (np.arange(half) / half))


# ---------------------------------------------------------------------------------- schedule
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


# ---------------------------------------------------------------------------------- optimizer
def is_hidden(name, shape):
    """whether a matrix optimizer steps this weight: the matrices of the blocks, without the routers"""
    return name.startswith("blocks.") and len(shape) > 1 and not name.endswith(".router.weight")


def muon_settings(config):
    """momentum, nesterov and scale of the stack `muon`; refuses other keys"""
    matrix = dict(config.get("matrix", {}))
    found = matrix.pop("momentum", 0.95), matrix.pop("nesterov", True), matrix.pop("scale", "original")
    refuse_keys(config, matrix)
    return found


def refuse_keys(config, matrix):
    """refuses what is left of [optimizer.matrix], and other parts of [optimizer] that no peer repeats"""
    if matrix:
        refuse(f"[optimizer.matrix] keys {sorted(matrix)} are not repeated here")
    if config.get("rule"):
        refuse("[[optimizer.rule]] tables are not repeated here")
