"""Forward pass of the architectures of `qwen3-tiny`, `gemma3-tiny`, `olmoe-tiny` and `gpt-oss-tiny`, in numpy and float64:
plain, obvious, slow.

Writes `qwen3.json`, `gemma3.json`, `olmoe.json` and `gpt_oss.json` beside itself, in the form of those of `forward.py`, and
in each the number of parameters that the preset itself has with 65 tokens, counted tensor by tensor.
Names and layouts are those of `polaron_models::to_exported`: a projection is [output, input], a stack of experts
[experts, input, output].

    python3 modern.py
"""

import json
import math
import pathlib

import numpy as np

from forward import loss, rms_norm

VOCAB, BATCH = 11, 3

# The presets: what they are, in words of their own, not in those of the program under test.
QWEN3 = dict(d=128, layers=4, heads=4, kv=2, head=64, hidden=384, context=128, base=[1e6], eps=1e-6, qk="head")
GEMMA3 = dict(
    d=144, layers=6, heads=2, kv=1, head=64, hidden=864, context=128, base=[1e4] * 5 + [1e6], eps=1e-6, qk="head",
    windows=[32] * 5 + [None], plus_one=True, post=True, act="gelu_tanh", embed_scale=True,
)
OLMOE = dict(
    d=128, layers=4, heads=4, kv=4, head=32, hidden=64, context=128, base=[1e4], eps=1e-5, qk="full", experts=16, top_k=4,
)
GPT_OSS = dict(
    d=128, layers=4, heads=8, kv=1, head=32, hidden=128, context=128, base=[1.5e5], eps=1e-5, windows=[32, None],
    act="clamped", experts=8, top_k=2, softmax_over_top_k=True, biases=True, sinks=True,
)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def softmax(x):
    exps = np.exp(x - x.max())
    return exps / exps.sum()


def norm(x, gain, c):
    shifted = 1.0 + gain if c.get("plus_one") else gain
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + c["eps"]) * shifted


def turn(x, base):
    """Rotary positions for one head, [context, head]: first half pairs with second half."""
    half = x.shape[1] // 2
    out = np.empty_like(x)
    for position in range(x.shape[0]):
        for pair in range(half):
            angle = position * base ** (-2.0 * pair / x.shape[1])
            a, b = x[position, pair], x[position, pair + half]
            out[position, pair] = a * math.cos(angle) - b * math.sin(angle)
            out[position, pair + half] = b * math.cos(angle) + a * math.sin(angle)
    return out


def project(x, w, path):
    return x @ w[f"{path}.weight"].T + w.get(f"{path}.bias", 0.0)


def attention(x, w, path, c, layer):
    heads, kv, head = c["heads"], c["kv"], c["head"]
    base = c["base"][layer % len(c["base"])]
    window = c.get("windows", [None])[layer % len(c.get("windows", [None]))]
    q, k, v = (project(x, w, f"{path}.{name}") for name in ("wq", "wk", "wv"))
    if c.get("qk") == "full":
        q, k = norm(q, w[f"{path}.q_norm.weight"], c), norm(k, w[f"{path}.k_norm.weight"], c)
    mixed = np.empty_like(q)
    for h in range(heads):
        shared = h // (heads // kv)
        part, kv_part = slice(h * head, (h + 1) * head), slice(shared * head, (shared + 1) * head)
        qh, kh, vh = q[:, part], k[:, kv_part], v[:, kv_part]
        if c.get("qk") == "head":
            qh, kh = norm(qh, w[f"{path}.q_norm.weight"], c), norm(kh, w[f"{path}.k_norm.weight"], c)
        qh, kh = turn(qh, base), turn(kh, base)
        for i in range(x.shape[0]):
            first = 0 if window is None else max(0, i + 1 - window)
            scores = qh[i] @ kh[first : i + 1].T / math.sqrt(head)
            if c.get("sinks"):
                scores = np.append(scores, w[f"{path}.sinks"][h])
            weights = softmax(scores)[: i + 1 - first]
            mixed[i, part] = weights @ vh[first : i + 1]
    return project(mixed, w, f"{path}.wo")


def gated(gate, up, c):
    act = c.get("act", "silu")
    if act == "silu":
        return gate * sigmoid(gate) * up
    if act == "gelu_tanh":
        return 0.5 * gate * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (gate + 0.044715 * gate**3))) * up
    gate, up = np.minimum(gate, 7.0), np.clip(up, -7.0, 7.0)
    return (up + 1.0) * gate * sigmoid(1.702 * gate)


def chosen(logits, k):
    """The k largest, the earlier one of equals."""
    return np.argsort(-logits, kind="stable")[:k]


def experts(x, w, path, c):
    out = np.zeros_like(x)
    for t in range(x.shape[0]):
        logits = project(x[t], w, f"{path}.router")
        top = chosen(logits, c["top_k"])
        weights = softmax(logits[top]) if c.get("softmax_over_top_k") else softmax(logits)[top]
        for e, weight in zip(top, weights):

            def stack(name, row):
                return row @ w[f"{path}.{name}.weight"][e] + (w[f"{path}.{name}.bias"][e] if c.get("biases") else 0.0)

            out[t] += weight * stack("down", gated(stack("gate", x[t]), stack("up", x[t]), c))
    return out


def forward(tokens, w, c):
    """tokens: [context]; gives logits, [context, VOCAB]."""
    x = w["embed.weight"][tokens]
    if c.get("embed_scale"):
        x = x * math.sqrt(c["d"])
    for layer in range(c["layers"]):
        block = f"blocks.{layer}"
        y = attention(norm(x, w[f"{block}.norm1.weight"], c), w, f"{block}.attn", c, layer)
        x = x + (norm(y, w[f"{block}.post_norm1.weight"], c) if c.get("post") else y)
        y = norm(x, w[f"{block}.norm2.weight"], c)
        if "experts" in c:
            y = experts(y, w, f"{block}.moe", c)
        else:
            gate, up = project(y, w, f"{block}.mlp.gate"), project(y, w, f"{block}.mlp.up")
            y = project(gated(gate, up, c), w, f"{block}.mlp.down")
        x = x + (norm(y, w[f"{block}.post_norm2.weight"], c) if c.get("post") else y)
    return norm(x, w["norm.weight"], c) @ w["head.weight"].T


def shapes(c, vocab):
    """Exported name -> shape."""
    d, q, k, f = c["d"], c["heads"] * c["head"], c["kv"] * c["head"], c["hidden"]
    result = {"embed.weight": (vocab, d), "norm.weight": (d,), "head.weight": (vocab, d)}
    for layer in range(c["layers"]):
        block = f"blocks.{layer}"
        result |= {f"{block}.norm1.weight": (d,), f"{block}.norm2.weight": (d,)}
        if c.get("post"):
            result |= {f"{block}.post_norm1.weight": (d,), f"{block}.post_norm2.weight": (d,)}
        for name, outputs, inputs in (("wq", q, d), ("wk", k, d), ("wv", k, d), ("wo", d, q)):
            result[f"{block}.attn.{name}.weight"] = (outputs, inputs)
            if c.get("biases"):
                result[f"{block}.attn.{name}.bias"] = (outputs,)
        if "qk" in c:
            result[f"{block}.attn.q_norm.weight"] = (c["head"] if c["qk"] == "head" else q,)
            result[f"{block}.attn.k_norm.weight"] = (c["head"] if c["qk"] == "head" else k,)
        if c.get("sinks"):
            result[f"{block}.attn.sinks"] = (c["heads"],)
        if "experts" not in c:
            result |= {f"{block}.mlp.gate.weight": (f, d), f"{block}.mlp.up.weight": (f, d), f"{block}.mlp.down.weight": (d, f)}
            continue
        e = c["experts"]
        result[f"{block}.moe.router.weight"] = (e, d)
        for name, inputs, outputs in (("gate", d, f), ("up", d, f), ("down", f, d)):
            result[f"{block}.moe.{name}.weight"] = (e, inputs, outputs)
            if c.get("biases"):
                result[f"{block}.moe.{name}.bias"] = (e, outputs)
        if c.get("biases"):
            result[f"{block}.moe.router.bias"] = (e,)
    return result


def slope(w, name, tokens, targets, c):
    """Change of the loss per length when tensor `name` moves along sin(1), sin(2), ..."""
    direction = np.sin(np.arange(1, w[name].size + 1)).reshape(w[name].shape)
    direction /= np.linalg.norm(direction)

    def loss_at(step):
        moved = w | {name: w[name] + step * direction}
        return loss(np.stack([forward(row, moved, c) for row in tokens]), targets)

    # Short steps, so that no choice of experts and no clamp changes on the way; the error is about step^2 + 1e-16 / step.
    return (loss_at(1e-6) - loss_at(-1e-6)) / 2e-6


def fixture(preset, sizes, keys, seed):
    c = preset | sizes
    random = np.random.default_rng(seed)
    tensors, w = {}, {}
    for name, shape in shapes(c, VOCAB).items():
        gain = "norm" in name
        middle = 1.0 if gain and not c.get("plus_one") else 0.0
        # Biases so wide that clamped gates and ups reach their limits.
        width = 5.0 if name.endswith(("gate.bias", "up.bias")) else 0.4
        values = random.normal(middle, width, shape).round(3)
        tensors[name] = {"shape": shape, "data": values.flatten().tolist()}
        # What a 32-bit program reads from these decimals.
        w[name] = values.astype(np.float32).astype(np.float64)
    tokens = random.integers(0, VOCAB, (BATCH, c["context"]))
    targets = random.integers(0, VOCAB, (BATCH, c["context"]))
    logits = np.stack([forward(row, w, c) for row in tokens])
    return keys | {
        "d_model": c["d"],
        "layers": c["layers"],
        "heads": c["heads"],
        "kv_heads": c["kv"],
        "head_dim": c["head"],
        "context": c["context"],
        "hidden": c["hidden"],
        "vocab_size": VOCAB,
        "preset_parameters": sum(math.prod(shape) for shape in shapes(preset, 65).values()),
        "tensors": tensors,
        "tokens": tokens.tolist(),
        "targets": targets.tolist(),
        "logits": logits.tolist(),
        "loss": loss(logits, targets),
        "slopes": {name: slope(w, name, tokens, targets, c) for name in w},
    }


if __name__ == "__main__":
    assert np.allclose(norm(np.arange(4.0), np.ones(4), {"eps": 1e-5}), rms_norm(np.arange(4.0), np.ones(4)))
    folder = pathlib.Path(__file__).parent
    small = dict(d=16, layers=2, context=8)
    for file, preset, sizes, keys in (
        ("qwen3", QWEN3, small | dict(heads=4, kv=2, head=6, hidden=24), {}),
        (
            "gemma3",
            GEMMA3,
            small | dict(layers=3, heads=2, kv=1, head=6, hidden=24, windows=[3, 3, None], base=[1e4, 1e4, 1e6]),
            dict(sliding_window=3, full_every=3),
        ),
        ("olmoe", OLMOE, small | dict(heads=2, kv=2, head=8, hidden=6, experts=5, top_k=2), dict(experts=5, top_k=2)),
        (
            "gpt_oss",
            GPT_OSS,
            small | dict(heads=4, kv=2, head=6, hidden=6, experts=4, top_k=2, windows=[3, None]),
            dict(sliding_window=3, experts=4, top_k=2),
        ),
    ):
        text = json.dumps(fixture(preset, sizes, keys, len(file)))
        (folder / f"{file}.json").write_text(text + "\n")
