"""Two-dimensional landscapes: contours, and surfaces to look at and to turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from lrscape.errors import InputError, unknown_name
from lrscape.figures.interactive import as_text
from lrscape.figures.style import (
    DARK,
    PATH,
    SURFACE,
    cells,
    check_result,
    label,
    log_levels,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr


def contour_figure(
    result: xr.Dataset,
    *,
    variable: str = "loss",
    path: np.ndarray | None = None,
    points: Mapping[str, tuple[float, float]] | None = None,
    title: str | None = None,
) -> Figure:
    """Draws a surface by its contours, with levels evenly spaced in the logarithm.

    Args:
        result: over two coordinates (`lrscape.landscape.surface.Surface.to_dataset`).
        variable: which of its arrays.
        path: (n, 2), the coordinates of a path that is drawn over it.
        points: name -> coordinates of points that are marked.
        title: over the figure.

    Returns:
        The figure. What is not finite is hatched, and counted in the legend; levels are
        evenly spaced where a value is not positive.

    Raises:
        InputError: a result that does not lie over two coordinates.

    Example:
        >>> import jax.numpy as jnp
        >>> from lrscape.landscape import grid_coordinates, measure_surface, plane
        >>> axis = np.linspace(-1, 1, 5)
        >>> surface = measure_surface(
        ...     lambda w: jnp.sum(w ** 2) + 1,
        ...     plane(jnp.zeros(2), *jnp.eye(2)), grid_coordinates(axis, axis))
        >>> result = surface.to_dataset({'x': axis, 'y': axis})
        >>> contour_figure(result, points={'minimum': (0, 0)}).axes[0].get_xlabel()
        'x'
    """
    x, y, values = _surface(result, variable)
    figure = Figure(figsize=(6.8, 5.4), layout="constrained")
    axes = figure.subplots()
    levels = log_levels(values)
    masked = np.ma.masked_invalid(values.T)
    if masked.count() > 3 and min(values.shape) > 1 and np.ptp(masked.compressed()) > 0:
        norm = LogNorm() if levels is not None else None
        scale = 16 if levels is None else levels
        filled = axes.contourf(x, y, masked, levels=scale, norm=norm, cmap=SURFACE)
        axes.contour(
            x, y, masked, levels=scale, norm=norm, colors="white", linewidths=0.4,
            alpha=0.6,
        )  # fmt: skip
        bar = figure.colorbar(filled, ax=axes, label=label(result[variable]))
        if levels is not None:
            bar.set_ticks(levels[::3].tolist())
            bar.set_ticklabels([f"{level:.3g}" for level in levels[::3]])
    missing = ~np.isfinite(values)
    if missing.any():
        _hatch(axes, x, y, missing)
    if path is not None:
        axes.plot(
            path[:, 0], path[:, 1], "-o", color=PATH, markersize=3.5, linewidth=1.2
        )
    _mark(axes, points or {}, np.ptp(x), np.ptp(y))
    axes.set_xlabel(label(result[result[variable].dims[0]]))
    axes.set_ylabel(label(result[result[variable].dims[1]]))
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="upper right", fontsize=8)
    if title:
        figure.suptitle(title)
    return figure


def surface_figure(
    result: xr.Dataset,
    *,
    variable: str = "loss",
    log: bool | None = None,
    points: Mapping[str, tuple[float, float]] | None = None,
    title: str | None = None,
) -> Figure:
    """Draws a surface in three dimensions, to be looked at.

    Args:
        result: over two coordinates.
        variable: which of its arrays.
        log: whether height is the logarithm to base 10; None where the largest value
            is over 30 times the least and all are positive.
        points: name -> coordinates of points that are marked on the surface.
        title: over the figure.

    Returns:
        The figure. Crosses on the ground stand where a value is not finite.

    Raises:
        InputError: a result that does not lie over two coordinates.
    """
    x, y, values = _surface(result, variable)
    z, name = _heights(result, variable, values, log)
    figure = Figure(figsize=(7, 5.8), layout="constrained")
    axes: Any = figure.add_subplot(projection="3d")
    X, Y = np.meshgrid(x, y, indexing="ij")
    axes.plot_surface(
        X, Y, np.ma.masked_invalid(z), cmap=SURFACE, linewidth=0, antialiased=True,
        rcount=len(x), ccount=len(y), alpha=0.95,
    )  # fmt: skip
    missing = ~np.isfinite(z)
    ground = np.nanmin(np.where(missing, np.nan, z)) if not missing.all() else 0.0
    if missing.any():
        axes.scatter(
            X[missing], Y[missing], ground, marker="x", color=DARK, s=12,
            label=f"{missing.sum()} not finite",
        )  # fmt: skip
    named: list[tuple[int, int]] = []
    for text, at in (points or {}).items():
        i, j = _nearest(x, at[0]), _nearest(y, at[1])
        if np.isfinite(z[i, j]):
            axes.scatter(*at, z[i, j], color=PATH, s=30, depthshade=False)
            # Names that would lie on one another: the first one is enough.
            if all(max(abs(i - k), abs(j - m)) > len(x) // 8 for k, m in named):
                axes.text(*at, z[i, j], f" {text}", fontsize=9, zorder=10)
                named.append((i, j))
    axes.set_xlabel(label(result[result[variable].dims[0]]), fontsize=9)
    axes.set_ylabel(label(result[result[variable].dims[1]]), fontsize=9)
    axes.set_zlabel(name, fontsize=9)
    axes.view_init(elev=32, azim=-58)
    axes.set_box_aspect(None, zoom=0.92)
    if missing.any():
        axes.legend(loc="upper right", fontsize=8)
    if title:
        figure.suptitle(title)
    return figure


def interactive_surface(
    result: xr.Dataset,
    *,
    variable: str = "loss",
    log: bool | None = None,
    path: np.ndarray | None = None,
    path_heights: np.ndarray | None = None,
    points: Mapping[str, tuple[float, float]] | None = None,
    title: str | None = None,
) -> go.Figure:
    """Draws a surface to be turned in a browser.

    Args:
        result: over two coordinates.
        variable: which of its arrays.
        log: as for `surface_figure`.
        path: (n, 2), the coordinates of a path.
        path_heights: (n,), the path's own losses, which off the plane are not the
            surface's; None draws the path on the surface.
        points: name -> coordinates of points that are marked.
        title: over the figure.

    Returns:
        A Plotly figure; ``write_html(file, include_plotlyjs=True)`` makes a file that
        needs no network.

    Raises:
        InputError: a result that does not lie over two coordinates.
    """
    import plotly.graph_objects as go

    x, y, values = _surface(result, variable)
    z, name = _heights(result, variable, values, log)
    use_log = name.startswith("log")
    # What stands in a file is text, and no markup of Plotly's.
    name = as_text(name)
    names = [as_text(label(result[dim])) for dim in result[variable].dims]
    figure = go.Figure(
        go.Surface(
            x=x,
            y=y,
            z=np.where(np.isfinite(z), z, np.nan).T,
            colorscale="Viridis",
            customdata=values.T,
            colorbar={"title": name},
            hovertemplate=f"{names[0]} %{{x:.4g}}<br>{names[1]} %{{y:.4g}}<br>"
            f"{as_text(label(result[variable]))} %{{customdata:.4g}}<extra></extra>",
        )
    )
    missing = ~np.isfinite(z)
    ground = np.nanmin(np.where(missing, np.nan, z)) if not missing.all() else 0.0
    if missing.any():
        X, Y = np.meshgrid(x, y, indexing="ij")
        figure.add_scatter3d(
            x=X[missing], y=Y[missing], z=np.full(missing.sum(), ground),
            mode="markers", marker={"symbol": "x", "size": 3, "color": DARK},
            name=f"{missing.sum()} not finite",
        )  # fmt: skip

    def heights(at: np.ndarray) -> np.ndarray:
        return np.array([z[_nearest(x, a), _nearest(y, b)] for a, b in at])

    if path is not None:
        if path_heights is None:
            height = heights(path)
        else:
            height = np.log10(path_heights) if use_log else np.asarray(path_heights)
        figure.add_scatter3d(
            x=path[:, 0], y=path[:, 1], z=height, mode="lines+markers",
            line={"color": PATH, "width": 5}, marker={"size": 3}, name="path",
        )  # fmt: skip
    if points:
        at = np.array(list(points.values()), float)
        figure.add_scatter3d(
            x=at[:, 0], y=at[:, 1], z=heights(at), mode="markers+text",
            text=[as_text(name) for name in points],
            marker={"size": 5, "color": PATH}, name="points",
        )  # fmt: skip
    figure.update_layout(
        title=title,
        scene={
            "xaxis": {"title": names[0]},
            "yaxis": {"title": names[1]},
            "zaxis": {"title": name},
        },
        margin={"l": 0, "r": 0, "b": 0, "t": 40 if title else 0},
        showlegend=bool(missing.any() or path is not None),
    )
    return figure


def _surface(
    result: xr.Dataset, variable: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    check_result("result", result)
    if variable not in result:
        raise unknown_name("variable", variable, map(str, result))
    array = result[variable]
    if array.ndim != 2:
        raise InputError(
            f"{variable!r} lies over {', '.join(map(str, array.dims))}; a surface "
            "needs two coordinates"
        )
    first, second = array.dims
    return result[first].values, result[second].values, array.values


def _heights(
    result: xr.Dataset, variable: str, values: np.ndarray, log: bool | None
) -> tuple[np.ndarray, str]:
    finite = values[np.isfinite(values)]
    positive = bool(finite.size) and finite.min() > 0
    if log is None:
        log = positive and finite.max() > 30 * finite.min()
    if not log:
        return values, label(result[variable])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log10(values), f"log10 of {label(result[variable])}"


def _mark(axes: Any, points: Mapping[str, Any], width: float, height: float) -> None:
    """Stars with names; names of points that lie close are put one below the other."""
    placed: list[np.ndarray] = []
    for name, at in points.items():
        axes.plot(*at, "*", color="white", markeredgecolor=DARK, markersize=11)
        here = np.array([at[0] / (width or 1), at[1] / (height or 1)])
        close = sum(np.abs(here - other).max() < 0.06 for other in placed)
        placed.append(here)
        # To the left of what lies in the right half, so that nothing is cut off.
        right = at[0] > np.mean(axes.get_xlim())
        axes.annotate(
            name, at, xytext=(-7 if right else 7, 5 - 14 * close),
            textcoords="offset points", ha="right" if right else "left", fontsize=9,
            bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1},
        )  # fmt: skip


def _nearest(values: np.ndarray, at: float) -> int:
    return int(np.argmin(np.abs(values - at)))


def _hatch(axes: Any, x: np.ndarray, y: np.ndarray, missing: np.ndarray) -> None:
    """Hatches the cells of a grid whose values are not finite."""
    from matplotlib.patches import Patch, Rectangle

    columns, rows = cells(x), cells(y)
    for i, j in zip(*np.nonzero(missing), strict=True):
        corner = columns[i], rows[j]
        size = columns[i + 1] - columns[i], rows[j + 1] - rows[j]
        axes.add_patch(
            Rectangle(
                corner,
                *size,
                facecolor="#f2f2f2",
                edgecolor="#999999",
                hatch="////",
                linewidth=0,
            )
        )
    patch = Patch(
        facecolor="#f2f2f2", edgecolor="#999999", hatch="////",
        label=f"{missing.sum()} not finite",
    )  # fmt: skip
    axes.legend(handles=[patch], loc="upper right", fontsize=8)
    axes.set_xlim(columns[0], columns[-1])
    axes.set_ylim(rows[0], rows[-1])
