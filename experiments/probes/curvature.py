"""The curvature of the ground at a snapshot, and at all snapshots of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import xarray as xr
from tqdm import tqdm

from experiments.probes.survey import Found, Survey
from lrscape import figures, landscape
from lrscape.errors import InputError
from lrscape.landscape.curvature import layer_shares
from lrscape.landscape.density import broadened, default_broadening


def curvature(survey: Survey) -> Found:
    """Eigenpairs, trace, Frobenius norm and density of the Hessian at the end."""
    s = survey.settings
    _check_single(survey)
    with _precision(survey) as (objective, points):
        (point,) = points([s.end])
        hessian = landscape.Operator(objective, point)
        keys = jax.random.split(jax.random.key(s.seed), 4)
        several: dict[str, Any] = {"num_samples": s.directions}
        with tqdm(total=4, desc="curvature", leave=False) as bar:
            top = hessian.top_eigenpairs(s.eigenpairs, key=keys[0])
            bar.update()
            bottom = hessian.top_eigenpairs(1, key=keys[1], which="smallest")
            bar.update()
            moments = hessian.spectral_moments(key=keys[2], **several)
            bar.update()
            quadrature = hessian.spectral_quadrature(
                key=keys[3], num_matvecs=s.matvecs, **several
            )
            bar.update()
    density = broadened(quadrature)
    sigma = default_broadening(quadrature)
    shares = [
        layer_shares(jax.tree.map(lambda x, i=i: x[i], top.eigenvectors))
        for i in range(s.eigenpairs)
    ]
    unit = {"units": "nat"}
    dataset = xr.Dataset(
        {
            "residual": ("eigenvector", top.residuals, unit),
            "layer_share": (
                ("eigenvector", "layer"),
                np.array([list(share.values()) for share in shares]),
                {"units": "fraction"},
            ),
            "density": (
                "grid", density.density, {"units": "1/nat", "broadening": sigma}
            ),
            "node": (("sample", "matvec"), quadrature.nodes, unit),
            "weight": (("sample", "matvec"), quadrature.weights, {"units": "1"}),
        },
        {
            "eigenvalue": ("eigenvector", top.eigenvalues, unit),
            "layer": ("layer", list(shares[0])),
            "grid": ("grid", density.grid, unit),
        },
    )  # fmt: skip
    summary = {
        "eigenvalues": top.eigenvalues.tolist(),
        "residuals": top.residuals.tolist(),
        "smallest_eigenvalue": float(bottom.eigenvalues[0]),
        "smallest_residual": float(bottom.residuals[0]),
        "trace": moments.trace.mean,
        "trace_standard_error": _finite(moments.trace.standard_error),
        "frobenius_norm": moments.frobenius_norm.mean,
        "frobenius_norm_standard_error": _finite(moments.frobenius_norm.standard_error),
        "broadening": sigma,
        "rate_that_the_largest_eigenvalue_bears": 2 / float(top.eigenvalues[0])
        if top.eigenvalues[0] > 0
        else None,
        "precision": s.precision,
        **objective.settings,
    }
    ticks = [*top.eigenvalues, *bottom.eigenvalues]
    return Found(
        dataset,
        summary,
        {
            "": figures.density_figure(
                density, eigenvalues=ticks, title=survey.title()
            ),
            "-layers": figures.layer_shares_figure(
                dataset["layer_share"], title=survey.title()
            ),
        },
    )


def sharpness(survey: Survey) -> Found:
    """The dominant eigenvalue at every snapshot of a run, and what its rate bears."""
    s, run = survey.settings, survey.runs[0]
    _check_single(survey)
    config = run.config
    if s.norm == "eval" and survey.snapshot(s.end).batch_stats:
        raise InputError(
            "norm='eval': one snapshot's averages do not fit the others; use train, "
            "recalibrate or interpolate"
        )
    per_epoch = config.steps_per_epoch(run.data)
    schedule = config.make_schedule(config.total_steps(run.data), per_epoch)
    snapshots = {run.snapshots[name].step: name for name in run.snapshots}
    if len(snapshots) < 2:
        raise InputError(
            f"probe='sharpness' needs two snapshots; {str(run.path)!r} has "
            f"{len(snapshots)}: train with --snapshot-epochs"
        )
    steps = sorted(snapshots)
    with _precision(survey) as (objective, points):
        track = landscape.CurvatureTrack(objective, key=jax.random.key(s.seed))
        bar = tqdm(steps, desc="sharpness", leave=False)
        for step, point in zip(
            bar, points([snapshots[step] for step in steps]), strict=True
        ):
            track.record(step, point, learning_rate=float(schedule(step)))
    dataset = track.to_dataset().assign_coords(
        snapshot=("step", [snapshots[step] for step in steps])
    )
    summary = {
        snapshots[row["step"]]: {
            name: _finite(row[name])
            for name in ("eigenvalue", "residual", "products", "learning_rate", "limit")
        }
        for row in dataset.to_dataframe().reset_index().to_dict("records")
    }
    figure = figures.sharpness_figure(
        dataset, steps_per_epoch=per_epoch, title=survey.title()
    )
    return Found(
        dataset, {"snapshots": summary, "precision": s.precision, **track.settings},
        {"": figure},
    )  # fmt: skip


def _check_single(survey: Survey) -> None:
    if len(survey.runs) > 1:
        raise InputError(
            f"probe={survey.settings.probe!r} looks at one run, not "
            f"{len(survey.runs)}: survey them one by one"
        )


def _finite(value: float) -> float | None:
    """As JSON holds it."""
    return float(value) if np.isfinite(value) else None


@contextlib.contextmanager
def _precision(survey: Survey) -> Iterator[tuple[Any, Any]]:
    """The objective, and snapshots as points, in the precision that was asked for."""
    if survey.settings.precision == "single":
        yield survey.objective(), lambda names: map(survey.point, names)
        return
    with jax.enable_x64(True):
        yield (
            landscape.in_double(survey.objective()),
            lambda names: (landscape.in_double(survey.point(n)) for n in names),
        )
