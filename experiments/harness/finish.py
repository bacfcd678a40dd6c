"""What is written once a run is trained to its end: curves, results and summary."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from experiments.harness.loop import Loop, Place
from lrscape import figures
from lrscape.extensions import seams
from lrscape.records import best
from lrscape.runs import open_run

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


def finish(loop: Loop, place: Place, parameters: int) -> None:
    """Writes curves, results and summary, and says where they lie."""
    records = place.records
    metrics = records.metrics()
    kind, part = loop.kind, loop.parts[0]
    best_by = f"{part}_{kind.best_by}"
    least = best(metrics, best_by)
    assert least is not None  # the last step of a run is always measured
    last = metrics[-1]
    run = open_run(records.path).config
    title = f"{run.model} on {run.dataset}, {run.schedule} rate"
    found = kind.baseline(loop.data)
    beaten = [(name.split("_")[0], value) for name, value in found.items()]
    at = [epoch for _, epoch in seams(records.config(), metrics)]
    curves = figures.learning_curves(
        metrics, title=title, baseline=beaten[0] if beaten else None, seams=at
    )
    records.save_figure("learning_curves", curves)
    records.save_result("learning_curves", as_dataset(metrics), run.to_dict())
    # The summary says that the run is finished, so it comes last.
    speed = loop.per_second
    summary = {
        "last": last,
        "best": least,
        "best_by": best_by,
        "steps": loop.total_steps,
        "epochs": loop.total_steps / loop.steps_per_epoch,
        "parameters": parameters,
        **found,
        "seconds": round(loop.seconds, 3),
        f"{kind.unit}_per_second": speed and round(speed, 1),
        **loop.pipeline,
    }
    records.write_summary(summary)
    fast = f", {speed:,.0f} {kind.unit}/s" if speed else ""
    if read := loop.pipeline:
        fast += (
            f" (its stream read up to {read['pipeline_images_per_second']:,.0f} "
            f"beside it; waited for it {read['seconds_waited']:.1f} s at most)"
        )
    print(
        f"{kind.outcome(summary, part)}; {loop.seconds:.0f} s{fast}\n"
        f"everything lies in {records.path}: curves in "
        f"{records.path / 'figures' / 'learning_curves.png'}"
    )


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
