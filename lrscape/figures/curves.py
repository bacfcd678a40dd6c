"""One-dimensional landscapes: losses along lines, perturbations, and the walk."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lrscape.errors import InputError
from lrscape.figures.style import (
    CYCLE,
    DARK,
    FLOOR,
    check_result,
    hatch_spans,
    label,
    tidy,
)

if TYPE_CHECKING:
    import xarray as xr


def line_figure(
    results: xr.Dataset | Mapping[str, xr.Dataset],
    *,
    ends: Mapping[float, str] | None = None,
    title: str | None = None,
) -> Figure:
    """Draws what was measured along a line, both ends marked.

    Args:
        results: a result over one coordinate, as `Surface.to_dataset` of
            `lrscape.landscape.surface` gives it, or several of them by the name that
            the legend gives. Each variable that is no standard error gets its panel;
            the band is two standard errors wide on each side.
        ends: coordinate -> name of the point there, such as ``{0: 'initial'}``.
        title: over the figure.

    Returns:
        The figure. What is not finite is hatched.

    Raises:
        InputError: a result over more than one coordinate.

    Example:
        >>> from lrscape.landscape import line, measure_surface
        >>> surface = measure_surface(lambda w: w ** 2, line(0.0, 1.0), [0.0, 0.5, 1.0])
        >>> result = surface.to_dataset({'alpha': [0.0, 0.5, 1.0]})
        >>> len(line_figure(result, ends={0: 'start', 1: 'end'}).axes)
        1
    """
    # A Dataset is a mapping too.
    several = isinstance(results, Mapping) and not hasattr(results, "data_vars")
    given: Any = results
    named: dict[str, Any] = dict(given) if several else {"": given}
    if not named:
        raise InputError(f"results={results!r} holds no result")
    for result in named.values():
        check_result("results", result)
    first = next(iter(named.values()))
    if len(first.dims) != 1:
        raise InputError(
            f"the result lies over {', '.join(map(str, first.dims))}; line_figure "
            "draws one coordinate: use contour_figure"
        )
    (coordinate,) = first.dims
    shown = [name for name in first if not str(name).endswith("_standard_error")]
    figure = Figure(figsize=(6.4, 1.2 + 2.6 * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for axes, name in zip(panels, shown, strict=True):
        for color, (legend, result) in _colored(named):
            x, y = result[coordinate].values, result[name].values
            axes.plot(x, y, color=color, label=legend or None, linewidth=1.8)
            if f"{name}_standard_error" in result:
                error = 2 * np.nan_to_num(result[f"{name}_standard_error"].values)
                axes.fill_between(x, y - error, y + error, color=color, alpha=0.2, lw=0)
            hatch_spans(axes, x, ~np.isfinite(y))
        for at, end in (ends or {}).items():
            axes.axvline(at, color=DARK, linestyle=":", linewidth=1)
            axes.annotate(
                end, (at, 1), xycoords=("data", "axes fraction"), xytext=(4, -4),
                textcoords="offset points", va="top", color=DARK, fontsize=9,
            )  # fmt: skip
        axes.set_ylabel(label(first[name]))
        tidy(axes)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False)
    panels[-1].set_xlabel(label(first[coordinate]))
    if title:
        figure.suptitle(title)
    return figure


def perturbation_figure(
    panels: Mapping[str, Mapping[str, Any]],
    *,
    xlabels: Mapping[str, str] | None = None,
    title: str | None = None,
) -> Figure:
    """Draws losses under perturbations: each direction thin, their mean thick.

    Args:
        panels: panel -> name -> `lrscape.landscape.flatness.Curves`.
        xlabels: panel -> what its scale is, with its unit.
        title: over the figure.

    Returns:
        The figure.

    Example:
        >>> from lrscape.landscape.flatness import Curves
        >>> curves = Curves(np.arange(3.0), np.ones((2, 3)), np.ones((2, 3)))
        >>> len(perturbation_figure({'weights': {'a': curves}}).axes)
        1
    """
    figure = Figure(figsize=(1 + 3.4 * len(panels), 3.4), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (panel, by_name) in zip(grid, panels.items(), strict=True):
        for color, (name, curves) in zip(
            itertools.cycle(CYCLE), by_name.items(), strict=False
        ):
            for losses in curves.losses if len(curves.losses) > 1 else ():
                axes.plot(curves.scales, losses, color=color, alpha=0.25, linewidth=0.8)
            axes.plot(curves.scales, curves.mean, color=color, linewidth=2, label=name)
            hatch_spans(axes, curves.scales, ~np.isfinite(curves.mean))
        axes.set_title(panel, fontsize=10)
        axes.set_xlabel((xlabels or {}).get(panel, "scale"))
        axes.legend(frameon=False, fontsize=8)
        tidy(axes)
    grid[0].set_ylabel("loss (nats)")
    if title:
        figure.suptitle(title)
    return figure


def walk_figure(
    result: xr.Dataset, *, max_steps: int = 40, title: str | None = None
) -> Figure:
    """Draws a walk: the loss between iterates, the valley floor, cosine, distance.

    Args:
        result: of `lrscape.landscape.Walk.to_dataset`.
        max_steps: how many updates are drawn, from the first one on.
        title: over the figure.

    Returns:
        The figure. Vertical lines stand at the iterates, interpolated losses between
        them; the dashed line joins the floors where there are any; a cross marks a
        barrier that is crossed.

    References:
        Xing et al., `A Walk with SGD <https://arxiv.org/abs/1802.08770>`_, 2018, Fig. 1
    """
    check_result("result", result)
    part = result.isel(step=slice(0, max_steps))
    steps, alphas = part["step"].values, part["alpha"].values
    figure = Figure(figsize=(9, 7), layout="constrained")
    loss, cosine, distance = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 1))
    losses = part["loss"].values
    for n, step in enumerate(steps):
        loss.plot(step + alphas, losses[n], color=CYCLE[0], linewidth=1.2)
        hatch_spans(loss, step + alphas, ~np.isfinite(losses[n]))
    for step in np.union1d(steps, steps + 1):
        loss.axvline(step, color="#bbbbbb", linewidth=0.6, zorder=0)
    has_floor = part["has_floor"].values.astype(bool)
    if has_floor.any():
        lowest = alphas[np.nanargmin(losses[has_floor], axis=1)]
        loss.plot(
            steps[has_floor] + lowest, part["floor"].values[has_floor], "--o",
            color=FLOOR, markersize=3, linewidth=1.2, label="valley floor",
        )  # fmt: skip
    crossed = part["crosses_barrier"].values.astype(bool)
    if crossed.any():
        tops = 1 + np.argmax(losses[crossed, 1:-1], axis=1)
        loss.plot(
            steps[crossed] + alphas[tops], losses[crossed, tops], "x", color=DARK,
            label="barrier",
        )  # fmt: skip
    loss.set_ylabel(label(part["loss"]))
    if loss.get_legend_handles_labels()[1]:
        loss.legend(frameon=False)
    of = part["cosine"].attrs.get("of", "moves")
    cosine.plot(steps, part["cosine"].values, color=CYCLE[2], marker=".", linewidth=1)
    cosine.axhline(0, color=DARK, linewidth=0.6)
    cosine.set_ylim(-1.05, 1.05)
    cosine.set_ylabel(f"cosine of\n{of}")
    distance.plot(steps + 1, part["distance"].values, color=CYCLE[3], linewidth=1.4)
    distance.set_ylabel("distance\n(weights)")
    distance.set_xlabel("update")
    distance.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (loss, cosine, distance):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
    if title:
        figure.suptitle(title)
    return figure


def _colored(named: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, Any]]]:
    return zip(itertools.cycle(CYCLE), named.items(), strict=False)
