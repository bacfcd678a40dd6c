# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A Lipschitz rate, with no rate to tune
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/lrscape/lrscape/blob/main/colabs/lipschitz_rate.ipynb)
#
# The inverse of the loss's Lipschitz constant as the learning rate: Yedida and Saha,
# [A novel adaptive learning rate scheduler](https://arxiv.org/abs/1902.07399) (2019). The
# constant follows from the norm of what enters the last layer, which the forward pass
# has anyway.

# %%
# Installs lrscape where it is missing; does nothing where it is there.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("lrscape") is None:
    package = "lrscape @ git+https://github.com/lrscape/lrscape"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", package], check=True)

# %%
# %matplotlib inline
import jax.numpy as jnp
from matplotlib.figure import Figure

from lrscape import data, models, training, transforms

# %% [markdown]
# ## The constant by itself
# For k classes and batches of m: (k - 1) / (k m) times the norm of the activations. The
# `bound` is the true one, which the gradient never exceeds.

# %%
activations = jnp.ones((64, 32))
for form in ("paper", "bound"):
    constant = transforms.lipschitz_constant(
        jnp.linalg.norm(activations), num_classes=10, batch_size=64, form=form
    )
    print(f"{form}: constant {float(constant):.4f}, rate {1 / float(constant):.3f}")

# %% [markdown]
# ## Training with it
# `fit` hands the norm over by itself. In a loop of your own it is
# `tx.update(gradients, state, params, activation_norm=...)`.

# %%
digits = data.load("digits")
model = models.create("mlp", num_classes=10, features=(64,))
config = training.Config(epochs=15, batch_size=64, num_devices=1)
per_epoch = config.steps_per_epoch(digits)


def train(tx):
    evaluate = training.make_evaluate(model, digits, config)
    rates, errors = [], []
    for state in training.fit(model, digits, tx, config, yield_every=per_epoch):
        rates.append(float(training.learning_rate(state.opt_state)))
        errors.append(100 * evaluate(state)["error"])
    return rates, errors


methods = {
    f"Lipschitz, {form}": transforms.lipschitz_sgd(
        num_classes=10, batch_size=64, window=per_epoch, form=form
    )
    for form in ("paper", "bound")
}
for rate in (0.01, 0.1, 1.0):
    methods[f"constant {rate}"] = transforms.scale_by_rate(lambda count, r=rate: r)
found = {name: train(tx) for name, tx in methods.items()}
for name, (rates, errors) in found.items():
    print(
        f"{name:<17} first rate {rates[0]:.3f}  last {rates[-1]:.3f}  "
        f"test error {errors[-1]:.2f} %"
    )

# %%
figure = Figure(figsize=(6, 5), layout="constrained")
above, below = figure.subplots(2, 1, sharex=True)
epochs = range(1, config.epochs + 1)
for name, (rates, errors) in found.items():
    above.plot(epochs, errors, label=name)
    below.plot(epochs, rates)
above.set_ylabel("test error (%)")
below.set_ylabel("learning rate")
below.set_yscale("log")
below.set_xlabel("epoch")
above.legend(frameon=False, fontsize=8)
figure

# %% [markdown]
# One seed on 1,437 images: a rate that nobody tuned, beside three that somebody guessed.
# On other tasks it can be far too large: `python -m experiments.lipschitz_rate stability`
# holds it against 2 over the largest eigenvalue.
