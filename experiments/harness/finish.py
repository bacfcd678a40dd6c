"""Runs trained to their end: curves, results and the summary are written then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from experiments.harness.restoring import Place
from experiments.harness.trainer import Stopped, Trainer
from experiments.harness.training import Training
from lrscape import figures
from lrscape.extensions import seams
from lrscape.records import Records, best
from lrscape.runs import open_run

if TYPE_CHECKING:  # the papers' networks need no command line
    from experiments.harness.flags import CommonArguments

# Of what is neither a loss nor an error.
UNITS = {
    "seconds": "s",
    "seconds_waited": "s",
    "learning_rate": "1",
    "gradient_norm": "1",
    "epoch": "epoch",
    "perplexity": "1",
    "images_per_second": "1/s",
    "pipeline_images_per_second": "1/s",
}


def train_to_end(
    training: Training,
    root: Path,
    runs: Sequence[tuple[Any, Records]],
    arguments: CommonArguments,
    new: Sequence[bool],
    together: Records | None = None,
) -> int:
    """Trains a run to its end, or several together, from where they are.

    Args:
        training: what they train, with what.
        root: the directory to resume.
        runs: settings and directories; one, or those of seeds that train together.
        arguments: of the command line.
        new: of each run, whether it is to be made.
        together: the directory of the seeds, where they train together.

    Returns:
        The exit status.

    Raises:
        InputError: another process has made, extended or removed a run meanwhile.
    """
    given = arguments.given()
    flags: list[Mapping[str, Any] | None] = [
        (given if own == training.config else {**given, "seed": own.seed})
        if is_new
        else None
        for (own, _), is_new in zip(runs, new, strict=True)
    ]
    trainer = Trainer(
        training, runs, root, given=flags, together=together, finish=finish,
        tensorboard=bool(arguments.tensorboard),
    )  # fmt: skip
    try:
        for _ in trainer.states():
            pass
    except Stopped as stop:
        print(
            f"stopped by {stop.signal.name} at step {stop.step}; saved. Go on with "
            f"--resume --run-dir={root}"
        )
        return 128 + stop.signal
    return 0


def finish(trainer: Trainer, place: Place) -> None:
    """Writes curves, results and summary, and says where they lie."""
    records, kind = place.records, trainer.training.kind
    metrics = records.metrics()
    part = kind.parts(trainer.training.data)[0]
    run = open_run(records.path).config
    title = f"{run.model} on {run.dataset}, {run.schedule} rate"
    found = kind.baseline(trainer.training.data)
    beaten = [(name.split("_")[0], value) for name, value in found.items()]
    at = [epoch for _, epoch in seams(records.config(), metrics)]
    curves = figures.learning_curves(
        metrics, title=title, baseline=beaten[0] if beaten else None, seams=at
    )
    records.save_figure("learning_curves", curves)
    records.save_result("learning_curves", as_dataset(metrics), run.to_dict())
    summary = write_summary(trainer, place, found)
    speed = trainer.per_second
    fast = f", {speed:,.0f} {kind.unit}/s" if speed else ""
    if read := trainer.pipeline:
        fast += (
            f" (its stream read up to {read['pipeline_images_per_second']:,.0f} "
            f"beside it; waited for it {read['seconds_waited']:.1f} s at most)"
        )
    print(
        f"{kind.outcome(summary, part)}; {trainer.seconds:.0f} s{fast}\n"
        f"everything lies in {records.path}: curves in "
        f"{records.path / 'figures' / 'learning_curves.png'}"
    )


def write_summary(
    trainer: Trainer, place: Place, found: Mapping[str, float] = {}
) -> dict[str, Any]:
    """Writes the summary, which says that a run is finished, so that it comes last."""
    training, metrics = trainer.training, place.records.metrics()
    kind, speed = training.kind, trainer.per_second
    best_by = f"{kind.parts(training.data)[0]}_{kind.best_by}"
    summary = {
        "last": metrics[-1],
        "best": best(metrics, best_by),
        "best_by": best_by,
        "steps": training.total_steps,
        "epochs": training.total_steps / training.steps_per_epoch,
        "parameters": trainer.parameters,
        **found,
        "seconds": round(trainer.seconds, 3),
        f"{kind.unit}_per_second": speed and round(speed, 1),
        **trainer.pipeline,
    }
    place.records.write_summary(summary)
    return summary


def as_dataset(metrics: list[dict[str, Any]]) -> xr.Dataset:
    """The metrics as one labelled array for each, along `step`."""
    # In the order in which they come up; the last line may lack some.
    names = list(dict.fromkeys(k for line in metrics for k in line if k != "step"))
    variables = {}
    for name in names:
        what = "perplexity" if name.endswith("perplexity") else name
        unit = UNITS.get(what, "nat" if name.endswith("loss") else "fraction")
        found = [line.get(name) for line in metrics]
        values = np.array([np.nan if v is None else v for v in found], float)
        variables[name] = ("step", values, {"units": unit})
    steps = np.array([line["step"] for line in metrics])
    return xr.Dataset(variables, {"step": ("step", steps, {"units": "update"})})
