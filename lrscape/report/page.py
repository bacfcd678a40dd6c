"""The page: runs side by side, their curves, results, figures and doubts."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrscape import checks, figures
from lrscape.errors import InputError
from lrscape.extensions import seams
from lrscape.reading import deadline, parse_json
from lrscape.records import write_aside
from lrscape.report.doubts import between, doubts
from lrscape.report.markup import (
    details,
    items,
    pairs,
    picture,
    plain,
    script_json,
    table,
    text,
)
from lrscape.report.reading import (
    CURVES,
    HISTORY,
    SECONDS,
    Result,
    RunOnDisk,
    read_run,
)
from lrscape.report.sections import (
    arrays,
    counted,
    header,
    numbers_of,
    row_of,
    settings,
    side_by_side,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from matplotlib.figure import Figure

# What is said of one run.
WARNINGS = 100
# Values of a result that is drawn: a surface of 500 x 500.
DRAWN = 250_000
# Nothing may be fetched. Plotly compiles shaders and draws pictures from blobs.
POLICY = (
    "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline' 'unsafe-eval'"
)


def write_report(
    paths: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    seconds: float = SECONDS,
) -> tuple[Path, list[str]]:
    """Writes runs as one HTML file that opens from disk.

    Args:
        paths: run directories, the first of which holds the page.
        out: the file instead.
        seconds: of a processor's work that reading each run may take, and again drawing
            it; what is left after that is named instead.

    Returns:
        The file, and what the page warns of.

    Raises:
        InputError: a path that is no run, or a file that cannot be written.
    """
    seconds = checks.positive("seconds", seconds)
    paths = _checked(paths)
    file = Path(paths[0]) / "report.html" if out is None else checks.path("out", out)
    # Before anything is drawn.
    checks.path_to_write("out", file)
    page, warnings = render(paths, seconds=seconds)
    try:
        with write_aside(file) as aside:
            # A directory's name may hold what is no text.
            aside.write_text(page, "utf-8", errors="backslashreplace")
    except OSError as error:
        raise InputError(
            f"out={str(file)!r} cannot be written: {error.strerror or error}; choose "
            "another file with --out"
        ) from error
    return file, warnings


def render(
    paths: Sequence[str | Path], *, seconds: float = SECONDS
) -> tuple[str, list[str]]:
    """The page that `write_report` writes, and what it warns of."""
    checks.positive("seconds", seconds)
    runs = [read_run(path, seconds=seconds) for path in _checked(paths)]
    _name_apart(runs)
    page = _Page(seconds)
    for run in runs:
        page.warn(run.name if len(runs) > 1 else "", doubts(run))
    page.warn("", between(runs))
    body = [header(runs)]
    sections = [side_by_side(runs), page.curves(runs)]
    sections += [page.run(run, alone=len(runs) == 1) for run in runs]
    body += [page.warnings_section(), *sections]
    return page.document(runs, "\n".join(filter(None, body))), page.warnings


def _checked(paths: Any) -> list[Path]:
    """Run directories as paths, one or more."""
    found = [checks.path("paths", path) for path in checks.sequence("paths", paths)]
    if not found:
        raise InputError(f"paths={paths!r}: name at least one run directory")
    return found


def _name_apart(runs: list[RunOnDisk]) -> None:
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        for run in runs:
            run.name = str(run.path)
    if len({run.name for run in runs}) < len(runs):
        raise InputError("runs: a run directory is named twice; name each once")


class _Page:
    """What a page gathers while it is made."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.is_late = deadline(seconds)
        self.warnings: list[str] = []
        self.plots: list[str] = []

    def warn(self, name: str, sentences: Sequence[str]) -> None:
        prefix = f"{name}: " if name else ""
        self.warnings += [prefix + sentence for sentence in sentences[:WARNINGS]]
        if (more := len(sentences) - WARNINGS) > 0:
            self.warnings.append(f"{prefix}{more:,} more of the kind")

    def warnings_section(self) -> str:
        if not self.warnings:
            return ""
        return (
            '<section class="warnings" id="warnings"><h2>Warnings</h2>'
            f"{items(self.warnings)}</section>"
        )

    def curves(self, runs: Sequence[RunOnDisk]) -> str:
        """Losses, errors and rates, of all runs together."""
        lines = {
            run.name: [line for line in run.metrics if "diverged" not in line]
            for run in runs
        }
        lines = {name: found for name, found in lines.items() if len(found) > 0}
        if not lines:
            return ""
        if len(lines) == 1:
            ((name, only),) = lines.items()
            rated = [line for line in only if "learning_rate" in line]
            (run,) = [run for run in runs if run.name == name]
            at = [epoch for _, epoch in seams(run.config, only)]
            still = self._drawn(
                CURVES, lambda: figures.learning_curves(rated, seams=at)
            )
        else:
            still = self._drawn(CURVES, lambda: figures.compared_curves(lines))
        marked = {
            run.name: [epoch for _, epoch in seams(run.config, lines[run.name])]
            for run in runs
            if run.name in lines
        }
        plot = self._plot(
            CURVES, lambda: figures.interactive_curves(lines, seams=marked), still,
            tall=True,
        )  # fmt: skip
        return f'<section id="curves"><h2>Curves</h2>{plot}</section>'

    def run(self, run: RunOnDisk, *, alone: bool) -> str:
        """The part of the page about one run."""
        self.is_late = deadline(self.seconds)
        parts = [] if alone else [f"<h2>{text(run.name)}</h2>", numbers_of(run)]
        if run.is_paper:
            parts += self._paper(run)
        else:
            parts.append(settings(run.config))
            for result in run.results.values():
                if result.name not in (CURVES, HISTORY):
                    parts.append(self._result(result))
        name = "" if alone else f' aria-label="{text(run.name)}"'
        return (
            f'<section class="run"{name}>'
            + "\n".join(filter(None, parts))
            + ("</section>")
        )

    def _paper(self, run: RunOnDisk) -> list[str]:
        """A paper's tables, its verdicts first."""
        ordered = sorted(run.results.values(), key=lambda r: r.name != "claims")
        parts = [self._result(result) for result in ordered]
        if run.networks:
            rows = [row_of(network) for network in run.networks]
            rows = [{"network": row.pop("run"), **row} for row in rows]
            networks = details(counted(len(rows), "network"), table(rows))
            parts.append(
                f'<article id="networks"><h3>Networks</h3>{networks}</article>'
            )
        return parts

    def _result(self, result: Result) -> str:
        """One result: its table or numbers, its figures, how it was made."""
        heading = result.name.replace("_", " ")
        parts = [f"<h3>{text(heading)}</h3>"]
        if isinstance(command := result.settings.get("command"), str):
            parts.append(f'<p class="command"><code>{text(command)}</code></p>')
        if (rows := result.rows) is not None:
            parts.append(table(rows))
            notes = result.summary.get("notes")
            if isinstance(notes, list):
                parts.append(items([plain(note) for note in notes], "notes"))
        parts += self._figures(result)
        if rows is None and isinstance(result.summary, dict):
            numbers = {k: v for k, v in result.summary.items() if k != "settings"}
            parts.append(pairs(numbers))
        elif rows is None and isinstance(result.summary, list):
            listed = [row for row in result.summary if isinstance(row, dict)]
            parts.append(table(listed))
        if result.dataset is not None and rows is None:
            parts.append(details("Arrays", table(arrays(result.dataset))))
        if result.settings:
            parts.append(details("How it was made", pairs(result.settings)))
        return f"<article>{''.join(parts)}</article>"

    def _figures(self, result: Result) -> list[str]:
        """A result's pictures, the one that can be turned before them."""
        stills = dict(result.pictures)
        dataset, parts = result.dataset, []
        too_large = self._too_large(result)
        if too_large or dataset is None or result.rows is not None:
            made = None
        elif "loss" in dataset and dataset["loss"].ndim == 2 and _is_grid(dataset):
            still = stills.pop(f"{result.name}-3d", None) or self._drawn(
                result.name, lambda: figures.surface_figure(dataset)
            )
            made = self._plot(result.name, lambda: _surface(dataset), still, tall=True)
            if not stills:
                flat = self._drawn(result.name, lambda: figures.contour_figure(dataset))
                stills = {f"{result.name}, from above": flat} if flat else {}
        elif "loss" in dataset and tuple(dataset.dims) == ("alpha",):
            still = stills.pop(result.name, None) or self._drawn(
                result.name, lambda: figures.line_figure(dataset)
            )
            ends = _ends(result)
            made = self._plot(
                result.name,
                lambda: figures.interactive_line(dataset, ends=ends),
                still,
            )
        else:
            made = None
            if not stills and {"loss", "crosses_barrier"} <= set(dataset):
                drawn = self._drawn(result.name, lambda: figures.walk_figure(dataset))
                stills = {result.name: drawn} if drawn else {}
        if made:
            parts.append(made)
        if stills:
            shown = "".join(
                f"<figure>{picture(content, name)}</figure>"
                for name, content in stills.items()
            )
            parts.append(f'<div class="pictures">{shown}</div>')
        return parts

    def _too_large(self, result: Result) -> bool:
        """Whether a result has too many values to be drawn, which is said."""
        if result.dataset is None or "loss" not in result.dataset:
            return False
        largest = max(array.size for array in result.dataset.variables.values())
        if largest <= DRAWN:
            return False
        self.warnings.append(
            f"{result.name} is not drawn: it has {largest:,} values, more than the "
            f"{DRAWN:,} that a page holds"
        )
        return True

    def _has_time(self, name: str) -> bool:
        if late := self.is_late():
            self.warnings.append(
                f"{name} is not drawn: the {self.seconds:g} seconds for drawing are "
                "used up; give more with --seconds"
            )
        return not late

    def _plot(
        self,
        name: str,
        make: Callable[[], go.Figure],
        still: bytes | None,
        *,
        tall: bool = False,
    ) -> str:
        """A Plotly figure; on paper, and without JavaScript, its still picture."""
        if not self._has_time(name):
            return f"<figure>{picture(still, name)}</figure>" if still else ""
        try:
            figure = make()
        except Exception as error:  # whatever damaged values lead to
            self.warnings.append(f"{name} cannot be drawn: {error}")
            return f"<figure>{picture(still, name)}</figure>" if still else ""
        figure.update_layout(template="none", autosize=True)
        self.plots.append(figure.to_json())
        kind = "plot tall" if tall else "plot"
        return (
            f'<figure><div class="{kind}" data-plot="{len(self.plots) - 1}" '
            f'aria-label="{text(name)}"></div>'
            f"{picture(still, name, 'still') if still else ''}</figure>"
        )

    def _drawn(self, name: str, make: Callable[[], Figure]) -> bytes | None:
        """A matplotlib figure as PNG."""
        if not self._has_time(name):
            return None
        try:
            written = io.BytesIO()
            make().savefig(written, format="png", dpi=110)
        except Exception as error:  # whatever damaged values lead to
            self.warnings.append(f"{name} cannot be drawn: {error}")
            return None
        return written.getvalue()

    def document(self, runs: Sequence[RunOnDisk], body: str) -> str:
        """The whole page."""
        files = resources.files("lrscape.report")
        style = files.joinpath("page.css").read_text("utf-8")
        scripts = ""
        if self.plots:
            from plotly.offline import get_plotlyjs

            data = script_json("[" + ",".join(self.plots) + "]")
            code = files.joinpath("page.js").read_text("utf-8")
            scripts = (
                f'<script type="application/json" id="plots">{data}</script>\n'
                f"<script>{get_plotlyjs()}</script>\n<script>{code}</script>\n"
            )
        title = ", ".join(run.name for run in runs)
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n'
            f"<title>{text(title)}</title>\n<style>\n{style}</style>\n</head>\n"
            f"<body>\n<main>\n{body}\n</main>\n{scripts}</body>\n</html>\n"
        )


def _is_grid(dataset: Any) -> bool:
    """Whether the loss lies over a grid of coordinates, not over steps."""
    return all(dim in dataset.coords for dim in dataset["loss"].dims) and (
        "step" not in dataset["loss"].dims
    )


def _surface(dataset: Any) -> go.Figure:
    """A surface to turn, with the points and the path that were kept beside it."""
    points = parse_json(str(dataset.attrs.get("points", "{}")), "points")
    path = heights = None
    if {"path_x", "path_y", "path_loss"} <= set(dataset):
        path = dataset[["path_x", "path_y"]].to_array().values.T
        heights = dataset["path_loss"].values
    figure = figures.interactive_surface(
        dataset, points=points, path=path, path_heights=heights
    )
    figure.update_traces(
        colorbar={"thickness": 12, "len": 0.7}, selector={"type": "surface"}
    )
    # Room for the axes' names, and for what stands above.
    figure.update_layout(
        scene={"camera": {"eye": {"x": 1.5, "y": 1.5, "z": 1.2}}},
        legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
        margin={"t": 50},
    )
    return figure


def _ends(result: Result) -> dict[float, str]:
    names = result.settings.get("start"), result.settings.get("end")
    return {float(at): name for at, name in enumerate(names) if isinstance(name, str)}
