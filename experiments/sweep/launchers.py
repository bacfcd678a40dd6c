"""Running a sweep's jobs through submitit: here, a few at a time, or under Slurm.

A job is a command line, and whether it is done is read from its run directory. submitit
keeps its scripts, logs and pickles in a folder of its own, of which only the logs are
read here.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import submitit
from submitit.helpers import CommandFunction
from tqdm import tqdm

from experiments.harness.parents import launched_by_this
from experiments.sweep.grid import Job
from lrscape import checks
from lrscape.errors import InputError
from lrscape.records import Records

# What Slurm calls a job that is not over.
UNFINISHED = {
    "PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED", "REQUEUE_HOLD",
    "REQUEUE_FED", "RESIZING", "SUSPENDED", "SIGNALING", "STAGE_OUT", "READY",
    "UNKNOWN",
}  # fmt: skip

# submitit's own limit is minutes.
DAYS = 100


def is_done(job: Job) -> bool:
    """Whether a run has ended well."""
    return Records(job.run_dir).summary() is not None


def is_locked(job: Job) -> bool:
    """Whether another process is writing a run's directory."""
    records = Records(job.run_dir)
    if not records.exists():
        return False
    try:
        records.check_unlocked()
    except InputError:
        return True
    return False


class Notes:
    """What is known of jobs besides their directories: ids and errors, on disk.

    Attributes:
        errors: name of a run directory -> why its job failed.
        ids: name of a run directory -> its job under Slurm.
    """

    def __init__(self, records: Records):
        self._records = records
        found = records.load_result_summary("jobs") or {}
        self.errors = self._texts(found, "errors")
        self.ids = self._texts(found, "ids")
        for number in self.ids.values():
            # It becomes part of the names of files that submitit reads.
            if not re.fullmatch(r"\d+(_\d+)?", number):
                raise self._damaged(f"{checks.shown(number)} is no number of a job")

    def _texts(self, found: Any, name: str) -> dict[str, str]:
        texts = found.get(name, {}) if isinstance(found, dict) else None
        if not isinstance(texts, dict) or not all(
            isinstance(text, str) for text in texts.values()
        ):
            raise self._damaged(f"it holds no {name} by the names of runs")
        return texts

    def _damaged(self, why: str) -> InputError:
        file = self._records.path / "results" / "jobs.json"
        return InputError(f"{file} is damaged: {why}; remove it")

    def save(self) -> None:
        """Writes them down."""
        self._records.save_result_summary(
            "jobs", {"errors": self.errors, "ids": self.ids}
        )


def run_locally(
    experiment: str, jobs: Sequence[Job], folder: Path, parallel: int, notes: Notes
) -> None:
    """Runs what is not done, some at a time, and waits.

    Args:
        experiment: its name.
        jobs: all runs.
        folder: submitit's own.
        parallel: how many at a time.
        notes: are given the errors of those that fail.

    Raises:
        KeyboardInterrupt: Ctrl-C; the running ones save what they have and end.
    """
    # submitit's processes would outlive this one; those that they start do not.
    os.environ.update(launched_by_this({}))
    executor = submitit.LocalExecutor(folder)
    executor.update_parameters(timeout_min=DAYS * 24 * 60)
    waiting = [job for job in jobs if not is_done(job)]
    running: list[tuple[Job, Any]] = []
    with tqdm(
        total=len(jobs), initial=len(jobs) - len(waiting), unit="run", disable=None
    ) as bar:
        try:
            while waiting or running:
                for job in [job for job in waiting if not is_locked(job)]:
                    if len(running) >= parallel:
                        break
                    waiting.remove(job)
                    if is_done(job):  # by a process that an earlier call left behind
                        bar.update()
                        continue
                    notes.errors.pop(job.run_dir.name, None)
                    running.append((job, executor.submit(_command(experiment, job))))
                for job, handle in [pair for pair in running if pair[1].done()]:
                    running.remove((job, handle))
                    bar.update()
                    if not is_done(job):
                        notes.errors[job.run_dir.name] = error_in(handle.stderr())
                        notes.save()
                time.sleep(0.2)
        except KeyboardInterrupt:
            for _, handle in running:
                handle.cancel(check=False)
            raise
    notes.save()


def submit_to_slurm(
    experiment: str,
    jobs: Sequence[Job],
    folder: Path,
    parallel: int,
    parameters: Mapping[str, Any],
    notes: Notes,
) -> int:
    """Submits what is neither done nor on its way as one array; how many jobs.

    Args:
        experiment: its name.
        jobs: all runs.
        folder: submitit's own, which the cluster's nodes see too.
        parallel: how many at a time.
        parameters: of the cluster: partition, time, gpus_per_node ...
        notes: are given ids, and the errors of those that failed before.

    Raises:
        InputError: there is no Slurm here, or it takes other parameters.
    """
    wanted = []
    for job in jobs:
        name = job.run_dir.name
        if is_done(job):
            continue
        if name in notes.ids:
            earlier: submitit.SlurmJob = submitit.SlurmJob(folder, notes.ids[name])
            if earlier.state in UNFINISHED:
                continue
            notes.errors[name] = error_in(earlier.stderr())
        wanted.append(job)
    if not wanted:
        return 0
    try:
        executor = submitit.SlurmExecutor(folder)
        executor.update_parameters(
            job_name=f"sweep-{experiment}", array_parallelism=parallel, **parameters
        )
        handles = executor.map_array(
            lambda command: command(), [_command(experiment, job) for job in wanted]
        )
    except (RuntimeError, ValueError, submitit.core.utils.FailedJobError) as error:
        raise InputError(f"launcher='slurm': {error}") from error
    for job, handle in zip(wanted, handles, strict=True):
        notes.ids[job.run_dir.name] = handle.job_id
        notes.errors.pop(job.run_dir.name, None)
    notes.save()
    return len(wanted)


def _command(experiment: str, job: Job) -> CommandFunction:
    command = [sys.executable, "-m", f"experiments.{experiment}", *job.flags]
    return CommandFunction(command, verbose=True, cwd=os.getcwd())  # noqa: PTH109


def error_in(log: str | None) -> str:
    r"""What a run said of its failure, or the last line that it wrote.

    Example:
        >>> error_in('reading digits\nerror: the loss is not finite\nsubmitit ...')
        'the loss is not finite'
    """
    lines = [line.strip() for line in (log or "").splitlines() if line.strip()]
    said = [re.sub("^error: ", "", line) for line in lines if line.startswith("error:")]
    return said[-1] if said else (lines[-1] if lines else "it left no word")
