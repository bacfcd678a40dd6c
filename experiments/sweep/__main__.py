"""Trains every combination of some settings, each with several seeds.

    python -m experiments.sweep digits --grid schedule=gaussian,step peak_lr=0.1,0.3

What follows --grid is varied: FIELD=VALUE,VALUE, of the experiment's flags (the items
of a list joined by +, as in milestones=0.5+0.75). Other flags of the experiment are
taken as they are, for all runs. Runs that are done are not made again: after a kill, or
after an error, the same command goes on, and a larger grid or more seeds add to what is
there. In the end one labelled array, a table and a figure lie in the sweep's directory.

With --launcher=slurm the jobs are submitted as one array, and the same command, given
again, says how they are and gathers what is done.

Exit statuses: 0 finished or submitted, 1 some runs failed, 2 bad input, 130 Ctrl-C.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments.harness.filing import check_own
from experiments.harness.paper import as_text, guarded
from experiments.harness.parsing import check_words, parse_some
from experiments.harness.values import (
    Checked,
    Directory,
    Networks,
    Threads,
    check_values,
    text,
)
from experiments.sweep.gather import figure, gather, table
from experiments.sweep.grid import Job, make_jobs, parse_grid, training_flags
from experiments.sweep.launchers import (
    Notes,
    is_done,
    run_locally,
    submit_to_slurm,
)
from lrscape import checks, console
from lrscape.errors import InputError, unknown_name
from lrscape.records import Records
from lrscape.user_cache import private_directory

# A field and all of its values.
Varied = Annotated[str, Checked(text(100_000))]
LAUNCHERS = ("local", "slurm")


class FailedRunsError(Exception):
    """Runs of the sweep that failed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Flags of a sweep; what it does not know is the experiment's.

    Attributes:
        experiment: cifar, digits, imagenet, mnist or tiny_imagenet.
        grid: what is varied, separated by spaces: FIELD=VALUE,VALUE.
        seeds: of each combination, from 0 on.
        run_dir: the sweep's directory; default: runs/sweep-EXPERIMENT.
        launcher: local, or slurm.
        parallel: runs at a time.
        jobs_dir: submitit's scripts and logs, outside of run directories, where the
            cluster's nodes see them; default: ~/.cache/lrscape/jobs.
        slurm: parameters of the cluster, separated by spaces: partition=gpu time=600
            gpus_per_node=1 cpus_per_task=8 mem=32GB.
        debug: show a traceback with an error.
    """

    experiment: tyro.conf.Positional[str]
    grid: tuple[Varied, ...]
    seeds: Networks = 1
    run_dir: Directory | None = None
    launcher: str = "local"
    parallel: Threads = 1
    jobs_dir: Directory | None = None
    slurm: tuple[str, ...] = ()
    debug: bool = False


def sweep(arguments: Arguments, flags: Sequence[str]) -> None:
    """Makes what is missing, and gathers.

    Args:
        arguments: the sweep's own.
        flags: of the experiment, for all runs alike.

    Raises:
        InputError: before anything is started.
        FailedRunsError: some runs failed; the others are gathered.
    """
    if arguments.launcher not in LAUNCHERS:
        raise unknown_name("launcher", arguments.launcher, LAUNCHERS)
    check_values(arguments)
    if arguments.slurm and arguments.launcher != "slurm":
        raise InputError(
            f"slurm={checks.shown(' '.join(arguments.slurm))} is of --launcher=slurm, "
            f"and the launcher is {arguments.launcher!r}; leave one of them out"
        )
    parameters = _slurm_parameters(arguments.slurm)
    grid = parse_grid(arguments.grid)
    check_words(flags, Arguments, training_flags(arguments.experiment))
    root = arguments.run_dir or Path("runs") / f"sweep-{arguments.experiment}"
    jobs = make_jobs(arguments.experiment, grid, arguments.seeds, flags, root)
    about = {"sweep": arguments.experiment, "flags": list(flags)}
    check_own(root, about)
    records = Records(root)
    records.check_made_with(about)
    folder = _jobs_folder(arguments.jobs_dir, root)
    with records.lock():
        records.make_with(about)
        notes = Notes(records)
        if arguments.launcher == "slurm":
            count = submit_to_slurm(
                arguments.experiment,
                jobs,
                folder,
                arguments.parallel,
                parameters,
                notes,
            )
            left = sum(not is_done(job) for job in jobs)
            print(
                f"{count} jobs submitted, {len(jobs) - left} of {len(jobs)} done; give "
                "the same command again to see how they are"
            )
        else:
            run_locally(arguments.experiment, jobs, folder, arguments.parallel, notes)
        _write(records, jobs, grid, arguments.seeds, about, notes)
    failed = {k: v for k, v in notes.errors.items() if not is_done_name(jobs, k)}
    if failed and arguments.launcher == "local":
        raise FailedRunsError(
            f"{len(failed)} of {len(jobs)} runs failed:\n"
            + "\n".join(f"  {name}: {why}" for name, why in failed.items())
            + "\ngive the same command again to try them anew"
        )


def is_done_name(jobs: Sequence[Job], name: str) -> bool:
    """Whether the run of a name is done, or none of this sweep."""
    return all(is_done(job) for job in jobs if job.run_dir.name == name)


def _write(
    records: Records,
    jobs: Sequence[Job],
    grid: dict[str, list[str]],
    seeds: int,
    about: dict[str, Any],
    notes: Notes,
) -> None:
    found = gather(jobs, grid, seeds)
    errors = [notes.errors.get(job.run_dir.name, "") for job in jobs]
    by_row = [
        "; ".join(sorted(set(filter(None, errors[i : i + seeds]))))
        for i in range(0, len(jobs), seeds)
    ]
    rows = table(found, by_row)
    print(as_text(rows))
    settings = {**about, "grid": grid, "seeds": seeds}
    written = [
        records.save_result("sweep", found, settings),
        records.save_result_summary("sweep", {"rows": rows, "settings": settings}),
        records.save_figure("sweep", figure(found)),
    ]
    print("written:", *written, sep="\n  ")


def _jobs_folder(given: Path | None, root: Path) -> Path:
    """Where submitit keeps its own, which run directories never hold."""
    if given is None:
        # Which submitit loads pickles from: nobody else's.
        given = private_directory("jobs")
        if given is None:
            raise InputError(
                "jobs_dir=None: there is no home directory for submitit's scripts and "
                "logs; name a directory with --jobs-dir"
            )
    digest = hashlib.sha256(json.dumps(str(root.absolute())).encode()).hexdigest()
    folder = given.absolute() / f"{root.name}-{digest[:12]}"
    if folder.is_relative_to(root.absolute()):
        raise InputError(
            f"jobs_dir={str(given)!r} lies in the sweep's own directory; choose one "
            "outside"
        )
    return folder


def _slurm_parameters(entries: Sequence[str]) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not equals or not name or not value:
            raise InputError(f"slurm={entry!r} must be NAME=VALUE")
        if value.isdecimal() and len(value) > len(f"{checks.LARGEST_COUNT}"):
            raise InputError(f"slurm={checks.shown(entry)}: the number is too large")
        parameters[name] = int(value) if value.isdecimal() else value
    return parameters


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    arguments, flags = parse_some(Arguments, "experiments.sweep", __doc__ or "", argv)
    try:
        return guarded(lambda: sweep(arguments, flags), debug=arguments.debug)
    except FailedRunsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    console.run(main)
