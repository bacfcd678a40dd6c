"""Checkpoints and snapshots: trees on disk through Orbax, every leaf with its hash.

Orbax writes to one side and renames, so that a killed save leaves no half checkpoint;
but it loads flipped bits without a word. Each saved leaf therefore has a SHA-256 that
is checked when it is loaded.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import logging
import queue
import shutil
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from lrscape.durable import HeldDirectory, sync_tree
from lrscape.processes import as_global, as_local, is_alone, is_first
from lrscape.records import check_path
from lrscape.training.state import TrainState
from lrscape.training.stored import check_stored, leaves_of

# The newest checkpoint, and one to fall back to.
KEPT = 2
# How long several processes may take to save: seconds, and bytes a second beside.
SAVE_SECONDS = 30.0
SLOW_DISK = 2e6
# In the names of folders that Orbax hasn't finished.
UNFINISHED = ".orbax-checkpoint-tmp"


@contextlib.contextmanager
def _one_error_only() -> Iterator[None]:
    """Keeps Orbax's threads from printing tracebacks beside the exception raised.

    They log what has been raised already; and after a failure its unfinished tasks go
    on failing one by one, with "Event loop is closed".
    """
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    except Exception:
        _ignore_closed_loops()
        raise
    # Not after a failure, whose threads are still talking.
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@contextlib.contextmanager
def _as_os_error(what_failed: str) -> Iterator[None]:
    """Makes one of the many exceptions that a full disk comes out of Orbax as."""
    try:
        yield
    except Exception as error:
        raise OSError(f"{what_failed}: {_first_line(error)}") from error


@functools.cache
def _ignore_closed_loops() -> None:
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    before = sys.unraisablehook

    def hook(unraisable):
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = hook


def _in_time(
    tree: Any, save: Callable[..., Any], *arguments: Any, **options: Any
) -> None:
    """Saves; of several processes, raises where one keeps the others waiting.

    An error of Orbax's own threads, such as a full disk, is not told to the other
    processes, which wait for minutes, and the one that has it among them.

    Args:
        tree: what is saved, by whose size the time is meted out.
        save: saves it.
        *arguments: of `save`.
        **options: of `save`.

    Raises:
        TimeoutError: it takes longer than the slowest of disks would.
    """
    if is_alone():
        save(*arguments, **options)
        return
    size = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(tree))
    seconds = SAVE_SECONDS + size / SLOW_DISK
    done: queue.Queue[Exception | None] = queue.Queue()

    def work() -> None:
        try:
            save(*arguments, **options)
        except Exception as error:
            done.put(error)
        else:
            done.put(None)

    threading.Thread(target=work, daemon=True).start()
    try:
        error = done.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(
            f"a process did not write its part within {seconds:.0f} seconds; look "
            "whether the disk is full or cannot be written"
        ) from None
    if error is not None:
        raise error


class CorruptCheckpointError(OSError):
    """A checkpoint is damaged: its arrays are not those that were saved."""


def leaf_hashes(tree: Any) -> dict[str, str]:
    """The SHA-256 of each leaf's dtype, shape and bytes, by its path."""
    hashes = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
        hashes[jax.tree_util.keystr(path)] = digest.hexdigest()
    return hashes


def _with_hashes(tree: Any, notes: dict[str, Any]) -> dict[str, Any]:
    """The notes that are stored beside a tree, with everything's hash."""
    return {
        "leaves": leaf_hashes(tree),
        "notes": notes,
        "notes_hash": hashlib.sha256(_canonical(notes)).hexdigest(),
    }


def _checked(tree: Any, kept: Any, where: Path) -> dict[str, Any]:
    """The notes, once tree and notes are found to be what was saved."""
    try:
        expected, notes = kept["leaves"], kept["notes"]
        notes_hash = kept["notes_hash"]
    except (KeyError, TypeError) as error:
        raise CorruptCheckpointError(f"{where} has no hashes to check") from error
    if hashlib.sha256(_canonical(notes)).hexdigest() != notes_hash:
        raise CorruptCheckpointError(f"{where}: its notes were changed on disk")
    found = leaf_hashes(tree)
    wrong = sorted(
        k for k in expected.keys() | found if expected.get(k) != found.get(k)
    )
    if wrong:
        raise CorruptCheckpointError(
            f"{where}: {', '.join(wrong[:3])} was changed on disk"
            + (f", and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        )
    return notes


def _first_line(error: Exception) -> str:
    """What is worth telling of an error that goes on for pages."""
    line = str(error).strip().split("\n")[0].split("\\n")[0] or repr(error)
    return line if len(line) <= 240 else f"{line[:240]} ..."


def _canonical(notes: Any) -> bytes:
    return json.dumps(notes, sort_keys=True).encode()


def _to_tree(state: TrainState) -> TrainState:
    """The state with its PRNG key as plain numbers."""
    return state.replace(key=jax.random.key_data(state.key))


def save_tree(path: Path, tree: Any, notes: dict[str, Any]) -> None:
    """Saves a tree of arrays for good, replacing what stood there.

    Args:
        path: the folder to be made.
        tree: nested dicts of arrays.
        notes: what JSON can hold; kept and checked with the tree.

    Raises:
        OSError: it cannot be written.
    """
    check_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # As NumPy arrays, so that it loads on any number of devices.
    tree = jax.tree.map(np.asarray, tree)
    kept = _with_hashes(tree, notes)
    with _as_os_error(f"{path} cannot be saved"), _one_error_only():
        _in_time(
            tree, ocp.save, path.absolute(), tree, overwrite=True, custom_metadata=kept
        )
    if is_first():
        sync_tree(path)


def load_tree(
    path: Path,
    root: Path | None = None,
    expected: Mapping[str, tuple[tuple[int, ...], str]] | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Loads what `save_tree` saved.

    Args:
        path: its folder.
        root: the run directory that it is in; None: the folder itself.
        expected: the leaves that there have to be, as `lrscape.training.stored` gives
            them; None: any.

    Returns:
        The tree, of NumPy arrays, and its notes.

    Raises:
        CorruptCheckpointError: it is damaged, or not what can be there.
    """
    try:
        check_path(path)
        check_stored(path, root or path, expected)
        with _one_error_only():
            tree = ocp.load(path.absolute())
            kept = ocp.metadata(path.absolute()).custom_metadata
    # Whatever damage does to Orbax's files, it says so in its own many ways.
    except Exception as error:
        raise CorruptCheckpointError(
            f"{path} cannot be loaded: {_first_line(error)}"
        ) from error
    return tree, _checked(tree, kept, path)


def steps_in(directory: Path) -> list[int]:
    """The steps whose checkpoints are on disk, whole or not, oldest first."""
    names = [path.name for path in directory.glob("*")]
    return sorted(int(name) for name in names if name.isdecimal())


def _remove_unfinished(directory: Path) -> None:
    """Removes what saves that were killed left behind.

    Orbax can do it too, in a thread that nothing waits for: where the process ends soon
    after, with an error, it prints a traceback.
    """
    for path in directory.glob(f"*{UNFINISHED}*"):
        shutil.rmtree(path)


class Checkpoints:
    """The checkpoints of one run, of which the last two are kept.

    Use it as a context manager, so that Orbax's threads end.

    Args:
        directory: where they lie, of which the parent is the run directory.
    """

    def __init__(self, directory: Path):
        check_path(directory)
        self.directory = directory
        if is_first():
            _remove_unfinished(directory)
        self._orbax = ocp.training.Checkpointer(
            directory.absolute(),
            preservation_policy=ocp.training.preservation_policies.LatestN(KEPT),
        )
        # Of several processes the first one writes, and looks whether it is there.
        self._held = HeldDirectory(directory, directory.parent) if is_first() else None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._held is not None:
            self._held.close()
        # It would wait for the other processes, which are about to be ended.
        if error is not None and not is_alone():
            return
        try:
            with _one_error_only():
                self._orbax.close()
        except Exception:
            # What failed while saving fails again here; once is enough.
            if error is None:
                raise

    @property
    def steps(self) -> list[int]:
        """The steps that are on disk, oldest first."""
        return [checkpoint.step for checkpoint in self._orbax.checkpoints]

    def save(self, state: TrainState, notes: dict[str, Any]) -> None:
        """Saves a state under its step, with notes that JSON can hold.

        Of several processes all have to call it; the first one's notes are kept.

        Raises:
            OSError: it cannot be written.
            GoneError: the directory was removed or moved, and is not made again.
        """
        if self._held is not None:
            self._held.check()
        tree, step = _to_tree(state), int(state.step)
        kept = _with_hashes(tree, notes)
        where = f"the checkpoint of step {step} cannot be saved"
        with _as_os_error(where), _one_error_only():
            # A step may be there already: the one that a run was resumed from.
            _in_time(
                tree, self._orbax.save, step, as_global(tree), force=True,
                overwrite=True, custom_metadata=kept,
            )  # fmt: skip
        if is_first():
            sync_tree(self.directory / str(step))

    def restore(
        self,
        template: TrainState,
        *,
        last: int | None = None,
        problem_of: Callable[[int, dict[str, Any]], str | None] = lambda step, notes: (
            None
        ),
    ) -> tuple[TrainState, dict[str, Any], list[str]] | None:
        """Loads the newest checkpoint that is whole.

        Newer ones are deleted, since the run is about to pass their steps again.

        Args:
            template: a state of the same model and optimizer, on the devices that the
                restored one is to be put on.
            last: the newest step to load; None: any.
            problem_of: says of a step and its notes what else of the run, such as its
                metrics, does not fit them; None: it all does. One that does not fit is
                passed over as a damaged one is.

        Returns:
            The state, its notes, and what was found wrong with newer checkpoints; or
            None where no checkpoint was ever finished.

        Raises:
            CorruptCheckpointError: there are checkpoints, and all are damaged.
        """
        problems: list[str] = []
        for step in reversed(self.steps):
            if last is not None and step > last:
                continue
            where = self.directory / str(step)
            try:
                check_stored(where, self.directory, leaves_of(_to_tree(template)))
                with _one_error_only():
                    wanted = as_global(_to_tree(template))
                    tree = as_local(self._orbax.load(step, abstract_state=wanted))
                    kept = self._orbax.metadata(step).custom_metadata
                notes = _checked(tree, kept, where)
                if (problem := problem_of(step, notes)) is not None:
                    raise CorruptCheckpointError(f"{where} does not fit: {problem}")
            except CorruptCheckpointError as error:
                problems.append(str(error))
            # As in `load_tree`.
            except Exception as error:
                problems.append(f"{where} cannot be loaded: {_first_line(error)}")
            else:
                for newer in self.steps:
                    if newer > step:
                        self._orbax.delete(newer)
                key = jax.random.wrap_key_data(tree.key)
                return tree.replace(key=key), notes, problems
        if problems:
            raise CorruptCheckpointError(
                "no checkpoint is whole: "
                + "; ".join(problems)
                + "; bring what was lost back from a copy, or start another run"
            )
        return None
