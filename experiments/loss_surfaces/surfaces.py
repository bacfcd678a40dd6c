"""Figures 2, 3 and table 2: surfaces between starts and minima."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from experiments.harness.paper import Result
from experiments.loss_surfaces import probes
from experiments.loss_surfaces.around import labelled, shown_pairs
from experiments.loss_surfaces.drawing import (
    corners_of_triangle,
    draw_surface,
    norm_of,
    surfaces_page,
)
from experiments.loss_surfaces.lab import Lab
from experiments.loss_surfaces.methods import TITLES
from experiments.loss_surfaces.pairs import both
from lrscape.errors import InputError


def fig2(lab: Lab) -> Result:
    """Figure 2: the surface between two starts and the minima that SGD finds."""
    lab = lab.of("nin")
    if lab.plan.seeds < 2:
        raise InputError("seeds=1: figure 2 lies between two starts; set --seeds=2")
    first, second = (lab.trained("sgd", seed) for seed in (0, 1))
    points = first.initial, second.initial, first.final.params, second.final.params
    losses = probes.quadrangle(lab, points, first, "starts-1")
    names = ("start 1", "start 2", "minimum 1", "minimum 2")
    return _quadrangle(lab, losses, names, "two starts, and where SGD goes from them")


def fig3(lab: Lab) -> Result:
    """Figure 3: the surface between the minima of four optimizers from one start."""
    lab = lab.of("nin")
    first: tuple[str, ...] = ("sgd", "adam", "rk2", "adadelta")
    wanted = [n for n in first if n in lab.plan.optimizers]
    wanted += [n for n in lab.plan.optimizers if n not in wanted]
    if len(wanted) < 4:
        raise InputError(
            f"optimizers={' '.join(wanted)!r}: figure 3 lies between four; name four"
        )
    networks = [lab.trained(name, 0) for name in wanted[:4]]
    points = [network.final.params for network in networks]
    named = "minima-" + "-".join(network.config.method.name for network in networks)
    losses = probes.quadrangle(lab, points, networks[0], named)
    names = tuple(TITLES[name] for name in wanted[:4])
    return _quadrangle(lab, losses, names, "four minima from one start")


def _quadrangle(
    lab: Lab, losses: np.ndarray, names: tuple[str, ...], title: str
) -> Result:
    axis = np.linspace(0, 1, lab.plan.grid)
    edges = {
        f"{names[0]}, {names[1]}": losses[:, -1],
        f"{names[2]}, {names[3]}": losses[:, 0],
        f"{names[0]}, {names[2]}": losses[-1],
        f"{names[1]}, {names[3]}": losses[0],
    }
    rows = [
        {
            "between": name,
            "ends (nats)": f"{values[-1]:.4g}, {values[0]:.4g}",
            "highest between": f"{values.max():.4g}",
            "barrier": f"{probes.barrier(values):.4g}",
        }
        for name, values in edges.items()
    ]
    dataset = xr.Dataset(
        {"loss": (("alpha", "beta"), losses, {"units": "nat"})},
        {"alpha": axis, "beta": axis},
    )
    x, y = np.meshgrid(axis, axis, indexing="ij")
    figure = Figure(figsize=(7.2, 5.6))
    axes: Any = figure.add_axes((0.02, 0.02, 0.96, 0.9), projection="3d")
    last = lab.plan.grid - 1
    marks = ((last, last), (0, last), (last, 0), (0, 0))
    norm = norm_of([losses])
    log = isinstance(norm, LogNorm)
    draw_surface(axes, x, y, losses, norm, marks=marks)
    axes.view_init(elev=32, azim=-58)
    axes.set_box_aspect(None, zoom=0.9)
    for name, (i, j) in zip(names, marks, strict=True):
        height = np.log10(losses[i, j]) if log else losses[i, j]
        if np.isfinite(height):
            axes.text(x[i, j], y[i, j], height, f"  {name}", fontsize=9, zorder=10)
    figure.suptitle(f"{lab.what}: {title}")
    page = surfaces_page({title: (x, y, losses)}, f"{lab.what}: {title}")
    return Result(rows, dataset, {"": figure}, [lab.note()], {"": page})


def table2(lab: Lab) -> Result:
    """Table 2: surfaces to two minima from their start, with and without batch norm."""
    lab = lab.of("nin")
    pairs = shown_pairs(lab)
    rows, surfaces = [], {}
    for pair in pairs:
        for batch_norm in (True, False):
            name = ", ".join(TITLES[n] for n in pair)
            normed = "with" if batch_norm else "without"
            a, b = both(lab, pair, 0, batch_norm=batch_norm)
            if a.failed() or b.failed():
                rows.append({"pair": name, "batch norm": normed, "minima": "failed",
                             "highest": "-", "barrier": "-"})  # fmt: skip
                continue
            losses = probes.triangle(lab, a, b)
            surfaces[name, normed] = losses
            rows.append(
                {
                    "pair": name,
                    "batch norm": normed,
                    "minima": f"{losses[-1, -1]:.4g}, {losses[-1, 0]:.4g}",
                    "highest": f"{losses.max():.4g}",
                    "barrier": f"{probes.barrier(losses[-1]):.4g}",
                }
            )
    axis = np.linspace(0, 1, lab.plan.grid)
    variables = {
        f"{name}_{normed}".replace(", ", "_"): (
            ("alpha", "beta"), losses, {"units": "nat"}
        )
        for (name, normed), losses in surfaces.items()
    }  # fmt: skip
    x, y = corners_of_triangle(lab.plan.grid)
    figure = Figure(figsize=(1 + 3.2 * len(pairs), 6.2))
    last = lab.plan.grid - 1
    norm = norm_of(list(surfaces.values()))
    for i, normed in enumerate(("with", "without")):
        for j, pair in enumerate(pairs):
            name = ", ".join(TITLES[n] for n in pair)
            if (name, normed) not in surfaces:
                continue
            axes: Any = figure.add_axes(
                (j / len(pairs), 0.48 - 0.46 * i, 1 / len(pairs), 0.4),
                projection="3d", facecolor="none",
            )  # fmt: skip
            draw_surface(axes, x, y, surfaces[name, normed], norm,
                         marks=((last, last), (last, 0)))  # fmt: skip
            axes.set_box_aspect((1, 0.8, 0.7), zoom=1.0)
            axes.set_title(f"{name}, {normed} batch norm", fontsize=10)
    figure.suptitle(f"{lab.what}: the start behind, two minima in front, one scale")
    page = surfaces_page(
        {f"{name}, {n} batch norm": (x, y, s) for (name, n), s in surfaces.items()},
        lab.what,
    ) if surfaces else None  # fmt: skip
    dataset = labelled(variables, {"alpha": axis, "beta": axis} if variables else {})
    notes = [lab.note(), *([lab.plain_note()] if lab.plan.plain else [])]
    return Result(rows, dataset, {"": figure}, notes, {"": page} if page else {})
