"""pytorch_optimizer. A matrix is [out, in]: get_adjusted_lr says that the output features come first.

Its AdamW and SGD are torch.optim's own; what is stepped as `adamw` and `sgd` is the AdamW group of its Muon, and SGDW.
"""

from importlib.metadata import version as installed

import pytorch_optimizer
from pytorch_optimizer.optimizer import scion as scion_module
from pytorch_optimizer.optimizer import soap as soap_module
from pytorch_optimizer.optimizer.muon import adamuon, base, normuon as normuon_module
from pytorch_optimizer.optimizer.utils import matrix

from cases import Inexpressible
from edits import Edit
from plan import Plan, completed, coupled_decay, momentum_as, plain, polynomial, steps_of_torch

NAME = "pytorch_optimizer"
SCALES = {"original": False, "match_rms_adamw": True}
NEWTON_SCHULZ = tuple((module, "zero_power_via_newton_schulz_5") for module in (matrix, base, normuon_module, scion_module, adamuon))
FIXED_EPS = 1e-7


def version():
    return installed("pytorch_optimizer")


def newton_schulz_edits(steps):
    return [
        Edit("iterates in bfloat16", NEWTON_SCHULZ, "x = x.to(dtype=dtype,", "x = x.to(dtype=g.dtype,"),
        Edit("max(‖M‖, 1e-7) for ‖M‖ + eps", NEWTON_SCHULZ, "norm.clamp_min_(eps)", f"norm.add_({steps.eps!r}).clamp_min_(1e-300)"),
    ]


def group_of(optimizer, **settings):
    """The steps of a Muon-like optimizer, whose settings are those of a group."""
    return steps_of_torch(lambda parameters: optimizer([{"params": parameters, **settings}]))


def muon(case, keys):
    steps = plain(polynomial(keys.take("polar")), FIXED_EPS)
    momentum, nesterov = momentum_as("ema", keys, steps)
    start = group_of(pytorch_optimizer.Muon, use_muon=True, lr=case.lr, momentum=momentum, nesterov=nesterov,
                     weight_decay=coupled_decay(case, keys), ns_steps=len(steps.rows), ns_coeffs=steps.rows,
                     use_adjusted_lr=keys.name("scale", SCALES))
    keys.rest()
    return Plan("Muon", start, edits=newton_schulz_edits(steps))


def normuon(case, keys):
    steps = plain(polynomial(keys.take("polar")), FIXED_EPS)
    momentum, nesterov = momentum_as("ema", keys, steps)
    keys.take("axis", ("output",))
    rescale = keys.name("rescale", {"frobenius": "preserve_norm", "rms": "match_rms"})
    scale, eps = keys.take("scale"), keys.take("eps")
    if rescale == "preserve_norm" and scale not in SCALES:
        raise Inexpressible(f"scale = {scale}")
    start = group_of(pytorch_optimizer.NorMuon, use_muon=True, lr=case.lr, momentum=momentum, nesterov=nesterov, beta2=keys.take("beta2"),
                     weight_decay=coupled_decay(case, keys), ns_steps=len(steps.rows), ns_coeffs=steps.rows, update_scale=rescale,
                     use_adjusted_lr=SCALES.get(scale, False), eps=1e-10 if eps is None else eps)
    keys.rest()
    return Plan("NorMuon", start, edits=newton_schulz_edits(steps))


def adamw(case, keys):
    start = group_of(pytorch_optimizer.Muon, use_muon=False, lr=case.lr, betas=(keys.take("beta1"), keys.take("beta2")),
                     eps=keys.take("eps"), weight_decay=coupled_decay(case, keys))
    keys.rest()
    return Plan("Muon, AdamW group", start)


def sgdw(case, keys):
    keys.take("momentum_form", ("heavy_ball", "none"))
    settings = dict(lr=case.lr, momentum=keys.take("momentum"), nesterov=keys.take("nesterov"), weight_decay=coupled_decay(case, keys))
    keys.rest()
    return Plan("SGDW", steps_of_torch(lambda parameters: pytorch_optimizer.SGDW(parameters, **settings)))


def scion(case, keys):
    lmo, eps, scale, polar = (keys.take(key) for key in ("lmo", "eps", "scale", "polar"))
    edits, kwargs = [], {}
    if lmo == "spectral":
        steps = plain(polynomial(polar, ("newton_schulz",)), FIXED_EPS)
        if scale not in ("spectral", "original"):
            raise Inexpressible(f"scale = {scale}")
        kind, kwargs = scion_module.LMONorm.SPECTRAL, {"max_scale": scale == "original", "num_steps": len(steps.rows)}
        edits = newton_schulz_edits(steps)
    elif lmo in ("sign", "plain_sign"):
        if case.start[0].ndim == 1:
            raise Inexpressible("signs of a vector")
        kind, kwargs = scion_module.LMONorm.SIGN, {"normalize": lmo == "sign"}
    elif case.start[0].ndim == 1:
        kind = scion_module.LMONorm.BIAS
    else:
        kind = scion_module.LMONorm.ROW if lmo == "output_norm" else scion_module.LMONorm.COL
    if "norm" in lmo and eps != 1e-8:
        raise Inexpressible("eps")
    keys.take("momentum_form", ("ema", "none"))
    keys.take("nesterov", (False,))
    settings = dict(lr=case.lr, momentum=1 - keys.take("momentum"), constraint=keys.take("constrained"), norm_type=kind,
                    norm_kwargs=kwargs, scale=keys.take("radius"), weight_decay=coupled_decay(case, keys))
    keys.rest()
    return Plan("SCION", steps_of_torch(lambda parameters: pytorch_optimizer.SCION(parameters, **settings)), edits=edits)


def soap(case, keys):
    keys.take("form", ("shampoo",))
    settings = dict(lr=case.lr, betas=(keys.take("beta1"), keys.take("beta2")), shampoo_beta=keys.take("shampoo_beta"), eps=keys.take("eps"),
                    weight_decay=coupled_decay(case, keys), precondition_frequency=keys.take("every"),
                    max_precondition_dim=keys.take("largest_side"))
    keys.rest()
    edits = [
        Edit("QR decomposition in float32", ((soap_module.SOAP, "get_orthogonal_matrix_qr"),), "power_iter.to(torch.float32)", "power_iter"),
        Edit("another basis of what the first gradient does not reach", ((soap_module.SOAP, "get_orthogonal_matrix"),),
             "q = torch.flip(q, dims=[1])", "q = completed(m, torch.flip(q, dims=[1]))", (completed,)),
    ]
    return Plan("SOAP", steps_of_torch(lambda parameters: pytorch_optimizer.SOAP(parameters, **settings)), edits=edits)


KINDS = {"muon": muon, "adamw": adamw, "sgd": sgdw, "normuon": normuon, "scion": scion, "soap": soap}
