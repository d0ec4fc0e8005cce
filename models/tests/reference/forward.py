"""Forward pass of the first architectures, in numpy and float64: plain, obvious, slow.

Writes `nanogpt.json`, `gpt2.json` (with every bias, and GELU by tanh) and `llama.json` beside itself: a tiny model of each kind with random weights
(gains too, so that a forgotten gain shows), random tokens, the logits and loss they must give, and
the slope of the loss in every tensor along one direction.
Names and layouts are those of `polaron_models::to_exported`: a projection is [output, input].

    python3 forward.py
"""

import json
import math
import pathlib

import numpy as np

D, LAYERS, HEADS, CONTEXT, VOCAB = 16, 2, 2, 8, 11
HEAD_DIM = D // HEADS
EPSILON = 1e-5
BATCH = 3


def layer_norm(x, weights, path):
    centred = x - x.mean(-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
    return normal * weights[f"{path}.weight"] + weights.get(f"{path}.bias", 0.0)


def rms_norm(x, weights, path):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPSILON) * weights[f"{path}.weight"]


def project(x, weights, path):
    return x @ weights[f"{path}.weight"].T + weights.get(f"{path}.bias", 0.0)


def gelu(x):
    erf = np.vectorize(math.erf)
    return x * 0.5 * (1.0 + erf(x / math.sqrt(2.0)))


def gelu_by_tanh(x):
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def silu(x):
    return x / (1.0 + np.exp(-x))


def turn(x):
    """Rotary positions for one head, [context, HEAD_DIM]: first half pairs with second half."""
    half = HEAD_DIM // 2
    out = np.empty_like(x)
    for position in range(x.shape[0]):
        for pair in range(half):
            angle = position * 10_000.0 ** (-2.0 * pair / HEAD_DIM)
            a, b = x[position, pair], x[position, pair + half]
            out[position, pair] = a * math.cos(angle) - b * math.sin(angle)
            out[position, pair + half] = b * math.cos(angle) + a * math.sin(angle)
    return out


def attention(x, weights, path, rotary):
    """x: [context, D]."""
    if f"{path}.qkv.weight" in weights:
        q, k, v = np.split(project(x, weights, f"{path}.qkv"), 3, axis=-1)
    else:
        q, k, v = (project(x, weights, f"{path}.{name}") for name in ("wq", "wk", "wv"))
    mixed = np.empty_like(x)
    for head in range(HEADS):
        part = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
        qh, kh, vh = q[:, part], k[:, part], v[:, part]
        if rotary:
            qh, kh = turn(qh), turn(kh)
        for i in range(x.shape[0]):
            scores = qh[i] @ kh[: i + 1].T / math.sqrt(HEAD_DIM)
            exps = np.exp(scores - scores.max())
            mixed[i, part] = exps / exps.sum() @ vh[: i + 1]
    return project(mixed, weights, f"{path}.wo")


def feed_forward(x, weights, path):
    up = project(x, weights, f"{path}.up")
    if f"{path}.gate.weight" in weights:
        hidden = silu(project(x, weights, f"{path}.gate")) * up
    elif f"{path}.up.bias" in weights:
        hidden = gelu_by_tanh(up)
    else:
        hidden = gelu(up)
    return project(hidden, weights, f"{path}.down")


def forward(tokens, weights):
    """tokens: [context]; gives logits, [context, VOCAB]."""
    rotary = "position.weight" not in weights
    norm = rms_norm if rotary else layer_norm
    x = weights["embed.weight"][tokens]
    if not rotary:
        x = x + weights["position.weight"][: len(tokens)]
    for index in range(LAYERS):
        block = f"blocks.{index}"
        x = x + attention(norm(x, weights, f"{block}.norm1"), weights, f"{block}.attn", rotary)
        x = x + feed_forward(norm(x, weights, f"{block}.norm2"), weights, f"{block}.mlp")
    x = norm(x, weights, "norm")
    return x @ weights.get("head.weight", weights["embed.weight"]).T


def loss(logits, targets):
    """Mean cross-entropy in nats per token."""
    shifted = logits - logits.max(-1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return -np.take_along_axis(log_probabilities, targets[..., None], -1).mean()


def slope(weights, name, tokens, targets):
    """Change of the loss per length when tensor `name` moves along sin(1), sin(2), ..."""
    weight = weights[name]
    direction = np.sin(np.arange(1, weight.size + 1)).reshape(weight.shape)
    direction /= np.linalg.norm(direction)

    def loss_at(step):
        moved = weights | {name: weight + step * direction}
        return loss(np.stack([forward(row, moved) for row in tokens]), targets)

    # The error of a central difference is of the order of step^2 = 1e-8.
    return (loss_at(1e-4) - loss_at(-1e-4)) / 2e-4


def shapes(kind, hidden):
    """Exported name -> shape."""
    gpt = kind in ("nanogpt", "gpt2")
    result = {"embed.weight": (VOCAB, D), "norm.weight": (D,)}
    if gpt:
        result["position.weight"] = (CONTEXT, D)
    else:
        result["head.weight"] = (VOCAB, D)
    for index in range(LAYERS):
        block = f"blocks.{index}"
        result |= {f"{block}.norm1.weight": (D,), f"{block}.norm2.weight": (D,)}
        names = {"qkv": 3 * D} if gpt else {"wq": D, "wk": D, "wv": D}
        result |= {f"{block}.attn.{name}.weight": (size, D) for name, size in names.items()}
        result[f"{block}.attn.wo.weight"] = (D, D)
        names = ("up",) if gpt else ("gate", "up")
        result |= {f"{block}.mlp.{name}.weight": (hidden, D) for name in names}
        result[f"{block}.mlp.down.weight"] = (D, hidden)
    if kind == "gpt2":
        vectors = [name for name in result if name not in ("embed.weight", "position.weight")]
        result |= {name.replace(".weight", ".bias"): result[name][:1] for name in vectors}
    return result


def fixture(kind, hidden, seed):
    random = np.random.default_rng(seed)
    tensors, weights = {}, {}
    for name, shape in shapes(kind, hidden).items():
        # Far larger than first weights, so that softmax and nonlinearities leave their flat parts.
        gain = len(shape) == 1 and name.endswith("weight")
        values = random.normal(1.0 if gain else 0.0, 0.4, shape).round(3)
        tensors[name] = {"shape": shape, "data": values.flatten().tolist()}
        # What a 32-bit program reads from these decimals.
        weights[name] = values.astype(np.float32).astype(np.float64)
    tokens = random.integers(0, VOCAB, (BATCH, CONTEXT))
    targets = random.integers(0, VOCAB, (BATCH, CONTEXT))
    logits = np.stack([forward(row, weights) for row in tokens])
    keys = ("attention_bias", "norm_bias", "feed_forward_bias") if kind == "gpt2" else ()
    return ({"feed_forward": "gelu_tanh"} if keys else {}) | {key: True for key in keys} | {
        "d_model": D,
        "layers": LAYERS,
        "heads": HEADS,
        "context": CONTEXT,
        "hidden": hidden,
        "vocab_size": VOCAB,
        "tensors": tensors,
        "tokens": tokens.tolist(),
        "targets": targets.tolist(),
        "logits": logits.tolist(),
        "loss": loss(logits, targets),
        "slopes": {name: slope(weights, name, tokens, targets) for name in weights},
    }


if __name__ == "__main__":
    folder = pathlib.Path(__file__).parent
    for kind, hidden, seed in (("nanogpt", 32, 1), ("llama", 24, 2), ("gpt2", 32, 3)):
        text = json.dumps(fixture(kind, hidden, seed))
        (folder / f"{kind}.json").write_text(text + "\n")
