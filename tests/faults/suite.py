"""Starts processes, waits for them, and judges what is left of a run."""

import itertools
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lrscape import hdf5, lines
from lrscape.reading import Reader, read_json
from tests.faults import inside

# Batch norm, momentum, checkpoints and a window of metrics that no epoch fits. NaN
# shows where it is met, since `scale` takes no mean over the data.
UPDATES = 24
FLAGS = (
    "--schedule=gaussian", "--model=mlp", "--examples=512", "--epochs=3",
    "--checkpoint-every=6", "--log-every=4", "--normalize=scale", "--num-devices=1",
)  # fmt: skip
SECONDS = 120
SAME, ERROR = "bit for bit", "clear error"
DIGITS = "digits"
# What Orbax's own thread says of a loop that an error has closed, at the very end.
LATE = re.compile(
    r"Traceback \(most recent call last\):\n(?:  .*\n)+"
    r"RuntimeError: Event loop is closed\s*"
)


class LostError(Exception):
    """A fault that was not survived, and what is wrong."""


def check(condition, what, text=""):
    if not condition:
        raise LostError(f"{what}\n{text[-2000:]}" if text else what)


class Suite:
    """A directory to work in, and what runs are like that nothing happens to."""

    def __init__(self, root):
        self.root = Path(root)
        self.lock = threading.Lock()  # of what several faults make once
        self.processes = multiprocessing.get_context("forkserver")
        self.processes.set_forkserver_preload([inside.__name__])

    def prepare(self):
        """Makes the runs that others are compared with, and what is damaged."""
        self.finished = self.root / "finished"
        counter = self.root / "changes"
        # Twice: compiled programs are kept the first time.
        self.must(DIGITS, *FLAGS, f"--run-dir={self.root / 'first'}")
        under = ("count_changes", f"{self.finished}/", str(counter))
        self.must(DIGITS, *FLAGS, f"--run-dir={self.finished}", armed=[under])
        self.changes = int(counter.read_text())
        self.expected = self.found(self.finished)
        check(self.expected == self.found(self.root / "first"), "no run is repeatable")
        self.halted = self.root / "halted"
        status, text = self.child(
            DIGITS, *FLAGS, f"--run-dir={self.halted}",
            armed=[("signal_at_update", 15, "SIGTERM", 0)],
        )  # fmt: skip
        check(status == 128 + signal.SIGTERM, "the halted run", text)
        self.must("survey", *self.line(self.finished))
        self.surface = self.root / "surface.npy"
        self.must("surface", str(self.root / "surface.store"), str(self.surface))

    @staticmethod
    def line(run_dir):
        """The command line of a survey."""
        small = ("--points=9", "--examples=64", "--batch-size=32")
        return (str(run_dir), "--probe=line", *small)

    def place(self, name):
        """A directory of a fault's own."""
        path = self.root / name
        path.mkdir()
        return path

    def start(self, log, work, *arguments, armed=()):
        log.touch()
        process = self.processes.Process(
            target=inside.enter,
            args=(str(log), work, tuple(map(str, arguments)), list(armed)),
        )
        process.start()
        return process

    def child(self, work, *arguments, armed=(), seconds=SECONDS):
        """Does something in a process; its exit status, and all that it printed."""
        handle, log = tempfile.mkstemp(suffix=".log", dir=self.root)
        os.close(handle)
        log = Path(log)
        process = self.start(log, work, *arguments, armed=armed)
        process.join(seconds)
        if process.exitcode is None:
            process.kill()
            raise LostError(f"still running after {seconds} s\n{log.read_text()}")
        return process.exitcode, log.read_text()

    def must(self, *arguments, armed=(), seconds=SECONDS):
        """Does something that has to go well."""
        status, text = self.child(*arguments, armed=armed, seconds=seconds)
        check(status == 0, f"status {status} of {' '.join(map(str, arguments))}", text)
        return text

    @staticmethod
    def found(run_dir):
        return json.loads(Path(f"{run_dir}.found").read_text())

    def go_on(self, run_dir, flags=FLAGS, expected=None, work=DIGITS, before=()):
        """Resumes, and finds what an undisturbed run came to, and nothing half."""
        self.look(run_dir)
        text = self.must(work, *before, *flags, "--resume", f"--run-dir={run_dir}")
        found = self.found(run_dir)
        check(found == (expected or self.expected), "another run came of it", text)
        self.look(run_dir)
        left = [
            path.name
            for path in run_dir.rglob("*")
            if path.name.startswith(".aside-") or ".orbax-checkpoint-tmp" in path.name
        ]
        check(not left, f"left behind: {left}")
        return SAME

    @staticmethod
    def look(run_dir):
        """No file under its own name is half there."""
        reader = Reader(run_dir)
        for file in run_dir.rglob("*"):
            hidden = any(part.startswith(".") for part in file.parts[-3:])
            kept = {"checkpoints", "snapshots"} & set(file.relative_to(run_dir).parts)
            if file.is_dir() or hidden or kept:
                continue
            if file.suffix == ".json":
                read_json(file, reader)
            elif file.suffix == ".jsonl":
                lines.read_lines(file, reader)
            elif file.suffix == ".nc":
                hdf5.load(file, reader)
            elif file.suffix == ".png":
                content = reader.content(file, file.stat().st_size)
                check(content.endswith(b"IEND\xaeB`\x82"), f"{file} is half there")

    def refused(self, status, text, statuses=(1, 2)):
        """A process that ended by itself, and said why."""
        check(status in statuses, f"status {status}", text)
        check("error: " in text, "it does not say what is wrong", text)
        check("Traceback" not in LATE.sub("", text), "a traceback", text)
        return ERROR


def copied(source, where):
    run_dir = where / "run"
    shutil.copytree(source, run_dir)
    return run_dir


def newest(run_dir):
    """The steps of a run's checkpoints, the newest first."""
    names = [path.name for path in (run_dir / "checkpoints").glob("*")]
    return sorted((int(name) for name in names if name.isdigit()), reverse=True)


def mounted(path, size):
    """A file system in memory of so many bytes, where the system lets us mount one."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def remount(path, options):
    subprocess.run(["mount", "-o", f"remount,{options}", str(path)], check=True)


def unmount(path):
    subprocess.run(["umount", str(path)], check=True)


def inject(suite, kinds, seed, workers, tell):
    """Injects every fault of some kinds; outcomes by kind.

    Args:
        suite: prepared.
        kinds: by name: how many, and the function that injects the nth one and says
            what came of it (or many at once, see `Kind`).
        seed: of all that is random.
        workers: how many at once.
        tell: called with each kind, number and outcome.

    Returns:
        An iterator over each kind's name, outcomes and seconds, as it is done.
    """

    def one(task):
        name, kind, number = task
        moves, started = random.Random(f"{seed} {name} {number}"), time.monotonic()
        label = f"{name.replace(' ', '-').replace(',', '')}-{number}"
        try:
            where = suite.place(label)
            outcomes = kind.inject(suite, where, moves, number)
            shutil.rmtree(where, ignore_errors=True)
        except Exception as error:
            outcomes = [f"lost: {type(error).__name__}: {error}"]
        outcomes = [outcomes] if isinstance(outcomes, str) else outcomes
        for outcome in outcomes:
            tell(name, number, outcome)
        return name, outcomes, time.monotonic() - started

    tasks = [
        (name, kind, number)
        for name, kind in kinds.items()
        for number in range(kind.times)
    ]
    with ThreadPoolExecutor(workers) as pool:
        for name, group in itertools.groupby(pool.map(one, tasks), lambda x: x[0]):
            done = list(group)
            outcomes = [outcome for _, several, _ in done for outcome in several]
            yield name, outcomes, sum(seconds for _, _, seconds in done)
