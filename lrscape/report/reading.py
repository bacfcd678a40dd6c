"""Run directories as a report reads them: all that can be read, and what could not.

Three kinds are told apart: a run that trained a network (`experiments.cifar`, or one of
the networks of a paper), a network of a paper from before those were runs (with
``results/history.json``), and a paper's experiment itself (results of its own).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lrscape import checks, hdf5, lines, manifest
from lrscape.errors import InputError
from lrscape.reading import MIB, Reader, parse_json, read_json
from lrscape.records import NAME, lines_implied
from lrscape.report.pictures import png

if TYPE_CHECKING:
    import xarray as xr

T = TypeVar("T")

# What a report takes of a run directory: memory, seconds of a processor's work, and
# lines of metrics, beyond which curves are nothing to look at.
MEMORY = 384 * MIB
SECONDS = 8.0
LINES = 100_000

# Of a paper's network: a row an epoch, in place of metrics where it is an old one, and
# the update at which its loss stopped being finite.
HISTORY, FAILED = "history", "failed"
CURVES = "learning_curves"


@dataclasses.dataclass
class Result:
    """A result: the files in ``results/`` of one name.

    Attributes:
        name: of its files.
        dataset: its labelled arrays, if they are there and whole.
        summary: its JSON, if it is there and whole.
        pictures: name -> PNG, those of ``figures/`` that go by its name.
    """

    name: str
    dataset: xr.Dataset | None = None
    summary: Any = None
    pictures: dict[str, bytes] = dataclasses.field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that it was made with."""
        found = self.summary.get("settings") if isinstance(self.summary, dict) else None
        if found is None and self.dataset is not None:
            try:
                found = parse_json(
                    str(self.dataset.attrs.get("settings", "{}")), "settings"
                )
            except InputError:
                found = None
        return found if isinstance(found, dict) else {}

    @property
    def rows(self) -> list[dict[str, Any]] | None:
        """The rows of a paper's table, or None where it is none."""
        rows = self.summary.get("rows") if isinstance(self.summary, dict) else None
        if not isinstance(rows, list):
            return None
        return [row for row in rows if isinstance(row, dict)]


@dataclasses.dataclass
class RunOnDisk:
    """The readable part of a run directory.

    Attributes:
        path: the directory.
        name: what the page calls it.
        config: its settings; empty where they are missing or damaged.
        metrics: logged lines, each with ``epoch``.
        summary: of a finished run.
        results: by name.
        networks: of a paper's experiment: those that it trained.
        troubles: what could not be read, in words.
    """

    path: Path
    name: str
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    metrics: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    summary: dict[str, Any] | None = None
    results: dict[str, Result] = dataclasses.field(default_factory=dict)
    networks: list[RunOnDisk] = dataclasses.field(default_factory=list)
    troubles: list[str] = dataclasses.field(default_factory=list)

    @property
    def is_paper(self) -> bool:
        """Whether a paper's experiment made it, rather than one training."""
        trained = "dataset" in self.config or bool(self.metrics)
        return not trained and bool(self.results)

    @property
    def epochs(self) -> float | None:
        """The number of epochs that it was to have."""
        value = self.config.get("epochs")
        return float(value) if isinstance(value, int | float) else None

    @property
    def diverged(self) -> Any:
        """The update at which the loss stopped being finite, if it did."""
        return self.metrics[-1].get("diverged") if self.metrics else None

    @property
    def last(self) -> dict[str, Any]:
        """The last logged line that holds a number."""
        lines = [line for line in self.metrics if "diverged" not in line]
        return lines[-1] if lines else {}

    @property
    def finished(self) -> bool:
        """Whether it came to its end."""
        if self.summary is not None:
            return True
        return HISTORY in self.results and self.last.get("epoch") == self.epochs


def read_run(path: Path, *, seconds: float = SECONDS) -> RunOnDisk:
    """Reads a run directory, damaged or not, whoever made it.

    Args:
        path: the directory.
        seconds: of a processor's work that reading may take.

    Returns:
        What could be read; ``troubles`` says what could not, and what was refused.

    Raises:
        InputError: the path is not a run directory.
    """
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise InputError(f"run={str(path)!r} {what}; name a run directory")
    reader = Reader(path, memory=MEMORY, seconds=seconds)
    if not _is_run(path):
        inside = [child for child in reader.entries(path) if _is_run(child)]
        way_out = "name the directory of a run, such as runs/cifar-20250101-120000"
        if inside:
            way_out = f"it holds runs: name them, such as {str(inside[0])!r}"
        raise InputError(
            f"run={str(path)!r} holds no run (neither config.json nor results); "
            f"{way_out}"
        )
    # `path` may be `.`, which names nothing.
    run = RunOnDisk(path, path.resolve().name or str(path))
    try:
        reader.check_no_link(path / manifest.NAME)
        manifest.read(path / manifest.NAME)
    except InputError as error:
        # All else can be read, though not compared.
        reader.verify = False
        run.troubles.append(f"{manifest.NAME} is left out: {error}")
    _Reading(run, reader).whole()
    return run


def _is_run(path: Path) -> bool:
    files = ("config.json", "metrics.jsonl", "summary.json")
    if any(os.path.lexists(path / file) for file in files):
        return True
    results = path / "results"
    return results.is_dir() and any(
        child.suffix in (".json", ".nc") for child in results.iterdir()
    )


class _Reading:
    """Reads one run; its networks share the budget of their paper's directory."""

    def __init__(self, run: RunOnDisk, reader: Reader):
        self.run, self.reader = run, reader

    def whole(self) -> None:
        """Everything that a page shows."""
        run = self.run
        self.training()
        summary = self.tried(run.path / "summary.json", self.json)
        if summary is not None and not isinstance(summary, dict):
            run.troubles.append("summary.json holds no summary")
        elif summary is not None:
            run.summary = summary
        self.results()
        self.pictures()
        if HISTORY in run.results:
            self.history(run.results[HISTORY])
        self.failure()
        if run.is_paper or "seeds" in run.config:
            self.networks()

    def networks(self) -> None:
        """Reads the networks that a paper's experiment trained."""
        path = self.run.path
        for child in [*self.listed(path), *self.listed(path / "networks")]:
            if os.path.lexists(child / "config.json"):
                network = RunOnDisk(child, child.name)
                network.results[HISTORY] = Result(HISTORY)
                reading = _Reading(network, self.reader)
                reading.training()
                reading.history(network.results[HISTORY])
                reading.failure()
                self.run.networks.append(network)

    def training(self) -> None:
        """Settings and metrics."""
        run = self.run
        file = run.path / "config.json"
        config = self.tried(file, self.json)
        if isinstance(config, dict):
            run.config = config
        elif config is not None:
            run.troubles.append("config.json holds no settings")
        elif not os.path.lexists(file) and os.path.lexists(run.path / "metrics.jsonl"):
            run.troubles.append("config.json is missing: its settings are not known")
        self.metrics()

    def metrics(self) -> None:
        """Logged lines, without those that are damaged."""
        run, most = self.run, min(lines_implied(self.run.config), LINES)
        text = self.tried(
            run.path / "metrics.jsonl",
            lambda file: lines.text_of_lines(file, self.reader, most=most),
        )
        written, damaged = (text or "").split("\n"), 0
        for line in written[:-1]:  # what follows the last line end is being written
            try:
                found = lines.read_line(line)
            except ValueError:
                found = {}
            if _is_number(found.get("epoch")):
                run.metrics.append(_numbers(found))
            else:
                damaged += 1
        if damaged:
            run.troubles.append(
                f"metrics.jsonl: {damaged} of {len(written) - 1} lines are damaged and "
                "left out"
            )

    def history(self, history: Result) -> None:
        """Takes a network's history as its metrics."""
        run = self.run
        if history.summary is None:
            file = run.path / "results" / f"{HISTORY}.json"
            history.summary = self.tried(file, self.json)
        if run.metrics or not isinstance(history.summary, list):
            return
        for row in history.summary[:LINES]:
            if isinstance(row, dict) and _is_number(row.get("epoch")):
                line = _numbers(row)
                if "rate" in line:
                    line["learning_rate"] = line.pop("rate")
                run.metrics.append(line)

    def failure(self) -> None:
        """Takes down where a network's loss stopped being finite."""
        run = self.run
        found = self.tried(run.path / "results" / f"{FAILED}.json", self.json)
        steps = list(found.values()) if isinstance(found, dict) else []
        if "seeds" in run.config or run.diverged is not None:
            return
        if steps and _is_number(steps[0]):
            epoch = run.last.get("epoch", 0.0)
            run.metrics.append({"epoch": epoch, "diverged": steps[0]})

    def results(self) -> None:
        """Arrays and summaries."""
        folder = self.run.path / "results"
        names = {
            file.stem: Result(file.stem)
            for file in self.listed(folder)
            if file.suffix in (".nc", ".json")
        }
        for name, result in names.items():
            self.run.results[name] = result
            result.summary = self.tried(folder / f"{name}.json", self.json)
            result.dataset = self.tried(
                folder / f"{name}.nc",
                lambda file: hdf5.load(file, self.reader),
            )

    def pictures(self) -> None:
        """Figures, each with its result."""
        results = self.run.results
        for file in self.listed(self.run.path / "figures"):
            if file.suffix != ".png":
                continue
            # A figure goes by its result's name, and what follows a dash: the longest.
            owner = file.stem
            while owner not in results and "-" in owner:
                owner = owner.rpartition("-")[0]
            picture = self.tried(file, lambda file: png(file, self.reader))
            if picture is not None:
                named = owner if owner in results else file.stem
                found = results.setdefault(named, Result(named))
                found.pictures[file.stem] = picture

    def listed(self, folder: Path) -> list[Path]:
        """Lists a folder, without files that are being written.

        Their names begin with a dot.
        """
        found = []
        for file in self.tried(folder, self.reader.entries) or ():
            if NAME.fullmatch(file.name):
                found.append(file)
            elif not file.name.startswith(".") and folder != self.run.path:
                self.run.troubles.append(
                    f"{checks.shown(file.name)} is left out: it is no name of a result"
                )
        return found

    def json(self, file: Path) -> Any:
        """The value in a file of JSON."""
        return read_json(file, self.reader)

    def tried(self, file: Path, read: Callable[[Path], T]) -> T | None:
        """Reads a file; None, and a note, where it is missing, damaged or refused."""
        if not os.path.lexists(file):
            return None
        try:
            return read(file)
        # Damaged HDF5 and PNG raise whatever their readers run into.
        except Exception as error:
            told = str(error).split("\n")[0] or type(error).__name__
            self.run.troubles.append(
                f"{file.relative_to(self.run.path)} is left out: {told}"
            )
            return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(line: dict[str, Any]) -> dict[str, Any]:
    return {k: float(v) if _is_number(v) else v for k, v in line.items() if _plain(v)}


def _plain(value: Any) -> bool:
    return value is not None and not isinstance(value, list | dict | str)
