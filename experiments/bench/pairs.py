"""Timing in interleaved pairs, with the reference against itself beside them."""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lrscape.errors import InputError

# What looks at files imports JAX, which a list of benchmarks does without.

REFERENCE_AGAIN = "reference again"


def file_of_figures(value: str) -> Path:
    """The file that ``--json`` names, as its parser takes it.

    Raises:
        argparse.ArgumentTypeError: no regular file is there or can be, which shows
            before anything is measured.
    """
    from lrscape import checks

    try:
        return checks.path_to_write("json", value)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def write_json(file: Path, value: Any) -> None:
    """Writes figures aside and renames them: a stop loses nothing that was measured."""
    from lrscape.records import write_aside

    with write_aside(file) as aside:
        aside.write_text(json.dumps(value, indent=2) + "\n", "utf-8")


def installed(package: str) -> bool:
    """Whether a package can be imported.

    Example:
        >>> installed('numpy'), installed('no_such_package')
        (True, False)
    """
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def interleaved(
    functions: Mapping[str, Callable[[], Any]], repeats: int, warm_up: int = 2
) -> dict[str, np.ndarray]:
    """Times functions in turn, so that what slows the machine slows all alike.

    Args:
        functions: by name, the first one the reference; each returns once its work is
            done, and is called as often as the others.
        repeats: rounds that are timed.
        warm_up: rounds before them that are not.

    Returns:
        Seconds by name, (repeats,) each; the reference a second time, under
        `REFERENCE_AGAIN`.
    """
    reference = next(iter(functions))
    order = [*functions, REFERENCE_AGAIN]
    times: dict[str, list[float]] = {name: [] for name in order}
    random = np.random.default_rng(0)
    for _ in range(warm_up + repeats):
        # In a new order every round: whatever runs after itself finds a warm cache.
        for name in random.permutation(order):
            function = functions[reference if name == REFERENCE_AGAIN else name]
            started = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - started)
    return {name: np.array(values[warm_up:]) for name, values in times.items()}


def ratios(times: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Each function's time in units of the reference's, pair by pair.

    Returns:
        By name: ``seconds`` (median), ``ratio`` (the median over pairs), and
        ``low`` and ``high``, between which the median ratio lies with 95 % confidence
        (bootstrap).
    """
    names = list(times)
    reference = times[names[0]]
    random = np.random.default_rng(0)
    table = {}
    for name in names:
        pairs = times[name] / reference
        resampled = random.choice(pairs, (2000, len(pairs)))
        low, high = np.percentile(np.median(resampled, axis=1), [2.5, 97.5])
        table[name] = {
            "seconds": float(np.median(times[name])),
            "ratio": float(np.median(pairs)),
            "low": float(low),
            "high": float(high),
        }
    return table


def show(title: str, table: Mapping[str, Mapping[str, float]], unit: float = 0) -> None:
    """Prints a table of `ratios`; `unit` is what a call works through, if anything."""
    print(f"\n{title}")
    for name, row in table.items():
        rate = f"  {unit / row['seconds']:>9,.0f} images/s" if unit else ""
        print(
            f"  {name:<34}{1000 * row['seconds']:>9.1f} ms{rate}   ratio "
            f"{row['ratio']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
        )
