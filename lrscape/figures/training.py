"""A run's learning curves, and sheets of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lrscape import checks
from lrscape.figures.style import COLORS, CYCLE, DARK, check_lines, tidy


def learning_curves(
    metrics: Sequence[dict[str, Any]],
    *,
    bands: tuple[Sequence[dict[str, Any]], Sequence[dict[str, Any]]] | None = None,
    title: str | None = None,
    baseline: tuple[str, float] | None = None,
    seams: Sequence[float] = (),
) -> Figure:
    """Draws loss and error over the epochs, with the learning rate beneath them.

    Of a text it is the perplexity that is drawn beside the loss.

    Args:
        metrics: logged lines with ``epoch``, ``learning_rate``, and any of
            ``train_loss``, ``train_error``, ``test_loss`` ...; errors are fractions.
            Where there is a ``test_perplexity``, perplexities are drawn for errors.
            A value that is not finite leaves a gap.
        bands: such lines of the lower and of the upper ends of bands around losses and
            errors.
        title: over the figure.
        baseline: a name and the perplexity that goes by it, drawn as a line.
        seams: epochs at which the run was made longer, drawn as vertical lines.

    Returns:
        The figure, which belongs to no window.
    """
    check_lines("metrics", metrics)
    figure = Figure(figsize=(6.4, 6.4), layout="constrained")
    loss, error, rate = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 2))
    of_text = any("test_perplexity" in line for line in metrics)
    beside = ("perplexity", 1) if of_text else ("error", 100)
    last_errors = []
    for part, color in COLORS.items():
        for axes, name, unit in ((loss, "loss", 1), (error, *beside)):
            points = _points(metrics, f"{part}_{name}", unit)
            if points and bands is not None:
                low, high = (_points(end, f"{part}_{name}", unit) for end in bands)
                epochs, lower = zip(*low, strict=True)
                upper = [value for _, value in high]
                axes.fill_between(epochs, lower, upper, color=color, alpha=0.2, lw=0)
            if points:
                marker = "o" if len(points) < 12 else None
                axes.plot(
                    *zip(*points, strict=True), color=color, label=part, marker=marker,
                    markersize=4,
                )  # fmt: skip
                if axes is error:
                    last_errors.append((points[-1], color))
    _label_ends(error, last_errors)
    rate.plot(
        [line["epoch"] for line in metrics],
        [line["learning_rate"] for line in metrics],
        color=DARK,
    )
    loss.set_ylabel("loss (nats)")
    error.set_ylabel("perplexity" if of_text else "error (%)")
    if baseline is not None:
        error.axhline(baseline[1], color=DARK, linestyle=":", linewidth=1)
        error.annotate(
            f"{baseline[0]} {baseline[1]:.1f}", (0, baseline[1]),
            xycoords=("axes fraction", "data"), xytext=(4, -4),
            textcoords="offset points", va="top", color=DARK, fontsize=9,
        )  # fmt: skip
    error.set_ylim(bottom=0)
    rate.set_ylabel("learning rate")
    rate.set_xlabel("epoch")
    rate.set_ylim(bottom=0)
    rate.xaxis.set_major_locator(MaxNLocator(integer=True))
    rate.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for axes in (loss, error, rate):
        tidy(axes)
        for epoch in seams:
            axes.axvline(epoch, color=DARK, linestyle="--", linewidth=1)
    for epoch in seams:
        rate.annotate(
            "made longer", (epoch, 1), xycoords=("data", "axes fraction"),
            xytext=(4, -4), textcoords="offset points", va="top", color=DARK,
            fontsize=9,
        )  # fmt: skip
    if loss.get_legend_handles_labels()[1]:
        loss.legend(frameon=False)
    if title:
        figure.suptitle(title)
    return figure


def compared_curves(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], *, title: str | None = None
) -> Figure:
    """Draws the test loss, the test error and the rate of several runs.

    Args:
        runs: name -> logged lines, as for `learning_curves`.
        title: over the figure.

    Returns:
        The figure, a colour for each run.
    """
    checks.instance("runs", runs, Mapping, way_out="a name for each run's lines")
    for lines in runs.values():
        check_lines("runs", lines)
    figure = Figure(figsize=(6.4, 6.4), layout="constrained")
    panels = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 2))
    shown = (
        ("test_loss", 1, "test loss (nats)"),
        ("test_error", 100, "test error (%)"),
        ("learning_rate", 1, "learning rate"),
    )
    for axes, (key, unit, text) in zip(panels, shown, strict=True):
        for n, (name, lines) in enumerate(runs.items()):
            found = [line for line in lines if key in line]
            axes.plot(
                [line["epoch"] for line in found],
                [unit * line[key] for line in found],
                color=CYCLE[n % len(CYCLE)],
                # A dollar sign begins mathematics, an underscore hides a name.
                label=" " + name.replace("$", r"\$"),
            )
        axes.set_ylabel(text)
        tidy(axes)
    panels[1].set_ylim(bottom=0)
    panels[2].set_xlabel("epoch")
    panels[1].legend(frameon=False, fontsize=8)
    if title:
        figure.suptitle(title)
    return figure


def image_sheet(
    columns: Mapping[str, Any], *, max_value: float, title: str | None = None
) -> Figure:
    """Draws images in a grid.

    Args:
        columns: title -> images (rows, height, width, channels); one channel is drawn
            in grey.
        max_value: what is drawn as white.
        title: over the figure.

    Returns:
        The figure.
    """
    rows = len(next(iter(columns.values())))
    figure = Figure(
        figsize=(0.9 * len(columns), 0.95 * rows + 0.4), layout="constrained"
    )
    grid = figure.subplots(rows, len(columns), squeeze=False)
    for j, (name, images) in enumerate(columns.items()):
        grid[0, j].set_title(name, fontsize=8)
        for i in range(rows):
            image = np.clip(np.asarray(images[i], np.float32) / max_value, 0, 1)
            grid[i, j].imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1)
            grid[i, j].set_axis_off()
    if title:
        figure.suptitle(title)
    return figure


def _points(
    metrics: Sequence[dict[str, Any]], key: str, unit: float
) -> list[tuple[float, float]]:
    """Epochs and values of the lines that have a key."""
    return [(line["epoch"], unit * line[key]) for line in metrics if key in line]


def _label_ends(axes, ends) -> None:
    """Writes each curve's last value beside it, the larger ones higher."""
    finite = [end for end in ends if np.isfinite(end[0][1])]
    for rank, (point, color) in enumerate(sorted(finite)):
        axes.annotate(
            f"{point[1]:.1f}",
            point,
            xytext=(5, 11 * (rank - (len(finite) - 1) / 2)),
            textcoords="offset points",
            color=color,
            va="center",
        )
