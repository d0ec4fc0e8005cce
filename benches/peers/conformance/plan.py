"""What an adapter hands to the runner, and what the adapters share."""

from dataclasses import dataclass, field

import numpy as np

from cases import DEFAULTS, Inexpressible


@dataclass
class Plan:
    """A case in the words of a library."""

    optimizer: str
    start: object  # the pieces -> a function of their gradients that returns them after the step
    precision: str = "f64"  # or f32, whose tolerance then counts
    edits: list = field(default_factory=list)


def steps_of_torch(make, dtype="float64"):
    """The steps of an optimizer with PyTorch's interface; `make` builds it from its parameters. A matrix is outputs x inputs."""
    import torch

    torch.set_num_threads(1)  # the order of sums must not depend on the machine
    dtype = getattr(torch, dtype)
    tensor = lambda array: torch.tensor(np.ascontiguousarray(array), dtype=dtype)

    def start(arrays):
        parameters = [torch.nn.Parameter(tensor(array)) for array in arrays]
        optimizer = make(parameters)

        def step(gradients):
            for parameter, gradient in zip(parameters, gradients):
                parameter.grad = tensor(gradient)
            optimizer.step()
            return [parameter.detach().to(torch.float64, copy=True).numpy() for parameter in parameters]

        return step

    return start


def coupled_decay(case, keys):
    """The weight decay of a library that multiplies it with the rate, which is constant here."""
    form = keys.take("decay")
    rate = keys.take("weight_decay")
    return rate / case.lr if form == "independent" else rate


@dataclass
class Polynomial:
    """A polar factor by odd quintics, as `polar` says it."""

    rows: list
    eps: float
    factor: float
    norm: str


EXACT = Polynomial([], 0.0, 1.0, "frobenius")  # singular values: no eps


def polynomial(polar, methods=("newton_schulz", "polynomial", "polar_express")):
    """The steps of `polar`; `Inexpressible` for a method that is none of these."""
    method = polar["method"]
    if method not in methods:
        raise Inexpressible(f"polar = {method}")
    polar = {**DEFAULTS["polar"][method], **polar}
    rows = polar.get("coefficients", method)
    name = rows if isinstance(rows, str) else None
    rows = DEFAULTS["coefficients"].get(name, rows)
    count = polar.get("steps", len(rows))
    rows = [tuple(map(float, rows[min(i, len(rows) - 1)])) for i in range(count)]
    factor = polar.get("norm_factor", DEFAULTS["norm_factor"].get(name, 1.0))
    norm = polar.get("precondition") or polar.get("norm", "frobenius")
    return Polynomial(rows, polar["eps"], factor, norm)


def plain(steps, fixed_eps=None):
    """Refuses what a library without those settings cannot say: another norm, a factor of it, another eps than its own."""
    if steps.norm != "frobenius":
        raise Inexpressible(f"norm {steps.norm}")
    if steps.factor != 1.0:
        raise Inexpressible("norm_factor")
    if fixed_eps is not None and steps.eps not in (0.0, fixed_eps):
        raise Inexpressible(f"polar.eps = {steps.eps}")
    return steps


def momentum_as(form, keys, steps):
    """The momentum in the form that a library has, for rules that see only the direction of what the momentum gives.

    A heavy ball is 1/(1-mu) times the average, so its eps counts (1-mu) times as much. Without look-ahead the three forms
    differ by a factor, which eps 0 does not see.
    """
    had = keys.take("momentum_form")
    mu, nesterov = keys.take("momentum"), keys.take("nesterov")
    if had != form and had != "none":
        if {had, form} == {"heavy_ball", "ema"}:
            steps.eps *= (1 - mu) if had == "heavy_ball" else 1 / (1 - mu)
        elif nesterov or steps.eps != 0:
            raise Inexpressible(f"momentum_form = {had}")
    return mu, nesterov


def completed(gram, basis):
    """A basis whose first columns the Gram matrix decides, completed as in the vectors, by Householder reflections.

    What the first gradient of SOAP does not reach has no eigenvectors; any other completion is as good.
    """
    import torch

    if basis.ndim > 2:
        return torch.stack([completed(*pair) for pair in zip(gram, basis)])
    rank = int(torch.linalg.matrix_rank(gram, hermitian=True, rtol=64 * torch.finfo(gram.dtype).eps))
    known = basis[:, :rank]
    return torch.cat([known, torch.linalg.qr(known, mode="complete")[0][:, rank:]], 1)
