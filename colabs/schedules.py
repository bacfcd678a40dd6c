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
# # Schedules in your own Optax pipeline
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/lrscape/lrscape/blob/main/colabs/schedules.ipynb)
#
# A nonmonotonic rate starts small, rises to a peak, and falls to nearly nothing. Here it
# goes into a training loop of your own: Optax, a model that is a function, no framework.

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
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from lrscape import data, schedules, training, transforms

# %% [markdown]
# ## The shapes
# A schedule is a function of the number of updates, like any of Optax.

# %%
total = 600
shapes = {
    "gaussian": schedules.gaussian(0.3, total, start_value=0.1),
    "laplacian": schedules.laplacian(0.3, total, start_value=0.1),
    "trapezoid": schedules.create(
        "trapezoid",
        peak_value=0.3,
        total_steps=total,
        start_value=0.1,
        end_value=3e-5,
        rise=0.25,
        fall=0.5,
    ),
    "step": schedules.step(0.1, total),
    "constant": optax.constant_schedule(0.1),
}
figure = Figure(figsize=(6, 3), layout="constrained")
axes = figure.subplots()
for name, schedule in shapes.items():
    rates = np.broadcast_to(schedule(jnp.arange(total)), total)
    axes.plot(rates, label=name)
axes.set(xlabel="update", ylabel="learning rate")
axes.legend(frameon=False)
figure

# %% [markdown]
# ## A loop of your own
# `transforms.scale_by_rate` remembers the rate that it used, so that it is read rather
# than computed twice.

# %%
digits = data.load("digits")
x = jnp.asarray(digits.train.image, jnp.float32).reshape(-1, 64) / digits.max_value
y = jnp.asarray(digits.train.label)
test_x = jnp.asarray(digits.test.image, jnp.float32).reshape(-1, 64) / digits.max_value
test_y = jnp.asarray(digits.test.label)


def init(key):
    first, last = jax.random.split(key)
    return {
        "w1": jax.random.normal(first, (64, 64)) / 8,
        "b1": jnp.zeros(64),
        "w2": jax.random.normal(last, (64, 10)) / 8,
        "b2": jnp.zeros(10),
    }


def logits(params, inputs):
    hidden = jax.nn.relu(inputs @ params["w1"] + params["b1"][None])
    return hidden @ params["w2"] + params["b2"][None]


def loss(params, inputs, labels):
    losses = optax.softmax_cross_entropy_with_integer_labels(
        logits(params, inputs), labels
    )
    return losses.mean()


def train(schedule, seed=0):
    tx = optax.chain(optax.trace(decay=0.9), transforms.scale_by_rate(schedule))

    @jax.jit
    def update(params, state, key):
        batch = jax.random.choice(key, len(x), (64,), replace=False)
        value, gradient = jax.value_and_grad(loss)(params, x[batch], y[batch])
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    params = init(jax.random.key(seed))
    state, losses, rates = tx.init(params), [], []
    for key in jax.random.split(jax.random.key(seed + 1), total):
        params, state, value = update(params, state, key)
        losses.append(float(value))
        rates.append(float(training.learning_rate(state)))
    error = float((logits(params, test_x).argmax(-1) != test_y).mean())
    return losses, rates, error


found = {name: train(schedule) for name, schedule in shapes.items()}
for name, (losses, rates, error) in found.items():
    last = np.mean(losses[-50:])
    print(
        f"{name:<10} largest rate {max(rates):.3f}  last {rates[-1]:.1e}  "
        f"training loss {last:.4f}  test error {100 * error:.1f} %"
    )

# %% [markdown]
# One seed of a small task says nothing of which is best; it says that all of them are
# ordinary parts of a pipeline.
#
# ## Within `inject_hyperparams`, per epoch, and over batches of rates
# The schedules work wherever Optax's do, also under `vmap`: many peaks at once.

# %%
tx = optax.inject_hyperparams(optax.adam)(
    learning_rate=schedules.per_epoch(schedules.gaussian(1e-3, 600), 22)
)
print(tx.init(init(jax.random.key(0))).hyperparams["learning_rate"])

peaks = jnp.array([0.1, 0.3, 1.0])
rates = jax.vmap(lambda peak: schedules.gaussian(peak, total)(300))(peaks)
print(rates)
