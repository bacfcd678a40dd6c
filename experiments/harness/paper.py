"""What the experiments on papers share: results, how they are kept, exit statuses."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import tyro
import xarray as xr

from experiments.harness import filing, stand_ins
from experiments.harness.memory import keep_freed_memory
from experiments.harness.parsing import parse
from experiments.harness.sources import Source, settings_table
from experiments.harness.trainer import Stopped, StorageError
from experiments.harness.values import (
    DataDirectory,
    Directory,
    Networks,
    Whole,
    check_values,
)
from lrscape.environment import describe
from lrscape.errors import InputError, unknown_name
from lrscape.records import Records
from lrscape.training import NonFiniteLossError
from lrscape.training.checkpoint import CorruptCheckpointError
from lrscape.user_cache import private_directory

# Items of every paper: all that it has, a list of the results that there are, and one
# of the preset's settings with their sources.
ALL, RESULTS, SETTINGS = "all", "results", "settings"


@dataclasses.dataclass
class Result:
    """What a command found.

    Attributes:
        rows: of a table: names to values.
        dataset: labelled arrays.
        figures: by name.
        notes: what has to be said beside the table.
        pages: figures to turn in a browser, by name.
    """

    rows: list[dict[str, Any]]
    dataset: xr.Dataset
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    pages: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaperArguments:
    """Flags that the papers' commands share; None means "from the preset".

    Attributes:
        item: the table or figure, all, or results: a list of what there is, or
            settings: those of the preset, each with its source.
        preset: of the paper's presets.
        seeds: networks that differ by their seed alone.
        examples: trained on; 0: all of them.
        dataset: instead of each network's own.
        run_dir: where networks and results are kept; default: runs/PAPER-PRESET.
        data_dir: the TFDS data directory; default: TFDS_DATA_DIR, or else
            ~/tensorflow_datasets.
        debug: show a traceback with an error.
    """

    item: tyro.conf.Positional[str]
    preset: str = "quick"
    seeds: Networks | None = None
    examples: Whole | None = None
    dataset: str | None = None
    run_dir: Directory | None = None
    data_dir: DataDirectory | None = None
    debug: bool = False

    def root(self, paper: str) -> Path:
        """Where networks and results are kept."""
        return self.run_dir or Path("runs") / f"{paper}-{self.preset}"


@dataclasses.dataclass(frozen=True)
class Paper:
    """A paper's command.

    Attributes:
        name: the experiment's name.
        description: of its file, shown by ``--help``.
        arguments: its flags.
        items: tables and figures: name -> what makes it of a laboratory; its
            docstring's first line is its title.
        lab_of: what was asked for, with the preset's values; raises InputError.
        datasets_of: the laboratory and an item -> its own data sets, each with the one
            that is taken for it.
        about: the laboratory and an item -> its settings, as JSON holds them.
        items_of: of a command line and its laboratory those of `items` that are made,
            where that depends on other flags.
        plans_of: of a laboratory the dataclasses that hold its settings, by name.
        sources: where the settings of the preset `paper` come from, see
            `experiments.harness.sources.settings_table`.
    """

    name: str
    description: str
    arguments: type[PaperArguments]
    items: Mapping[str, Callable[[Any], Result]]
    lab_of: Callable[[Any], Any]
    datasets_of: Callable[[Any, str], dict[str, str]]
    about: Callable[[Any, str], dict[str, Any]]
    items_of: Callable[[Any, Any], Mapping[str, Callable[[Any], Result]]] | None = None
    plans_of: Callable[[Any], Mapping[str, Any]] | None = None
    sources: Mapping[str, Source] = dataclasses.field(default_factory=dict)

    def run(self, arguments: Any) -> None:
        """Makes the items that were asked for, prints and saves them."""
        lab = self.lab_of(arguments)
        items = self.items if self.items_of is None else self.items_of(arguments, lab)
        make(self, items, arguments, lab)

    def main(self, argv: list[str] | None = None) -> int:
        """Runs the command line; returns the exit status."""
        return command_line(self.name, self.arguments, self.description, self.run, argv)


def command_line(
    name: str,
    arguments: type,
    docstring: str,
    run: Callable[[Any], None],
    argv: list[str] | None,
) -> int:
    """Runs an experiment on papers from its command line.

    Args:
        name: of the experiment.
        arguments: a dataclass of its flags, ``debug`` among them.
        docstring: of its file, shown by ``--help``.
        run: makes what was asked for.
        argv: the command line; None is the process's own.

    Returns:
        The exit status, see `guarded`.
    """
    if argv is None:  # in a process of its own
        keep_freed_memory()
    given: Any = parse(arguments, f"experiments.{name}", docstring, argv)

    def checked() -> None:
        check_values(given)
        run(given)

    return guarded(checked, debug=given.debug)


def check_flags(
    arguments: Any,
    items: Iterable[str],
    presets: Iterable[str],
    least: Mapping[str, int],
    **choices: Iterable[str],
) -> None:
    """Checks what all papers' command lines have in common.

    Args:
        arguments: with ``item``, ``preset`` and the fields below.
        items: that can be made, besides ``all``, ``results`` and ``settings``.
        presets: that can be followed.
        least: numbers' names -> the least that they may be; None is from the preset.
        **choices: other fields' names -> what they may be, or None.

    Raises:
        InputError: an unknown name, or a number that cannot work.
    """
    if arguments.item not in (named := [*items, ALL, RESULTS, SETTINGS]):
        raise unknown_name("item", arguments.item, named)
    for field, known in {"preset": presets, **choices}.items():
        value = getattr(arguments, field)
        if value is not None and value not in known:
            raise unknown_name(field, value, known)
    for field, lowest in least.items():
        value = getattr(arguments, field)
        if value is not None and value < lowest:
            raise InputError(f"{field}={value} must be {lowest} or more")


def flags_given(arguments: Any, *fields: str) -> dict[str, Any]:
    """Those of some flags that were given, by name."""
    return {
        field: value
        for field in fields
        if (value := getattr(arguments, field)) is not None
    }


def changes(
    arguments: Any, *fields: str, batch_size: int | None = None
) -> dict[str, Any]:
    """What flags change of a plan: those of some fields, and ``examples``, 0 being all.

    Args:
        arguments: of the command line.
        fields: that flag and plan call by one name.
        batch_size: the plan's; None: any number of examples will do.

    Raises:
        InputError: fewer examples than a batch.
    """
    found, examples = flags_given(arguments, *fields), arguments.examples
    if examples and batch_size is not None and examples < batch_size:
        raise InputError(
            f"examples={examples} must be at least one batch, {batch_size}, or 0 for "
            "all"
        )
    return found if examples is None else {**found, "examples": examples or None}


def make(
    paper: Paper,
    items: Mapping[str, Callable[[Any], Result]],
    arguments: Any,
    lab: Any,
) -> None:
    """Makes tables and figures, prints and saves them; or lists results or settings.

    Args:
        paper: whose they are.
        items: name -> what makes it.
        arguments: of the command line, with ``item``.
        lab: handed to them, with ``preset``, ``data_dir``, and ``root``, where
            everything is kept.

    Raises:
        InputError: data that are not prepared, or a directory that holds something
            else, before anything is trained or written.
    """
    if arguments.item == RESULTS:
        print(as_text(filing.listed(lab.root)))
        return
    if arguments.item == SETTINGS:
        if paper.plans_of is None:
            raise InputError(f"{paper.name} does not list its settings")
        print(as_text(settings_table(paper.plans_of(lab), paper.sources)))
        if lab.preset != "paper":
            print("The sources are those of the preset paper.")
        return
    wanted = list(items) if arguments.item == ALL else [arguments.item]
    used = {item: paper.datasets_of(lab, item) for item in wanted}
    together = {own: taken for one in used.values() for own, taken in one.items()}
    stand_ins.check_prepared(together.values(), lab.data_dir)
    if arguments.dataset is None:
        stand_ins.say(together, lab.data_dir)
    records = filing.own(lab.root, {"paper": paper.name, "preset": lab.preset})
    with compiled_once():
        for item in wanted:
            # Compiled programs hold memory mappings, of which Linux allows 65,530.
            jax.clear_caches()
            started = time.monotonic()
            found = items[item](lab)
            seconds = time.monotonic() - started
            title = (items[item].__doc__ or "").splitlines()[0]
            print(f"\n{item}, {lab.preset}: {title}")
            print(as_text(found.rows))
            for note in found.notes:
                print(note)
            differs = filing.differences(arguments, used[item])
            settings = {
                "preset": lab.preset,
                "differs": differs,
                **paper.about(lab, item),
                "seconds": round(seconds, 1),
                **describe(jax.local_devices()),
            }
            name = filing.place(records, item, differs)
            written = save(records, name, found, settings)
            print(f"{seconds:.0f} s; written:", *written, sep="\n  ")


@contextlib.contextmanager
def compiled_once(directory: Path | None = None) -> Iterator[None]:
    """Keeps compiled programs: networks that differ by a seed share them.

    Args:
        directory: where; None is the user's own cache directory, which grows and can be
            deleted at any time. Never a run directory: what is there is run as a
            program, whoever wrote it.
    """
    where, least = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
    )
    before = {name: getattr(jax.config, name) for name in (where, least)}
    if before[where] is None and directory is None:
        try:
            directory = private_directory("compiled")
        except InputError as error:
            print(f"warning: compiled programs are not kept: {error}", file=sys.stderr)
    # One that the user has chosen stays.
    changes = {
        where: before[where] or (directory and str(directory.absolute())),
        least: 0.1,
    }
    try:
        for name, value in changes.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def save(
    records: Records, item: str, found: Result, settings: dict[str, Any]
) -> list[Path]:
    """Saves a result's arrays, figures and table; the files."""
    written = [records.save_result(item, found.dataset, settings)]
    for shown_by, made in (
        (records.save_figure, found.figures), (records.save_page, found.pages)
    ):  # fmt: skip
        for name, figure in made.items():
            written.append(shown_by(f"{item}-{name}" if name else item, figure))
    summary = {"rows": found.rows, "notes": found.notes, "settings": settings}
    return [*written, records.save_result_summary(item, summary)]


def shown(value: float | None) -> str:
    """A number of the paper, or a dash where it has none."""
    return "-" if value is None else f"{value:g}"


def as_text(rows: list[dict[str, Any]]) -> str:
    """Rows as columns, aligned.

    Example:
        >>> print(as_text([{'a': 1, 'bc': 'x'}]))
        a  bc
        1  x
    """
    if not rows:
        return "(nothing was measured)"
    cells = [list(rows[0]), *([str(v) for v in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def guarded(function: Callable[[], None], *, debug: bool) -> int:
    """Calls a function and turns what goes wrong into a message and an exit status.

    Args:
        function: the experiment.
        debug: show a traceback with an error.

    Returns:
        0, 2 for bad input, 1 for training or a disk that failed, 128 + N for signal N.
    """
    try:
        function()
    except (InputError, CorruptCheckpointError) as error:
        return _said(error, 2, debug)
    except NonFiniteLossError as error:
        return _said(error, 1, debug)
    except StorageError as error:
        return _said(error, 1, debug)
    except OSError as error:
        way_out = (
            "make room, or remove what is damaged, and give the same command again"
        )
        return _said(error, 1, debug, f"; {way_out}")
    except KeyboardInterrupt as stop:
        number = stop.signal if isinstance(stop, Stopped) else signal.SIGINT
        print(
            "\nstopped; give the same command again to go on with what is measured",
            file=sys.stderr,
        )
        return 128 + number
    return 0


def _said(error: Exception, status: int, debug: bool, way_out: str = "") -> int:
    if debug:
        traceback.print_exception(error)
    print(f"error: {error}{way_out}", file=sys.stderr)
    return status
