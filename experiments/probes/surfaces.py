"""Losses along lines and over surfaces, around the snapshots of runs."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from experiments.probes.survey import Found, Survey, about
from lrscape import figures, landscape
from lrscape.errors import InputError
from lrscape.figures.interactive import as_text


def line(survey: Survey) -> Found:
    """From one snapshot to another, a quarter beyond either end."""
    s = survey.settings
    a, b = survey.point(s.start), survey.point(s.end, run=len(survey.runs) - 1)
    alphas = np.linspace(-0.25, 1.25, s.points)
    # Both ends are among them, so that the losses there are what is marked.
    alphas = np.unique(np.concatenate([alphas, [0.0, 1.0]]))
    objective = survey.objective(averages_of=len(survey.runs) - 1)
    surface = survey.measure(objective, landscape.line(a, b), alphas)
    dataset = surface.to_dataset({"alpha": alphas})
    losses = surface.losses["loss"]
    inside = losses[(alphas >= 0) & (alphas <= 1)]
    at = {"from": losses[alphas == 0][0], "to": losses[alphas == 1][0]}
    summary = {
        **_ends(at),
        "distance": float(landscape.parameter_distance(a, b)),
        "barrier_height": float(landscape.barrier_height(inside)),
        "least_loss": float(np.nanmin(losses)),
        "least_at": float(alphas[np.nanargmin(losses)]),
        **about(surface),
    }
    ends = {0.0: s.start, 1.0: s.end}
    figure = figures.line_figure(dataset, ends=ends, title=survey.title())
    return Found(dataset, summary, {"": figure})


def plane(survey: Survey) -> Found:
    """The plane through a snapshot along two random directions."""
    s = survey.settings
    center = survey.point(s.end)
    objective = survey.objective()
    u, v = (
        landscape.gaussian_direction(key, center, normalize=s.normalize, axes=objective)
        for key in jax.random.split(jax.random.key(s.seed))
    )
    axis = _with_zero(np.linspace(-s.extent, s.extent, s.grid))
    surface = survey.measure(
        objective, landscape.plane(center, u, v), landscape.grid_coordinates(axis, axis)
    )
    dataset = surface.to_dataset({"x": axis, "y": axis})
    middle = float(surface.losses["loss"][axis == 0][:, axis == 0].item())
    summary = {f"loss_at_{s.end}": middle, **_extremes(surface), **about(surface)}
    return _surface_found(survey, dataset, summary, {s.end: (0.0, 0.0)})


def path(survey: Survey) -> Found:
    """The plane nearest to the run's own path, and how far off it the path runs."""
    s, run = survey.settings, survey.runs[0]
    snapshots = sorted(
        ((run.snapshots[name].step, name) for name in run.snapshots),
    )
    if len(snapshots) < 3:
        raise InputError(
            f"probe='path' needs three snapshots; {str(run.path)!r} has "
            f"{len(snapshots)}: train with --snapshot-epochs"
        )
    names = [name for _, name in snapshots]
    points = [survey.point(name) for name in names]
    fitted = landscape.pca_plane(points)
    axes = []
    for k in range(2):
        low, high = fitted.coordinates[:, k].min(), fitted.coordinates[:, k].max()
        margin = 0.2 * (high - low)
        axes.append(np.linspace(low - margin, high + margin, s.grid))
    objective = survey.objective()
    surface = survey.measure(objective, fitted, landscape.grid_coordinates(*axes))
    own = landscape.evaluate(
        objective, _Listed(jax.tree.map(lambda *x: jnp.stack(x), *points)),
        np.arange(len(points)),
    )["loss"]  # fmt: skip
    beneath = landscape.evaluate(objective, fitted, fitted.coordinates)["loss"]
    dataset = surface.to_dataset({"x": axes[0], "y": axes[1]})
    dataset = dataset.assign_coords(snapshot=("snapshot", names))
    for name, values, unit in (
        ("path_x", fitted.coordinates[:, 0], "1"),
        ("path_y", fitted.coordinates[:, 1], "1"),
        ("off_plane", fitted.off_plane, "1"),
        ("path_loss", own, "nat"),
        ("loss_on_plane", beneath, "nat"),
    ):
        dataset[name] = ("snapshot", values, {"units": unit})
    for n, share in enumerate(fitted.explained_variance_ratio):
        text = f"principal component {n + 1} ({100 * share:.1f} %)"
        dataset["xy"[n]].attrs["long_name"] = text
    summary = {
        "explained_variance_ratio": fitted.explained_variance_ratio.tolist(),
        "snapshots": {
            name: {
                "off_plane": float(fitted.off_plane[i]),
                "loss": float(own[i]),
                "loss_on_plane": float(beneath[i]),
            }
            for i, name in enumerate(names)
        },
        **_extremes(surface),
        **about(surface),
    }
    marks = {
        f"{name} ({off:.2g} off)": tuple(at)
        for name, off, at in zip(
            names, fitted.off_plane, fitted.coordinates, strict=True
        )
    }
    return _surface_found(
        survey, dataset, summary, marks, fitted.coordinates, np.asarray(own)
    )


def barycentric(survey: Survey) -> Found:
    """Between three snapshots: of three runs, or one start and two ends."""
    s, count = survey.settings, len(survey.runs)
    if count == 3:
        points = [survey.point(s.end, run) for run in range(3)]
        names = [f"{name} {s.end}" for name in survey.names]
    elif count == 2:
        points = [survey.point(s.start), *(survey.point(s.end, i) for i in range(2))]
        names = [s.start, *(f"{name} {s.end}" for name in survey.names)]
    else:
        raise InputError(f"probe='barycentric' needs two or three runs, not {count}")
    corners = dict(zip(names, ((0.0, 0.5), (1.0, 1.0), (1.0, 0.0)), strict=True))
    return _between(survey, landscape.barycentric(*points), corners)


def bilinear(survey: Survey) -> Found:
    """Between four snapshots: of four runs, or two starts and two ends."""
    s, count = survey.settings, len(survey.runs)
    if count == 4:
        points = [survey.point(s.end, run) for run in range(4)]
        names = [f"{name} {s.end}" for name in survey.names]
    elif count == 2:
        which = [(0, s.start), (1, s.start), (0, s.end), (1, s.end)]
        points = [survey.point(name, run) for run, name in which]
        names = [f"{survey.names[run]} {name}" for run, name in which]
    else:
        raise InputError(f"probe='bilinear' needs two or four runs, not {count}")
    at = ((1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (0.0, 0.0))
    return _between(
        survey, landscape.bilinear(*points), dict(zip(names, at, strict=True))
    )


def _between(survey: Survey, subspace: Any, corners: dict) -> Found:
    if (
        survey.settings.norm == "eval"
        and survey.snapshot(survey.settings.end).batch_stats
    ):
        raise InputError(
            "norm='eval': no run's averages fit all corners; use recalibrate, train or "
            "interpolate"
        )
    axis = np.linspace(0, 1, survey.settings.grid)
    surface = survey.measure(
        survey.objective(), subspace, landscape.grid_coordinates(axis, axis)
    )
    dataset = surface.to_dataset({"alpha": axis, "beta": axis})
    losses = surface.losses["loss"]
    at = {
        name: float(losses[_at(axis, a), _at(axis, b)])
        for name, (a, b) in corners.items()
    }
    summary = {"loss_at": at, **_extremes(surface), **about(surface)}
    return _surface_found(survey, dataset, summary, corners)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Listed:
    """``i -> the i-th of some points``, which are stacked."""

    points: Any
    num_coordinates = 1

    def __call__(self, index: Any) -> Any:
        row = jnp.asarray(index).astype(jnp.int32)
        return jax.tree.map(lambda leaf: leaf[row], self.points)


def _surface_found(
    survey: Survey,
    dataset: xr.Dataset,
    summary: dict[str, Any],
    points: dict[str, tuple[float, float]],
    path: np.ndarray | None = None,
    path_losses: np.ndarray | None = None,
) -> Found:
    title = survey.title()
    marked = {name: [float(at) for at in place] for name, place in points.items()}
    dataset.attrs["points"] = json.dumps(marked)
    flat = figures.contour_figure(dataset, path=path, points=points, title=title)
    deep = figures.surface_figure(dataset, points=points, title=title)
    page = figures.interactive_surface(
        dataset, points=points, path=path, path_heights=path_losses,
        title=as_text(title).replace("\n", "<br>"),
    )  # fmt: skip
    return Found(dataset, summary, {"": flat, "-3d": deep}, {"-3d": page})


def _with_zero(axis: np.ndarray) -> np.ndarray:
    """The axis with a point at zero exactly."""
    return np.unique(np.append(np.where(np.abs(axis) < 1e-12, 0.0, axis), 0.0))


def _at(axis: np.ndarray, value: float) -> int:
    return int(np.argmin(np.abs(axis - value)))


def _ends(at: dict[str, Any]) -> dict[str, float]:
    return {f"loss_{name}": float(value) for name, value in at.items()}


def _extremes(surface: Any) -> dict[str, Any]:
    losses = surface.losses["loss"]
    finite = losses[np.isfinite(losses)]
    if not finite.size:
        return {"least_loss": None, "largest_loss": None}
    return {"least_loss": float(finite.min()), "largest_loss": float(finite.max())}
