"""How paper 2's surfaces and curves are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from lrscape.figures.style import CYCLE, DARK, PATH, SURFACE, hatch_spans, tidy

Curves = Mapping[str, Sequence[np.ndarray]]


def corners_of_triangle(grid: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the points of a barycentric surface lie in a plane, (grid, grid) each.

    The start lies at the back in the middle, the two finals in front: the first at the
    left.

    Example:
        >>> x, y = corners_of_triangle(3)
        >>> print(x[2], y[2], abs(x[0]))
        [ 1.  0. -1.] [-1. -1. -1.] [0. 0. 0.]
    """
    alpha, beta = np.meshgrid(*[np.linspace(0, 1, grid)] * 2, indexing="ij")
    return alpha * (1 - 2 * beta), -alpha


def norm_of(surfaces: Sequence[np.ndarray], log: bool = True) -> Any:
    """Colours for several surfaces: of the logarithm where all are positive."""
    finite = np.concatenate([s[np.isfinite(s)] for s in surfaces])
    if not finite.size:
        return Normalize(0, 1)
    low, high = finite.min(), finite.max()
    if log and low > 0 and high > 1.01 * low:
        return LogNorm(low, high)
    return Normalize(low, high)


def draw_surface(
    axes: Any, x: np.ndarray, y: np.ndarray, losses: np.ndarray, norm: Any,
    *, marks: Sequence[tuple[int, int]] = (),
) -> None:  # fmt: skip
    """Draws a surface whose height and colour are the loss.

    Args:
        axes: three-dimensional.
        x: (n, m), where the values lie.
        y: likewise.
        losses: (n, m); what is not finite is left out and marked on the ground.
        norm: of colours, and of heights where it is logarithmic.
        marks: indices of points that are marked.
    """
    from matplotlib import colormaps

    log = isinstance(norm, LogNorm)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.log10(losses) if log else losses
    colors = colormaps[SURFACE](norm(np.ma.masked_invalid(losses)))
    missing = ~np.isfinite(z)
    axes.plot_surface(
        x, y, np.ma.masked_invalid(z), facecolors=colors, linewidth=0, shade=False,
        rcount=len(x), ccount=len(x[0]), antialiased=True,
    )  # fmt: skip
    low, high = (np.log10(v) if log else v for v in (norm.vmin, norm.vmax))
    if missing.any():
        axes.scatter(x[missing], y[missing], low, marker="x", color=DARK, s=6)
    for i, j in marks:
        if np.isfinite(z[i, j]):
            axes.scatter(
                x[i, j], y[i, j], z[i, j], color=PATH, s=10, depthshade=False, zorder=9
            )
    axes.set_zlim(low, high)
    _label_heights(axes, low, high, log)
    axes.view_init(elev=35, azim=-75)
    axes.set_box_aspect((1, 0.8, 0.7), zoom=1.25)
    axes.set_xticks([])
    axes.set_yticks([])


def _label_heights(axes: Any, low: float, high: float, log: bool) -> None:
    """Labels heights by losses, of logarithmic ones at decades and their parts."""
    axes.tick_params(axis="z", pad=2, labelsize=8)
    said = "training loss (nats)"
    if log:
        decades = np.arange(np.floor(low), np.ceil(high) + 1)
        # Less than two decades have too few of them.
        parts = (1,) if high - low >= 2 else (1, 2, 5)
        ticks = np.array([d + np.log10(part) for d in decades for part in parts])
        ticks = ticks[(ticks >= low) & (ticks <= high)]
        axes.set_zticks(ticks, [f"{10**tick:.3g}" for tick in ticks])
        said += ", logarithmic"
    axes.set_zlabel(said, fontsize=8, labelpad=6)


def curves_panel(axes: Any, x: np.ndarray, curves: Curves, *, log: bool = True) -> None:
    """Several curves a name, each thin; what is not finite is hatched."""
    for i, (name, found) in enumerate(curves.items()):
        for k, losses in enumerate(found):
            axes.plot(
                x, losses, color=CYCLE[i % len(CYCLE)], linewidth=1.1, alpha=0.8,
                label=name if k == 0 else None,
            )  # fmt: skip
            hatch_spans(axes, x, ~np.isfinite(losses))
    values = np.concatenate([np.ravel(c) for found in curves.values() for c in found])
    finite = values[np.isfinite(values)]
    if log and finite.size and finite.min() > 0:
        axes.set_yscale("log")
    tidy(axes)


def lines_figure(
    panels: Mapping[str, tuple[np.ndarray, Curves]], xlabel: str, title: str,
    *, ylabel: str = "training loss (nats)", columns: int = 3, log: bool = True,
) -> Figure:  # fmt: skip
    """Panels of curves with one legend each.

    Args:
        panels: panel -> coordinates, and curves by name.
        xlabel: of every panel.
        title: over the figure.
        ylabel: of every panel.
        columns: panels side by side.
        log: whether heights are logarithmic, where all are positive.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(1 + 3.6 * columns, 0.6 + 2.9 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    for axes, (panel, (x, curves)) in zip(
        grid.flat[: len(panels)], panels.items(), strict=True
    ):
        curves_panel(axes, x, curves, log=log)
        axes.set_title(panel, fontsize=10)
        axes.set_xlabel(xlabel, fontsize=9)
        axes.legend(frameon=False, fontsize="x-small")
    for row in grid:
        row[0].set_ylabel(ylabel, fontsize=9)
    figure.suptitle(title, fontsize=11)
    return figure


def surfaces_page(
    surfaces: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], title: str
) -> Any:
    """Surfaces to turn in a browser, one at a time, chosen from a menu.

    Args:
        surfaces: name -> where the values lie, twice, and the losses.
        title: over the page.
    """
    import plotly.graph_objects as go

    finite = np.concatenate([s[2][np.isfinite(s[2])] for s in surfaces.values()])
    log = bool(finite.size) and finite.min() > 0
    figure = go.Figure()
    for n, (name, (x, y, losses)) in enumerate(surfaces.items()):
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.log10(losses) if log else losses
        figure.add_surface(
            x=x, y=y, z=np.where(np.isfinite(z), z, np.nan), customdata=losses,
            colorscale="Viridis", name=name, visible=n == 0,
            hovertemplate="loss %{customdata:.4g} nats<extra></extra>",
            colorbar={"title": "log10 loss" if log else "loss"},
        )  # fmt: skip
    buttons = [
        {
            "label": name,
            "method": "update",
            "args": [{"visible": [k == n for k in range(len(surfaces))]}],
        }
        for n, name in enumerate(surfaces)
    ]
    figure.update_layout(
        title=title,
        updatemenus=[{"buttons": buttons, "x": 0, "xanchor": "left", "y": 1}],
        scene={
            "zaxis": {"title": "log10 loss (nats)" if log else "loss (nats)"},
            "xaxis": {"title": ""}, "yaxis": {"title": ""},
        },
    )  # fmt: skip
    return figure
