"""The runs of a sweep: every combination of what is varied, each with its seeds."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.harness.arguments import Arguments, parse
from experiments.harness.commands import module_of
from experiments.harness.flags import CommonArguments
from experiments.harness.kinds import IMAGES, Kind
from experiments.harness.parsing import check_words
from experiments.harness.values import check_values
from lrscape import checks
from lrscape.errors import InputError, unknown_name
from lrscape.records import NAME

# Of training; what they share takes the same flags.
EXPERIMENTS = ("cifar", "digits", "imagenet", "mnist", "tiny_imagenet")

# A sweep sets these itself.
_OWN = ("run_dir", "resume", "seed", "seeds", "replicas", "preset", "debug",
        "coordinator", "num_processes", "process_id")  # fmt: skip
# Each is a directory, and a program that is started.
MOST_RUNS = 100_000


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        values: what is varied -> its value here, as it was typed, ``seed`` among them.
        run_dir: the run's own directory.
        flags: of the experiment.
    """

    values: Mapping[str, str]
    run_dir: Path
    flags: tuple[str, ...]


def parse_grid(entries: Sequence[str]) -> dict[str, list[str]]:
    """What is varied, and its values.

    Args:
        entries: such as ``peak_lr=0.05,0.1``; a list's items are joined by ``+``.

    Raises:
        InputError: an entry of another form, a field twice, a value twice.

    Example:
        >>> parse_grid(['schedule=gaussian,step', 'peak-lr=0.1'])
        {'schedule': ['gaussian', 'step'], 'peak_lr': ['0.1']}
    """
    known = [field.name for field in dataclasses.fields(Arguments)]
    grid: dict[str, list[str]] = {}
    for entry in entries:
        field, equals, values = entry.partition("=")
        field = field.strip("-").replace("-", "_")
        listed = values.split(",")
        if not equals or not all(listed):
            raise InputError(
                f"grid={checks.shown(entry)} must be FIELD=VALUE,VALUE,..."
            )
        if field in _OWN:
            raise InputError(
                f"grid={checks.shown(entry)}: {field} is not varied; "
                + ("use --seeds" if field in ("seed", "seeds") else "choose another")
            )
        if field not in known:
            raise unknown_name("grid", field, known)
        if field in grid:
            raise InputError(f"grid={checks.shown(entry)}: {field} is given twice")
        if len(set(listed)) < len(listed):
            raise InputError(f"grid={checks.shown(entry)} has a value twice")
        grid[field] = listed
    if not grid:
        raise InputError("grid: name what to vary, such as --grid peak_lr=0.05,0.1")
    return grid


def make_jobs(
    experiment: str,
    grid: Mapping[str, Sequence[str]],
    seeds: int,
    flags: Sequence[str],
    root: Path,
) -> list[Job]:
    """Every run, checked before any is started.

    Args:
        experiment: its name.
        grid: what is varied, see `parse_grid`.
        seeds: how many of each, from 0 on.
        flags: of all runs alike.
        root: the sweep's directory.

    Returns:
        The runs, seeds varying fastest.

    Raises:
        InputError: an experiment that trains nothing, or a combination that cannot
            work.
    """
    flags_class = training_flags(experiment)
    checks.count("seeds", seeds)
    if (count := math.prod(map(len, grid.values())) * seeds) > MOST_RUNS:
        raise InputError(
            f"grid: {count:,} runs are asked for, and each is a directory and a "
            f"program that is started; {MOST_RUNS:,} are the most"
        )
    jobs = []
    for chosen in itertools.product(*grid.values()):
        values = dict(zip(grid, chosen, strict=True))
        varied = [part for k, v in values.items() for part in _as_flags(k, v)]
        check_words(varied, flags_class)
        check(experiment, [*flags, *varied])
        for seed in range(seeds):
            of_run = {**values, "seed": str(seed)}
            name = "-".join(f"{k}_{v.replace('+', '_')}" for k, v in of_run.items())
            if not NAME.fullmatch(name):
                raise InputError(
                    f"grid: {name!r} names a run directory, and may hold letters, "
                    "digits, '_', '-' and '.'"
                )
            run_dir = checks.path("grid: a run's directory", root / "runs" / name)
            own = (f"--seed={seed}", f"--run-dir={run_dir}", "--resume")
            jobs.append(Job(of_run, run_dir, (*flags, *varied, *own)))
    return jobs


def _as_flags(field: str, value: str) -> list[str]:
    return ["--" + field.replace("_", "-"), *value.split("+")]


def training_flags(experiment: str) -> type[CommonArguments]:
    """The flags of an experiment that trains.

    Raises:
        InputError: another experiment, or none.
    """
    if experiment not in EXPERIMENTS:
        raise unknown_name("experiment", experiment, EXPERIMENTS)
    module = module_of(experiment)
    return getattr(module, "KIND", IMAGES).flags


def check(experiment: str, flags: Sequence[str]) -> dict[str, Any]:
    """The settings that flags come to, as JSON holds them.

    Raises:
        InputError: flags that cannot work.
    """
    module = module_of(experiment)
    kind: Kind = getattr(module, "KIND", IMAGES)
    arguments = parse(
        f"experiments.{experiment}",
        module.__doc__ or "",
        module.PRESETS,
        list(flags),
        kind.flags,
    )
    check_values(arguments)
    if taken := [name for name in ("run_dir", "seed") if getattr(arguments, name)]:
        raise InputError(f"{taken[0]}: a sweep chooses it for each of its runs")
    config = kind.resolve(
        experiment,
        module.PRESETS,
        arguments.preset or "quick",
        arguments.given(),
        arguments.data_dir,
    )
    return config.to_dict()
