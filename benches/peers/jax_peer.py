"""polaron's decoders and optimizers in JAX: the whole step is one compiled program that overwrites weights and states."""

import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import recipe
from recipe import refuse
from safetensors.numpy import load_file

NEWTON_SCHULZ = 3.4445, -4.7750, 2.0315  # torch's coefficients
NEWTON_SCHULZ_STEPS, NORM_EPS = 5, 1e-7
CLIP_EPS = 1e-6  # torch's
TILE = 128  # rows of an expert that are multiplied together
QUERIES, BLOCKS = 256, 8  # how many attend together at least, and in how many blocks at most


def initial_weights(path):
    return {name: jnp.array(value) for name, value in load_file(path).items()}


# ---------------------------------------------------------------------------------- model
def rope(x, angles):
    """rotate-half pairing: entry i turns with entry i + half; x is [batch, context, heads, head_dim]"""
    cos, sin = (f(angles).astype(np.float32)[:, None, :] for f in (np.cos, np.sin))
    a, b = jnp.split(x, 2, -1)
    return jnp.concatenate((a * cos - b * sin, a * sin + b * cos), -1)


def attention(q, k, v, window):
    """Softmax attention of [batch, context, heads, head_dim], keys and values with fewer heads, to the shape of the queries.

    Long windows head after head, in blocks of queries with only the keys that one of them sees, and computed again in the backward pass:
    at 2048 tokens in a third of the time of `jax.nn.dot_product_attention`, and in less memory.
    """
    batch, context, heads, head_dim = q.shape
    seen = lambda queries, keys: (queries[:, None] >= keys) & (queries[:, None] < keys + window)
    if context <= QUERIES:
        return jax.nn.dot_product_attention(q, k, v, mask=seen(np.arange(context), np.arange(context)))
    size = max(QUERIES, -(-context // BLOCKS))

    def block(q, k, v, first):
        last, start = min(first + size, context), max(0, first + 1 - window)
        scores = q[first:last] @ k[start:last].T * head_dim**-0.5
        scores = jnp.where(seen(np.arange(first, last), np.arange(start, last)), scores, -jnp.inf)
        return jax.nn.softmax(scores) @ v[start:last]

    @jax.checkpoint
    def head(qkv):
        return jnp.concatenate([block(*qkv, first) for first in range(0, context, size)])

    single = lambda x: jnp.repeat(x, heads // x.shape[2], 2).transpose(0, 2, 1, 3).reshape(batch * heads, context, head_dim)
    mixed = jax.lax.map(head, (single(q), single(k), single(v)))
    return mixed.reshape(batch, heads, context, head_dim).transpose(0, 2, 1, 3)


def gated(kind, gate, up):
    return (jax.nn.silu(gate) if kind == "swi_glu" else jax.nn.gelu(gate, approximate=True)) * up


def experts(x, kind, top_k, router, gate, up, down):
    """Every token of [tokens, d_model] through its `top_k` experts, weighted by the softmax over all experts.

    XLA wants products of fixed size: the tokens are sorted by expert and every expert's are filled up to whole tiles.  Of the exact forms
    that were tried on a CPU this one is the fastest: all experts on all tokens take twice as long, `jax.lax.ragged_dot` far longer.
    """
    (tokens, _), count = x.shape, router.shape[0]
    weights, chosen = jax.lax.top_k(jax.nn.softmax(x @ router.T), top_k)
    order = jnp.argsort(chosen.ravel())
    expert, sizes = chosen.ravel()[order], jnp.bincount(chosen.ravel(), length=count)
    tiles, most = -(-sizes // TILE), -(-tokens * top_k // TILE) + count
    ends = jnp.cumsum(tiles)
    # Where the tokens of a row of tiles come from; beyond the last token where a tile is not full.
    place = jnp.arange(tokens * top_k) - (jnp.cumsum(sizes) - sizes)[expert] + TILE * (ends - tiles)[expert]
    token = jnp.full(most * TILE, tokens).at[place].set(order // top_k)
    weight = jnp.zeros(most * TILE).at[place].set(weights.ravel()[order])
    of = jnp.searchsorted(ends, jnp.arange(most), side="right").clip(0, count - 1)
    rows = x.at[token].get(mode="fill", fill_value=0).reshape(most, TILE, -1)
    rows = gated(kind, rows @ gate[of], rows @ up[of]) @ down[of]
    return jnp.zeros_like(x).at[token].add(rows.reshape(most * TILE, -1) * weight[:, None], mode="drop")


def decoder(weights, model, tokens):
    """logits [batch, context, vocab]; `weights` by exported name, `model` is what recipe.model_of returns"""
    eps, head_dim, kind = model["norm_eps"], model["head_dim"], model["feed_forward"]

    def norm(name, x):
        gain = weights[f"{name}.weight"]
        if model["norm"] == "layer_norm":
            x = x - x.mean(-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + eps)
        return x * (gain + 1 if model["norm"] == "rms_norm_plus_one" else gain)

    def attend(layer, block, x):
        linear = lambda name, x: x @ weights[f"{block}.attn.{name}.weight"].T
        if model["projection"] == "fused":
            width, shared = model["heads"] * head_dim, model["kv_heads"] * head_dim
            q, k, v = jnp.split(linear("qkv", x), (width, width + shared), -1)
        else:
            q, k, v = (linear(name, x) for name in ("wq", "wk", "wv"))
        if model["qk_norm"] == "full_width":
            q, k = norm(f"{block}.attn.q_norm", q), norm(f"{block}.attn.k_norm", k)
        q, k, v = (x.reshape(*x.shape[:2], -1, head_dim) for x in (q, k, v))
        if model["qk_norm"] == "per_head":
            q, k = norm(f"{block}.attn.q_norm", q), norm(f"{block}.attn.k_norm", k)
        angles, window = recipe.rope_angles(model, layer), recipe.window(model, layer)
        if angles is not None:
            q, k = rope(q, angles), rope(k, angles)
        mixed = attention(q, k, v, window or x.shape[1])
        return linear("wo", mixed.reshape(*mixed.shape[:2], -1))

    def feed(block, x):
        if model["experts"]:
            parts = [weights[f"{block}.moe.{name}.weight"] for name in ("router", "gate", "up", "down")]
            return experts(x.reshape(-1, x.shape[-1]), kind, model["top_k"], *parts).reshape(x.shape)
        linear = lambda name, x: x @ weights[f"{block}.mlp.{name}.weight"].T
        if kind == "gelu":
            return linear("down", jax.nn.gelu(linear("up", x), approximate=False))
        return linear("down", gated(kind, linear("gate", x), linear("up", x)))

    after = norm if model["post_norm"] else lambda _, x: x
    x = weights["embed.weight"][tokens]
    if model["scale_embedding"]:
        x = x * model["d_model"] ** 0.5
    if model["position"] == "learned":
        x = x + weights["position.weight"][: tokens.shape[1]]
    for layer in range(model["layers"]):
        block = f"blocks.{layer}"
        x = x + after(f"{block}.post_norm1", attend(layer, block, norm(f"{block}.norm1", x)))
        x = x + after(f"{block}.post_norm2", feed(block, norm(f"{block}.norm2", x)))
    return norm("norm", x) @ weights["embed.weight" if model["tied_head"] else "head.weight"].T


def loss_of(weights, model, inputs, targets):
    logits = decoder(weights, model, inputs)
    chosen = jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]
    return (jax.nn.logsumexp(logits, -1) - chosen).mean()


# ---------------------------------------------------------------------------------- optimizers
def polar(x):
    """the approximate polar factor of a matrix by torch's Newton-Schulz iteration"""
    a, b, c = NEWTON_SCHULZ
    wide = x if x.shape[0] <= x.shape[1] else x.T
    wide = wide / jnp.maximum(jnp.linalg.norm(wide), NORM_EPS)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = wide @ wide.T
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return wide if x.shape[0] <= x.shape[1] else wide.T


def adamw(adam, lr, decay):
    """the states of a weight, and its step"""
    beta1, beta2, eps = adam["beta1"], adam["beta2"], adam["eps"]

    def step(weight, grad, states, factor, number):
        mean, square = states
        mean, square = beta1 * mean + (1 - beta1) * grad, beta2 * square + (1 - beta2) * grad * grad
        corrected = jnp.sqrt(square) / jnp.sqrt(1 - beta2**number) + eps
        weight = weight * (1 - factor * lr * decay) - factor * lr / (1 - beta1**number) * mean / corrected
        return weight, (mean, square)

    return lambda weight: (jnp.zeros_like(weight), jnp.zeros_like(weight)), step


def muon(settings, lr, decay):
    """the same; a stack [experts, inputs, outputs] is stepped matrix by matrix"""
    momentum, nesterov, scale = settings

    def factor_of(outputs, inputs):
        scales = {"original": max(1, outputs / inputs) ** 0.5, "match_rms_adamw": 0.2 * max(outputs, inputs) ** 0.5}
        return (scales | {"spectral": (outputs / inputs) ** 0.5, "none": 1.0})[scale]

    def step(weight, grad, mean, factor, _):
        mean = momentum * mean + (1 - momentum) * grad
        direction = (1 - momentum) * grad + momentum * mean if nesterov else mean
        if weight.ndim == 3:
            update = jax.vmap(polar)(direction) * factor_of(weight.shape[2], weight.shape[1])
        else:
            update = polar(direction) * factor_of(*weight.shape)
        return weight * (1 - factor * lr * decay) - factor * lr * update, mean

    return jnp.zeros_like, step


def make_optimizers(config, weights):
    """by name of a weight, how its states begin and how it is stepped; refuses unknown settings"""
    stack, lr, decay, adam = config["stack"], config["lr"], config["weight_decay"], config["adamw"]
    if stack == "adamw":
        recipe.refuse_keys(config, config.get("matrix", {}))
        rules = {True: adamw(adam, lr, decay), False: adamw(adam, lr, decay), None: adamw(adam, lr, 0.0)}
    elif stack == "muon":
        edges = lambda decay: adamw(adam, adam["lr"], decay)
        rules = {True: muon(recipe.muon_settings(config), lr, decay), False: edges(adam["weight_decay"]), None: edges(0.0)}
    else:
        refuse(f"stack {stack!r} is not repeated here; use adamw or muon")
    return {name: rules[None if w.ndim == 1 else recipe.is_hidden(name, w.shape)] for name, w in weights.items()}


# ---------------------------------------------------------------------------------- training
class Training:
    """The steps of a run: its configuration, its first weights, its tokens"""

    def __init__(self, config, weights, tokens):
        self.config, self.weights, self.tokens = config, weights, tokens
        model, clip = recipe.model_of(config), config["optimizer"].get("clip") or math.inf
        optimizers = make_optimizers(config["optimizer"], weights)
        self.states = {name: begin(weights[name]) for name, (begin, _) in optimizers.items()}

        def step(weights, states, inputs, targets, factor, number):
            loss, grads = jax.value_and_grad(loss_of)(weights, model, inputs, targets)
            norm = jnp.sqrt(sum(jnp.square(grad).sum() for grad in grads.values()))
            shrink = jnp.minimum(1.0, clip / (norm + CLIP_EPS))
            made = {
                name: optimizers[name][1](weight, grads[name] * shrink, states[name], factor, number)
                for name, weight in weights.items()
            }
            return {name: weight for name, (weight, _) in made.items()}, {name: state for name, (_, state) in made.items()}, loss, norm

        self.program = jax.jit(step, donate_argnums=(0, 1))

    def step(self, index):
        """a 0-based step: loss and norm of the gradient before it, seconds of it all; compiled at the first"""
        start = time.perf_counter()
        train, model = self.config["train"], self.config["model"]
        factor = recipe.schedule_factor(self.config["schedule"], index, train["steps"])
        batch = recipe.batch(self.tokens, index, train["data_seed"], train["batch"], model["context"])
        inputs, targets = (tokens.astype(np.int32) for tokens in batch)
        made = self.program(self.weights, self.states, inputs, targets, np.float32(factor), np.float32(index + 1))
        self.weights, self.states, loss, norm = jax.block_until_ready(made)
        return {"loss": float(loss), "norm": float(norm), "seconds": time.perf_counter() - start, "update": None}
