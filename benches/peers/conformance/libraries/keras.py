"""Keras, with JAX as its backend. A matrix is [in, out], as the kernel of Dense; the scale of its Muon is the same for both orders.

Muon is in float32: on this backend `ops.norm` and the root of its scale are, whatever the type of the variables.
"""

import os

os.environ["KERAS_BACKEND"] = "jax"

import jax

jax.config.update("jax_enable_x64", True)

import keras
import numpy as np
from keras.src.optimizers import adam as adam_module

from cases import Inexpressible
from edits import Edit
from plan import Plan, coupled_decay, momentum_as, plain, polynomial

keras.config.set_floatx("float64")

NAME = "Keras"
FIXED_EPS = 1e-7
SCALES = {"match_rms_adamw": 0.2, "none": None}


def version():
    return keras.__version__


def steps_of(make, dtype="float64"):
    def start(arrays):
        variables = [keras.Variable(array.T, dtype=dtype) for array in arrays]
        optimizer = make()
        optimizer.build(variables)

        def step(gradients):
            optimizer.apply([keras.ops.convert_to_tensor(gradient.T, dtype) for gradient in gradients], variables)
            return [np.array(variable, dtype=np.float64).T for variable in variables]

        return step

    return start


def muon(case, keys):
    steps = plain(polynomial(keys.take("polar")), FIXED_EPS)
    momentum, nesterov = momentum_as("heavy_ball", keys, steps)
    if len(set(steps.rows)) > 1:
        raise Inexpressible("coefficients that change from step to step")
    a, b, c = steps.rows[0]
    settings = dict(learning_rate=case.lr, weight_decay=coupled_decay(case, keys), momentum=momentum, nesterov=nesterov, muon_a=a, muon_b=b,
                    muon_c=c, ns_steps=len(steps.rows), rms_rate=keys.name("scale", SCALES))
    keys.rest()
    return Plan("Muon", steps_of(lambda: keras.optimizers.Muon(**settings), "float32"), precision="f32")


def adamw(case, keys):
    settings = dict(learning_rate=case.lr, beta_1=keys.take("beta1"), beta_2=keys.take("beta2"), epsilon=keys.take("eps"),
                    weight_decay=coupled_decay(case, keys))
    keys.rest()
    edits = [Edit("eps is added before the debiasing", ((adam_module.Adam, "update_step"),),
                  "self.epsilon", "self.epsilon * ops.sqrt(1 - beta_2_power)")]
    return Plan("AdamW", steps_of(lambda: keras.optimizers.AdamW(**settings)), edits=edits)


def sgd(case, keys):
    keys.take("momentum_form", ("heavy_ball", "none"))
    settings = dict(learning_rate=case.lr, momentum=float(keys.take("momentum")), nesterov=keys.take("nesterov"),
                    weight_decay=coupled_decay(case, keys))
    keys.rest()
    return Plan("SGD", steps_of(lambda: keras.optimizers.SGD(**settings)))


KINDS = {"muon": muon, "adamw": adamw, "sgd": sgd}
