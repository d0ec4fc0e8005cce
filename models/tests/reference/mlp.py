"""The perceptron of `mlp.rs` in numpy and float64, weights included: prints the numbers of its test.

    python3 mlp.py
"""

import math

import numpy as np

MASK = (1 << 64) - 1
X = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]])
LABELS = [2, 0]
INPUTS, WIDTH, OUTPUTS, SEED = 3, 4, 3, 5


def split_mix(z):
    z = (z + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def normal(path, shape, std):
    """The rule on the front page of `polaron-models`; shape is [d_in, d_out]."""
    key = split_mix(SEED)
    for byte in path.encode():
        key = split_mix(key ^ byte)
    values = []
    for pair in range((math.prod(shape) + 1) // 2):
        u = ((split_mix((key + 2 * pair) & MASK) >> 11) + 1) / 2**53
        v = (split_mix((key + 2 * pair + 1) & MASK) >> 11) / 2**53
        radius = std * math.sqrt(-2 * math.log(u))
        values += [radius * math.cos(2 * math.pi * v), radius * math.sin(2 * math.pi * v)]
    return np.array(values[: math.prod(shape)]).reshape(shape)


def gelu(x):
    return x * 0.5 * (1.0 + np.vectorize(math.erf)(x / math.sqrt(2.0)))


ACTIVATIONS = {
    "Relu": (lambda x: np.maximum(x, 0.0), math.sqrt(2.0)),
    "Gelu": (gelu, math.sqrt(2.0)),
    "Silu": (lambda x: x / (1.0 + np.exp(-x)), math.sqrt(2.0)),
    "Tanh": (np.tanh, 1.0),
}

for name, (activation, gain) in ACTIVATIONS.items():
    first = normal("layers.0.weight", (INPUTS, WIDTH), gain / math.sqrt(INPUTS))
    second = normal("layers.1.weight", (WIDTH, WIDTH), gain / math.sqrt(WIDTH))
    head = normal("head.weight", (WIDTH, OUTPUTS), 1.0 / math.sqrt(WIDTH))
    logits = activation(activation(X @ first) @ second) @ head
    loss = np.mean([np.log(np.exp(row).sum()) - row[label] for row, label in zip(logits, LABELS)])
    print(f"        (Activation::{name}, {logits.flatten().tolist()}, {float(loss)!r}, {float((logits**2).mean())!r}),")
