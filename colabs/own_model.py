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
# # Your own model, loss and data
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/lrscape/lrscape/blob/main/colabs/own_model.ipynb)
#
# `lrscape.landscape` takes a *point*, any pytree of arrays, and an *objective*, the mean of
# a loss over a sample. Here are three models: Flax Linen, Flax NNX and a bare function.
# Each cell below does one thing to all of them. Put your own in their place.

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
import tempfile
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from lrscape import data, figures, landscape, report, schedules, transforms
from lrscape.records import Records

# %% [markdown]
# ## Data and loss: your own
# Arrays with a leading axis of examples, in any pytree.

# %%
digits = data.load("digits")
batches = {
    "x": digits.train.image.reshape(-1, 64).astype("float32") / digits.max_value,
    "y": digits.train.label,
}


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


# %% [markdown]
# ## Three models
# Each is a point and a function `loss(point, batch)`.


# %%
class LinenMlp(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(nn.relu(nn.Dense(32)(x)))


linen = LinenMlp()
linen_point = linen.init(jax.random.key(0), batches["x"][:1])["params"]


def linen_loss(point, batch):
    return cross_entropy(linen.apply({"params": point}, batch["x"]), batch["y"])


# %%
class NnxMlp(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(64, 32, rngs=rngs)
        self.last = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x):
        return self.last(jax.nn.relu(self.first(x)))


graph, nnx_point = nnx.split(NnxMlp(nnx.Rngs(0)))


def nnx_loss(point, batch):
    return cross_entropy(nnx.merge(graph, point)(batch["x"]), batch["y"])


# %%
bare_point = {"w": jnp.zeros((64, 10)), "b": jnp.zeros((1, 10))}


def bare_loss(point, batch):
    return cross_entropy(batch["x"] @ point["w"] + point["b"], batch["y"])


networks = {
    "linen": (linen_point, linen_loss),
    "nnx": (nnx_point, nnx_loss),
    "bare": (bare_point, bare_loss),
}
objectives = {
    name: landscape.mean_objective(loss, batches, batch_size=500)
    for name, (_, loss) in networks.items()
}

# %% [markdown]
# ## A schedule, and the walk while training
# Records the loss between the first 20 updates as they are made.

# %%
total = 200


def train(name):
    point, loss = networks[name]
    rate = schedules.gaussian(0.2, total, start_value=0.05)
    tx = optax.chain(optax.trace(decay=0.9), transforms.scale_by_rate(rate))

    @jax.jit
    def update(point, state, key):
        chosen = jax.random.choice(key, len(batches["y"]), (64,), replace=False)
        batch = jax.tree.map(lambda a: jnp.asarray(a)[chosen], batches)
        value, gradient = jax.value_and_grad(loss)(point, batch)
        updates, state = tx.update(gradient, state, point)
        return optax.apply_updates(point, updates), state, value

    state, walk = tx.init(point), landscape.Walk(objectives[name], windows=[(0, 20)])
    walk.record(0, point)
    metrics = []
    for step, key in enumerate(jax.random.split(jax.random.key(1), total), 1):
        point, state, value = update(point, state, key)
        walk.record(step, point)
        metrics.append(
            {
                "step": step,
                "epoch": step * 64 / len(batches["y"]),
                "learning_rate": float(rate(step - 1)),
                "train_loss": float(value),
            }
        )
    return point, walk.to_dataset(), metrics


trained = {name: train(name) for name in networks}
for name, (final, walk, _) in trained.items():
    print(
        f"{name:<6} loss {objectives[name](networks[name][0]):.3f} -> "
        f"{objectives[name](final):.3f}; "
        f"{int(walk['crosses_barrier'].sum())} barriers in {len(walk['step'])} updates"
    )

# %%
figures.walk_figure(trained["linen"][1])

# %% [markdown]
# ## A line

# %%
alphas = np.linspace(-0.25, 1.25, 25)
lines = {
    name: landscape.measure_surface(
        objectives[name], landscape.line(networks[name][0], final), alphas
    ).to_dataset({"alpha": alphas})
    for name, (final, _, _) in trained.items()
}
figures.line_figure(lines, ends={0.0: "initial", 1.0: "final"})

# %% [markdown]
# ## A plane

# %%
axis = np.linspace(-1, 1, 15)
planes = {}
for name, (final, _, _) in trained.items():
    u, v = (
        landscape.gaussian_direction(key, final, normalize="layer")
        for key in jax.random.split(jax.random.key(2))
    )
    planes[name] = landscape.measure_surface(
        objectives[name],
        landscape.plane(final, u, v),
        landscape.grid_coordinates(axis, axis),
    ).to_dataset({"x": axis, "y": axis})
figures.interactive_surface(planes["nnx"])

# %% [markdown]
# ## The top eigenvalue

# %%
tops = {
    name: landscape.top_eigenpairs(objectives[name], final, 1, key=jax.random.key(3))
    for name, (final, _, _) in trained.items()
}
for name, pairs in tops.items():
    print(f"{name:<6} {pairs.eigenvalues[0]:.4g}, residual {pairs.residuals[0]:.1g}")

# %% [markdown]
# ## A report
# One HTML file of all three, with surfaces to turn; it opens from disk.

# %%
runs = Path(tempfile.mkdtemp(prefix="runs-"))
for name, (_, walk, metrics) in trained.items():
    records = Records.create(runs / name, {"model": name, "dataset": "digits"})
    for found in metrics:
        records.append_metrics(found)
    records.save_result("line", lines[name], {"start": "initial", "end": "final"})
    records.save_result("plane", planes[name], {"normalize": "layer"})
    records.save_result("walk", walk, {"updates": 20})
    top = float(tops[name].eigenvalues[0])
    records.save_result_summary("curvature", {"largest eigenvalue": top})
    records.write_summary({"last": metrics[-1]})
page, warnings = report.write_report([runs / name for name in trained])
print(page, f"{page.stat().st_size / 1e6:.1f} MB", *warnings, sep="\n")
