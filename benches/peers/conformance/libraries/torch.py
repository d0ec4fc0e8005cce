"""torch.optim. A matrix is [out, in]: the documentation of Muon calls the two sides fan-out and fan-in."""

import torch
import torch.optim._muon as torch_muon

from edits import Edit
from plan import Plan, coupled_decay, momentum_as, plain, polynomial, steps_of_torch
from cases import Inexpressible

NAME = "torch"
SCALES = {"original": "original", "match_rms_adamw": "match_rms_adamw", "spectral": "spectral_unclamped"}
NEWTON_SCHULZ = ((torch_muon, "_zeropower_via_newtonschulz"),)


def version():
    return torch.__version__.split("+")[0]


def muon(case, keys):
    steps = plain(polynomial(keys.take("polar")))
    momentum, nesterov = momentum_as("ema", keys, steps)
    if len(set(steps.rows)) > 1:
        raise Inexpressible("coefficients that change from step to step")
    settings = dict(lr=case.lr, weight_decay=coupled_decay(case, keys), momentum=momentum, nesterov=nesterov, eps=steps.eps,
                    ns_coefficients=steps.rows[0], ns_steps=len(steps.rows), adjust_lr_fn=keys.name("scale", SCALES))
    keys.rest()
    divisor = (".norm().clamp(min=eps)", ".norm().add(eps)") if steps.eps else (".norm().clamp(min=eps)", ".norm().clamp(min=1e-30)")
    reason = "max(‖M‖, eps) for ‖M‖ + eps" if steps.eps else "0/0 for a zero matrix with eps 0"
    edits = [Edit("iterates in bfloat16", NEWTON_SCHULZ, "dtype=torch.bfloat16", "dtype=grad.dtype"), Edit(reason, NEWTON_SCHULZ, *divisor)]
    return Plan("Muon", steps_of_torch(lambda parameters: torch.optim.Muon(parameters, **settings)), edits=edits)


def adamw(case, keys):
    settings = dict(lr=case.lr, betas=(keys.take("beta1"), keys.take("beta2")), eps=keys.take("eps"), weight_decay=coupled_decay(case, keys))
    keys.rest()
    return Plan("AdamW", steps_of_torch(lambda parameters: torch.optim.AdamW(parameters, **settings)))


def sgd(case, keys):
    if keys.take("weight_decay") != 0:
        raise Inexpressible("weight_decay, which is added to the gradient there")
    settings = dict(lr=case.lr, momentum=keys.take("momentum"), nesterov=keys.take("nesterov"))
    keys.take("momentum_form", ("heavy_ball", "none"))
    keys.rest()
    return Plan("SGD", steps_of_torch(lambda parameters: torch.optim.SGD(parameters, **settings)))


KINDS = {"muon": muon, "adamw": adamw, "sgd": sgd}
