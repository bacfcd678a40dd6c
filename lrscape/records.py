"""A run directory on disk: settings, metrics, summary, results and figures.

::

    config.json      every setting, versions, device, source commit, command line
    metrics.jsonl    one object a logged step
    summary.json     the last and best metrics, seconds, images a second
    checkpoints/     to resume from            snapshots/NAME   kept for ever
    results/*.nc     labelled arrays           figures/*.png
    report.html      all of it as a page, see `lrscape.report`
    manifest.sha256  a checksum of every file, as ``sha256sum`` prints it

Metrics are appended; everything else is written aside and renamed, so that nothing is
ever half there, and synchronised (see `lrscape.durable`), so that it is there after a
loss of power. Every file that is written has its checksum in ``manifest.sha256``, every
line of metrics its own: a bit that flips on disk is an error, never another number.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import re
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from lrscape import checks, file_lock, hdf5, lines, manifest
from lrscape.durable import HeldDirectory, make_directory, sync_directory, sync_file
from lrscape.errors import InputError
from lrscape.reading import Reader, read_json, resolved

if TYPE_CHECKING:
    import matplotlib.figure
    import plotly.graph_objects
    import xarray as xr

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
# Of data that a run's settings give no size of: ImageNet's examples, and more tokens
# than WikiText-103 has.
MOST_EXAMPLES = 1_300_000
MOST_TOKENS = 200_000_000
# Begins the name of what is written aside; host, process and a random end follow.
_ASIDE = ".aside-"


def check_path(path: Path) -> None:
    """Raises InputError for a path that Orbax would write elsewhere than it reads.

    TensorStore takes a backslash for a separator, finds nothing below a bracket, and
    takes UTF-8 alone, which a locale such as C may keep Python from speaking.
    """
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"run_dir={checks.shown(str(path))}: the name of this directory cannot be "
            f"read in this locale, whose encoding is {sys.getfilesystemencoding()}; "
            "set PYTHONUTF8=1 in the environment, or choose another directory"
        ) from error
    if odd := sorted(set("\\[]") & set(str(path.absolute()))):
        raise InputError(
            f"run_dir={str(path)!r}: checkpoints cannot be kept in a directory whose "
            f"path has {' or '.join(odd)}; choose or rename a directory"
        )


class Records:
    """Owns one run directory.

    Attributes:
        path: the directory.

    Example:
        >>> import tempfile
        >>> records = Records.create(Path(tempfile.mkdtemp()) / 'a', {'seed': 0})
        >>> records.append_metrics({'step': 1, 'train_loss': 2.5})
        >>> records.metrics(), records.config()
        ([{'step': 1, 'train_loss': 2.5}], {'seed': 0})
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = checks.path("run_dir", path)
        # While it is locked: what notices that it was removed or moved.
        self._held: HeldDirectory | None = None

    @classmethod
    def create(cls, path: str | os.PathLike[str], config: dict[str, Any]) -> Records:
        """Makes a directory for a new run.

        Raises:
            InputError: the directory holds another run, or anything else.
        """
        records = cls(path)
        records.check_free()
        try:
            make_directory(records.path)
            # Written last of all that makes a run: until then there is none.
            records._write_json(records.path / "config.json", config)
        except OSError as error:
            raise records._unwritable(error) from error
        return records

    def check_free(self) -> None:
        """Raises InputError where a new run would not be alone in the directory."""
        if self.exists():
            raise InputError(
                f"run_dir={str(self.path)!r} already holds a run; go on with it by "
                "--resume, or choose another directory"
            )
        # A run that was killed as it was made may have left its manifest.
        if self.path.is_dir() and any(
            not child.name.startswith(".") and child.name != manifest.NAME
            for child in self.path.iterdir()
        ):
            raise InputError(
                f"run_dir={str(self.path)!r} is not empty and holds no run; choose "
                "another directory"
            )

    def check_made_with(self, config: dict[str, Any]) -> None:
        """Raises InputError unless the directory is free, or made with these settings.

        Before it is locked, so that a directory of something else is left as it is.
        """
        if not self.exists():
            self.check_free()
        elif (found := self.config()) != config:
            raise InputError(
                f"run_dir={str(self.path)!r} holds something else: {found}; choose "
                "another directory"
            )

    def make_with(self, config: dict[str, Any]) -> None:
        """Makes the directory's settings, once it is locked, where there are none yet.

        Raises:
            InputError: see `check_made_with`: another process may have made it since.
        """
        self.check_made_with(config)
        if not self.exists():
            Records.create(self.path, config)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes from writing to the directory; makes it if need be.

        The system lets go of the lock when a process ends, however it ends.

        Raises:
            InputError: another process holds the lock, it cannot be written, or its
                file system has no locks.
        """
        check_path(self.path)
        self.check_links()
        with contextlib.ExitStack() as stack:
            try:
                make_directory(self.path)
                # Unbuffered: what a full disk refuses is not tried again on closing.
                file = (self.path / ".lock").open("ab+", buffering=0)
                stack.enter_context(file)
                held = HeldDirectory(self.path, self.path)
            except OSError as error:
                raise self._unwritable(error) from error
            stack.callback(held.close)
            self._take(file)
            try:
                file.truncate(0)
                file.write(f"process {os.getpid()} on {platform.node()}\n".encode())
            except OSError as error:
                raise self._unwritable(error) from error
            # Between opening and locking, another process may have removed it.
            held.check()
            self._tidy()
            self._held = held
            try:
                yield
            finally:
                self._held = None

    def _take(self, file: Any) -> None:
        if not file_lock.lock(f"run_dir={str(self.path)!r}", file):
            file.seek(0)
            owner = file.read().decode(errors="replace").strip()
            raise InputError(
                f"run_dir={str(self.path)!r} is being written by another process "
                f"({owner or 'unknown'}); wait for it, or choose another directory"
            )

    def check_unlocked(self) -> None:
        """Raises InputError where another process is writing to the directory.

        `lock` does so too; this leaves the directory as it is.
        """
        check_path(self.path)
        if not (self.path / ".lock").is_file() or (self.path / ".lock").is_symlink():
            return
        try:
            file = (self.path / ".lock").open("rb", buffering=0)
        except OSError as error:
            raise self._unwritable(error) from error
        with file:
            self._take(file)

    def check_there(self) -> None:
        """Raises GoneError where a locked directory was removed or moved."""
        if self._held is not None:
            self._held.check()

    def check_links(self) -> None:
        """Raises InputError where a link leads out of the directory, or at a device.

        What is written goes nowhere else, whoever made the directory; and what is there
        is files, folders and links, never a pipe that would be waited for.
        """
        for folder, folders, files in os.walk(self.path):
            for name in (*folders, *files):
                mode = (file := Path(folder, name)).lstat().st_mode
                if stat.S_ISLNK(mode):
                    self._inside(str(file.relative_to(self.path)))
                elif not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                    raise InputError(
                        f"{file} is {checks.file_type(mode)}, which no run directory "
                        "holds; remove it"
                    )

    def _tidy(self) -> None:
        """Removes what processes that were killed had begun to write aside."""
        for file in self.path.glob(f"**/{_ASIDE}*"):
            host, _, number = file.name[len(_ASIDE) :].partition("~")[0].rpartition("-")
            if host == _host() and number.isdigit() and not _is_alive(int(number)):
                with contextlib.suppress(OSError):
                    file.unlink()

    def _unwritable(self, error: OSError) -> InputError:
        return InputError(
            f"run_dir={str(self.path)!r} cannot be written: "
            f"{error.strerror or error}; choose another directory"
        )

    def exists(self) -> bool:
        """Whether the directory holds a run."""
        return (self.path / "config.json").is_file()

    def config(self) -> dict[str, Any]:
        """The settings that the run was started with.

        Raises:
            InputError: the directory holds no run, or its settings are damaged.
        """
        if not self.exists():
            raise InputError(
                f"run_dir={str(self.path)!r} holds no run (no config.json)"
            )
        # Settings are all finite; results need not be.
        return self._read_object("config.json", finite=True)

    def replace_config(self, config: dict[str, Any]) -> None:
        """Writes other settings of the run, which is not finished any more."""
        # In this order: a kill in between leaves the run as it was before, to be
        # finished again.
        self._remove("summary.json")
        self._write_json(self.path / "config.json", config)

    def _remove(self, name: str) -> None:
        self.check_there()
        self._inside(name).unlink(missing_ok=True)
        sync_directory(self.path)

    def _read_object(self, name: str, *, finite: bool = False) -> dict[str, Any]:
        found = read_json(self._inside(name), Reader(self.path), finite=finite)
        if not isinstance(found, dict):
            raise InputError(f"{self.path / name} holds no object, but {type(found)}")
        return found

    # Metrics.

    def append_metrics(self, metrics: dict[str, Any]) -> None:
        """Adds one line to the metrics."""
        self.check_there()
        file = self._inside("metrics.jsonl")
        # A run from before there were checksums goes on without them.
        plain = file.is_file() and lines.begins_plain(file)
        line = json.dumps(metrics) + "\n" if plain else lines.with_checksum(metrics)
        with file.open("a", encoding="utf-8") as opened:
            opened.write(line)

    def metrics(self) -> list[dict[str, Any]]:
        """Reads every logged line, in order; one that was cut short is left out.

        Raises:
            InputError: a line was changed on disk, or lost from a run that is finished.
        """
        file = self._inside("metrics.jsonl")
        most = lines_implied(self.config() if self.exists() else {})
        found = (
            lines.read_lines(file, Reader(self.path), most=most)
            if os.path.lexists(file)
            else []
        )
        last = (self.summary() or {}).get("last")
        if isinstance(last, dict) and "step" in last:
            steps = [line.get("step") for line in found[-1:]]
            if steps != [last["step"]]:
                raise InputError(
                    f"{file} is damaged: it ends before step {last['step']}, the last "
                    "one of the finished run"
                )
        return found

    def metrics_length(self) -> int:
        """The bytes of metrics so far."""
        file = self._inside("metrics.jsonl")
        return file.stat().st_size if file.is_file() else 0

    def sync_metrics(self) -> int:
        """Waits until the metrics are on disk; their bytes, which a checkpoint notes.

        A checkpoint that outlived its metrics could not be gone on from.
        """
        self.check_there()
        file = self._inside("metrics.jsonl")
        if not file.is_file():
            return 0
        length = sync_file(file)
        sync_directory(self.path)
        return length

    def metrics_problem(self, length: int) -> str | None:
        """Says why the metrics cannot be cut to the length that a checkpoint noted.

        Args:
            length: in bytes.

        Returns:
            Nothing (None), or that lines were lost or changed.
        """
        file = self._inside("metrics.jsonl")
        content = file.read_bytes()[:length] if file.is_file() else b""
        if len(content) < length:
            return (
                f"{file} holds {len(content)} bytes, fewer than the {length} that it "
                "noted: lines were lost"
            )
        try:
            lines.checked_lines(content.decode(), file)
        except ValueError as error:
            return str(error)
        if content and not content.endswith(b"\n"):
            return f"{file} was changed: no line ends after the {length} bytes noted"
        return None

    def truncate_metrics(self, length: int) -> None:
        """Forgets what was logged after a checkpoint that noted `length`.

        Raises:
            InputError: less is there than the checkpoint noted, or it was changed.
        """
        self.check_there()
        if (problem := self.metrics_problem(length)) is not None:
            raise InputError(f"the checkpoint does not fit: {problem}")
        if self.metrics_length() > length:
            os.truncate(self._inside("metrics.jsonl"), length)
        self.sync_metrics()

    # Summary, results, figures.

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes the summary; a run that has one is finished."""
        self._write_json(self.path / "summary.json", summary)

    def summary(self) -> dict[str, Any] | None:
        """The summary of a finished run, or None; raises InputError if damaged."""
        there = os.path.lexists(self.path / "summary.json")
        return self._read_object("summary.json") if there else None

    def save_result(
        self, name: str, dataset: xr.Dataset, settings: dict[str, Any]
    ) -> Path:
        """Saves labelled arrays as ``results/NAME.nc``.

        Args:
            name: of the file; letters, digits, ``_``, ``-`` and ``.``.
            dataset: named dimensions, and units as attributes.
            settings: how it was made; kept as one JSON attribute.

        Returns:
            The file.
        """
        file = self._file("results", name, ".nc")
        dataset = dataset.assign_attrs(settings=json.dumps(settings, sort_keys=True))
        # Checksums, since HDF5 reads flipped bits without a word otherwise.
        checked = {
            variable: {"fletcher32": True, "chunksizes": array.shape}
            for variable, array in dataset.variables.items()
            if array.ndim and array.size and array.dtype.kind in "fiub"
        }
        # In memory: HDF5 itself crashes the process on a disk that fills up.
        content = dataset.to_netcdf(engine="h5netcdf", encoding=checked)
        with self._aside(file) as aside:
            aside.write_bytes(content)
        return file

    def load_result(self, name: str) -> xr.Dataset:
        """Loads ``results/NAME.nc`` into memory.

        Raises:
            InputError: a link or special file, or one that asks for more than arrays
                that are stored in it (see `lrscape.hdf5`).
            ChangedError: it was changed on disk.
            OSError: it is damaged, or not there.
        """
        file = self._file("results", name, ".nc")
        return hdf5.load(file, Reader(self.path))

    def save_result_summary(
        self, name: str, summary: dict[str, Any] | list[Any]
    ) -> Path:
        """Saves a result in a few numbers, as ``results/NAME.json``."""
        file = self._file("results", name, ".json")
        self._write_json(file, summary)
        return file

    def load_result_summary(self, name: str) -> Any:
        """Loads ``results/NAME.json``; None where there is none.

        Raises:
            InputError: it was changed on disk.
        """
        file = self._file("results", name, ".json")
        return read_json(file, Reader(self.path)) if os.path.lexists(file) else None

    def rename(self, file: Path, to: Path) -> None:
        """Gives a file of the directory another name, and the manifest's lines too."""
        manifest.move(self.path, file, to)
        file.rename(to)

    def save_page(self, name: str, figure: plotly.graph_objects.Figure) -> Path:
        """Saves an interactive figure as ``figures/NAME.html``, which needs no net."""
        file = self._file("figures", name, ".html")
        with self._aside(file) as aside:
            figure.write_html(aside, include_plotlyjs=True)
        return file

    def save_text(self, name: str, text: str) -> Path:
        """Saves a text as ``NAME`` in the directory itself."""
        if not NAME.fullmatch(name):
            raise InputError(
                f"name={name!r} of a file may hold letters, digits, '_', '-' and '.'"
            )
        file = self.path / name
        with self._aside(file) as aside:
            aside.write_text(text, "utf-8")
        return file

    def save_figure(self, name: str, figure: matplotlib.figure.Figure) -> Path:
        """Saves a figure as ``figures/NAME.png``."""
        file = self._file("figures", name, ".png")
        with self._aside(file) as aside:
            figure.savefig(aside, format="png", dpi=150)
        return file

    def _file(self, folder: str, name: str, suffix: str) -> Path:
        if not NAME.fullmatch(name):
            raise InputError(
                f"name={name!r} of a file may hold letters, digits, '_', '-' and '.'"
            )
        return self._inside(f"{folder}/{name}{suffix}")

    def _inside(self, name: str) -> Path:
        """A file of the run; none that a link puts elsewhere."""
        file = self.path / name
        if not (target := resolved(file)).is_relative_to(resolved(self.path)):
            raise InputError(
                f"{file} leads out of its run directory, to {target}; put a copy in "
                "the link's place"
            )
        return file

    def _write_json(self, file: Path, value: Any) -> None:
        with self._aside(file) as aside:
            aside.write_text(json.dumps(value, indent=2) + "\n", "utf-8")

    @contextlib.contextmanager
    def _aside(self, file: Path) -> Iterator[Path]:
        self.check_there()
        with write_aside(file, listed_in=self.path) as aside:
            yield aside


@contextlib.contextmanager
def write_aside(file: Path, *, listed_in: Path | None = None) -> Iterator[Path]:
    """A file to write to, renamed to `file` once it is whole and on disk.

    Args:
        file: the path that it is to have.
        listed_in: the run directory whose manifest lists it; None: no manifest does.

    Raises:
        InputError: a link, a device or anything else that is no regular file is there,
            which would be replaced.
    """
    checks.path_to_write("file", file)
    make_directory(file.parent)
    prefix = f"{_ASIDE}{_host()}-{os.getpid()}~"
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=file.suffix, dir=file.parent)
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        with aside.open("rb") as written:
            os.fsync(written.fileno())
            if listed_in is not None:
                manifest.list_file(listed_in, file, written.read())
        aside.chmod(0o666 & ~_umask())
        aside.replace(file)
        sync_directory(file.parent)
    finally:
        aside.unlink(missing_ok=True)


class Onlooker(Records):
    """A run directory as one of several processes sees it that another one writes.

    Example:
        >>> onlooker = Onlooker('/nowhere')
        >>> onlooker.append_metrics({'step': 1})
        >>> onlooker.metrics()
        []
    """

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Nothing to keep others from."""
        yield

    def append_metrics(self, metrics: dict[str, Any]) -> None:
        """Nothing: the other one does."""

    def sync_metrics(self) -> int:
        """Their bytes alone: the other one waits."""
        return self.metrics_length()

    def truncate_metrics(self, length: int) -> None:
        """Nothing: the other one does."""

    def check_unlocked(self) -> None:
        """Nothing: the other one does."""

    def _remove(self, name: str) -> None:
        """Nothing: the other one does."""

    @contextlib.contextmanager
    def _aside(self, file: Path) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch) / file.name


def lines_implied(config: Mapping[str, Any]) -> int:
    """The most lines of metrics that a run's settings imply.

    Args:
        config: the settings; where they do not say, the largest data that are in use
            are assumed.

    Example:
        >>> lines_implied({'epochs': 3}), lines_implied({})
        (13, 1000000)
        >>> lines_implied(
        ...     {'epochs': 3, 'log_every': 4, 'batch_size': 64, 'examples': 512}
        ... )
        19
    """
    epochs, every = config.get("epochs"), config.get("log_every")
    if not _is_count(epochs):
        return lines.LINES
    most = epochs
    if _is_count(every):
        window, batch = config.get("window"), config.get("batch_size")
        # Of a text an update takes a window from each of its streams.
        of_text = _is_count(window)
        size = config.get("train_tokens" if of_text else "examples")
        size = size if _is_count(size) else MOST_TOKENS if of_text else MOST_EXAMPLES
        batch = batch if _is_count(batch) else 1
        batch *= window if _is_count(window) else 1
        most += epochs * (size // batch + 1) // every
    # The update that diverged has one too; a few more do no harm.
    return most + 10


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.]", "_", platform.node())


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def best(metrics: list[dict[str, Any]], key: str) -> dict[str, Any] | None:
    """The logged line with the least `key`, the first of equals; None without any."""
    logged = [line for line in metrics if not math.isnan(line.get(key, math.nan))]
    return min(logged, key=lambda line: line[key]) if logged else None
