#!/usr/bin/env python3
"""Reference vectors of a rule on matrices: what it must compute, by an independent float64 program.

    python3 make_vectors.py KIND RULE.py > vectors/KIND.json        (needs numpy)
    python3 make_vectors.py KIND RULE.py --shared > vectors/shared/KIND.json

The second form has only the keys `second_moment`, `norm_control` and `decay`, which act around every rule.

RULE.py defines the rule in numpy, on one `outputs x inputs` matrix of any float type:

    DEFAULTS = {"momentum": 0.9, "momentum_form": "heavy_ball", "nesterov": False, "scale": "none"}   # and its own keys
    CASES = {"half": {"fraction": 0.5}}                              # options that change what it computes
    KEYS = {"axis": "input"}                                         # optional: keys that every case has
    def direction(d, number, lr, memory, **keys): ...                # d: the momentum; memory: a dict, kept between steps

or, instead of `direction`, the weights after a whole step, from the gradient and with all keys:

    def step(w, g, number, lr, memory, **keys): ...

The cases cover both layouts, blocks, stacks of experts, decay, ranks, zero and extreme gradients. The text of RULE.py is part of
the file, so that it can be made again.
"""

import json
import sys
import zlib

import numpy as np


def momentum(g, state, number, keys):
    """The matrix that a rule works on; see optimizers/src/rule/momentum.rs."""
    mu, form = keys["momentum"], keys["momentum_form"]
    if mu == 0:
        return g
    fresh = g if form == "heavy_ball" else (1 - mu) * g
    state["m"] = mu * state["m"] + fresh if "m" in state else fresh
    now, ahead = (1 / (1 - mu**n) if form == "ema_debiased" else 1.0 for n in (number, number + 1))
    return fresh * now + mu * ahead * state["m"] if keys["nesterov"] else state["m"] * now


def divided(d, g, state, keys):
    """The direction after `second_moment`; see optimizers/src/rule/preconditioner.rs."""
    if keys["second_moment"] is None:
        return d
    beta, eps = {"beta": 0.95, "eps": 1e-10, **keys["second_moment"]}.values()
    state["v"] = beta * state.get("v", 0) + (1 - beta) * g * g
    root = np.sqrt(state["v"]) + eps
    return np.divide(d, root, out=d.copy(), where=root > 0)


def decayed(w, u, share, cautious):
    return w - share * (np.where(np.sign(u) * np.sign(w) < 0, 0, w) if cautious else w)


def stepped(w, u, lr, share, keys):
    """The weights after the step; see optimizers/src/rule/norm_control.rs."""
    control = keys["norm_control"] or {"method": "none"}
    norm = lambda x: np.linalg.norm(x)
    match control["method"]:
        case "hyperball":
            moved = w - lr * norm(w) * u / max(norm(u), 1e-10)
            return moved * norm(w) / max(norm(moved), 1e-10)
        case "radial_brake":
            kept = decayed(w, u, share, keys["cautious"])
            moved = kept - lr * u
            growth = norm(moved) - norm(kept)
            factor = control.get("outward", 0.5) if growth > 0 else control.get("inward", 1.0)
            return moved * (norm(kept) + factor * growth) / norm(moved)
        case "relative":
            u = u * norm(w) / norm(u) if min(norm(u), norm(w)) >= 1e-15 else 0 * u
        case "floor" if 0 < norm(u) < control.get("ratio", 0.35) * norm(w):
            u = u * control.get("ratio", 0.35) * norm(w) / norm(u)
    return decayed(w, u, share, keys["cautious"]) - lr * u


def scale(name, m, n):
    return {"none": 1.0, "original": max(1, m / n) ** 0.5, "match_rms_adamw": 0.2 * max(m, n) ** 0.5, "spectral": (m / n) ** 0.5}[name]


def parts(shape, blocks):
    """The slices of an `outputs x inputs` matrix that are updated on their own."""
    blocks = blocks or {"axis": "output", "count": 1}
    axis = 0 if blocks["axis"] == "output" else 1
    sizes = blocks.get("sizes") or [shape[axis] // blocks["count"]] * blocks["count"]
    ends = np.cumsum(sizes)
    cut = [slice(int(end) - size, int(end)) for size, end in zip(sizes, ends)]
    return [(part, slice(None)) if axis == 0 else (slice(None), part) for part in cut]


SHARED = {"weight_decay": 0.0, "cautious": False, "decay": "coupled", "norm_control": None, "second_moment": None,
          "momentum": 0.0, "momentum_form": "ema", "nesterov": False, "scale": "none"}


def run(rule, case, gradients, dtype):
    """The weights after every step, as stored."""
    keys = {**SHARED, **rule.DEFAULTS, **{k: v for k, v in case["optimizer"].items() if k != "kind"}}
    own = {k: v for k, v in keys.items() if k not in SHARED}
    turn = (lambda x: x) if case["layout"] == "out_in" else (lambda x: np.swapaxes(x, -1, -2))
    shape = case["parameter"]["shape"]
    w = turn(np.array(case["parameter"]["data"]).reshape(shape)).astype(dtype)
    stacked = w if w.ndim == 3 else w[None]
    states, found = {}, []
    for number, g in enumerate(gradients, 1):
        g = turn(np.array(g).reshape(shape)).astype(dtype).reshape(stacked.shape)
        after = stacked.copy()
        for e in range(len(stacked)):
            for p, part in enumerate(parts(stacked.shape[1:], case["blocks"])):
                state = states.setdefault((e, p), {"memory": {}})
                x = stacked[e][part]
                if hasattr(rule, "step"):
                    after[e][part] = rule.step(x, g[e][part], number, case["lr"], state["memory"], **keys)
                    continue
                d = divided(momentum(g[e][part], state, number, keys), g[e][part], state, keys)
                u = rule.direction(d, number, case["lr"], state["memory"], **own) * dtype(scale(keys["scale"], *d.shape))
                share = keys["weight_decay"] * (1.0 if keys["decay"] == "independent" else case["lr"])
                after[e][part] = stepped(x, u, dtype(case["lr"]), dtype(share), keys)
        stacked = after
        found.append(turn(stacked.reshape(w.shape)))
    return found


def tolerance(rule, case):
    """16 times what float32 loses, 64 times what rounding of the gradients does in float64, with floors."""
    wanted = run(rule, case, case["gradients"], np.float64)
    rng = np.random.default_rng(1)
    off = lambda eps: [(np.array(g) * (1 + eps * rng.uniform(-1, 1, len(g)))).tolist() for g in case["gradients"]]
    worst = lambda other: max(float(np.max(np.abs(a - b))) for a, b in zip(wanted, other))
    largest = max(float(np.max(np.abs(x))) for x in wanted)
    low = max(worst(run(rule, case, case["gradients"], np.float32)), worst(run(rule, case, off(2.0**-24), np.float64)))
    high = worst(run(rule, case, off(2.0**-53), np.float64))
    f32, f64 = max(16 * low, 32 * 2.0**-24 * largest), max(64 * high, 64 * 2.0**-53 * largest)
    return {"f32_max_abs": float(f"{f32:.2e}"), "f64_max_abs": float(f"{f64:.2e}"), "reason": "16 and 64 times the effect of rounding"}


def gradients(rng, shape, steps, family):
    dense = lambda size: np.round(rng.standard_normal(size) * 128) / 128
    if family == "rank_two":
        left = dense((*shape[:-1], 2))
        return [left @ dense((*shape[:-2], 2, shape[-1])) for _ in range(steps)]
    made = [dense(shape) for _ in range(steps)]
    if family == "zero_in_the_middle":
        made[steps // 2] = np.zeros(shape)
    return [g * {"tiny": 2.0**-40, "huge": 2.0**40}.get(family, 1.0) for g in made]


def make(rule, kind, name, shape, keys=None, layout="in_out", blocks=None, family="dense", lr=0.1, steps=4):
    """`shape` is outputs x inputs, whatever the layout."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    turn = (lambda x: x) if layout == "out_in" else (lambda x: np.swapaxes(x, -1, -2))
    flat = lambda x: [float(v) for v in np.asarray(x, dtype=np.float64).ravel()]
    start = turn(np.round(rng.standard_normal(shape) * 64) / 128 * (family not in ("tiny", "huge")))
    case = {"name": name, "optimizer": {"kind": kind, **getattr(rule, "KEYS", {}), **(keys or {})}, "layout": layout, "blocks": blocks, "lr": lr,
            "parameter": {"shape": list(start.shape), "data": flat(start)},
            "gradients": [flat(turn(g)) for g in gradients(rng, shape, steps, family)]}
    case["expected"] = [flat(x) for x in run(rule, case, case["gradients"], np.float64)]
    case["tolerance"] = tolerance(rule, case)
    return case


def cases(rule, kind):
    known = {"weight_decay", "cautious", *rule.DEFAULTS}
    left_out = getattr(rule, "LEFT_OUT", ())  # cases that do not determine the result
    fits = lambda name, keys: set(keys) <= known and name not in left_out
    case = lambda name, shape, keys={}, **more: make(rule, kind, name, shape, keys, **more) if fits(name, keys) else None
    yield case("tall", [9, 5])
    yield case("tall, out_in", [9, 5], layout="out_in")
    yield case("wide", [4, 10])
    yield case("square", [6, 6], steps=6)
    yield case("one output", [1, 7])
    yield case("one input", [7, 1])
    yield case("rank two", [7, 8], family="rank_two")
    yield case("a gradient of zero in the middle", [5, 4], family="zero_in_the_middle")
    yield case("tiny gradients", [5, 6], family="tiny", lr=0.1 * 2.0**40)
    yield case("huge gradients", [5, 6], family="huge", lr=0.1 * 2.0**-40)
    yield case("experts", [3, 4, 6])
    yield case("output blocks", [8, 5], blocks={"axis": "output", "count": 4})
    yield case("input blocks", [5, 9], blocks={"axis": "input", "count": 3})
    yield case("output parts", [8, 5], blocks={"axis": "output", "sizes": [4, 2, 2]})
    yield case("input parts, out_in", [5, 9], blocks={"axis": "input", "sizes": [2, 6, 1]}, layout="out_in")
    yield case("experts in blocks", [2, 6, 4], blocks={"axis": "output", "count": 2})
    yield case("weight decay", [5, 7], {"weight_decay": 0.3})
    yield case("cautious weight decay", [6, 5], {"weight_decay": 0.3, "cautious": True}, layout="out_in")
    yield case("average with look-ahead", [5, 6], {"momentum_form": "ema", "nesterov": True})
    yield case("average without bias", [5, 6], {"momentum_form": "ema_debiased", "nesterov": True})
    yield case("no momentum", [5, 6], {"momentum": 0.0})
    yield case("scaled", [9, 5], {"scale": "match_rms_adamw"})
    for name, keys in getattr(rule, "SQUARE", {}).items():  # options that are only stated for square matrices
        yield case(name, [6, 6], keys, steps=6)
    for name, keys in rule.CASES.items():
        yield case(name, [7, 6], keys)
        yield case(f"{name}, wide", [6, 11], keys, layout="out_in")


def shared_cases(rule, kind):
    case = lambda name, shape, keys, **more: make(rule, kind, name, shape, keys, **more)
    if "momentum" in rule.DEFAULTS:
        yield case("second moment", [7, 5], {"second_moment": {"beta": 0.9}}, steps=6)
        yield case("second moment, experts in blocks", [2, 6, 4], {"second_moment": {}}, blocks={"axis": "output", "count": 2})
        yield case("second moment without eps, huge", [4, 6], {"second_moment": {"eps": 0.0}}, family="huge", lr=0.1 * 2.0**-40)
    for control in ({"method": "hyperball"}, {"method": "radial_brake"}, {"method": "relative"}, {"method": "floor"}):
        name, keys = control["method"], {"norm_control": control}
        yield case(name, [7, 5], keys, steps=6)
        yield case(f"{name}, wide, out_in", [4, 9], keys, layout="out_in")
        yield case(f"{name}, experts in blocks", [2, 5, 6], keys, blocks={"axis": "input", "count": 2})
    yield case("a strong brake and decay", [6, 5], {"norm_control": {"method": "radial_brake", "outward": 0.125, "inward": 0.25},
               "weight_decay": 0.5, "cautious": True}, steps=6)
    yield case("a high floor and decay", [6, 5], {"norm_control": {"method": "floor", "ratio": 20.0}, "weight_decay": 0.5})
    yield case("independent decay", [6, 5], {"weight_decay": 0.25, "decay": "independent"}, steps=6)
    yield case("cautious independent decay, relative", [6, 5],
               {"weight_decay": 0.25, "decay": "independent", "cautious": True, "norm_control": {"method": "relative"}}, steps=6)


def main():
    if len(sys.argv) not in (3, 4) or sys.argv[3:] not in ([], ["--shared"]):
        sys.exit(__doc__)
    kind, path = sys.argv[1:3]
    text = open(path, encoding="utf-8").read()
    rule = type(sys)("rule")
    exec(compile(text, path, "exec"), rule.__dict__)
    head = {"format": "optimizer-vectors", "version": 1, "kind": kind, "generator": f"make_vectors.py, float64, of\n{text}"}
    made = (shared_cases if sys.argv[3:] else cases)(rule, kind)
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in filter(None, made))
    print(f"{json.dumps(head)[:-1]}, \"cases\": [\n{lines}\n]}}")


if __name__ == "__main__":
    main()
