#!/usr/bin/env python3
"""Writes reference vectors for optimizers, produced by PyTorch's own Muon, AdamW and SGD.

    python benches/peers/muon_vectors.py                     writes optimizers/verify/vectors/torch/{muon,adamw,sgd}.json
    python benches/peers/muon_vectors.py --out DIR           writes them elsewhere

Needs torch 2.15.0 and numpy (see README.md beside this file).  Every case is computed by torch.optim.Muon / AdamW / SGD
in float64.  torch stores a matrix as [output, input]; a case with layout "in_out" holds the transposed parameter, gradients and
expected values of that same torch problem.  A stack of matrices, or the blocks of one matrix, are separate torch parameters.

torch.optim.Muon rounds to bfloat16 before its Newton-Schulz iteration, which would hide everything below 1 %.  So the
iteration is recompiled from torch's own source with that one dtype replaced by the dtype of its input.

What differs between torch and polaron, and how the vectors account for it:
  * Newton-Schulz: torch divides by max(|X|_F, eps), polaron by |X|_F + eps.  Cases say "eps": 0, where both are |X|_F
    (torch keeps its 1e-7, which is below every norm here); the cases named default_eps* keep 1e-7 on both sides, and their
    float64 tolerance covers the measured effect.
  * SGD: torch's weight decay is added to the gradient, polaron's is decoupled; only decay 0 can be compared.
"""
import argparse
import inspect
import json
import textwrap
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.optim._muon as torch_muon

EPS32, EPS64 = 2.0**-24, 2.0**-53
OUT = Path(__file__).resolve().parents[2] / "optimizers" / "verify" / "vectors" / "torch"
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
SCALES = {"original": "original", "match_rms_adamw": "match_rms_adamw", "spectral": "spectral_unclamped"}  # ours -> torch's


def recompiled_newton_schulz(*exchanges):
    """torch's _zeropower_via_newtonschulz with pieces of its text replaced, each (old, new)"""
    source = textwrap.dedent(inspect.getsource(ORIGINAL_NEWTON_SCHULZ))
    for old, new in exchanges:
        if source.count(old) != 1:
            raise SystemExit(f"torch {torch.__version__}: expected {old!r} once in its Newton-Schulz; this script was written for 2.15.0")
        source = source.replace(old, new)
    scope = dict(vars(torch_muon))
    exec(compile(source, torch_muon.__file__, "exec"), scope)  # noqa: S102
    return scope[ORIGINAL_NEWTON_SCHULZ.__name__]


ORIGINAL_NEWTON_SCHULZ = torch_muon._zeropower_via_newtonschulz
DTYPE, DIVISOR = ("dtype=torch.bfloat16", "dtype=grad.dtype"), (".norm().clamp(min=eps)", ".norm().add(eps)")
NATIVE, NATIVE_PLUS_EPS = recompiled_newton_schulz(DTYPE), recompiled_newton_schulz(DTYPE, DIVISOR)


# ---------------------------------------------------------------------------------- a problem, stepped by torch
def split(x, blocks):
    """[out, in], [E, out, in] or [n] -> the list of pieces that each have a separate state"""
    if x.ndim == 3:
        return [piece for matrix in x for piece in split(matrix, blocks)]
    if not blocks:
        return [x]
    return np.split(x, blocks["count"], axis=0 if blocks["axis"] == "output" else 1)


def join(pieces, shape, blocks):
    """inverse of split"""
    if len(shape) == 3:
        each = len(pieces) // shape[0]
        return np.stack([join(pieces[i * each : (i + 1) * each], shape[1:], blocks) for i in range(shape[0])])
    if not blocks:
        return pieces[0]
    return np.concatenate(pieces, axis=0 if blocks["axis"] == "output" else 1)


def torch_optimizer(config, lr, params):
    """the torch optimizer for a polaron configuration; every key must be known"""
    o = dict(config)
    kind = o.pop("kind")
    if kind == "muon":
        polar = dict(o.pop("polar"))
        if polar.pop("method") == "polynomial":
            rows = polar.pop("coefficients")
            coefficients, steps = tuple(rows[0]), len(rows)
            assert all(row == rows[0] for row in rows) and polar.pop("norm_factor") == 1.0
        else:
            coefficients, steps = NEWTON_SCHULZ, polar.pop("steps")
        assert polar.pop("eps") in (0.0, 1e-7) and not polar and o.pop("momentum_form") == "ema"
        made = torch.optim.Muon(params, lr=lr, weight_decay=o.pop("weight_decay"), momentum=o.pop("momentum"),
                                nesterov=o.pop("nesterov"), ns_coefficients=coefficients, eps=1e-7, ns_steps=steps,
                                adjust_lr_fn=SCALES[o.pop("scale")])
    elif kind == "adamw":
        made = torch.optim.AdamW(params, lr=lr, betas=(o.pop("beta1"), o.pop("beta2")), eps=o.pop("eps"),
                                 weight_decay=o.pop("weight_decay"), foreach=False)
    else:
        assert kind == "sgd" and o.pop("weight_decay") == 0.0 and o.pop("momentum_form") == "heavy_ball"
        made = torch.optim.SGD(params, lr=lr, momentum=o.pop("momentum"), nesterov=o.pop("nesterov"), foreach=False)
    assert not o, o
    return made


def run(problem, dtype=torch.float64, newton_schulz=NATIVE, gradients=None):
    """parameters after each step, [out, in] orientation, as float64 arrays"""
    torch_muon._zeropower_via_newtonschulz = newton_schulz
    blocks = problem["blocks"]
    tensors = lambda x: [torch.tensor(np.ascontiguousarray(p), dtype=dtype) for p in split(x, blocks)]
    params = [torch.nn.Parameter(p) for p in tensors(problem["start"])]
    optimizer = torch_optimizer(problem["config"], problem["lr"], params)
    after = []
    for gradient in problem["gradients"] if gradients is None else gradients:
        for p, g in zip(params, tensors(gradient)):
            p.grad = g
        optimizer.step()
        pieces = [p.detach().to(torch.float64, copy=True).numpy() for p in params]
        after.append(join(pieces, problem["start"].shape, blocks))
    return after


# ---------------------------------------------------------------------------------- tolerances
def largest_difference(a, b):
    return max(float(np.max(np.abs(x - y))) for x, y in zip(a, b))


def tolerance(problem, expected):
    """float32: 16 x the error of torch itself in float32, or of float32 rounding of the gradients.  float64: 64 x the effect of
    float64 rounding of the gradients.  Both are at least some units in the last place of the largest weight."""
    rng = np.random.default_rng(12345)

    def effect_of_rounding(size):
        worst = 0.0
        for _ in range(3):
            moved = [g * (1 + size * rng.uniform(-1, 1, g.shape)) for g in problem["gradients"]]
            worst = max(worst, largest_difference(run(problem, gradients=moved), expected))
        return worst

    plain = largest_difference(run(problem, dtype=torch.float32), expected)
    rounded = effect_of_rounding(EPS32)
    largest = max(float(np.max(np.abs(x))) for x in expected + [problem["start"]])
    f32 = max(16 * plain, 16 * rounded, 32 * EPS32 * largest)
    f64 = max(64 * effect_of_rounding(EPS64), 64 * EPS64 * largest)
    reason = (f"16 x max({plain:.1e} deviation of torch in float32, {rounded:.1e} effect of float32 rounding of the gradients), "
              "at least 32 x 2^-24 x largest weight; float64 by the same idea, 64 x, 2^-53")
    if problem["config"].get("polar", {}).get("eps"):
        eps_effect = largest_difference(run(problem, newton_schulz=NATIVE_PLUS_EPS), expected)
        f32, f64 = max(f32, 2 * eps_effect), f64 + 2 * eps_effect
        reason += f", plus 2 x {eps_effect:.1e}, the difference between max(|X|, eps) and |X| + eps"
    return {"f32_max_abs": float(f"{f32:.2e}"), "f64_max_abs": float(f"{f64:.2e}"), "reason": reason}


# ---------------------------------------------------------------------------------- cases
def quantized_normal(rng, shape):
    """normal random numbers in steps of 1/128, none of them zero: exact in float32, short when printed"""
    x = np.round(rng.standard_normal(shape) * 128) / 128
    return np.where(x == 0, 1 / 128, x)


def problem(name, config, shape, lr=0.1, steps=3, blocks=None, zero_steps=()):
    """shape in the [out, in] orientation; gradients of the steps in zero_steps are zero"""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    start = quantized_normal(rng, shape) / 2
    gradients = [quantized_normal(rng, shape) * (0.0 if t in zero_steps else 1.0) for t in range(steps)]
    gradients = [g + 0.0 for g in gradients]  # no negative zeros in the files
    return {"name": name, "config": config, "lr": lr, "blocks": blocks, "start": start, "gradients": gradients}


PRODUCERS = {
    "muon": ("torch.optim.Muon", "Newton-Schulz without its bfloat16 cast; eps 0: torch has max(|X|, 1e-7)"),
    "adamw": ("torch.optim.AdamW", "foreach=False"),
    "sgd": ("torch.optim.SGD", "foreach=False; no decay, torch's is not decoupled"),
}


def cases(problem, layouts):
    """the problem in each layout; if there are two, the names carry the layout"""
    expected = run(problem)
    limits = tolerance(problem, expected)
    program, note = PRODUCERS[problem["config"]["kind"]]
    for layout in layouts:
        turn = (lambda x: x.swapaxes(-1, -2)) if layout == "in_out" and problem["start"].ndim > 1 else (lambda x: x)
        flat = lambda x: [float(v) for v in turn(x).ravel()]
        yield {
            "name": problem["name"] + (f"@{layout}" if len(layouts) > 1 else ""),
            "optimizer": problem["config"], "layout": layout, "blocks": problem["blocks"], "lr": problem["lr"],
            "parameter": {"shape": list(turn(problem["start"]).shape), "data": flat(problem["start"])},
            "gradients": [flat(g) for g in problem["gradients"]], "expected": [flat(x) for x in expected],
            "tolerance": limits, "source": f"pytorch.org, {program}",
            "producer": {"program": program, "version": torch.__version__, "precision": "float64", "note": note},
        }


def muon_config(scale="original", nesterov=True, weight_decay=0.0, momentum=0.95, steps=5, eps=0.0, polar=None):
    return {"kind": "muon", "momentum": momentum, "momentum_form": "ema", "nesterov": nesterov, "scale": scale,
            "weight_decay": weight_decay, "polar": polar or {"method": "newton_schulz", "steps": steps, "eps": eps}}


def muon_cases():
    both, in_out = ("out_in", "in_out"), ("in_out",)
    for form, shape in [("tall", (6, 4)), ("wide", (4, 6)), ("square", (4, 4))]:
        for scale in ("original", "match_rms_adamw"):
            for nesterov in (True, False):
                for decay in (0.0, 0.1) if form != "square" or nesterov else ():
                    name = f"{form}_{scale}" + ("" if nesterov else "_no_nesterov") + ("_decay" if decay else "")
                    config = muon_config(scale, nesterov, decay)
                    yield from cases(problem(name, config, shape), both if nesterov and decay and form != "square" else in_out)
    yield from cases(problem("wide_spectral", muon_config("spectral"), (3, 6)), in_out)
    yield from cases(problem("larger", muon_config(weight_decay=0.1), (9, 7)), in_out)
    yield from cases(problem("one_output", muon_config("match_rms_adamw"), (1, 6)), in_out)
    yield from cases(problem("one_input", muon_config(), (6, 1)), in_out)
    yield from cases(problem("many_steps", muon_config(momentum=0.8), (3, 4), steps=8), in_out)
    yield from cases(problem("three_iterations", muon_config(steps=3), (4, 6)), in_out)
    cubic = {"method": "polynomial", "coefficients": [[1.5, -0.5, 0.0]] * 8, "norm_factor": 1.0, "eps": 0.0}
    yield from cases(problem("cubic_coefficients", muon_config(polar=cubic), (4, 6)), in_out)
    yield from cases(problem("zero_gradients_first", muon_config(weight_decay=0.1), (4, 3), zero_steps=(0, 1)), in_out)
    yield from cases(problem("expert_stack", muon_config(), (2, 5, 3)), both)
    thirds = {"axis": "output", "count": 3}
    yield from cases(problem("fused_blocks", muon_config(weight_decay=0.1), (9, 3), blocks=thirds), in_out)
    yield from cases(problem("default_eps", muon_config(eps=1e-7), (6, 4)), both)
    yield from cases(problem("default_eps_match_rms_adamw", muon_config("match_rms_adamw", weight_decay=0.1, eps=1e-7), (4, 6)), in_out)


def adamw_cases():
    base = {"kind": "adamw", "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
    for name, changes in [("default", {}), ("language_model_betas", {"beta2": 0.99, "weight_decay": 0.1}), ("large_eps", {"eps": 0.1}),
                          ("beta1_zero", {"beta1": 0.0}), ("decay", {"weight_decay": 0.5})]:
        yield from cases(problem(name, {**base, **changes}, (4, 3), lr=0.05, steps=4), ("in_out",))
    config = {**base, "weight_decay": 0.1}
    yield from cases(problem("vector", config, (7,), lr=0.05, steps=5), ("out_in",))
    yield from cases(problem("zero_gradient_in_the_middle", config, (3, 4), lr=0.05, steps=4, zero_steps=(1,)), ("out_in", "in_out"))


def sgd_cases():
    base = {"kind": "sgd", "momentum": 0.9, "momentum_form": "heavy_ball", "nesterov": False, "weight_decay": 0.0}
    for name, changes in [("heavy_ball", {}), ("nesterov", {"nesterov": True}), ("no_momentum", {"momentum": 0.0})]:
        yield from cases(problem(name, {**base, **changes}, (4, 3), steps=5), ("in_out",))
    nesterov = {**base, "momentum": 0.8, "nesterov": True}
    yield from cases(problem("vector", nesterov, (7,), steps=5), ("out_in",))
    yield from cases(problem("stack", nesterov, (2, 3, 2)), ("out_in", "in_out"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    torch.set_num_threads(1)  # the order of summation, and so the last digit, must not depend on the machine's cores
    out.mkdir(parents=True, exist_ok=True)
    for kind, made in [("muon", muon_cases()), ("adamw", adamw_cases()), ("sgd", sgd_cases())]:
        lines = [json.dumps(case, separators=(",", ":")) for case in made]
        head = json.dumps({"format": "optimizer-vectors", "version": 1, "kind": kind,
                           "generator": f"benches/peers/muon_vectors.py, torch {torch.__version__} (float64)"})
        text = head[:-1] + ', "cases": [\n' + ",\n".join(lines) + "\n]}\n"
        (out / f"{kind}.json").write_text(text)
        print(f"{out / kind}.json: {len(lines)} cases, {len(text) // 1000} kB")


if __name__ == "__main__":
    main()
