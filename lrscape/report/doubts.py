"""Warnings that a report begins with, before its numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lrscape.report.reading import HISTORY, Result, RunOnDisk

# A difference within so many standard errors is sampling noise.
ERRORS = 2


def doubts(run: RunOnDisk) -> list[str]:
    """Lists the doubts about a run: damage, an early stop, values that are not finite.

    Args:
        run: as `lrscape.report.reading.read_run` reads it.

    Returns:
        Sentences, none where all is well.
    """
    found = list(run.troubles)
    if not run.is_paper:
        found += _training(run)
    for network in run.networks:
        found += [f"{network.name}: {text}" for text in network.troubles]
        found += [f"{network.name}: {text}" for text in _training(network)]
    for name, result in run.results.items():
        found += [f"{name}: {text}" for text in _result(result)]
    return found


def between(runs: Sequence[RunOnDisk]) -> list[str]:
    """Lists differences that make runs hard to compare: versions, devices, source.

    Args:
        runs: that are put side by side.

    Returns:
        Sentences, none where they were made alike.
    """
    found = []
    names = ("device", "device_count", "cores", "machine", "commit")
    for field in names:
        values = {str(run.config[field]) for run in runs if field in run.config}
        if len(values) > 1:
            listed = ", ".join(sorted(values))
            found.append(
                f"the runs differ in their {field.replace('_', ' ')}: {listed}"
            )
    versions: dict[str, set[str]] = {}
    for run in runs:
        stored = run.config.get("versions")
        for package, version in stored.items() if isinstance(stored, dict) else ():
            versions.setdefault(str(package), set()).add(str(version))
    for package, values in versions.items():
        if len(values) > 1:
            listed = ", ".join(sorted(values))
            found.append(f"the runs differ in their version of {package}: {listed}")
    return found


def _training(run: RunOnDisk) -> list[str]:
    found = []
    if run.diverged is not None:
        found.append(f"its loss stopped being finite at update {run.diverged:g}")
    elif not run.finished and ("model" in run.config or run.metrics):
        at = run.last.get("epoch")
        of = "" if run.epochs is None else f" of {run.epochs:g}"
        what = "before its first measurement" if at is None else f"after epoch {at:g}"
        # Nothing on disk tells a run that was killed from one that goes on.
        found.append(f"it is not finished: it stopped, or is still {what}{of}")
    counts: dict[str, int] = {}
    for line in run.metrics:
        for name, value in line.items():
            if isinstance(value, float) and not math.isfinite(value):
                counts[name] = counts.get(name, 0) + 1
    for name, count in counts.items():
        found.append(
            f"{name} is not finite in {count} of {len(run.metrics)} logged lines"
        )
    if str(run.config.get("commit", "")).endswith("+"):
        found.append("it was made from source with uncommitted changes")
    return found


def _result(result: Result) -> list[str]:
    if result.name == HISTORY or result.rows is not None:
        return []
    found = []
    if result.dataset is not None:
        for name, array in result.dataset.data_vars.items():
            if name in ("loss", "error", "second_loss") and array.dtype.kind == "f":
                bad = int((~np.isfinite(array.values)).sum())
                if bad:
                    found.append(f"{bad} of {array.size} values of {name} not finite")
        found += _barriers(result.dataset)
    elif isinstance(result.summary, dict):
        counted = result.summary.get("non_finite")
        if isinstance(counted, int) and counted:
            found.append(f"{counted} values not finite")
        crossed, beyond = (
            result.summary.get(name)
            for name in ("barriers", "barriers_beyond_two_standard_errors")
        )
        if isinstance(crossed, int) and isinstance(beyond, int) and beyond < crossed:
            found.append(_noisy(crossed - beyond, crossed))
    return found


def _barriers(dataset: Any) -> list[str]:
    found = []
    for prefix in ("", "second_"):
        names = ("crosses_barrier", "barrier_height", "barrier_error")
        if any(prefix + name not in dataset for name in names):
            continue
        crossed, heights, errors = (dataset[prefix + name].values for name in names)
        crossed = crossed.astype(bool)
        # An error that is not known proves nothing.
        within = crossed & ~(heights > ERRORS * errors)
        if within.any():
            on = "" if not prefix else " on the second sample"
            found.append(_noisy(int(within.sum()), int(crossed.sum())) + on)
    if "alpha" in dataset.dims and len(dataset.dims) == 1 and "loss" in dataset:
        found += _line(dataset)
    return found


def _noisy(within: int, crossed: int) -> str:
    return (
        f"{within} of {crossed} barriers are no higher than {ERRORS} standard errors: "
        "sampling noise could make them"
    )


def _line(dataset: Any) -> list[str]:
    alphas, losses = dataset["alpha"].values, dataset["loss"].values
    inside = np.flatnonzero((alphas >= 0) & (alphas <= 1))
    if len(inside) < 3 or "loss_standard_error" not in dataset:
        return []
    errors, losses = dataset["loss_standard_error"].values[inside], losses[inside]
    if not np.isfinite(losses).all():
        return []
    top = 1 + int(np.argmax(losses[1:-1]))
    end = 0 if losses[0] >= losses[-1] else -1
    height = losses[top] - losses[end]
    error = float(np.hypot(errors[top], errors[end]))
    if height > 0 and not height > ERRORS * error:
        sentence = (
            f"its barrier of {height:.3g} nats is no higher than {ERRORS} standard "
            f"errors ({ERRORS * error:.3g}): sampling noise could make it"
        )
        return [sentence]
    return []
