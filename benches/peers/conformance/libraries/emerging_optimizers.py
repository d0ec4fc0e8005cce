"""NVIDIA's Emerging-Optimizers. A matrix is [out, in]: get_muon_scale_factor(size_out, size_in) is given its sides in this order.

Its Newton-Schulz iteration takes float32 only, so that the float32 tolerances count. `fp32_matmul_prec` is "highest" here: at its
default, "medium", the iteration is in bfloat16. MOP, by singular values, also runs in float64.
"""

from importlib.metadata import version as installed

import absl.logging
from emerging_optimizers import orthogonalized_optimizers as library
from emerging_optimizers.orthogonalized_optimizers import mop as mop_module
from emerging_optimizers.orthogonalized_optimizers import muon_utils

from cases import DEFAULTS, Inexpressible
from edits import Edit
from plan import EXACT, Plan, momentum_as, plain, polynomial, steps_of_torch

absl.logging.set_verbosity(absl.logging.ERROR)

NAME = "Emerging-Optimizers"
SCALES = {"original": ("shape_scaling", 1.0), "match_rms_adamw": ("spectral", 0.2), "spectral": ("unit_rms_norm", 1.0)}
FIXED_EPS = 1e-7
LISTS = {"simple": "newton_schulz", "quintic": "quintic", "deepseekv4": "deepseekv4"}  # theirs -> ours


def version():
    return installed("emerging_optimizers")


def iteration(polar):
    """The polynomial of `polar`, and the settings that say it: the name of their list of coefficients, and the number of steps."""
    steps = plain(polynomial(polar), FIXED_EPS)
    for theirs, ours in LISTS.items():
        rows = [tuple(map(float, row)) for row in DEFAULTS["coefficients"][ours]]
        if steps.rows == rows * (len(steps.rows) // len(rows)):
            return steps, {"coefficient_type": theirs, "num_ns_steps": len(steps.rows)}
    raise Inexpressible("coefficients")


def shared(case, keys, steps):
    """Rate, momentum and decay."""
    momentum, nesterov = momentum_as("ema", keys, steps)
    method = {"coupled": "decoupled", "independent": "independent"}[keys.take("decay")]
    return {"lr": case.lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": keys.take("weight_decay"), "weight_decay_method": method}


def in_f32(name, steps, settings):
    optimizer = getattr(library, name)
    start = steps_of_torch(lambda parameters: optimizer(parameters, fp32_matmul_prec="highest", **settings), "float32")
    edit = Edit("max(‖M‖, 1e-7) for ‖M‖ + eps", ((muon_utils, "newton_schulz"),),
                "X = torch.nn.functional.normalize(x, p=2, dim=(-2, -1), eps=eps)",
                f"X = x / (torch.linalg.vector_norm(x) + {steps.eps!r}).clamp_min(1e-38)")
    return Plan(name, start, precision="f32", edits=[edit])


def muon(case, keys):
    if keys["polar"]["method"] == "svd":
        return mop(case, keys, *keys.name("scale", SCALES))
    steps, settings = iteration(keys.take("polar"))
    mode, factor = keys.name("scale", SCALES)
    settings |= {**shared(case, keys, steps), "scale_mode": mode, "extra_scale_factor": factor}
    name = "MuonHyperball" if keys["norm_control"] == {"method": "hyperball"} else "Muon"
    if name == "MuonHyperball":
        keys.take("norm_control")
    keys.rest()
    return in_f32(name, steps, settings)


def polar_grad(case, keys):
    keys.take("scale", ("none",))
    if "order" in keys:
        keys.take("order", ("momentum_first",))
    if keys["polar"]["method"] == "svd":
        return mop(case, keys, "nuclear_norm", 1.0)
    keys.check("momentum_form", ("ema", "none"))
    steps, settings = iteration(keys.take("polar"))
    settings |= shared(case, keys, steps)
    keys.rest()
    return in_f32("PolarGrad", steps, settings)


def mop(case, keys, mode, factor):
    """Muon and PolarGrad by singular values."""
    rcond = {**DEFAULTS["polar"]["svd"], **keys.take("polar")}["rcond"]
    if mode == "nuclear_norm":  # the size of the momentum counts
        keys.check("momentum_form", ("ema", "none"))
    settings = {**shared(case, keys, EXACT), "scale_mode": mode, "extra_scale_factor": factor}
    keys.rest()
    edits = [Edit("directions below the cut-off are kept", ((mop_module, "polar_via_svd"),), "U_polar = U_svd @ Vh",
                  f"U_polar = (U_svd * (S > {rcond!r} * S.max())) @ Vh")]
    return Plan("MOP", steps_of_torch(lambda parameters: library.MOP(parameters, **settings)), edits=edits)


def normuon(case, keys):
    steps, settings = iteration(keys.take("polar"))
    mode, factor = keys.name("scale", SCALES)
    keys.take("rescale", ("frobenius",))
    keys.take("axis", ("longer",))
    eps = keys.take("eps")
    settings |= {**shared(case, keys, steps), "scale_mode": mode, "extra_scale_factor": factor, "moment2_method": "normuon",
                 "beta2": keys.take("beta2"), "eps": 1e-8 if eps is None else eps}
    keys.rest()
    return in_f32("AdaptiveMuon", steps, settings)


def scion(case, keys):
    keys.take("lmo", ("spectral",))
    keys.take("scale", ("spectral",))
    keys.take("constrained", (True,))
    steps, settings = iteration(keys.take("polar"))
    for unused in ("eps", "weight_decay"):
        keys.take(unused)
    momentum, nesterov = momentum_as("ema", keys, steps)
    if nesterov:
        raise Inexpressible("nesterov")
    settings |= {"lr": case.lr, "momentum": momentum, "spectral_radius": keys.take("radius")}
    keys.rest()
    return in_f32("Scion", steps, settings)


KINDS = {"muon": muon, "normuon": normuon, "polar_grad": polar_grad, "ssd": polar_grad, "scion": scion}
