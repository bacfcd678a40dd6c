"""The probes of `experiments.survey`: each measures runs and shows what it saw.

A probe takes the survey that was asked for and returns labelled arrays, a few numbers
that sum them up, and figures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from tqdm import tqdm

from lrscape import figures, landscape, training, transforms
from lrscape.errors import InputError
from lrscape.runs import Run, Snapshot

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What a survey was asked for, presets filled in; see `experiments.survey`."""

    probe: str
    start: str
    end: str
    points: int
    grid: int
    examples: int | None
    batch_size: int
    norm: str
    part: str
    l2: float
    normalize: str | None
    extent: float
    directions: int
    scale: float
    epoch: int
    steps: int | None
    second_sample: bool
    seed: int


@dataclasses.dataclass(frozen=True)
class Survey:
    """Runs, opened, and what is asked of them.

    Attributes:
        runs: one or several.
        settings: what was asked for.
        store: where a surface is kept while it is being measured.
    """

    runs: list[Run]
    settings: Settings
    store: Path

    def snapshot(self, name: str, run: int = 0) -> Snapshot:
        """A run's snapshot; raises InputError for a name that it lacks."""
        try:
            return self.runs[run].snapshots[name]
        except KeyError as error:
            raise InputError(str(error.args[0])) from error

    def point(self, name: str, run: int = 0) -> Any:
        """A snapshot as a point of the objective."""
        snapshot = self.snapshot(name, run)
        if self.settings.norm == "interpolate" and snapshot.batch_stats:
            return snapshot.variables
        return snapshot.params

    def objective(self, *, start: int = 0, norm: str | None = None) -> Any:
        """The loss and error of the first run's model over a fixed sample."""
        s, run = self.settings, self.runs[0]
        norm = norm or s.norm
        if norm == "interpolate" and not self.snapshot(s.end).batch_stats:
            norm = "eval"  # nothing to interpolate
        return landscape.flax_objective(
            run.model,
            run.sample(s.part, s.examples, seed=s.seed, start=start),
            norm=norm,
            batch_size=s.batch_size,
            batch_stats=self.snapshot(s.end).batch_stats or None,
            l2=s.l2,
            error=True,
        )

    def measure(self, objective: Any, subspace: Any, coordinates: Any) -> Any:
        """A surface, kept while it is being measured, with a bar."""
        return landscape.measure(
            objective, subspace, coordinates, store=self.store, progress=True
        )

    def title(self) -> str:
        """What a figure is of."""
        config, s = self.runs[0].config, self.settings
        examples = f"{s.examples or 'all'} {s.part} examples"
        names = ", ".join(run.path.name for run in self.runs)
        what = f"{config.model} on {config.dataset} ({names})"
        return f"{what}\n{examples}, batch norm: {s.norm}"


@dataclasses.dataclass
class Found:
    """What a probe saw.

    Attributes:
        dataset: labelled arrays.
        summary: a few numbers.
        figures: by name, to be looked at.
        pages: by name, to be turned.
    """

    dataset: xr.Dataset
    summary: dict[str, Any]
    figures: dict[str, Figure] = dataclasses.field(default_factory=dict)
    pages: dict[str, go.Figure] = dataclasses.field(default_factory=dict)


def line(survey: Survey) -> Found:
    """From one snapshot to another, a quarter beyond either end."""
    s = survey.settings
    a, b = survey.point(s.start), survey.point(s.end, run=len(survey.runs) - 1)
    alphas = np.linspace(-0.25, 1.25, s.points)
    # Both ends are among them, so that the losses there are what is marked.
    alphas = np.unique(np.concatenate([alphas, [0.0, 1.0]]))
    surface = survey.measure(survey.objective(), landscape.line(a, b), alphas)
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
        **_about(surface),
    }
    ends = {0.0: s.start, 1.0: s.end}
    figure = figures.line_figure(dataset, ends=ends, title=survey.title())
    return Found(dataset, summary, {"": figure})


def plane(survey: Survey) -> Found:
    """The plane through a snapshot along two random directions."""
    s = survey.settings
    center = survey.point(s.end)
    u, v = (
        landscape.gaussian_direction(key, center, normalize=s.normalize)
        for key in jax.random.split(jax.random.key(s.seed))
    )
    axis = _with_zero(np.linspace(-s.extent, s.extent, s.grid))
    surface = survey.measure(
        survey.objective(), landscape.plane(center, u, v), landscape.grid(axis, axis)
    )
    dataset = surface.to_dataset({"x": axis, "y": axis})
    middle = float(surface.losses["loss"][axis == 0][:, axis == 0].item())
    summary = {f"loss_at_{s.end}": middle, **_extremes(surface), **_about(surface)}
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
    surface = survey.measure(objective, fitted, landscape.grid(*axes))
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
        **_about(surface),
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
        names = [f"{run.path.name} {s.end}" for run in survey.runs]
    elif count == 2:
        points = [survey.point(s.start), *(survey.point(s.end, i) for i in range(2))]
        names = [s.start, *(f"{run.path.name} {s.end}" for run in survey.runs)]
    else:
        raise InputError(f"probe='barycentric' needs two or three runs, not {count}")
    corners = dict(zip(names, ((0.0, 0.5), (1.0, 1.0), (1.0, 0.0)), strict=True))
    return _between(survey, landscape.barycentric(*points), corners)


def bilinear(survey: Survey) -> Found:
    """Between four snapshots: of four runs, or two starts and two ends."""
    s, count = survey.settings, len(survey.runs)
    if count == 4:
        points = [survey.point(s.end, run) for run in range(4)]
        names = [f"{run.path.name} {s.end}" for run in survey.runs]
    elif count == 2:
        which = [(0, s.start), (1, s.start), (0, s.end), (1, s.end)]
        points = [survey.point(name, run) for run, name in which]
        names = [f"{survey.runs[run].path.name} {name}" for run, name in which]
    else:
        raise InputError(f"probe='bilinear' needs two or four runs, not {count}")
    at = ((1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (0.0, 0.0))
    return _between(
        survey, landscape.bilinear(*points), dict(zip(names, at, strict=True))
    )


def _between(survey: Survey, subspace: Any, corners: dict) -> Found:
    axis = np.linspace(0, 1, survey.settings.grid)
    surface = survey.measure(survey.objective(), subspace, landscape.grid(axis, axis))
    dataset = surface.to_dataset({"alpha": axis, "beta": axis})
    losses = surface.losses["loss"]
    at = {
        name: float(losses[_at(axis, a), _at(axis, b)])
        for name, (a, b) in corners.items()
    }
    summary = {"loss_at": at, **_extremes(surface), **_about(surface)}
    return _surface_found(survey, dataset, summary, corners)


def walk(survey: Survey) -> Found:
    """The ground between consecutive updates of one epoch, which is trained again."""
    s, run = survey.settings, survey.runs[0]
    config, data = run.config, run.data
    steps_per_epoch = config.steps_per_epoch(data)
    total = config.total_steps(data)
    if not 1 <= s.epoch <= config.epochs:
        raise InputError(f"epoch={s.epoch} must lie between 1 and {config.epochs}")
    first = (s.epoch - 1) * steps_per_epoch
    last = first + min(s.steps or steps_per_epoch, steps_per_epoch)
    schedule = config.make_schedule(total, steps_per_epoch)
    tx = optax.chain(transforms.keep_gradient(), config.make_optimizer(schedule))
    state = training.initial_state(run.model, data, tx, config.seed)
    # Walked in train mode the running averages do not matter; otherwise they are the
    # end's, since the objective is the same at every point.
    objective = survey.objective()
    second = None
    if s.second_sample:
        if s.examples is None:
            raise InputError("second_sample needs --examples: a part of the data")
        second = survey.objective(start=s.examples)
    recorder = landscape.Walk(
        objective,
        windows=[(first, last)],
        second=second,
        reference=state.params,
        chunk_size=None,
    )
    recorder.record(0, state.params)
    states = training.fit(
        run.model, data, tx, dataclasses.replace(config, num_devices=1),
        yield_every=total + 1, yield_at=recorder.wants, state=state,
    )  # fmt: skip
    with tqdm(total=last, unit="step", desc="training again", leave=False) as bar:
        for state in states:
            step = int(state.step)
            gradient = optax.tree.get(state.opt_state, "gradient")
            recorder.record(step, state.params, gradient=gradient)
            bar.update(step - bar.n)
            if step >= last:
                break
    dataset = recorder.to_dataset()
    summary = {"epoch": s.epoch, **walk_summary(dataset), **recorder.settings}
    title = f"{survey.title()}, epoch {s.epoch}"
    return Found(dataset, summary, {"": figures.walk_figure(dataset, title=title)})


def walk_summary(dataset: xr.Dataset) -> dict[str, Any]:
    """Barriers and heights of a walk, in a few numbers."""
    crossed = dataset["crosses_barrier"].values
    heights = dataset["barrier_height"].values[crossed]
    loss = dataset["loss"].values[:, 0]
    beyond_noise = heights > 2 * dataset["barrier_error"].values[crossed]
    summary = {
        "segments": len(loss),
        "barriers": int(crossed.sum()),
        "barriers_beyond_two_standard_errors": int(beyond_noise.sum()),
        "mean_barrier_height": float(heights.mean()) if len(heights) else None,
        "highest_barrier_over_loss": float((heights / loss[crossed]).max())
        if len(heights)
        else None,
        "floors": int(dataset["has_floor"].sum()),
        "mean_height_above_floor": float(dataset["height"].mean()),
        "mean_loss": float(loss.mean()),
        "mean_cosine": float(dataset["cosine"].mean()),
        "final_distance": float(dataset["distance"][-1]),
        "non_finite": int((~np.isfinite(dataset["loss"].values)).sum()),
    }
    if "second_crosses_barrier" in dataset:
        both = crossed & dataset["second_crosses_barrier"].values
        summary["barriers_on_both_samples"] = int(both.sum())
    return summary


def distance(survey: Survey) -> Found:
    """How far apart networks are as functions, along the line between snapshots."""
    s, model = survey.settings, survey.runs[0].model
    inputs, _ = survey.runs[0].sample(s.part, s.examples, seed=s.seed)
    start = survey.snapshot(s.start).variables
    end = survey.snapshot(s.end, run=len(survey.runs) - 1).variables

    def apply_fn(variables: Any, x: jax.Array) -> Any:
        return model.apply(variables, x, train=False)

    objective = landscape.distance_objective(
        apply_fn, inputs, softmax=True, batch_size=s.batch_size
    )
    alphas = np.linspace(0, 1, s.points)
    way = _Pair(end, landscape.line(start, end))
    surface = survey.measure(objective, way, alphas)
    root = np.sqrt(surface.losses["loss"])
    with np.errstate(divide="ignore", invalid="ignore"):
        root_error = surface.standard_errors["loss"] / (2 * root)
    weights = float(landscape.parameter_distance(start["params"], end["params"]))
    unit = {"units": "1"}
    dataset = xr.Dataset(
        {
            "functional_distance": ("alpha", root, unit),
            "functional_distance_standard_error": ("alpha", root_error, unit),
            "disagreement": (
                "alpha", surface.losses["disagreement"], {"units": "fraction"}
            ),
            "disagreement_standard_error": (
                "alpha", surface.standard_errors["disagreement"], {"units": "fraction"}
            ),
            "parameter_distance": ("alpha", (1 - alphas) * weights, unit),
        },
        {"alpha": ("alpha", alphas, unit)},
    )  # fmt: skip
    args = (apply_fn, start, end, inputs)
    far = landscape.functional_distance_estimate(*args, softmax=True)
    labels = landscape.disagreement_estimate(*args)
    summary = {
        "functional_distance": float(far.value),
        "functional_distance_standard_error": float(far.standard_error),
        "disagreement": float(labels.value),
        "disagreement_standard_error": float(labels.standard_error),
        "parameter_distance": weights,
        "of": "probabilities; batch statistics interpolated",
        **_about(surface),
    }
    figure = figures.line_figure(
        dataset, ends={0.0: s.start, 1.0: s.end}, title=survey.title()
    )
    return Found(dataset, summary, {"": figure})


def flatness(survey: Survey) -> Found:
    """Loss under moved weights and moved inputs, around the end."""
    s, run = survey.settings, survey.runs[0]
    objective, point = survey.objective(), survey.point(s.end)
    keys = jax.random.split(jax.random.key(s.seed), 5)
    scales = np.linspace(0, s.scale, s.points // 2 + 1)
    inputs, _ = run.sample(s.part, s.examples, seed=s.seed)
    params = survey.snapshot(s.end).params
    first = landscape.first_layer(run.model, inputs[:1])
    if survey.settings.norm == "interpolate" and point is not params:
        inner = first

        def first(path: str) -> bool:
            return path.startswith("params/") and inner(path.removeprefix("params/"))

    several: dict[str, Any] = {"num_directions": s.directions, "normalize": "global"}
    wrong = objective.relabelled(keys[4])
    weights = {
        "first layer": landscape.perturbation_losses(
            objective, point, scales, key=keys[0], mask=first, **several
        ),
        "all layers": landscape.perturbation_losses(
            objective, point, scales, key=keys[1], **several
        ),
        "fooling": landscape.perturbation_losses(
            objective, point, scales,
            directions=[landscape.fooling_direction(objective, point)],
        ),
        "towards wrong labels": landscape.perturbation_losses(
            objective, point, scales,
            directions=[
                landscape.fooling_direction(
                    wrong, point, method="gradient", towards=True
                )
            ],
        ),
    }  # fmt: skip
    other = "test" if run.data.validation is None else "validation"
    candidates, _ = run.sample(other)
    fractions = np.linspace(0, 1, s.points // 2 + 1)
    noise = landscape.noise_moves(keys[2], inputs, num_directions=s.directions)
    noise_scales = fractions * float(jnp.linalg.norm(inputs[0]))
    neighbors = landscape.neighbor_moves(
        keys[3], inputs, candidates, num_directions=s.directions
    )
    moved = {
        "noise": landscape.input_losses(objective, point, noise, noise_scales),
        f"towards a {other} image": landscape.input_losses(
            objective, point, neighbors, fractions
        ),
    }
    everything = {**weights, **moved}
    variables: dict[str, Any] = {}
    for name, curves in everything.items():
        key = name.replace(" ", "_")
        dims = (f"{key}_direction", f"{key}_scale")
        variables[key] = (dims, curves.losses, {"units": "nat"})
        variables[f"{key}_standard_error"] = (
            dims, curves.standard_errors, {"units": "nat"}
        )  # fmt: skip
        variables[f"{key}_scale"] = (f"{key}_scale", curves.scales, {"units": "1"})
    dataset = xr.Dataset(variables)
    slope = landscape.average_slope(objective, point, survey.point(s.start))
    summary = {
        "average_slope": float(slope),
        "average_slope_from": s.end,
        "average_slope_to": s.start,
        "loss_unmoved": float(weights["all layers"].losses[0, 0]),
        "loss_at_the_largest_scale": {
            name: float(curves.mean[-1]) for name, curves in everything.items()
        },
        **objective.settings,
    }
    panels = {"weights": weights, "input noise": {"noise": moved.pop("noise")}}
    panels[f"inputs towards {other} images"] = moved
    figure = figures.perturbation_figure(
        panels,
        xlabels={
            "weights": "distance between weights",
            "input noise": "norm of the noise",
            f"inputs towards {other} images": "share of the way",
        },
        title=survey.title(),
    )
    return Found(dataset, summary, {"": figure})


PROBES: dict[str, Callable[[Survey], Found]] = {
    "line": line,
    "plane": plane,
    "path": path,
    "barycentric": barycentric,
    "bilinear": bilinear,
    "walk": walk,
    "flatness": flatness,
    "distance": distance,
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Listed:
    """``i -> the i-th of some points``, which are stacked."""

    points: Any
    num_coordinates = 1

    def __call__(self, index: Any) -> Any:
        row = jnp.asarray(index).astype(jnp.int32)
        return jax.tree.map(lambda leaf: leaf[row], self.points)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Pair:
    """``alpha -> (a point that stays, the point of a line)``."""

    fixed: Any
    line: Any
    num_coordinates = 1

    def __call__(self, alpha: Any) -> Any:
        return self.fixed, self.line(alpha)


def _surface_found(
    survey: Survey,
    dataset: xr.Dataset,
    summary: dict[str, Any],
    points: dict[str, tuple[float, float]],
    path: np.ndarray | None = None,
    path_losses: np.ndarray | None = None,
) -> Found:
    title = survey.title()
    flat = figures.contour_figure(dataset, path=path, points=points, title=title)
    deep = figures.surface_figure(dataset, points=points, title=title)
    page = figures.interactive_surface(
        dataset, points=points, path=path, path_heights=path_losses,
        title=title.replace("\n", "<br>"),
    )  # fmt: skip
    return Found(dataset, summary, {"": flat, "-3d": deep}, {"-3d": page})


def _with_zero(axis: np.ndarray) -> np.ndarray:
    # An odd number of points has its middle at zero only nearly.
    return np.unique(np.where(np.abs(axis) < 1e-12, 0.0, np.append(axis, 0.0)[:-1]))


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


def _about(surface: Any) -> dict[str, Any]:
    return {
        "points": int(np.size(next(iter(surface.losses.values())))),
        "non_finite": surface.num_non_finite,
        "chunk_size": surface.chunk_size,
        "num_devices": surface.num_devices,
        "seconds": round(surface.seconds, 2),
        **surface.settings,
    }
