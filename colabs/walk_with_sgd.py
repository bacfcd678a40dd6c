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
# # A walk with SGD
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/lrscape/lrscape/blob/main/colabs/walk_with_sgd.ipynb)
#
# Between two consecutive updates, does the loss rise over a barrier, or does SGD bounce
# between the walls of a valley, above its floor? Measured while a network trains, as in
# Xing et al., [A Walk with SGD](https://arxiv.org/abs/1802.08770) (2018).

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
import optax

from lrscape import data, figures, landscape, models, training, transforms

# %% [markdown]
# ## Train, and record the ground under every update of two epochs
# The sample stays the same at every point, so that differences are the landscape's, not
# the sample's. A second sample tells barriers from noise.

# %%
digits = data.load("digits")
model = models.create("mlp", num_classes=10, features=(64,))
config = training.Config(epochs=10, batch_size=100, num_devices=1)
images = digits.train.image.astype("float32") / digits.max_value
images = (images - images.mean()) / images.std()


def objective(start):
    part = slice(start, start + 500)
    return landscape.flax_objective(
        model, (images[part], digits.train.label[part]), norm="train", batch_size=250
    )


def walk_at(rate):
    tx = optax.chain(transforms.keep_gradient(), optax.sgd(rate))
    per_epoch, total = config.steps_per_epoch(digits), config.total_steps(digits)
    start = training.initial_state(model, digits, tx, config.seed)
    walk = landscape.Walk(
        objective(0),
        windows=[(0, per_epoch), (total - per_epoch, total)],
        second=objective(500),
        reference=start.params,
    )
    walk.record(0, start.params)
    for state in training.fit(
        model, digits, tx, config, state=start, yield_at=walk.wants
    ):
        gradient = optax.tree.get(state.opt_state, "gradient")
        walk.record(int(state.step), state.params, gradient=gradient)
    return walk.to_dataset()


walks = {rate: walk_at(rate) for rate in (0.5, 0.05)}

# %% [markdown]
# ## What was seen
# Lines stand at the iterates, the loss between them is interpolated. The dashed line
# joins the floors.

# %%
figures.walk_figure(walks[0.5], max_steps=14)

# %% [markdown]
# ## In numbers
# A barrier counts where it is higher than two standard errors, and is on both samples.

# %%
for rate, walk in walks.items():
    for name, part in (
        ("first epoch", walk.isel(step=slice(0, 14))),
        ("last epoch", walk.isel(step=slice(-14, None))),
    ):
        crossed = part["crosses_barrier"].values
        sure = crossed & part["second_crosses_barrier"].values
        sure &= part["barrier_height"].values > 2 * part["barrier_error"].values
        print(
            f"rate {rate:<5} {name:<11} barriers {crossed.sum()} ({sure.sum()} sure)  "
            f"height above the floor {float(part['height'].mean()):.2e}  "
            f"cosine {float(part['cosine'].mean()):+.2f}"
        )

# %% [markdown]
# The height says how far up the walls SGD is, a negative cosine of consecutive gradients
# that it goes back and forth between them. Early on a smaller rate keeps closer to the
# floor, but moves less far along it.
#
# ## How far it gets

# %%
for rate, walk in walks.items():
    distance = walk["distance"].values
    print(
        f"rate {rate}: {distance[13]:.2f} from the start after an epoch, "
        f"{distance[-1]:.2f} at the end"
    )
