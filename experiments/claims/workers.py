"""Measuring several parts at once, each in a process of its own.

Small networks keep one core busy and hardly a second one, so parts of different papers
share a machine's cores. Parts of one paper follow each other: they train, and then
share, the same networks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import pickle
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Any

import jax

from experiments.claims.measure import MODULES, Part, measure
from experiments.harness.memory import keep_freed_memory
from experiments.harness.parents import end_with
from lrscape.environment import available_cores
from lrscape.records import Records

# A part, and what was measured or why nothing was.
Outcome = tuple[Part, dict[str, Any] | Exception]

# Seconds that a process has to save what it trains before it is asked again, by which
# it ends at once.
PATIENCE = 60


def default_workers() -> int:
    """One for each core, where there is no accelerator that they would share."""
    on_cpu = jax.default_backend() == "cpu"
    return min(available_cores(), len(MODULES)) if on_cpu else 1


def fitting(parts: Sequence[Part], seconds: float, workers: int = 1) -> list[Part]:
    """Those that fit into a time, the cheapest first.

    Args:
        parts: the cheapest first.
        seconds: there are.
        workers: processes, each with a paper of its own.

    Example:
        >>> parts = [Part("4", "theorems", ("4.4",)), Part("5", "safe", ("5.8",))]
        >>> [part.name for part in fitting(parts, 120)]
        ['theorems']
    """
    found: list[Part] = []
    of_paper = dict.fromkeys(MODULES, 0.0)
    for part in parts:
        whole = (sum(of_paper.values()) + part.minutes * 60) / workers
        if max(of_paper[part.paper] + part.minutes * 60, whole) <= seconds:
            of_paper[part.paper] += part.minutes * 60
            found.append(part)
    return found


def next_part(waiting: Sequence[Part], busy: set[str]) -> Part | None:
    """What a free process measures: the cheapest of the paper that takes longest yet.

    Args:
        waiting: the cheapest first.
        busy: papers that are being measured.

    Example:
        >>> parts = [Part("4", "theorems", ("4.4",)), Part("5", "safe", ("5.8",))]
        >>> next_part(parts, set()).paper, next_part(parts, {"5"}).paper
        ('5', '4')
        >>> next_part(parts, {"4", "5"})
    """
    left: dict[str, float] = {}
    for part in waiting:
        if part.paper not in busy:
            left[part.paper] = left.get(part.paper, 0) + part.minutes
    if not left:
        return None
    paper = max(left, key=lambda name: left[name])
    return next(part for part in waiting if part.paper == paper)


def measure_all(
    parts: Sequence[Part],
    records: Records,
    preset: str,
    data_dir: Path | None,
    workers: int,
    ends: float = float("inf"),
) -> Iterator[Outcome]:
    """Measures parts and keeps them; gives each as soon as it is done.

    A part that cannot be measured keeps no other from it.

    Args:
        parts: the cheapest first.
        records: where they are kept.
        preset: quick or paper.
        data_dir: of the data sets.
        workers: processes; with one, this process measures, and shows its progress.
            More write what they say to ``logs/`` in the directory of the records.
        ends: when no other part is begun any more, by `time.monotonic`.
    """
    if workers == 1:
        for part in parts:
            if time.monotonic() > ends:
                return
            print(f"measuring {said(part)}", flush=True)
            try:
                yield part, measure(part, records, preset, data_dir)
            except Exception as error:
                yield part, error
        return
    waiting, free = list(parts), shares_of(cores(), workers)
    running: dict[Any, _Running] = {}
    try:
        while True:
            if time.monotonic() > ends:
                waiting.clear()
            busy = {one.part.paper for one in running.values()}
            while free and (chosen := next_part(waiting, busy)):
                waiting.remove(chosen)
                busy.add(chosen.paper)
                print(f"measuring {said(chosen)}", flush=True)
                begun = _begin(chosen, records.path, preset, data_dir, free.pop())
                running[begun.answers] = begun
            if not running:
                return
            for answers in connection.wait(list(running)):
                ended = running.pop(answers)
                free.append(ended.cores)
                yield ended.part, ended.outcome()
    finally:
        _end([one.process for one in running.values()])


@dataclasses.dataclass(frozen=True)
class _Running:
    """A part that is being measured, and the cores that it is measured on."""

    part: Part
    process: Any
    answers: Any
    cores: list[int]

    def outcome(self) -> dict[str, Any] | Exception:
        """What it answered, once it did or ended."""
        try:
            found = self.answers.recv()
        except (EOFError, OSError):  # it ended before, or while it answered
            found = None
        self.answers.close()
        self.process.join()
        if found is None:
            return RuntimeError(f"its process ended with {self.process.exitcode}")
        return found


def _begin(
    part: Part, root: Path, preset: str, data_dir: Path | None, own: list[int]
) -> _Running:
    answers, gives = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(
        target=_answer,
        args=(gives, _apart, part, str(root), preset, data_dir, own),
        kwargs={"parent": os.getpid(), "command": sys.orig_argv},
    )
    process.start()
    gives.close()  # the process's alone: that it ended is the end of the answers
    return _Running(part, process, answers, own)


def _end(processes: Sequence[Any]) -> None:
    """Ends processes, which save what they train before they do."""
    for _ in range(2):
        for process in processes:
            if process.is_alive():
                process.terminate()
        ends = time.monotonic() + PATIENCE
        for process in processes:
            process.join(max(0.0, ends - time.monotonic()))


def said(part: Part) -> str:
    """A part's claims and its name."""
    return f"{', '.join(part.claims)} ({part.name})"


def cores() -> list[int]:
    """Those that this process may use; none where the system does not say."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))


def shares_of(cores: Sequence[int], workers: int) -> list[list[int]]:
    """Which cores each worker has to itself; none where there are too few.

    Example:
        >>> shares_of([0, 1, 2, 3], 2), shares_of([0, 1], 3)
        ([[0, 1], [2, 3]], [[], [], []])
    """
    each = len(cores) // workers
    return [list(cores[i * each : (i + 1) * each]) for i in range(workers)]


def _answer(gives: Any, function: Any, *args: Any, parent: int, command: Any) -> None:
    """In a process of its own, which ends with the one that began it."""
    keep_freed_memory()
    end_with(parent)
    with contextlib.suppress(OSError):
        os.setsid()  # a terminal's Ctrl-C is for the one that began it
    sys.orig_argv = command  # by which what is made here is made again
    try:
        found = function(*args)
    except Exception as error:
        traceback.print_exc()
        found = error
    try:
        pickle.loads(pickle.dumps(found))
    except Exception:
        found = RuntimeError(f"{type(found).__name__}: {found}")
    gives.send(found)


def _apart(
    part: Part, root: str, preset: str, data_dir: Path | None, own: Sequence[int]
) -> dict[str, Any]:
    if own:  # before XLA counts them: its threads wait for each other by spinning
        os.sched_setaffinity(0, own)
    log = Path(root) / "logs" / f"{part.file}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    return measure(part, Records(root), preset, data_dir)
