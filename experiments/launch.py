"""Starts an experiment in several processes on this machine, and watches over them.

    python -m experiments.launch --processes=2 cifar --run-dir=runs/a

The processes train as one: each takes its share of every batch. Where one dies the
others are ended, and what is left is said; the same command with --resume goes on.
Where this process itself is killed, they end by themselves. On
the CPU every process has --devices devices; on accelerators they have to be told apart
by the environment (such as CUDA_VISIBLE_DEVICES), and clusters start processes
themselves: give the experiment --coordinator=auto there.

Exit statuses: the experiment's own where all end alike, else 1.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import tyro

from experiments.harness.parents import launched_by_this
from experiments.sweep.grid import EXPERIMENTS
from lrscape import checks, console
from lrscape.errors import InputError, unknown_name
from lrscape.records import Records

# How long the others of a dead process have to end by themselves.
GRACE_SECONDS = 20.0
# Of processes, and of devices in each: more than any machine has cores.
MOST = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is started.

    Attributes:
        experiment: its name and its flags; --run-dir among them.
        processes: how many processes.
        devices: CPU devices in each process; default: one.
    """

    experiment: tyro.conf.Positional[tuple[str, ...]]
    processes: int = 2
    devices: int = 1


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    # What follows the experiment's name is its own.
    names = [i for i, word in enumerate(given) if not word.startswith("-")]
    cut = names[0] if names else len(given)
    arguments = tyro.cli(
        Arguments,
        prog="python -m experiments.launch",
        description=(__doc__ or "").strip(),
        args=[*given[:cut], *given[cut : cut + 1]],
    )
    try:
        return launch(arguments, given[cut:])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def launch(arguments: Arguments, command: list[str]) -> int:
    """Starts the processes and waits for them.

    Args:
        arguments: how many.
        command: the experiment's name and flags.

    Returns:
        The exit status.

    Raises:
        InputError: no experiment, a number that cannot work, or a run directory that
            another process is writing to.
    """
    if not command:
        raise InputError(
            "experiment: name one and its flags, such as cifar --run-dir=runs/a"
        )
    if command[0] not in EXPERIMENTS:
        raise unknown_name("experiment", command[0], EXPERIMENTS)
    for field in ("processes", "devices"):
        checks.whole(field, getattr(arguments, field), least=1, most=MOST)
    if (run_dir := _run_dir(command)) is not None:
        Records(run_dir).check_unlocked()  # at once, rather than once JAX has started
    # A port that was free a moment ago.
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    environment = launched_by_this(
        {**os.environ, "JAX_NUM_CPU_DEVICES": str(arguments.devices)}
    )
    running = [
        subprocess.Popen(
            [
                sys.executable, "-m", f"experiments.{command[0]}", *command[1:],
                f"--coordinator=127.0.0.1:{port}",
                f"--num-processes={arguments.processes}", f"--process-id={rank}",
            ],
            env=environment,
            # Ctrl-C is for this process, which passes it on as SIGTERM.
            start_new_session=True,
        )
        for rank in range(arguments.processes)
    ]  # fmt: skip
    _pass_on_signals(running)
    try:
        return _watch(running, run_dir)
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()


def _pass_on_signals(running: list[subprocess.Popen]) -> None:
    def stop(number, frame):
        del number, frame
        # One is enough: JAX tells the others.
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                return

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def _watch(running: list[subprocess.Popen], run_dir: Path | None) -> int:
    """Waits until all have ended; says which one died, and what is left."""
    while all(process.poll() is None for process in running):
        time.sleep(0.05)
    first = next(rank for rank, p in enumerate(running) if p.poll() is not None)
    deadline = time.monotonic() + GRACE_SECONDS
    dead = _killed(running[first].returncode)
    # What the dead one leaves behind cannot go on.
    while any(p.poll() is None for p in running):
        if dead or time.monotonic() > deadline:
            for process in running:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        time.sleep(0.05)
    statuses = [process.returncode for process in running]
    if len(set(statuses)) == 1 and statuses[0] >= 0:
        return statuses[0]
    left = _last_checkpoint(run_dir)
    print(
        f"error: process {first} of {len(running)} {_ended(statuses[first])}, and the "
        f"others were ended; {left}",
        file=sys.stderr,
    )
    return 1


def _killed(status: int | None) -> bool:
    return status is not None and status < 0


def _ended(status: int) -> str:
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"


def _run_dir(command: list[str]) -> Path | None:
    for word, following in zip(command, [*command[1:], ""], strict=True):
        if word in ("--run-dir", "--run_dir"):
            return Path(following)
        if word.startswith(("--run-dir=", "--run_dir=")):
            return Path(word.partition("=")[2])
    return None


def _last_checkpoint(run_dir: Path | None) -> str:
    """What there is to go on from."""
    if run_dir is None:
        return "no --run-dir was given"
    folder = run_dir / "checkpoints"
    steps = [int(p.name) for p in folder.glob("*") if p.name.isdigit()]
    if not steps:
        return f"{run_dir} has no checkpoint yet"
    return (
        f"the last good checkpoint is {folder / str(max(steps))}; go on with the same "
        "command and --resume"
    )


if __name__ == "__main__":
    console.run(main)
