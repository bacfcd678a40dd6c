"""Disks that fill up, directories that cannot be written, checkpoints that rot."""

import contextlib
import os
import signal
import subprocess

import pytest

from lrscape.errors import InputError
from lrscape.records import Records
from lrscape.runs import open_run
from tests.processes import (
    FLAGS,
    assert_same_run,
    finish,
    newest_checkpoint,
    start,
    wait_until,
)

pytestmark = pytest.mark.slow  # each starts two or three processes


@contextlib.contextmanager
def file_system(path, *options):
    """A small file system in memory, where the system lets us mount one."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", ",".join(("size=64m", *options)), "tmpfs"]
    try:
        subprocess.run([*command, str(path)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount a file system in memory")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def remount(path, *options):
    words = ["mount", "-o", ",".join(("remount", *options)), str(path)]
    subprocess.run(words, check=True, capture_output=True)


def fill(path):
    """Takes all the room that is left."""
    ballast = (path / "ballast").open("wb", buffering=0)
    with ballast, contextlib.suppress(OSError):
        while ballast.write(bytes(1 << 16)):
            pass


def test_a_full_disk_stops_the_run_and_loses_nothing(undisturbed, tmp_path):
    with file_system(tmp_path / "disk") as disk:
        run_dir = disk / "run"
        process = start(run_dir, *FLAGS)
        wait_until(lambda: newest_checkpoint(run_dir) >= 90, process)
        fill(disk)
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 1, out
        assert "error:" in out and "cannot be written" in out
        assert "Traceback" not in out
        good = newest_checkpoint(run_dir)
        kept = run_dir / "checkpoints" / str(good)
        assert f"the last good checkpoint is {kept}" in out
        assert "Make room, then go on with --resume" in out
        (disk / "ballast").unlink()
        assert "resuming" in finish(start(run_dir, "--resume"))
        assert_same_run(undisturbed, run_dir)


def test_a_directory_that_turns_read_only(undisturbed, tmp_path):
    with file_system(tmp_path / "disk") as disk:
        run_dir = disk / "run"
        process = start(run_dir, *FLAGS)
        wait_until(lambda: newest_checkpoint(run_dir) >= 45, process)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        remount(disk, "ro")
        process = start(run_dir, "--resume")
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 2
        assert (
            f"run_dir='{run_dir}' cannot be written" in out and "Traceback" not in out
        )
        # A new run is refused alike, before anything is trained.
        process = start(disk / "other", *FLAGS)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 2
        assert "cannot be written: Read-only file system" in out
        remount(disk, "rw")
        finish(start(run_dir, "--resume"))
        assert_same_run(undisturbed, run_dir)


@pytest.mark.parametrize("damage", ["flip", "truncate", "half-written"])
def test_a_damaged_checkpoint_falls_back(undisturbed, tmp_path, damage):
    run_dir = tmp_path / "damaged"
    process = start(run_dir, *FLAGS)
    wait_until(lambda: newest_checkpoint(run_dir) >= 135, process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    newest = newest_checkpoint(run_dir)
    folder = run_dir / "checkpoints" / str(newest)
    if damage == "half-written":
        folder.rename(folder.with_name(f"{newest}.orbax-checkpoint-tmp"))
    else:
        # Where the numbers are.
        file = max(folder.rglob("d/*"), key=lambda path: path.stat().st_size)
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content[: -(1 if damage == "flip" else 1000) or None])
    out = finish(start(run_dir, "--resume"))
    if damage != "half-written":  # of which nothing is left to speak of
        assert f"warning: {folder}" in out and "fell back to an older checkpoint" in out
    resumed = int(out.split(f"resuming {run_dir} at step ")[1].split("\n")[0])
    assert resumed < newest
    assert_same_run(undisturbed, run_dir)


def test_no_checkpoint_is_whole(tmp_path):
    run_dir = tmp_path / "rotten"
    process = start(run_dir, *FLAGS)
    wait_until(lambda: newest_checkpoint(run_dir) >= 45, process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    for file in (run_dir / "checkpoints").rglob("d/*"):
        file.write_bytes(bytes(100))
    process = start(run_dir, "--resume")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "no checkpoint is whole" in out and "Traceback" not in out
    # The initial point is still there to be looked at.
    assert open_run(run_dir).snapshots["initial"].step == 0


def test_a_second_process_is_refused(undisturbed, tmp_path):
    run_dir = tmp_path / "shared"
    process = start(run_dir, *FLAGS)
    wait_until(lambda: newest_checkpoint(run_dir) >= 0, process)
    process.send_signal(signal.SIGSTOP)  # so that it is not done before the second
    try:
        second = start(run_dir, "--resume")
        out, _ = second.communicate(timeout=60)
    finally:
        process.send_signal(signal.SIGCONT)
    assert second.returncode == 2, out
    assert f"is being written by another process (process {process.pid} on" in out
    # The first one has not noticed.
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    assert_same_run(undisturbed, run_dir)


def test_the_lock_goes_with_its_process(tmp_path):
    records = Records(tmp_path / "run")
    other = Records(tmp_path / "run")
    with (
        records.lock(),
        pytest.raises(InputError, match=f"process {os.getpid()} on"),
        other.lock(),
    ):
        pass
    with other.lock():
        pass
