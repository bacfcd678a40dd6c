"""What the runs of a sweep came to: one labelled array, a table and a figure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments.harness.statistics import mean_and_interval, t_interval
from experiments.sweep.grid import Job
from lrscape.errors import InputError
from lrscape.figures.style import tidy
from lrscape.records import Records

# In the order of the table.
MEASURED = ("test_error", "test_loss", "train_error", "train_loss")


def gather(jobs: Sequence[Job], grid: Mapping[str, Sequence[str]], seeds: int) -> Any:
    """The last values of every run that is done.

    Args:
        jobs: all runs.
        grid: what is varied.
        seeds: how many of each.

    Returns:
        ``test_error`` (a fraction), ``test_loss`` (in nats) and so on over the fields
        that are varied and ``seed``, after the last epoch; ``least_test_error`` over
        all epochs, ``seconds``, and ``done``. NaN where a run is not done.
    """
    names = (*MEASURED, "least_test_error", "seconds")
    shape = (*map(len, grid.values()), seeds)
    found = {name: np.full(len(jobs), np.nan) for name in names}
    done = np.zeros(len(jobs), bool)
    for i, job in enumerate(jobs):
        records = Records(job.run_dir)
        if (summary := records.summary()) is None:
            continue
        done[i] = True
        metrics = records.metrics()
        try:
            for name in MEASURED:
                found[name][i] = summary["last"].get(name, np.nan)
            errors = np.array(
                [line.get("test_error", np.nan) for line in metrics], float
            )
            found["least_test_error"][i] = np.nanmin(errors)
            found["seconds"][i] = summary["seconds"]
        # A directory that something else was put into.
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"run_dir={str(job.run_dir)!r} holds no run of this sweep: its summary "
                f"or metrics are not those of a training run ({error}); remove it"
            ) from error
    axes = (*grid, "seed")
    units = {"seconds": "s"}
    variables: dict[str, Any] = {
        name: (
            axes,
            values.reshape(shape),
            {"units": units.get(name, "nat" if name.endswith("loss") else "fraction")},
        )
        for name, values in found.items()
    }
    variables["done"] = (axes, done.reshape(shape))
    coordinates = {field: (field, as_numbers(v)) for field, v in grid.items()}
    return xr.Dataset(variables, {**coordinates, "seed": np.arange(seeds)})


def as_numbers(values: Sequence[str]) -> Any:
    """Values as numbers where all are, else as they were typed."""
    try:
        return np.array([float(value) for value in values])
    except ValueError:
        return list(values)


def table(found: xr.Dataset, errors: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each combination: means over seeds with their intervals.

    Args:
        found: see `gather`.
        errors: of its failed runs, one a combination; empty: none.
    """
    fields = [name for name in found.test_error.dims if name != "seed"]
    rows = []
    choices = itertools.product(*(range(found.sizes[name]) for name in fields))
    for at, failed in zip(choices, errors, strict=True):
        one = found.isel(dict(zip(fields, at, strict=True)))
        done = one.isel(seed=one.done.values)
        rows.append(
            {
                **{name: _shown(one[name].item()) for name in fields},
                "seeds": f"{done.sizes['seed']} of {one.sizes['seed']}",
                "test error, %": mean_and_interval(100 * done.test_error.values),
                "least, %": mean_and_interval(100 * done.least_test_error.values),
                "test loss": mean_and_interval(done.test_loss.values),
                "train loss": mean_and_interval(done.train_loss.values),
                "failed": failed or "-",
            }
        )
    return rows


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def figure(found: xr.Dataset) -> Figure:
    """The last test error over what is varied, with intervals over seeds.

    The numbers that take the most values lie along x; every combination of the others
    is a curve.
    """
    fields = [str(name) for name in found.test_error.dims if name != "seed"]
    numeric = [name for name in fields if found[name].dtype.kind == "f"]
    along = max(numeric or fields, key=lambda name: found.sizes[name])
    others = [name for name in fields if name != along]
    drawn = Figure(figsize=(7, 4.5), layout="constrained")
    axes = drawn.subplots()
    is_number = along in numeric
    positions = found[along].values if is_number else np.arange(found.sizes[along])
    order = np.argsort(positions)
    curves = list(itertools.product(*(range(found.sizes[name]) for name in others)))
    for n, at in enumerate(curves):
        one = found.isel(dict(zip(others, at, strict=True))).isel({along: order})
        values = 100 * one.test_error.transpose(along, "seed").values
        means = [t_interval(v[np.isfinite(v)]) for v in values]
        mean, low, high = np.array(means, float).T
        # Side by side, so that bars do not hide one another.
        shift = 0 if is_number else 0.08 * (n - (len(curves) - 1) / 2)
        label = ", ".join(f"{name} {_shown(one[name].item())}" for name in others)
        bars = np.nan_to_num(np.array([mean - low, high - mean]))
        axes.errorbar(
            positions[order] + shift, mean, bars, fmt="o-" if is_number else "o",
            capsize=3, label=label or None,
        )  # fmt: skip
    if is_number:
        if (
            len(positions) > 2
            and (positions > 0).all()
            and np.ptp(np.log(positions)) > 2
        ):
            axes.set_xscale("log")
        axes.set_xlabel(along)
    else:
        axes.set_xticks(positions, [str(value) for value in found[along].values])
        axes.set_xlabel(along)
    axes.set_ylabel("test error after the last epoch, %")
    if others:
        axes.legend(frameon=False, fontsize=8)
    tidy(axes)
    seeds = found.sizes["seed"]
    axes.set_title(
        f"{seeds} seed{'s' if seeds > 1 else ''} each"
        + (", 95 % intervals" if seeds > 1 else ""),
        fontsize=10,
    )
    return drawn
