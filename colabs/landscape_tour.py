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
# # A tour of a trained network's landscape
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/lrscape/lrscape/blob/main/colabs/landscape_tour.ipynb)
#
# Trains a small network on embedded digits, keeps it now and then, and looks at the loss
# around it: along a line, over planes, its curvature, and its flatness.

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
import numpy as np

from lrscape import data, figures, landscape, models, training, transforms

# %% [markdown]
# ## Train, and keep some points
# `fit` gives the state after every so many updates. A state's parameters are a point.

# %%
digits = data.load("digits")
model = models.create("mlp", num_classes=10, features=(64, 64))
config = training.Config(epochs=12, batch_size=64, num_devices=1)
tx = transforms.scale_by_gaussian(0.3, config.total_steps(digits), start_value=0.1)

start = training.initial_state(model, digits, tx, config.seed)
points = [start.params]
for state in training.fit(model, digits, tx, config, state=start, yield_every=22):
    points.append(state.params)
initial, final = points[0], points[-1]
print(len(points), "points;", int(state.step), "updates")

# %% [markdown]
# ## An objective: the loss over a fixed sample
# `norm` says how batch norm normalises at points that no training passed through:
# `recalibrate` estimates its statistics anew at each.

# %%
images = digits.train.image[:500].astype("float32") / digits.max_value
mean, deviation = images.mean(), images.std()
sample = ((images - mean) / deviation, digits.train.label[:500])
objective = landscape.flax_objective(
    model, sample, norm="recalibrate", batch_size=250, error=True
)
print(objective(final))

# %% [markdown]
# ## Along the line from the start to the end

# %%
alphas = np.linspace(-0.25, 1.25, 31)
surface = landscape.measure_surface(objective, landscape.line(initial, final), alphas)
line = surface.to_dataset({"alpha": alphas})
figures.line_figure(line, ends={0.0: "initial", 1.0: "final"})

# %% [markdown]
# ## Over a plane of random directions
# Normalised per filter, so that networks of different scale can be compared. The second
# figure is to be turned.

# %%
u, v = (
    landscape.gaussian_direction(key, final, normalize="filter")
    for key in jax.random.split(jax.random.key(0))
)
axis = np.linspace(-1, 1, 21)
surface = landscape.measure_surface(
    objective, landscape.plane(final, u, v), landscape.grid_coordinates(axis, axis)
)
plane = surface.to_dataset({"x": axis, "y": axis})
figures.contour_figure(plane, points={"final": (0.0, 0.0)})

# %%
figures.interactive_surface(plane, points={"final": (0.0, 0.0)})

# %% [markdown]
# ## Over the plane nearest to the path that training took
# `off_plane` says how far from it each point really lies.

# %%
fitted = landscape.pca_plane(points)
low, high = fitted.coordinates.min(axis=0), fitted.coordinates.max(axis=0)
margin = 0.2 * (high - low)
x, y = (np.linspace(a, b, 15) for a, b in zip(low - margin, high + margin, strict=True))
path = landscape.measure_surface(objective, fitted, landscape.grid_coordinates(x, y))
print("share of the variance:", fitted.explained_variance_ratio)
print("off the plane:", np.round(fitted.off_plane, 2))
figures.contour_figure(path.to_dataset({"x": x, "y": y}), path=fitted.coordinates)

# %% [markdown]
# ## Curvature
# The largest eigenvalues of the Hessian, with their residuals, and its whole spectrum.
# Batch norm in train mode, as training sees it.

# %%
curved = landscape.flax_objective(model, sample, norm="train", batch_size=250)
pairs = landscape.top_eigenpairs(curved, final, 3, key=jax.random.key(1))
print("eigenvalues", pairs.eigenvalues, "residuals", pairs.residuals)
density = landscape.spectral_density(
    curved, final, key=jax.random.key(2), num_matvecs=20, num_samples=2
)
figures.density_figure(density, eigenvalues=pairs.eigenvalues)

# %% [markdown]
# ## Flatness
# Losses at growing distances from the end, along random directions.

# %%
scales = np.linspace(0, 8, 9)
curves = {
    name: landscape.perturbation_losses(
        curved,
        point,
        scales,
        key=jax.random.key(3),
        num_directions=4,
        normalize="global",
    )
    for name, point in {"after an epoch": points[1], "at the end": final}.items()
}
figures.perturbation_figure({"weights": curves})
