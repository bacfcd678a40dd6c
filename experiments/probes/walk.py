"""The ground between consecutive updates, which are made again."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import optax
import xarray as xr
from tqdm import tqdm

from experiments.probes.survey import Found, Survey
from lrscape import figures, landscape, training, transforms
from lrscape.errors import InputError


def walk(survey: Survey) -> Found:
    """The ground between consecutive updates of one epoch, which is trained again."""
    s, run = survey.settings, survey.runs[0]
    config, data = run.config, run.data
    steps_per_epoch = config.steps_per_epoch(data)
    total = config.total_steps(data)
    if not 1 <= s.epoch <= config.epochs:
        raise InputError(f"epoch={s.epoch} must lie between 1 and {config.epochs}")
    if s.norm == "interpolate":
        raise InputError("norm='interpolate' has no meaning for probe='walk'")
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
        "mean_height_above_floor": float(dataset["height"].mean(skipna=False)),
        "mean_loss": float(loss.mean()),
        "mean_cosine": float(dataset["cosine"].mean()),
        "final_distance": float(dataset["distance"][-1]),
        "non_finite": int((~np.isfinite(dataset["loss"].values)).sum()),
    }
    if "second_crosses_barrier" in dataset:
        both = crossed & dataset["second_crosses_barrier"].values
        summary["barriers_on_both_samples"] = int(both.sum())
    return summary
