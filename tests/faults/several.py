"""What happens to several processes: one dies, one fails, two want the same run."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from lrscape.errors import InputError
from lrscape.records import Records
from tests.faults.suite import (
    DIGITS,
    ERROR,
    FLAGS,
    SAME,
    UPDATES,
    LostError,
    check,
    newest,
)

ROOT = Path(__file__).parents[2]
# How long an error of one process may take to end the others, and a launcher's death.
SOON = 15


def dead_process(suite, where, moves, number):
    """One of two that train together; the other is ended, and the run goes on."""
    run_dir = where / "run"
    process = trained_to(moves.choice([0, 15, 30]), run_dir)
    victim = children(process.pid)[number % 2]
    os.kill(victim, signal.SIGKILL)
    status, text = wait(process)
    check(status == 1, f"status {status}", text)
    check(f"process {number % 2} of 2 was killed by SIGKILL" in text, "who?", text)
    return go_on_together(suite, run_dir)


def dead_launcher(suite, where, moves, number):
    """Its processes end soon after it, and leave the lock."""
    run_dir = where / "run"
    if number % 2:
        return dead_sweep(suite, where)
    process = trained_to(moves.choice([0, 15]), run_dir)
    started = children(process.pid)
    process.kill()
    process.wait()
    wait_until_ended(started)
    Records(run_dir).check_unlocked()
    return go_on_together(suite, run_dir)


def dead_sweep(suite, where):
    """Likewise the runs of a sweep."""
    root = where / "sweep"
    command = [
        sys.executable, "-m", "experiments.sweep", DIGITS, "--grid", "peak_lr=0.1",
        f"--run-dir={root}", f"--jobs-dir={where / 'jobs'}", *FLAGS, "--epochs=2000",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (found := list(root.glob("runs/*/checkpoints/*"))):
        check(process.poll() is None, "the sweep ended")
        check(time.monotonic() < deadline, "it does not train")
        time.sleep(0.1)
    process.kill()
    process.wait()
    records = Records(found[0].parents[1])
    deadline = time.monotonic() + SOON
    while True:
        try:
            records.check_unlocked()
        except InputError:
            check(time.monotonic() < deadline, "the run goes on")
            time.sleep(0.1)
        else:
            return SAME


def error_of_one(suite, where, moves, number):
    """It reaches the other process soon; both say the same, once."""
    run_dir, rank = where / "run", 0
    way = ("lock", "input", "disk", "write")[number % 4]
    armed, statuses = [], (2,)
    step = moves.randint(1, UPDATES - 1)
    if way == "input":
        rank = 1
        armed = [("fail_at_update", step, "InputError", "wrong=3 is wrong")]
    elif way == "disk":
        statuses = (1,)
        armed = [("fail_at_update", step, "OSError", "No space left on device")]
    elif way == "write":
        statuses = (1, 2)  # the latter where it is met as the run is made
        number = moves.randint(suite.changes // 3, suite.changes // 2)
        armed = [("fail_from_change", f"{run_dir}/", number, "ENOSPC")]
    if way == "lock":
        with Records(run_dir).lock():
            outcomes, seconds = two(suite, where, run_dir, rank, armed)
        check(seconds < SOON + 30, f"it took {seconds:.0f} s")
    else:
        outcomes, _ = two(suite, where, run_dir, rank, armed)
    texts = [text for _, text in outcomes]
    found = [code for code, _ in outcomes]
    alike = found[0] == found[1] and found[0] in statuses
    check(alike, f"statuses {found}", "\n".join(texts))
    said = sum(text.count("error: ") for text in texts)
    check(said == 1, f"it is said {said} times", "\n".join(texts))
    check("Traceback" not in "".join(texts), "a traceback", "\n".join(texts))
    return ERROR


def two(suite, where, run_dir, rank, armed):
    """Two processes, of which one is armed; statuses, texts and seconds."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    started, running = time.monotonic(), []
    for n in range(2):
        log = where / f"process-{n}.log"
        flags = (
            *FLAGS, f"--run-dir={run_dir}", f"--coordinator=127.0.0.1:{port}",
            "--num-processes=2", f"--process-id={n}",
        )  # fmt: skip
        traps = armed if n == rank else ()
        running.append((suite.start(log, DIGITS, *flags, armed=traps), log))
    first_end = None
    while any(process.exitcode is None for process, _ in running):
        now = time.monotonic()
        if first_end is None and any(p.exitcode is not None for p, _ in running):
            first_end = now
        late = now > started + 120 or (first_end and now > first_end + SOON)
        if late:
            for process, _ in running:
                process.kill()
            said = "\n".join(log.read_text() for _, log in running)
            raise LostError(f"a process waits for one that failed\n{said}")
        time.sleep(0.05)
    outcomes = [(process.exitcode, log.read_text()) for process, log in running]
    return outcomes, time.monotonic() - started


def race(suite, where, moves, number):
    """Two new runs in one directory: the second one has looked, and comes too late."""
    run_dir, may_go = where / "run", where / "may-go"
    late = where / "late.log"
    second = suite.start(
        late, DIGITS, *FLAGS, "--seed=5", "--epochs=4", f"--run-dir={run_dir}",
        armed=[("wait_before_locking", str(may_go))],
    )  # fmt: skip
    deadline = time.monotonic() + 100
    while not may_go.with_suffix(".waits").exists():
        check(second.exitcode is None, "it ended", late.read_text())
        check(time.monotonic() < deadline, "it does not come so far")
        time.sleep(0.05)
    # Trained to its end, stopped or killed on the way.
    name = (None, "SIGTERM", "SIGKILL")[number % 3]
    step = moves.randint(1, UPDATES - 2)
    armed = [("signal_at_update", step, name, 0)] if name else []
    suite.child(DIGITS, *FLAGS, f"--run-dir={run_dir}", armed=armed)
    may_go.touch()
    second.join(100)
    text = late.read_text()
    suite.refused(second.exitcode, text, (2,))
    check("already holds a run" in text, "why?", text)
    return suite.go_on(run_dir)


def launch(run_dir, *flags):
    return subprocess.Popen(
        [
            sys.executable, "-m", "experiments.launch", "--processes=2", DIGITS,
            "--model=mlp", "--epochs=6", "--checkpoint-every=15",
            f"--run-dir={run_dir}", *flags,
        ],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def trained_to(step, run_dir):
    """The launcher of two processes that have come to a checkpoint."""
    process, deadline = launch(run_dir), time.monotonic() + 100
    while newest(run_dir)[:1] < [step]:
        if process.poll() is not None:
            raise LostError(f"it ended: {process.communicate()[0]}")
        check(time.monotonic() < deadline, "it does not train")
        time.sleep(0.02)
    return process


def children(process):
    listed = Path(f"/proc/{process}/task/{process}/children")
    return [int(word) for word in listed.read_text().split()]


def wait_until_ended(started):
    deadline = time.monotonic() + SOON
    for process in started:
        while Path(f"/proc/{process}").exists():
            check(time.monotonic() < deadline, f"process {process} goes on")
            time.sleep(0.05)


def go_on_together(suite, run_dir):
    """Resumes, and compares with what two undisturbed processes come to."""
    with suite.lock:
        reference = suite.root / "together"
        if not reference.exists():
            status, text = wait(launch(reference))
            check(status == 0, "two processes", text)
    status, text = wait(launch(run_dir, "--resume"))
    check(status == 0, f"status {status}", text)
    for path in (reference, run_dir):
        suite.must("look_at", path)
    check(suite.found(reference) == suite.found(run_dir), "another run", text)
    return SAME


def wait(process):
    try:
        text, _ = process.communicate(timeout=120)
    except subprocess.TimeoutExpired as error:
        process.terminate()
        raise LostError("still running after 120 s") from error
    return process.returncode, text
