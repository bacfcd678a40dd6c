"""Run directories as a report reads them: all that can be read, and what could not.

Three kinds are told apart: a run that trained a network (`experiments.cifar`), one of
the networks that a paper's experiment trained (with ``results/history.json``), and a
paper's experiment itself (results, no ``config.json``).
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lrscape import seals
from lrscape.errors import InputError
from lrscape.records import Records

if TYPE_CHECKING:
    import xarray as xr

T = TypeVar("T")

# Of a paper's network: a row an epoch.
HISTORY = "history"
CURVES = "learning_curves"


@dataclasses.dataclass
class Result:
    """What lies in ``results/`` under one name.

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
        """How it was made."""
        found = self.summary.get("settings") if isinstance(self.summary, dict) else None
        if found is None and self.dataset is not None:
            try:
                found = json.loads(self.dataset.attrs.get("settings", "{}"))
            except (TypeError, ValueError):
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
    """What could be read of a run directory.

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
        """How many epochs it was to have."""
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


def read_run(path: Path) -> RunOnDisk:
    """Reads a run directory, damaged or not.

    Args:
        path: the directory.

    Returns:
        What could be read; ``troubles`` says what could not.

    Raises:
        InputError: the path is not a run directory.
    """
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise InputError(f"run={str(path)!r} {what}; name a run directory")
    if not _is_run(path):
        inside = sorted(child for child in path.iterdir() if _is_run(child))
        way_out = "name the directory of a run, such as runs/cifar-20250101-120000"
        if inside:
            way_out = f"it holds runs: name them, such as {str(inside[0])!r}"
        raise InputError(
            f"run={str(path)!r} holds no run (neither config.json nor results); "
            f"{way_out}"
        )
    run = _read(path)
    if run.is_paper or "seeds" in run.config:
        for child in sorted([*path.iterdir(), *path.glob("networks/*")]):
            if child.is_dir() and (child / "config.json").is_file():
                network = RunOnDisk(child, child.name)
                _read_config(network)
                _read_metrics(network)
                network.results[HISTORY] = Result(HISTORY)
                _read_history(network, network.results[HISTORY])
                run.networks.append(network)
    return run


def _is_run(path: Path) -> bool:
    files = ("config.json", "metrics.jsonl", "summary.json")
    if any((path / file).is_file() for file in files):
        return True
    results = path / "results"
    return results.is_dir() and any(
        child.suffix in (".json", ".nc") for child in results.iterdir()
    )


def _read(path: Path) -> RunOnDisk:
    # `path` may be `.`, which names nothing.
    run = RunOnDisk(path, path.resolve().name or str(path))
    _read_config(run)
    _read_metrics(run)
    summary = _tried(run, path / "summary.json", seals.read)
    if summary is not None and not isinstance(summary, dict):
        run.troubles.append("summary.json holds no summary")
    elif summary is not None:
        run.summary = summary
    _read_results(run)
    if HISTORY in run.results:
        _read_history(run, run.results[HISTORY])
    return run


def _read_config(run: RunOnDisk) -> None:
    file = run.path / "config.json"
    config = _tried(run, file, seals.read)
    if isinstance(config, dict):
        run.config = config
    elif config is not None:
        run.troubles.append("config.json holds no settings")
    elif not file.exists() and (run.path / "metrics.jsonl").exists():
        run.troubles.append("config.json is missing: its settings are not known")


def _read_metrics(run: RunOnDisk) -> None:
    file = run.path / "metrics.jsonl"
    text = _tried(run, file, lambda f: f.read_text("utf-8", errors="replace"))
    lines, damaged = (text or "").split("\n"), 0
    for line in lines[:-1]:  # what follows the last line end is being written
        try:
            found = seals.read_line(line)
        except ValueError:
            found = {}
        if _is_number(found.get("epoch")):
            run.metrics.append(_numbers(found))
        else:
            damaged += 1
    if damaged:
        run.troubles.append(
            f"metrics.jsonl: {damaged} of {len(lines) - 1} lines are damaged and left "
            "out"
        )


def _read_history(run: RunOnDisk, history: Result) -> None:
    """Takes a network's history as its metrics."""
    if history.summary is None:
        file = run.path / "results" / f"{HISTORY}.json"
        history.summary = _tried(run, file, seals.read)
    if run.metrics or not isinstance(history.summary, list):
        return
    for row in history.summary:
        if isinstance(row, dict) and _is_number(row.get("epoch")):
            line = _numbers(row)
            if "rate" in line:
                line["learning_rate"] = line.pop("rate")
            run.metrics.append(line)


def _read_results(run: RunOnDisk) -> None:
    names = {
        file.stem: Result(file.stem)
        for file in _files(run.path / "results")
        if file.suffix in (".nc", ".json")
    }
    records = Records(run.path)
    for name, result in sorted(names.items()):
        run.results[name] = result
        folder = run.path / "results"
        result.summary = _tried(run, folder / f"{name}.json", seals.read)
        result.dataset = _tried(
            run, folder / f"{name}.nc", lambda file: records.load_result(file.stem)
        )
    for file in sorted(_files(run.path / "figures")):
        if file.suffix != ".png":
            continue
        # A figure goes by its result's name, and what follows a dash: the longest.
        owner = file.stem
        while owner not in run.results and "-" in owner:
            owner = owner.rpartition("-")[0]
        picture = _tried(run, file, _png)
        if picture is not None:
            named = owner if owner in run.results else file.stem
            found = run.results.setdefault(named, Result(named))
            found.pictures[file.stem] = picture


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        # What is being written, or measured, has a name that begins with a dot.
        yield from (f for f in folder.iterdir() if not f.name.startswith("."))


def _png(file: Path) -> bytes:
    from PIL import Image

    content = file.read_bytes()
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        image.load()
    return content


def _tried(run: RunOnDisk, file: Path, read: Callable[[Path], T]) -> T | None:
    """What a file holds; None where it is missing, or damaged, which is noted."""
    if not file.exists():
        return None
    try:
        return read(file)
    # Damaged HDF5 and PNG raise whatever their readers run into.
    except Exception as error:
        told = str(error).split("\n")[0] or type(error).__name__
        shown = file.relative_to(run.path)
        run.troubles.append(f"{shown} is damaged and left out: {told}")
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(line: dict[str, Any]) -> dict[str, Any]:
    return {k: float(v) if _is_number(v) else v for k, v in line.items() if _plain(v)}


def _plain(value: Any) -> bool:
    return value is not None and not isinstance(value, list | dict | str)
