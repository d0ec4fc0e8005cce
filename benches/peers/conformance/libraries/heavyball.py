"""HeavyBall. A matrix is [out, in]: the scale of its Muon is that of rows over columns, as torch.nn.Linear stores them.

In float32, since the rate is a float32 tensor in any case. Without torch.compile, which does not change what is computed.
"""

from importlib.metadata import version as installed

import heavyball
import torch
from heavyball import utils

from cases import DEFAULTS, Inexpressible
from edits import Edit
from plan import Plan, completed, coupled_decay, momentum_as, plain, polynomial, steps_of_torch

utils.compile_mode = None

NAME = "HeavyBall"
FIXED_EPS = 1e-7
# The setting zeroth_power_mode holds for square matrices; all others are iterated with `quintic`, whatever it says.
MODES = {"quintic": "newtonschulz", "newton_schulz": "legacy_newtonschulz"}
ITERATIONS = {"newtonschulz": "zeropower_via_newtonschulz5", "legacy_newtonschulz": "legacy_zeropower_via_newtonschulz5"}
ROOT = Edit("max(√v, eps) for √v + eps", ((utils, "eps_sqrt"),), ".clamp(min=eps)", ".add(eps)")


def version():
    return installed("heavyball")


def planned(name, settings, edits=(), mode="newtonschulz"):
    begin = steps_of_torch(lambda parameters: getattr(heavyball, name)(parameters, **settings), "float32")

    def start(arrays):
        utils.zeroth_power_mode = mode
        torch.manual_seed(1)  # it rounds to bfloat16 at random
        return begin(arrays)

    return Plan(name, start, precision="f32", edits=list(edits))


def decay(case, keys):
    """The decay spares entries where update and weight have opposite signs, as `cautious` does."""
    return {"weight_decay": coupled_decay(case, keys), "cautious_weight_decay": keys.take("cautious")}


def muon_mode(case, steps):
    for ours, mode in MODES.items():
        rows = [tuple(row) for row in DEFAULTS["coefficients"][ours]]
        if steps.rows == rows * (5 // len(rows)):
            if mode != "newtonschulz" and any(len(piece) != len(piece.T) for piece in case.start):
                raise Inexpressible("coefficients other than quintic for a matrix that is not square")
            return mode
    raise Inexpressible("coefficients")


def muon(case, keys):
    steps = plain(polynomial(keys.take("polar")), FIXED_EPS)
    mode = muon_mode(case, steps)
    momentum, nesterov = momentum_as("heavy_ball", keys, steps)
    keys.take("scale", ("original",))
    settings = dict(lr=case.lr, betas=(momentum, 0.99), nesterov=nesterov, heavyball_momentum=True, **decay(case, keys))
    keys.rest()
    place = ((utils, ITERATIONS[mode]),)
    norm = {"newtonschulz": (".clamp(min=eps)  # free", f".add({steps.eps!r})  # free"),
            "legacy_newtonschulz": ("stochastic_divide_with_eps_(x, G.norm(dim=(-2, -1)), eps)", f"x.div_(G.norm() + {steps.eps!r})")}
    edits = [Edit("iterates in bfloat16, rounded at random", place, "G if G.dtype == torch.float64 else stochastic_round_(G)", "G"),
             Edit("max(‖M‖, 1e-7) for ‖M‖ + eps", place, *norm[mode])]
    return planned("Muon", settings, edits, mode)


def adamw(case, keys):
    hyperball = keys["norm_control"] == {"method": "hyperball"}
    if hyperball:
        keys.take("norm_control")
    settings = dict(lr=case.lr, betas=(keys.take("beta1"), keys.take("beta2")), eps=keys.take("eps"), **decay(case, keys))
    keys.rest()
    if not hyperball:
        return planned("AdamW", settings, [ROOT])
    place, reason = ((heavyball.HyperBallAdamW, "__init__"),), "no first moment"
    edits = [Edit(reason, place, "C.scale_by_exp_avg_sq", "C.scale_by_adam"), Edit(reason, place, "super()", "super(HyperBallAdamW, self)")]
    return planned("HyperBallAdamW", settings, [ROOT, *edits])


def sgd(case, keys):
    keys.take("momentum_form", ("heavy_ball", "none"))
    keys.take("nesterov", (False,))
    settings = dict(lr=case.lr, beta=keys.take("momentum"), **decay(case, keys))
    keys.rest()
    return planned("SGD", settings)


def soap(case, keys):
    keys.take("form", ("shampoo",))
    settings = dict(lr=case.lr, betas=(keys.take("beta1"), keys.take("beta2")), shampoo_beta=keys.take("shampoo_beta"), eps=keys.take("eps"),
                    precondition_frequency=keys.take("every"), max_precond_dim=keys.take("largest_side"), merge_dims=False, **decay(case, keys))
    keys.rest()
    sparing = "(1 - (p32_.signbit() ^ u_.signbit()).to(p32_.dtype)) if cautious_decay else decay"
    edits = [
        Edit("decays before the step", ((utils, "_compilable_update_"),),
             f"d = decay * {sparing}\n        p32_ = p32_ * (1 - d * lr) + u_ * -lr",
             f"p32_ = p32_ + u_ * -lr\n        d = decay * {sparing}\n        p32_ = p32_ * (1 - d * lr)"),
        Edit("counts the first gradient among the steps between changes of the bases", ((utils, "psgd_should_update"),),
             "cumulative_prob + prob", 'cumulative_prob + prob * (group[f"{name}_prob_step"] > 1)'),
        Edit("another basis of what the first gradient does not reach", ((utils, "_stable_symmetric_basis"),),
             "torch.flip(eigvec, [-1])", "completed(m, torch.flip(eigvec, [-1]))", (completed,)),
        Edit("adds a share of the old basis before the QR decomposition", ((utils, "get_orthogonal_matrix_QR"),),
             "gram_basis + (lift * magnitude)", "gram_basis + (0 * magnitude)"),
        ROOT,
        Edit("eps beside the debiased √v", ((utils, "_compilable_adam_"),),
             "beta2 = beta_debias(beta2, step)", "eps = eps / (1 - beta2**step).sqrt()\n    beta2 = beta_debias(beta2, step)"),
    ]
    return planned("SOAP", settings, edits)


KINDS = {"muon": muon, "adamw": adamw, "sgd": sgd, "soap": soap}
