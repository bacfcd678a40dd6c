"""Measuring several parts at once, each in a process of its own.

Small networks keep one core busy and hardly a second one, so parts of different papers
share a machine's cores. Parts of one paper follow each other: they train, and then
share, the same networks.
"""

from __future__ import annotations

import concurrent.futures as futures
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from experiments.judging.measure import MODULES, Part, measure
from lrscape.errors import InputError
from lrscape.records import Records
from lrscape.training import NonFiniteLossError

# What keeps a part from being measured, and no other part.
FAILURES = (InputError, NonFiniteLossError)
# A part, and what was measured or why nothing was.
Outcome = tuple[Part, dict[str, Any] | Exception]


def default_workers() -> int:
    """One for each core, where there is no accelerator that they would share."""
    cores = os.cpu_count() or 1
    return min(cores, len(MODULES)) if jax.default_backend() == "cpu" else 1


def fitting(parts: Sequence[Part], seconds: float) -> list[Part]:
    """Those that fit into a time, the cheapest first.

    Args:
        parts: the cheapest first.
        seconds: there are, summed over processes.

    Example:
        >>> parts = [Part("4", "theorems", ("4.4",)), Part("5", "safe", ("5.8",))]
        >>> [part.name for part in fitting(parts, 120)]
        ['theorems']
    """
    found, total = [], 0.0
    for part in parts:
        total += part.minutes * 60
        if total > seconds:
            break
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
    """
    if workers == 1:
        for part in parts:
            print(f"measuring {said(part)}", flush=True)
            try:
                yield part, measure(part, records, preset, data_dir)
            except FAILURES as error:
                yield part, error
        return
    waiting, free = list(parts), shares_of(cores(), workers)
    running: dict[futures.Future[dict[str, Any]], tuple[Part, list[int]]] = {}
    pool = futures.ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        max_tasks_per_child=1,  # its programs go with it
    )
    with pool:
        try:
            while waiting or running:
                busy = {part.paper for part, _ in running.values()}
                while len(running) < workers and (chosen := next_part(waiting, busy)):
                    waiting.remove(chosen)
                    busy.add(chosen.paper)
                    print(f"measuring {said(chosen)}", flush=True)
                    own = free.pop()
                    made = pool.submit(
                        _apart, chosen, str(records.path), preset, data_dir, own
                    )
                    running[made] = chosen, own
                done, _ = futures.wait(running, return_when=futures.FIRST_COMPLETED)
                for made in done:
                    measuring, own = running.pop(made)
                    free.append(own)
                    try:
                        yield measuring, made.result()
                    except FAILURES as error:
                        yield measuring, error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid or 0, signal.SIGTERM)
            raise


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


def _apart(
    part: Part, root: str, preset: str, data_dir: Path | None, own: Sequence[int]
) -> dict[str, Any]:
    """In a process of its own, which ends with the one that began it."""
    if own:  # before XLA counts them: its threads wait for each other by spinning
        os.sched_setaffinity(0, own)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    log = Path(root) / "logs" / f"{part.file}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    return measure(part, Records(root), preset, data_dir)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
