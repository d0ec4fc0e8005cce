"""polaron's decoders and optimizers in PyTorch, with the weights that `polaron export` writes."""

import inspect
import math
import textwrap
import time

import recipe
import torch
import torch.nn.functional as F
import torch.optim._muon as torch_muon
from recipe import refuse
from safetensors.torch import load_file

MUON_SCALES = {"original": "original", "match_rms_adamw": "match_rms_adamw", "spectral": "spectral_unclamped"}  # ours -> torch's


def initial_weights(path, dtype):
    return {name: torch.nn.Parameter(value.to(dtype)) for name, value in load_file(path).items()}


# ---------------------------------------------------------------------------------- model
def places_of(model, dtype):
    """for every layer the cosines and sines of its positions, [context, head_dim / 2], or None, and the mask of its window, or None"""
    made = {}

    def place(layer):
        angles, window = recipe.rope_angles(model, layer), recipe.window(model, layer)
        key = (None if angles is None else angles[1:].tobytes(), window)
        if key not in made:
            turn = None if angles is None else tuple(f(torch.from_numpy(angles)).to(dtype) for f in (torch.cos, torch.sin))
            made[key] = turn, None if window is None else window_mask(model["context"], window, dtype)
        return made[key]

    return [place(layer) for layer in range(model["layers"])]


def window_mask(context, window, dtype):
    """what is added to the scores [queries, keys]: zero for the last `window` keys up to the query, else minus infinity"""
    seen = torch.ones(context, context, dtype=torch.bool).tril().triu(1 - window)
    return torch.zeros(context, context, dtype=dtype).masked_fill(~seen, -torch.inf)


def rope(x, tables):
    """rotate-half pairing: entry i turns with entry i + half; x is [batch, heads, context, head_dim]"""
    cos, sin = tables
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)


def attention(q, k, v, place):
    """softmax attention of [batch, context, heads, head_dim], keys and values with fewer heads, to [batch, context, width]"""
    turn, mask = place
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if turn is not None:
        q, k = rope(q, turn), rope(k, turn)
    fewer = q.shape[1] != k.shape[1]
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=fewer)
    return mixed.transpose(1, 2).flatten(2)


def gated(kind, gate, up):
    return (F.silu(gate) if kind == "swi_glu" else F.gelu(gate, approximate="tanh")) * up


def experts(x, kind, top_k, router, gate, up, down):
    """every token of [tokens, d_model] through its `top_k` experts, weighted by the softmax over all experts"""
    weights, chosen = F.linear(x, router).softmax(-1).topk(top_k)
    order = chosen.flatten().argsort(stable=True)
    ends = torch.bincount(chosen.flatten(), minlength=router.shape[0]).cumsum(0).int()
    product = lambda rows, weights: F.grouped_mm(rows, weights, offs=ends)
    rows = x.index_select(0, order // top_k)
    rows = product(gated(kind, product(rows, gate), product(rows, up)), down)
    rows = rows * weights.flatten().index_select(0, order)[:, None]
    return torch.zeros_like(x).index_add(0, order // top_k, rows)


def decoder(weights, model, tokens, places):
    """logits [batch, context, vocab]; `weights` by exported name, `model` is what recipe.model_of returns, `places` what places_of does"""
    eps, head_dim, kind = model["norm_eps"], model["head_dim"], model["feed_forward"]

    def norm(name, x):
        gain = weights[f"{name}.weight"]
        if model["norm"] == "layer_norm":
            return F.layer_norm(x, gain.shape, gain, None, eps)
        return F.rms_norm(x, gain.shape, gain + 1 if model["norm"] == "rms_norm_plus_one" else gain, eps)

    def queries_and_keys(block, q, k, v):
        heads = lambda x: x.unflatten(-1, (-1, head_dim))
        if model["qk_norm"] == "full_width":
            q, k = norm(f"{block}.attn.q_norm", q), norm(f"{block}.attn.k_norm", k)
        q, k, v = heads(q), heads(k), heads(v)
        if model["qk_norm"] == "per_head":
            q, k = norm(f"{block}.attn.q_norm", q), norm(f"{block}.attn.k_norm", k)
        return q, k, v

    def attend(block, x, place):
        linear = lambda name, x: F.linear(x, weights[f"{block}.attn.{name}.weight"])
        if model["projection"] == "fused":
            width, shared = model["heads"] * head_dim, model["kv_heads"] * head_dim
            parts = linear("qkv", x).split((width, shared, shared), -1)
        else:
            parts = [linear(name, x) for name in ("wq", "wk", "wv")]
        return linear("wo", attention(*queries_and_keys(block, *parts), place))

    def feed(block, x):
        if model["experts"]:
            parts = [weights[f"{block}.moe.{name}.weight"] for name in ("router", "gate", "up", "down")]
            return experts(x.flatten(0, 1), kind, model["top_k"], *parts).view_as(x)
        linear = lambda name, x: F.linear(x, weights[f"{block}.mlp.{name}.weight"])
        inside = F.gelu(linear("up", x)) if kind == "gelu" else gated(kind, linear("gate", x), linear("up", x))
        return linear("down", inside)

    after = norm if model["post_norm"] else lambda _, x: x
    x = weights["embed.weight"][tokens]
    if model["scale_embedding"]:
        x = x * model["d_model"] ** 0.5
    if model["position"] == "learned":
        x = x + weights["position.weight"][: tokens.shape[1]]
    for layer, place in enumerate(places):
        block = f"blocks.{layer}"
        x = x + after(f"{block}.post_norm1", attend(block, norm(f"{block}.norm1", x), place))
        x = x + after(f"{block}.post_norm2", feed(block, norm(f"{block}.norm2", x)))
    return F.linear(norm("norm", x), weights["embed.weight" if model["tied_head"] else "head.weight"])


# ---------------------------------------------------------------------------------- optimizers
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


class MuonOfStacks(torch.optim.Muon):
    """torch's Muon, which takes matrices only, also on stacks [experts, inputs, outputs]: each expert is a matrix of its own"""

    def __init__(self, hidden, **kw):
        self.stacks = {p: [torch.nn.Parameter(expert.mT) for expert in p.data] for p in hidden if p.ndim == 3}
        super().__init__([p for p in hidden if p.ndim == 2] + sum(self.stacks.values(), []), **kw)

    @torch.no_grad()
    def step(self):
        for stack, experts in self.stacks.items():
            for expert, gradient in zip(experts, stack.grad):
                expert.grad = gradient.mT
        super().step()


def make_optimizers(config, weights):
    """the torch optimizers of a stack; refuses unknown settings"""
    stack, lr, decay, adamw = config["stack"], config["lr"], config["weight_decay"], config["adamw"]
    vectors = [p for p in weights.values() if p.ndim == 1]
    hidden = [p for name, p in weights.items() if recipe.is_hidden(name, p.shape)]
    edges = [p for name, p in weights.items() if p.ndim > 1 and not recipe.is_hidden(name, p.shape)]
    groups = lambda matrices, decay: [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    adam = {"betas": (adamw["beta1"], adamw["beta2"]), "eps": adamw["eps"]}
    if stack == "muon":
        muon_in_native_precision()
        momentum, nesterov, scale = recipe.muon_settings(config)
        scale = MUON_SCALES.get(scale) or refuse(f"torch's Muon has no scale `{scale}`")
        muon = MuonOfStacks(hidden, lr=lr, weight_decay=decay, momentum=momentum, nesterov=nesterov, adjust_lr_fn=scale)
        return [muon, torch.optim.AdamW(groups(edges, adamw["weight_decay"]), lr=adamw["lr"], **adam)]
    matrix = dict(config.get("matrix", {}))
    if stack == "adamw":
        made = torch.optim.AdamW(groups(hidden + edges, decay), lr=lr, **adam)
    elif stack == "sgd":
        momentum, nesterov = matrix.pop("momentum", 0.9), matrix.pop("nesterov", False)
        made = DecoupledSgd(groups(hidden + edges, decay), lr=lr, momentum=momentum, nesterov=nesterov)
    else:
        refuse(f"stack {stack!r} is not repeated here; use sgd, adamw or muon")
    recipe.refuse_keys(config, matrix)
    return [made]


# ---------------------------------------------------------------------------------- training
class Training:
    """The steps of a run: its configuration, its first weights, its tokens. `compiled`: model and loss through torch.compile"""

    def __init__(self, config, weights, tokens, compiled=False):
        self.config, self.weights, self.tokens = config, weights, tokens
        self.clip = config["optimizer"].get("clip") or math.inf
        self.optimizers = make_optimizers(config["optimizer"], weights)
        self.peaks = [(group, group["lr"]) for optimizer in self.optimizers for group in optimizer.param_groups]
        model = recipe.model_of(config)
        places = places_of(model, next(iter(weights.values())).dtype)

        def loss_of(inputs, targets):
            return F.cross_entropy(decoder(weights, model, inputs, places).flatten(0, 1), targets.flatten())

        self.loss_of = torch.compile(loss_of) if compiled else loss_of

    def step(self, index):
        """a 0-based step: loss and norm of the gradient before it, seconds of it all and of clip and update"""
        start = time.perf_counter()
        train, model = self.config["train"], self.config["model"]
        factor = recipe.schedule_factor(self.config["schedule"], index, train["steps"])
        for group, peak in self.peaks:
            group["lr"] = peak * factor
        for weight in self.weights.values():
            weight.grad = None
        batch = recipe.batch(self.tokens, index, train["data_seed"], train["batch"], model["context"])
        loss = self.loss_of(*map(torch.from_numpy, batch))
        loss.backward()
        between = time.perf_counter()
        norm = torch.nn.utils.clip_grad_norm_(self.weights.values(), self.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        end = time.perf_counter()
        return {"loss": loss.item(), "norm": norm.item(), "seconds": end - start, "update": end - between}
