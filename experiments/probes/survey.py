"""What a probe is handed and what it gives back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from lrscape import landscape
from lrscape.errors import InputError
from lrscape.runs import Run, Snapshot, TextRun

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What a survey was asked for, presets filled in; see `experiments.survey`."""

    probe: str
    start: str
    end: str
    points: int
    grid: int
    examples: int | None
    batch_size: int
    norm: str
    part: str
    l2: float
    normalize: str | None
    extent: float
    directions: int
    scale: float
    epoch: int
    steps: int | None
    second_sample: bool
    eigenpairs: int
    matvecs: int
    precision: str
    seed: int


@dataclasses.dataclass(frozen=True)
class Survey:
    """Runs, opened, and what is asked of them.

    Attributes:
        runs: one or several.
        settings: what was asked for.
        store: where a surface is kept while it is being measured.
    """

    runs: list[Run]
    settings: Settings
    store: Path

    def snapshot(self, name: str, run: int = 0) -> Snapshot:
        """A run's snapshot; raises InputError for a name that it lacks."""
        try:
            return self.runs[run].snapshots[name]
        except KeyError as error:
            raise InputError(str(error.args[0])) from error

    def point(self, name: str, run: int = 0) -> Any:
        """A snapshot as a point of the objective."""
        snapshot = self.snapshot(name, run)
        if self.settings.norm == "interpolate" and snapshot.batch_stats:
            return snapshot.variables
        return snapshot.params

    def objective(self, *, start: int = 0, averages_of: int = 0) -> Any:
        """The loss and error of the first run's model over a fixed sample.

        Args:
            start: examples of the draw that are passed over.
            averages_of: the run whose running averages are taken by ``norm='eval'``.
        """
        s, run = self.settings, self.runs[0]
        sample = run.sample(s.part, s.examples, seed=s.seed, start=start)
        if isinstance(run, TextRun):
            return landscape.text_objective(
                run.model, sample, batch_size=s.batch_size, l2=s.l2, error=True
            )
        norm = s.norm
        if norm == "interpolate" and not self.snapshot(s.end).batch_stats:
            norm = "eval"  # nothing to interpolate
        return landscape.flax_objective(
            run.model,
            sample,
            norm=norm,
            batch_size=s.batch_size,
            batch_stats=self.snapshot(s.end, averages_of).batch_stats or None,
            l2=s.l2,
            error=True,
        )

    @property
    def names(self) -> list[str]:
        """A name for each run, no two alike."""
        paths = [run.path.resolve() for run in self.runs]
        names = [path.name for path in paths]
        if len(set(names)) < len(names):
            names = [f"{path.parent.name}-{path.name}" for path in paths]
        if len(set(names)) < len(names):
            names = [f"{name}-{i}" for i, name in enumerate(names)]
        return names

    def measure(self, objective: Any, subspace: Any, coordinates: Any) -> Any:
        """A surface, kept while it is being measured, with a bar."""
        return landscape.measure_surface(
            objective, subspace, coordinates, store=self.store, progress=True
        )

    def title(self) -> str:
        """What a figure is of."""
        config, s = self.runs[0].config, self.settings
        names = ", ".join(run.path.name for run in self.runs)
        what = f"{config.model} on {config.dataset} ({names})"
        if isinstance(self.runs[0], TextRun):
            window = self.runs[0].config.window
            return f"{what}\n{s.examples or 'all'} {s.part} windows of {window} tokens"
        examples = f"{s.examples or 'all'} {s.part} examples"
        return f"{what}\n{examples}, batch norm: {s.norm}"


@dataclasses.dataclass
class Found:
    """What a probe saw.

    Attributes:
        dataset: labelled arrays.
        summary: a few numbers.
        figures: by name, to be looked at.
        pages: by name, to be turned.
    """

    dataset: xr.Dataset
    summary: dict[str, Any]
    figures: dict[str, Figure] = dataclasses.field(default_factory=dict)
    pages: dict[str, go.Figure] = dataclasses.field(default_factory=dict)


def about(surface: Any) -> dict[str, Any]:
    """What is known of a surface, in a few numbers."""
    return {
        "points": int(np.size(next(iter(surface.losses.values())))),
        "non_finite": surface.num_non_finite,
        "chunk_size": surface.chunk_size,
        "num_devices": surface.num_devices,
        "seconds": round(surface.seconds, 2),
        **surface.settings,
    }
