"""Runs that are killed or stopped, and go on as if nothing had happened."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from lrscape.runs import open_run

ROOT = Path(__file__).parents[1]

# Batch norm, augmentation, momentum and a window of metrics that no epoch fits.
FLAGS = [
    "--schedule=gaussian", "--model=mlp", "--epochs=40", "--augment", "crop",
    "--checkpoint-every=45", "--log-every=30", "--snapshot-epochs", "7", "33",
    "--num-devices=1",
]  # fmt: skip


def start(run_dir, *flags):
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.digits", f"--run-dir={run_dir}", *flags],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finish(process):
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    return out


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "undisturbed"
    finish(start(run_dir, *FLAGS))
    return run_dir


def without_times(value):
    if isinstance(value, dict):
        times = ("seconds", "images_per_second")
        return {k: without_times(v) for k, v in value.items() if k not in times}
    return value


def assert_same_run(a, b):
    """Parameters, metrics and summary bit for bit, wall times aside."""
    a, b = open_run(a), open_run(b)
    assert set(a.snapshots) == set(b.snapshots)
    for name in a.snapshots:
        one, other = a.snapshots[name], b.snapshots[name]
        assert one.step == other.step
        jax.tree.map(np.testing.assert_array_equal, one.variables, other.variables)
    assert list(map(without_times, a.records.metrics())) == list(
        map(without_times, b.records.metrics())
    )
    assert without_times(a.records.summary()) == without_times(b.records.summary())
    assert a.config == b.config


def wait_until(condition, process, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.01)


def newest_checkpoint(run_dir):
    names = [p.name for p in (run_dir / "checkpoints").glob("*")]
    return max((int(name) for name in names if name.isdigit()), default=-1)


def test_killed_three_times(undisturbed, tmp_path):
    run_dir = tmp_path / "killed"
    moments = random.Random(20180612)
    started = []
    for attempt in range(3):
        before = newest_checkpoint(run_dir)
        flags = FLAGS if attempt == 0 else ["--resume"]
        process = start(run_dir, *flags)
        # At a random moment of what is left: between two saves, or within one.
        steps = moments.randrange(45, 200)
        wait_until(lambda: newest_checkpoint(run_dir) >= before + steps, process)  # noqa: B023
        time.sleep(moments.random() * 0.2)
        process.send_signal(signal.SIGKILL)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        started.append(out)
        assert not (run_dir / "summary.json").exists()
    out = finish(start(run_dir, "--resume"))
    assert "resuming" in out
    assert all("resuming" in text for text in started[1:])
    assert_same_run(undisturbed, run_dir)


def test_killed_before_the_first_checkpoint(undisturbed, tmp_path):
    run_dir = tmp_path / "early"
    process = start(run_dir, *FLAGS)
    wait_until((run_dir / "config.json").exists, process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    finish(start(run_dir, "--resume"))
    assert_same_run(undisturbed, run_dir)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_save_and_say_so(undisturbed, tmp_path, number):
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
