"""Nothing is lost: short metrics, missing checkpoints, races, directories that go."""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from experiments import digits
from experiments.harness import parents
from experiments.harness.train import main
from lrscape import durable, file_lock, processes
from lrscape.durable import GoneError, HeldDirectory
from lrscape.errors import InputError
from lrscape.records import Records
from lrscape.training import TrainState, state
from lrscape.training.checkpoint import Checkpoints, CorruptCheckpointError
from tests.processes import assert_same_run

SHORT = ["--model=mlp", "--num-devices=1", "--epochs=2", "--batch-size=256",
         "--checkpoint-every=3", "--log-every=2"]  # fmt: skip


def command(*flags):
    return main("digits", digits.__doc__, digits.PRESETS, list(map(str, flags)))


def stop_saving_at(monkeypatch, step):
    """A run is interrupted once it has saved a step."""
    save = Checkpoints.save

    def interrupted(self, state, notes):
        save(self, state, notes)
        if int(state.step) == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", interrupted)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run that nothing happened to, and one that was stopped after update 6."""
    whole, halted = (tmp_path_factory.mktemp("runs") / name for name in "ab")
    assert command(*SHORT, f"--run-dir={whole}") == 0
    with pytest.MonkeyPatch.context() as patch:
        stop_saving_at(patch, 6)
        assert command(*SHORT, f"--run-dir={halted}") == 128 + signal.SIGINT
    return whole, halted


@pytest.fixture
def halted(runs, tmp_path):
    run_dir = tmp_path / "halted"
    shutil.copytree(runs[1], run_dir)
    return run_dir


def lines_of(run_dir):
    return (run_dir / "metrics.jsonl").read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("damage", ["half a line", "a line", "a bit"])
def test_metrics_that_do_not_fit_fall_back(runs, halted, capsys, damage):
    """Of the checkpoints after updates 3 and 6 the first noted one line alone."""
    lines = lines_of(halted)
    assert len(lines) == 4  # of updates 2, 4, 5 and 6
    left = b"".join(lines[:-1]) + (lines[-1][:9] if damage == "half a line" else b"")
    if damage == "a bit":
        left = b"".join(lines[:-1]) + lines[-1].replace(b"6", b"7", 1)
    (halted / "metrics.jsonl").write_bytes(left)
    assert command("--resume", f"--run-dir={halted}") == 0
    out = capsys.readouterr().out
    assert "fell back to an older checkpoint" in out and f"{halted} at step 3" in out
    assert_same_run(runs[0], halted)


def test_metrics_that_fit_no_checkpoint_are_left_alone(halted, capsys):
    (halted / "metrics.jsonl").write_bytes(left := lines_of(halted)[0][:-5])
    assert command("--resume", f"--run-dir={halted}") == 2
    error = capsys.readouterr().err
    assert "no checkpoint is whole" in error and "lines were lost" in error
    assert (halted / "metrics.jsonl").read_bytes() == left


@pytest.mark.parametrize("emptied", [False, True])
def test_metrics_without_checkpoints_are_refused(runs, halted, capsys, emptied):
    (halted / "checkpoints").rename(kept := halted.with_name("kept"))
    if emptied:
        (halted / "checkpoints").mkdir()
    before = lines_of(halted)
    assert command("--resume", f"--run-dir={halted}") == 2
    assert "no checkpoint to go on from: bring" in capsys.readouterr().err
    assert lines_of(halted) == before
    shutil.rmtree(halted / "checkpoints")
    kept.rename(halted / "checkpoints")
    assert command("--resume", f"--run-dir={halted}") == 0
    assert_same_run(runs[0], halted)


@pytest.mark.parametrize("seeds", [[], ["--seeds=2", "--replicas=apart"]])
def test_a_run_made_between_a_look_and_the_lock(tmp_path, monkeypatch, capsys, seeds):
    run_dir, lock = tmp_path / "run", Records.lock

    def late(self):
        if not self.exists():
            Records.create(run_dir, {"somebody": "else"})
        return lock(self)

    monkeypatch.setattr(Records, "lock", late)
    assert command(*SHORT, *seeds, f"--run-dir={run_dir}") == 2
    assert "already holds a run" in capsys.readouterr().err
    assert Records(run_dir).config() == {"somebody": "else"}
    assert not (run_dir / "metrics.jsonl").exists()


def test_settings_are_checked_again_under_the_lock(tmp_path):
    records = Records(tmp_path / "sweep")
    records.check_made_with({"a": 1})
    with records.lock():
        records.make_with({"a": 1})
        records.make_with({"a": 1})
        with pytest.raises(InputError, match="holds something else"):
            records.make_with({"a": 2})


@pytest.mark.parametrize("way", ["removed", "moved"])
def test_a_directory_that_goes_ends_the_run(runs, tmp_path, monkeypatch, capsys, way):
    run_dir, aside = tmp_path / "run", tmp_path / "aside"
    save = Checkpoints.save

    def saved(self, state, notes):
        save(self, state, notes)
        if int(state.step) == 3:
            shutil.rmtree(run_dir) if way == "removed" else run_dir.rename(aside)

    monkeypatch.setattr(Checkpoints, "save", saved)
    assert command(*SHORT, f"--run-dir={run_dir}") == 2
    error = capsys.readouterr().err
    assert f"{str(run_dir)!r} was {way} while it was written to" in error
    assert not run_dir.exists()
    monkeypatch.undo()
    if way == "moved":
        assert f"--resume --run-dir={aside}" in error
        assert command("--resume", f"--run-dir={aside}") == 0
        assert_same_run(runs[0], aside)


def test_every_write_of_a_locked_directory_notices(tmp_path):
    records = Records.create(tmp_path / "run", {})
    with records.lock():
        shutil.move(records.path, tmp_path / "aside")
        (tmp_path / "run").mkdir()
        for write in (
            lambda: records.append_metrics({"step": 1}),
            lambda: records.write_summary({}),
            lambda: records.save_text("page.html", ""),
            lambda: records.truncate_metrics(0),
            lambda: records.sync_metrics(),
            lambda: records.replace_config({}),
        ):
            with pytest.raises(GoneError, match="was moved.*aside"):
                write()
    assert not any((tmp_path / "run").iterdir())


def test_checkpoints_of_a_run_directory_that_was_removed(tmp_path):
    (tmp_path / "run").mkdir()
    one = TrainState(
        step=jax.numpy.int32(1), params={}, batch_stats={}, opt_state=(),
        key=jax.random.key(0), metrics=state.no_metrics(),
        first_bad_step=jax.numpy.int32(-1),
    )  # fmt: skip
    with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        checkpoints.save(one, {})
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(GoneError, match=re.escape(str(tmp_path / "run"))):
            checkpoints.save(one, {})
    assert not (tmp_path / "run").exists()


def test_a_moved_parent_is_named(tmp_path):
    (tmp_path / "a" / "run").mkdir(parents=True)
    held = HeldDirectory(tmp_path / "a" / "run", tmp_path / "a" / "run")
    (tmp_path / "a").rename(tmp_path / "b")
    with pytest.raises(GoneError, match=re.escape(str(tmp_path / "b" / "run"))):
        held.check()
    held.close()


def test_a_checkpoint_that_does_not_fit_is_passed_over(tmp_path):
    def at(step):
        return TrainState(
            step=jax.numpy.int32(step), params={}, batch_stats={}, opt_state=(),
            key=jax.random.key(0), metrics=state.no_metrics(),
            first_bad_step=jax.numpy.int32(-1),
        )  # fmt: skip

    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        for step in (1, 2):
            checkpoints.save(at(step), {"metrics_bytes": step})
        found = checkpoints.restore(
            at(0), problem_of=lambda step, notes: "why" if step == 2 else None
        )
        assert int(found[0].step) == 1 and found[1] == {"metrics_bytes": 1}
        assert "2 does not fit: why" in found[2][0] and checkpoints.steps == [1]
        with pytest.raises(CorruptCheckpointError, match=r"fit: never.*from a copy"):
            checkpoints.restore(at(0), problem_of=lambda step, notes: "never")


def test_metrics_and_names_are_synchronised_before_a_checkpoint(halted, monkeypatch):
    """In this order: metrics, their directory, then what Orbax writes."""
    seen, sync, save = [], os.fsync, Checkpoints.save

    def noted(handle):
        seen.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        sync(handle)

    def saved(self, state, notes):
        seen.append("checkpoint")
        save(self, state, notes)

    monkeypatch.setattr(durable.os, "fsync", noted)
    monkeypatch.setattr(Checkpoints, "save", saved)
    assert command("--resume", f"--run-dir={halted}") == 0
    first = seen.index("checkpoint")
    assert seen[first - 2 : first] == [str(halted / "metrics.jsonl"), str(halted)]
    after = seen[first:]
    assert str(halted / "checkpoints") in after
    assert any(name.startswith(f"{halted}/checkpoints/9/") for name in after)
    # A rename is on disk before anything else is done.
    assert str(halted / "results") in after and str(halted / "figures") in after


class FullDisk:
    """A file that takes nothing."""

    def __init__(self, file):
        self._file = file

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()

    def write(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_lock_on_a_full_disk(tmp_path, monkeypatch):
    opened = Path.open

    def full(self, *args, **kwargs):
        file = opened(self, *args, **kwargs)
        return FullDisk(file) if self.name == ".lock" else file

    monkeypatch.setattr(Path, "open", full)
    with (
        pytest.raises(InputError, match="cannot be written: No space left on device"),
        Records(tmp_path / "run").lock(),
    ):
        pass


@pytest.mark.skipif(file_lock.fcntl is None, reason="needs fcntl")
@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks(tmp_path, monkeypatch, capsys, code):
    def refused(file, how):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(file_lock.fcntl, "flock", refused)
    assert command(*SHORT, f"--run-dir={tmp_path / 'run'}") == 2
    error = capsys.readouterr().err
    assert "cannot be locked" in error and "on a file system with locks" in error


_LAUNCHER = """
import subprocess, sys, os, time
from experiments.harness.parents import launched_by_this
code = "from experiments.harness import parents; import time, os, pathlib, sys\\n" \\
    "parents.end_with_launcher(); pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))\\n" \\
    "time.sleep(60)"
# As a sweep does: through a process that outlives it.
between = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
command = [sys.executable, "-c", code, sys.argv[1]]
if sys.argv[2] == "far":
    command = [sys.executable, "-c", between, code, sys.argv[1]]
subprocess.Popen(command, env=launched_by_this(dict(os.environ)))
time.sleep(60)
"""  # noqa: E501


@pytest.mark.parametrize("distance", ["near", "far"])
def test_processes_end_with_a_launcher_that_is_killed(tmp_path, distance):
    file = tmp_path / "pid"
    launcher = subprocess.Popen(
        [sys.executable, "-c", _LAUNCHER, str(file), distance],
        cwd=Path(parents.__file__).parents[1],
    )
    while not file.exists() or not file.read_text():
        assert launcher.poll() is None
        time.sleep(0.02)
    child = int(file.read_text())
    assert parents._started(child) is not None
    launcher.kill()  # not waited for: a zombie is no launcher
    deadline = time.monotonic() + 30
    while parents._started(child) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    launcher.wait()


class Board:
    """What processes tell one another by, without processes."""

    def __init__(self):
        self.values = {}

    def key_value_set(self, key, value):
        if key in self.values:
            raise RuntimeError("ALREADY_EXISTS")
        self.values[key] = value

    def key_value_try_get(self, key):
        return self.values[key]

    def key_value_dir_get(self, prefix):
        return [key for key in self.values if key.startswith(prefix)]


class EndedError(Exception):
    """Stands for the end of a process."""


def test_the_first_failure_is_said_and_is_that_of_all(monkeypatch):
    board, said = Board(), []

    def end(status):
        raise EndedError(status)

    def process(rank, status):
        monkeypatch.setattr(processes.global_state, "process_id", rank)
        monkeypatch.setattr(processes, "_ending", processes.threading.Lock())
        with pytest.raises(EndedError) as ended:
            processes.end_all(status, lambda: said.append(rank))
        return ended.value.args[0]

    monkeypatch.setattr(processes.global_state, "client", board)
    monkeypatch.setattr(processes.global_state, "num_processes", 3)
    monkeypatch.setattr(processes.os, "_exit", end)
    assert not processes.is_alone()
    assert process(1, 2) == 2
    assert process(2, 1) == 2  # it failed later, and of that one
    # The first process, in which the others meet, waits for them.
    assert process(0, 1) == 2
    assert said == [1]


def test_alone_an_error_is_said_and_nothing_ends():
    said = []
    assert processes.is_alone()
    processes.end_all(2, lambda: said.append("why"))
    assert said == ["why"]
