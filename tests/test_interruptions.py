"""Runs that are killed or stopped, and go on as if nothing had happened."""

import json
import random
import signal
import time

import pytest

from lrscape.runs import open_run
from tests.processes import (
    FLAGS,
    assert_same_run,
    finish,
    newest_checkpoint,
    start,
    wait_until,
)


@pytest.mark.slow
def test_killed_three_times(undisturbed, tmp_path):
    run_dir = tmp_path / "killed"
    moments = random.Random(20180612)
    started = []
    for attempt in range(3):
        before = newest_checkpoint(run_dir)
        flags = FLAGS if attempt == 0 else ["--resume"]
        process = start(run_dir, *flags)
        # At a random moment of what is left: between two saves, or within one.
        steps = moments.randrange(45, 150)
        wait_until(lambda: newest_checkpoint(run_dir) >= before + steps, process)  # noqa: B023
        time.sleep(moments.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        started.append(out)
        assert not (run_dir / "summary.json").exists()
    out = finish(start(run_dir, "--resume"))
    assert "resuming" in out
    assert all("resuming" in text for text in started[1:])
    assert_same_run(undisturbed, run_dir)


@pytest.mark.slow
def test_killed_before_the_first_checkpoint(undisturbed, tmp_path):
    run_dir = tmp_path / "early"
    process = start(run_dir, *FLAGS)
    wait_until((run_dir / "config.json").exists, process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    finish(start(run_dir, "--resume"))
    assert_same_run(undisturbed, run_dir)


def test_a_signal_saves_and_says_so(undisturbed, tmp_path):
    number = signal.SIGTERM
    run_dir = tmp_path / "stopped"
    process = start(run_dir, *FLAGS)
    wait_until(lambda: newest_checkpoint(run_dir) >= 45, process)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"stopped by {number.name} at step" in out and "Traceback" not in out
    step = int(out.split(" at step ")[1].split(";")[0])
    assert newest_checkpoint(run_dir) == step
    out = finish(start(run_dir, "--resume"))
    assert f"resuming {run_dir} at step {step}" in out
    assert_same_run(undisturbed, run_dir)


@pytest.mark.slow
def test_another_number_of_devices_warns(undisturbed, tmp_path):
    run_dir = tmp_path / "moved"
    process = start(run_dir, *FLAGS)
    wait_until(lambda: newest_checkpoint(run_dir) >= 45, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    out = finish(start(run_dir, "--resume", "--num-devices=2"))
    assert "warning: device_count was 1 and is 2" in out
    a, b = (open_run(path).records.summary() for path in (undisturbed, run_dir))
    assert a["steps"] == b["steps"]
    assert json.dumps(a["last"]).count(":") == json.dumps(b["last"]).count(":")
    assert abs(a["last"]["test_error"] - b["last"]["test_error"]) < 0.03
