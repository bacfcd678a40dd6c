"""Curvature drawn: its density, its largest part over training, where it lives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lrscape import checks
from lrscape.errors import InputError
from lrscape.figures.style import CYCLE, DARK, check_result, tidy

if TYPE_CHECKING:
    import xarray as xr


def density_figure(
    densities: Any,
    *,
    eigenvalues: Sequence[float] | None = None,
    floor: float = 1e-7,
    title: str | None = None,
) -> Figure:
    """Draws densities of eigenvalues on a logarithmic axis, outliers as ticks.

    Args:
        densities: a `SpectralDensity` of `lrscape.landscape.density`, or several by the
            name that the legend gives.
        eigenvalues: those that are known one by one, such as the largest, each marked
            by a tick on the axis.
        floor: the axis ends at this share of the highest density.
        title: over the figure.

    Returns:
        The figure.

    Raises:
        InputError: a density that is not finite, or nowhere positive.

    Example:
        >>> from lrscape.landscape.density import SpectralDensity
        >>> grid = np.linspace(-1, 1, 5)
        >>> found = SpectralDensity(grid, np.exp(-grid ** 2))
        >>> len(density_figure(found, eigenvalues=[0.9]).axes)
        1
    """
    named = densities if isinstance(densities, Mapping) else {"": densities}
    for found in named.values():
        if not hasattr(found, "density") or not hasattr(found, "grid"):
            raise InputError(
                f"densities={checks.shown(found)} must be a SpectralDensity, or "
                "several by name"
            )
    if not named:
        raise InputError(f"densities={densities!r} holds no density")
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.subplots()
    top = 0.0
    for color, (name, found) in zip(_colors(len(named)), named.items(), strict=True):
        if not np.isfinite(found.density).all() or not found.density.max() > 0:
            raise InputError(
                f"the density {name!r} must be finite and somewhere positive to be "
                "drawn on a logarithmic axis"
            )
        shown = np.where(found.density > 0, found.density, np.nan)
        axes.plot(found.grid, shown, color=color, linewidth=1.2, label=name or None)
        top = max(top, float(found.density.max()))
    axes.set_yscale("log")
    axes.set_ylim(floor * top, 3 * top)
    if eigenvalues is not None:
        # Above the axis, so that a tick at its end is not cut.
        axes.plot(
            eigenvalues, np.full(len(eigenvalues), 0.03), "|", color=CYCLE[1],
            markersize=14, markeredgewidth=1.6, clip_on=False,
            transform=axes.get_xaxis_transform(),
            label="eigenvalues found one by one",
        )  # fmt: skip
    axes.set_xlabel("eigenvalue (nats)")
    axes.set_ylabel("density")
    tidy(axes)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def sharpness_figure(
    tracks: Any, *, steps_per_epoch: int | None = None, title: str | None = None
) -> Figure:
    r"""Draws the dominant eigenvalue over training, and the limit :math:`2/\gamma`.

    Args:
        tracks: what `lrscape.landscape.CurvatureTrack.to_dataset` gives, or several by
            the name that the legend gives.
        steps_per_epoch: counts the axis in epochs.
        title: over the figure.

    Returns:
        The figure: above, the spectral norm and, dashed, the limit that the rate sets,
        open marks where the dominant eigenvalue is negative; below, the rate.

    Example:
        >>> from lrscape.landscape import CurvatureTrack
        >>> import jax, jax.numpy as jnp
        >>> track = CurvatureTrack(lambda w: jnp.sum(w ** 2), key=jax.random.key(0))
        >>> _ = track.record(0, jnp.ones(2), learning_rate=0.1)
        >>> len(sharpness_figure(track.to_dataset()).axes)
        2
    """
    named = {"": tracks} if hasattr(tracks, "data_vars") else dict(tracks)
    figure = Figure(figsize=(6.8, 5.2), layout="constrained")
    curvature, rate = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for color, (name, track) in zip(_colors(len(named)), named.items(), strict=True):
        x = track["step"].values / (steps_per_epoch or 1)
        norm = track["spectral_norm"].values
        prefix = f"{name}: " if name else ""
        curvature.plot(
            x, norm, color=color, linewidth=1.6, label=f"{prefix}dominant eigenvalue"
        )
        positive = track["eigenvalue"].values >= 0
        curvature.plot(x[positive], norm[positive], "o", color=color, markersize=4)
        if not positive.all():
            curvature.plot(
                x[~positive], norm[~positive], "o", color=color, markersize=5,
                markerfacecolor="white", label=f"{prefix}negative",
            )  # fmt: skip
        if np.isfinite(track["limit"].values).any():
            curvature.plot(
                x, track["limit"].values, color=color, linestyle="--", linewidth=1.2,
                label=f"{prefix}2 / learning rate",
            )  # fmt: skip
        rate.plot(x, track["learning_rate"].values, color=color, linewidth=1.4)
    curvature.set_yscale("log")
    curvature.set_ylabel("curvature (nats)")
    curvature.legend(frameon=False, fontsize=9)
    rate.set_ylabel("learning rate")
    rate.set_ylim(bottom=0)
    rate.set_xlabel("epoch" if steps_per_epoch else "update")
    if not steps_per_epoch:
        rate.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (curvature, rate):
        tidy(axes)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def layer_shares_figure(
    result: xr.DataArray, *, max_layers: int = 30, title: str | None = None
) -> Figure:
    """Draws how much of each eigenvector lies in each array of the network.

    Args:
        result: shares over ``eigenvector`` and ``layer``, of which ``eigenvalue`` may
            be a coordinate.
        max_layers: the arrays with the largest shares are drawn; the rest are one row.
        title: over the figure.

    Returns:
        The figure: a column for each eigenvector, a row for each array, the share in
        per cent.

    Example:
        >>> import xarray as xr
        >>> shares = xr.DataArray(
        ...     [[0.3, 0.7]], dims=('eigenvector', 'layer'),
        ...     coords={'layer': ['a/kernel', 'b/kernel']})
        >>> len(layer_shares_figure(shares).axes)
        2
    """
    check_result("result", result)
    values = result.transpose("layer", "eigenvector").values
    names = [str(name) for name in result["layer"].values]
    if len(names) > max_layers:
        largest = np.sort(np.argsort(values.max(axis=1))[::-1][: max_layers - 1])
        rest = np.setdiff1d(np.arange(len(names)), largest)
        values = np.concatenate([values[largest], values[rest].sum(axis=0)[None]])
        names = [*(names[i] for i in largest), f"{len(rest)} others"]
    known = "eigenvalue" in result.coords
    columns = (
        [f"{value:.3g}" for value in result["eigenvalue"].values]
        if known
        else [str(i + 1) for i in range(values.shape[1])]
    )
    height = 1.4 + 0.22 * len(names)
    size = (3.4 + 0.62 * values.shape[1], height)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(100 * values, cmap="Blues", vmin=0, aspect="auto")
    for i, j in np.argwhere(values >= 0.01):
        dark = values[i, j] > 0.6 * values.max()
        axes.text(
            j, i, f"{100 * values[i, j]:.0f}", ha="center", va="center", fontsize=7,
            color="white" if dark else DARK,
        )  # fmt: skip
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xticks(range(len(columns)), columns, fontsize=8)
    axes.set_xlabel("eigenvalue (nats)" if known else "eigenvector")
    figure.colorbar(image, ax=axes, label="share of the squared norm (%)")
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def _colors(count: int) -> list[str]:
    return [CYCLE[i % len(CYCLE)] for i in range(count)]
