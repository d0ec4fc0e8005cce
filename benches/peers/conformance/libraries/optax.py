"""optax. Muon takes a matrix as [in, out]: its default axes are 0 for the reduction and 1 for the output."""

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import numpy as np
import optax

from cases import Inexpressible
from plan import Plan, coupled_decay, momentum_as, polynomial

NAME = "optax"
SCALES = {"original": None, "match_rms_adamw": 0.2}
NORMS = {"frobenius": "frobenius", "schatten4": "schatten", "aol": "aol"}


def version():
    return optax.__version__


def steps_of(transform):
    """The steps of a gradient transformation, on the transposed matrices."""

    def start(arrays):
        parameters = [jnp.asarray(array.T) for array in arrays]
        state = transform.init(parameters)

        def step(gradients):
            nonlocal parameters, state
            updates, state = transform.update([jnp.asarray(gradient.T) for gradient in gradients], state, parameters)
            parameters = optax.apply_updates(parameters, updates)
            return [np.asarray(parameter).T for parameter in parameters]

        return step

    return start


def muon(case, keys):
    steps = polynomial(keys.take("polar"))
    if steps.factor != 1.0:
        raise Inexpressible("norm_factor")
    if steps.norm != "frobenius":
        steps.eps = 0.0  # has no effect under these norms
    momentum, nesterov = momentum_as("ema_debiased", keys, steps)
    transform = optax.contrib.muon(case.lr, ns_coeffs=tuple(steps.rows), ns_steps=len(steps.rows), beta=momentum, eps=steps.eps,
                                   weight_decay=coupled_decay(case, keys), nesterov=nesterov, preconditioning=NORMS[steps.norm],
                                   consistent_rms=keys.name("scale", SCALES))
    keys.rest()
    return Plan("contrib.muon", steps_of(transform))


def adamw(case, keys):
    transform = optax.adamw(case.lr, keys.take("beta1"), keys.take("beta2"), keys.take("eps"), weight_decay=coupled_decay(case, keys))
    keys.rest()
    return Plan("adamw", steps_of(transform))


def sgd(case, keys):
    if keys.take("weight_decay") != 0:
        raise Inexpressible("weight_decay")
    keys.take("momentum_form", ("heavy_ball", "none"))
    transform = optax.sgd(case.lr, keys.take("momentum"), keys.take("nesterov"))
    keys.rest()
    return Plan("sgd", steps_of(transform))


KINDS = {"muon": muon, "adamw": adamw, "sgd": sgd}
