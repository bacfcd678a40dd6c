"""What a run finds missing or half there: metrics, checkpoints, its own directory."""

import shutil
import signal

from tests.faults.suite import (
    DIGITS,
    ERROR,
    FLAGS,
    SAME,
    UPDATES,
    check,
    copied,
    newest,
)


def part_way(suite, where, moves, number):
    """A write that fails once a share of it is written."""
    run_dir = where / "run"
    armed = ("fail_part_way", f"{run_dir}/", moves.randint(1, 16), moves.random())
    status, text = suite.child(DIGITS, *FLAGS, f"--run-dir={run_dir}", armed=[armed])
    if status:
        suite.refused(status, text)
    run_dir.mkdir(exist_ok=True)
    return suite.go_on(run_dir)


def short_metrics(suite, where, moves, number):
    """Fewer than the newest checkpoint noted, or fewer than both."""
    with suite.lock:
        halted = suite.root / "halted-later"
        if not halted.exists():
            status, text = suite.child(
                DIGITS, *FLAGS, f"--run-dir={halted}",
                armed=[("signal_at_update", 17, "SIGTERM", 0)],
            )  # fmt: skip
            check(status == 128 + signal.SIGTERM, f"status {status}", text)
    run_dir = copied(halted, where)
    file = run_dir / "metrics.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    # Of 12 and 17, the older one noted all lines but the last.
    check(newest(run_dir) == [17, 12] and len(lines) == 4, "another halted run")
    fits = number % 3 < 2
    kept = len(b"".join(lines[:-1]))
    length = moves.randrange(kept, kept + len(lines[-1]))
    if not fits:
        length = moves.randrange(kept)
    file.write_bytes(file.read_bytes()[:length])
    left = file.read_bytes()
    status, text = suite.child(DIGITS, "--resume", f"--run-dir={run_dir}")
    if fits:
        check(status == 0, f"status {status}", text)
        check("fell back to an older checkpoint" in text, "it does not say so", text)
        check(suite.found(run_dir) == suite.expected, "another run", text)
        return SAME
    suite.refused(status, text, (2,))
    check("lines were lost" in text, "why?", text)
    check(file.read_bytes() == left, "metrics were changed", text)
    return ERROR


def no_checkpoints(suite, where, moves, number):
    """Removed, or emptied, of a run that was trained."""
    run_dir = copied(suite.halted, where)
    folder = run_dir / "checkpoints"
    folder.rename(where / "kept")
    if number % 2:
        folder.mkdir()
    before = (run_dir / "metrics.jsonl").read_bytes()
    status, text = suite.child(DIGITS, "--resume", f"--run-dir={run_dir}")
    suite.refused(status, text, (2,))
    check("no checkpoint to go on from" in text, "why?", text)
    check((run_dir / "metrics.jsonl").read_bytes() == before, "metrics were changed")
    shutil.rmtree(folder, ignore_errors=True)
    (where / "kept").rename(folder)
    suite.go_on(run_dir)
    return ERROR


def gone(suite, where, moves, number):
    """Removed, moved, or replaced by another while a run trains."""
    run_dir, aside = where / "run", where / "aside"
    way = ("remove", "move", "replace")[number % 3]
    armed = ("lose_directory_at_update", moves.randint(1, UPDATES - 1), way, aside)
    armed = [tuple(map(str, armed))]
    status, text = suite.child(DIGITS, *FLAGS, f"--run-dir={run_dir}", armed=armed)
    suite.refused(status, text, (2,))
    said = "was removed" if way == "remove" else "was moved"
    check(f"{said} while it was written to" in text, "why?", text)
    if way == "replace":
        check(not any(run_dir.iterdir()), "it was written to")
    else:
        check(not run_dir.exists(), "it was made again")
    if way == "remove":
        return ERROR
    check(str(aside) in text, "where is it?", text)
    return suite.go_on(aside)


def extension(suite, where, moves, number):
    """A finished run that is made longer, killed or stopped at any moment."""
    way = ("hold", "stretch")[number % 2]
    flags = ("--epochs=5", f"--extend={way}")
    with suite.lock:
        reference = suite.root / f"longer-{way}"
        if not reference.exists():
            shutil.copytree(suite.finished, reference)
            suite.must(DIGITS, *flags, "--resume", f"--run-dir={reference}")
    run_dir = copied(suite.finished, where)
    armed = ("kill_at_change", f"{run_dir}/", moves.randint(1, suite.changes // 2))
    if number % 3 == 2:
        step = moves.randint(UPDATES + 1, UPDATES + 14)
        armed = ("signal_at_update", step, "SIGTERM", 0)
    status, text = suite.child(
        DIGITS, *flags, "--resume", f"--run-dir={run_dir}", armed=[armed]
    )
    stopped = (0, -signal.SIGKILL, 128 + signal.SIGTERM)
    check(status in stopped, f"status {status}", text)
    return suite.go_on(run_dir, flags, suite.found(reference))
