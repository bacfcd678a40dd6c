"""The kinds of faults: what is done, and what has to come of it.

A further kind is a function and an entry in `KINDS`.
"""

import dataclasses
import json
import shutil
import signal
from collections.abc import Callable

import numpy as np

from experiments.bench.enlarged import write_folders
from lrscape import data
from tests.faults import strangers
from tests.faults.losses import (
    extension,
    gone,
    no_checkpoints,
    part_way,
    short_metrics,
)
from tests.faults.papers import kill_paper
from tests.faults.several import dead_launcher, dead_process, error_of_one, race
from tests.faults.suite import (
    DIGITS,
    ERROR,
    FLAGS,
    SAME,
    UPDATES,
    check,
    copied,
    mounted,
    newest,
    remount,
    unmount,
)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        times: how often `inject` is called, and with ``--all``, `all_times`.
        inject: ``(suite, directory, random, number) -> outcome``, or several of them;
            raises `LostError` for what was not survived.
    """

    times: int
    inject: Callable
    all_times: int | None = None


def kill_training(suite, where, moves, number):
    """At a random moment after a random update."""
    run_dir = where / "run"
    armed = ("signal_at_update", moves.randint(1, UPDATES - 1), "SIGKILL",
             moves.choice([0, moves.random() * 0.1]))  # fmt: skip
    status, text = suite.child(DIGITS, *FLAGS, f"--run-dir={run_dir}", armed=[armed])
    check(status in (0, -signal.SIGKILL), f"status {status}", text)
    return suite.go_on(run_dir)


def kill_saving(suite, where, moves, number):
    """As a directory is made, a file begun or renamed: at a random one of them all."""
    run_dir = where / "run"
    armed = ("kill_at_change", f"{run_dir}/", moves.randint(1, suite.changes))
    status, text = suite.child(DIGITS, *FLAGS, f"--run-dir={run_dir}", armed=[armed])
    check(status in (0, -signal.SIGKILL), f"status {status}", text)
    run_dir.mkdir(exist_ok=True)
    return suite.go_on(run_dir)


def kill_surface(suite, where, moves, number):
    """Twice on end, with a share of what was to be kept written."""
    store, result = where / "store", where / "result.npy"
    for _ in range(2):
        armed = (
            "kill_in_store",
            moves.randint(1, 8),
            moves.choice([0, 1, moves.random()]),
        )
        status, text = suite.child("surface", store, result, armed=[armed])
        check(status == -signal.SIGKILL, f"status {status}", text)
    suite.must("surface", store, result)
    check(np.array_equal(np.load(result), np.load(suite.surface)), "another surface")
    return SAME


def kill_survey(suite, where, moves, number):
    """As one of its files is written."""
    run_dir = copied(suite.finished, where)
    shutil.rmtree(run_dir / "results")
    armed = ("kill_at_change", f"{run_dir}/", moves.randint(1, 12))
    status, text = suite.child("survey", *suite.line(run_dir), armed=[armed])
    check(status in (0, -signal.SIGKILL), f"status {status}", text)
    suite.look(run_dir)
    suite.must("survey", *suite.line(run_dir))
    suite.look(run_dir)
    return same_line(suite, run_dir)


def same_line(suite, run_dir):
    from lrscape.records import Records

    name = "line-initial-final"
    a, b = (Records(path).load_result(name) for path in (suite.finished, run_dir))
    check(a.drop_attrs().identical(b.drop_attrs()), "another line")
    left = list((run_dir / "results").glob(".*.store"))
    check(not left, f"left behind: {left}")
    return SAME


def signals(suite, where, moves, number):
    """SIGTERM and Ctrl-C, now and then two of them."""
    run_dir, name = where / "run", ("SIGTERM", "SIGINT")[number % 2]
    armed = [("signal_at_update", moves.randint(1, UPDATES - 2), name, 0)]
    status, text = suite.child(DIGITS, *FLAGS, f"--run-dir={run_dir}", armed=armed)
    check(status == 128 + getattr(signal, name), f"status {status}", text)
    check(f"stopped by {name} at step" in text and "Traceback" not in text, name, text)
    step = int(text.split(" at step ")[1].split(";")[0])
    check(newest(run_dir)[0] == step, "it was not saved", text)
    return suite.go_on(run_dir)


def full_disk(suite, where, moves, number):
    """A small file system, a limit to files' size, or changes that are refused."""
    way = number % 3
    if way == 0 and mounted(where, size := moves.randrange(64, 600) << 10):
        try:
            status, text = suite.child(DIGITS, *FLAGS, f"--run-dir={where / 'run'}")
            if status:
                suite.refused(status, text)
                check("No space left" in text or "cannot be" in text, "why?", text)
            remount(where, f"size={size + (64 << 20)}")
            return suite.go_on(where / "run")
        finally:
            unmount(where)
    run_dir = where / "run"
    if way == 1:
        armed = ("limit_file_size", moves.randrange(1, 40_000))
    else:
        number = moves.randint(1, suite.changes)
        armed = ("fail_from_change", f"{run_dir}/", number, "ENOSPC")
    status, text = suite.child(DIGITS, *FLAGS, f"--run-dir={run_dir}", armed=[armed])
    if status:
        suite.refused(status, text)
    run_dir.mkdir(exist_ok=True)
    return suite.go_on(run_dir)


def read_only(suite, where, moves, number):
    """Before the first update, in the middle, or for a survey."""
    name = moves.choice(["EROFS", "EACCES"])
    if number % 3 == 2:
        run_dir = copied(suite.finished, where)
        shutil.rmtree(run_dir / "results")
        armed = ("fail_from_change", f"{run_dir}/", 1, name)
        status, text = suite.child("survey", *suite.line(run_dir), armed=[armed])
        suite.refused(status, text)
        suite.must("survey", *suite.line(run_dir))
        return same_line(suite, run_dir)
    if number % 3 == 1:
        run_dir = where / "run"
        armed = (
            "fail_from_change",
            f"{run_dir}/",
            moves.randint(2, suite.changes),
            name,
        )
        status, text = suite.child(
            DIGITS, *FLAGS, f"--run-dir={run_dir}", armed=[armed]
        )
        if status:
            suite.refused(status, text)
        run_dir.mkdir(exist_ok=True)
        return suite.go_on(run_dir)
    # A file system that is read-only is so for the superuser too.
    if not mounted(where, 64 << 20):
        run_dir = copied(suite.halted, where)
        armed = [("fail_from_change", f"{run_dir}/", 1, name)]
        status, text = suite.child(
            DIGITS, "--resume", f"--run-dir={run_dir}", armed=armed
        )
        suite.refused(status, text, (2,))
        return suite.go_on(run_dir)
    try:
        run_dir = copied(suite.halted, where)
        remount(where, "ro")
        status, text = suite.child(DIGITS, "--resume", f"--run-dir={run_dir}")
        suite.refused(status, text, (2,))
        check("cannot be written" in text, "why?", text)
        remount(where, "rw")
        return suite.go_on(run_dir)
    finally:
        unmount(where)


def damaged_checkpoint(way):
    """Makes an injector: one file of the newest checkpoint, or of all of them."""

    def inject(suite, where, moves, number):
        run_dir = copied(suite.halted, where)
        steps = newest(run_dir)
        # Now and then none is left whole.
        for step in steps if number % 5 == 4 else steps[:1]:
            folder = run_dir / "checkpoints" / str(step)
            files = sorted(file for file in folder.rglob("*") if file.is_file())
            # Every other time where the numbers are.
            file = moves.choice(files)
            if number % 2:
                file = max(files, key=lambda path: path.stat().st_size)
            content = bytearray(file.read_bytes())
            place = moves.randrange(len(content)) if content else 0
            if way == "truncate":
                del content[place:]
            elif content:
                content[place] ^= 1 << moves.randrange(8)
            file.write_bytes(content)
        before = (run_dir / "metrics.jsonl").read_bytes()
        status, text = suite.child(DIGITS, "--resume", f"--run-dir={run_dir}")
        if status == 0:
            check(suite.found(run_dir) == suite.expected, "another run", text)
            return SAME
        suite.refused(status, text, (2,))
        check("no checkpoint is whole" in text, "why?", text)
        check(
            (run_dir / "metrics.jsonl").read_bytes() == before, "metrics were changed"
        )
        return ERROR

    return inject


def damaged_metrics(suite, where, moves, number):
    """Of a run that is about to be resumed."""
    run_dir = copied(suite.halted, where)
    file = run_dir / ("metrics.jsonl", "config.json")[number % 2]
    content = bytearray(file.read_bytes())
    place = moves.randrange(len(content))
    if number % 4 < 2:
        content[place] ^= 1 << moves.randrange(8)
    else:
        del content[place:]
    file.write_bytes(content)
    status, text = suite.child(DIGITS, "--resume", f"--run-dir={run_dir}")
    if status == 0:
        check(suite.found(run_dir) == suite.expected, "another run", text)
        return SAME
    return suite.refused(status, text, (2,))


def damaged_results(suite, where, moves, number):
    """Many files of a finished run, one at a time."""
    report = where / "report.json"
    suite.must(
        "damage_many", suite.finished, suite.root / "surface.store", suite.surface,
        where, moves.randrange(1 << 30), RESULTS, report,
    )  # fmt: skip
    names = {"same": SAME, "error": ERROR}
    return [
        names.get(outcome, f"lost: {what}: {outcome}")
        for what, outcome in json.loads(report.read_text())
    ]


RESULTS = 10


def clock(suite, where, moves, number):
    """While a run is trained, saved and measured."""
    run_dir = where / "run"
    armed = [("clock_that_jumps", moves.random())]
    status, text = suite.child(DIGITS, *FLAGS, f"--run-dir={run_dir}", armed=armed)
    if status:
        suite.refused(status, text)
        return suite.go_on(run_dir)
    check(suite.found(run_dir) == suite.expected, "another run", text)
    return SAME


def not_a_number(suite, where, moves, number):
    """In a training example; or in a surface, where it has to stay."""
    if number % 2:
        store, result = where / "store", where / "result.npy"
        suite.must("hole", store, result)
        found, whole = np.load(result), np.load(suite.surface)
        hole = ~np.isfinite(found)
        check(hole.sum() == 18, f"{hole.sum()} values of 18 are not finite")
        check(np.array_equal(found[~hole], whole[~hole]), "others were changed")
        return SAME
    run_dir = where / "run"
    armed = [("not_a_number_in_data", moves.randrange(512))]
    status, text = suite.child(DIGITS, *FLAGS, f"--run-dir={run_dir}", armed=armed)
    suite.refused(status, text, (1,))
    check("not finite at step" in text, "which step?", text)
    return suite.go_on(run_dir)


def corrupt_record(suite, where, moves, number):
    """An image of a stream: of the same size, which shows when it is read, or not."""
    folder, expected = streamed(suite)
    own, run_dir = where / "data", where / "run"
    shutil.copytree(folder, own)
    flags = (*STREAM_FLAGS, f"--data-dir={own}")
    file = moves.choice(sorted(own.glob("train/*/*.jpeg")))
    content = file.read_bytes()
    if number % 2:
        armed = [("signal_at_update", moves.randint(1, 3), "SIGTERM", 0)]
        status, text = suite.child(DIGITS, *flags, f"--run-dir={run_dir}", armed=armed)
        check(status == 128 + signal.SIGTERM, f"status {status}", text)
        file.write_bytes(content[: moves.randrange(len(content))])
        status, text = suite.child(DIGITS, "--resume", f"--run-dir={run_dir}")
        suite.refused(status, text)
    else:
        file.write_bytes(moves.choice([bytes(len(content)), content[::-1]]))
        status, text = suite.child(DIGITS, *flags, f"--run-dir={run_dir}")
        suite.refused(status, text)
        check(file.name in text, "which file?", text)
    file.write_bytes(content)
    return suite.go_on(run_dir, flags, expected)


STREAM_FLAGS = (
    "--schedule=gaussian", "--model=mlp", "--dataset=folder", "--stream=True",
    "--image-size=12", "--epochs=2", "--batch-size=16", "--checkpoint-every=3",
    "--normalize=scale", "--num-devices=1", "--threads=2",
)  # fmt: skip


def streamed(suite):
    """A folder of images, and what a run on them comes to."""
    with suite.lock:
        folder, run_dir = suite.root / "images", suite.root / "streamed"
        if not folder.exists():
            digits = data.load("digits", examples=96, test_examples=30)
            write_folders(folder, digits, (24, 40))
            flags = (*STREAM_FLAGS, f"--data-dir={folder}")
            suite.must(DIGITS, *flags, f"--run-dir={run_dir}")
        return folder, suite.found(run_dir)


KINDS = {
    # The longest first.
    "kill -9, a dead process of two": Kind(1, dead_process, 3),
    "kill -9, a launcher": Kind(1, dead_launcher, 4),
    "an error of one process of two": Kind(2, error_of_one, 8),
    "two new runs in one directory": Kind(2, race, 9),
    "kill -9, a paper's command": Kind(1, kill_paper, 15),
    "kill -9, training": Kind(6, kill_training, 24),
    "kill -9, writing": Kind(6, kill_saving, 30),
    "kill -9, a surface": Kind(4, kill_surface, 16),
    "kill -9, a survey": Kind(2, kill_survey, 8),
    "kill -9, a run made longer": Kind(2, extension, 10),
    "SIGTERM, SIGINT": Kind(4, signals, 14),
    "a full disk": Kind(4, full_disk, 20),
    "a write that fails part-way": Kind(4, part_way, 18),
    "a read-only directory": Kind(2, read_only, 10),
    "a directory removed or moved": Kind(4, gone, 12),
    "a truncated checkpoint": Kind(3, damaged_checkpoint("truncate"), 14),
    "a flipped bit in a checkpoint": Kind(3, damaged_checkpoint("flip"), 14),
    "no checkpoints": Kind(2, no_checkpoints, 6),
    "metrics shorter than noted": Kind(3, short_metrics, 14),
    "damaged metrics or settings": Kind(4, damaged_metrics, 16),
    "damaged results": Kind(1, damaged_results, 3),
    "a clock that jumps": Kind(1, clock, 6),
    "NaN in data": Kind(1, not_a_number, 6),
    "a corrupt record in a stream": Kind(1, corrupt_record, 6),
    **{name: Kind(*kind) for name, kind in strangers.KINDS.items()},
}
