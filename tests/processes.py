"""Runs of digits in processes of their own, started, watched and compared."""

import json
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

from lrscape import manifest
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


def rewrite(file, value):
    """Writes JSON to a file of a run, and its checksum to the manifest."""
    content = json.dumps(value).encode()
    manifest.list_file(file.parent, file, content)
    file.write_bytes(content)


def finish(process):
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    return out


def without_times(value):
    if isinstance(value, dict):
        times = (
            "seconds", "images_per_second", "tokens_per_second",
            "pipeline_images_per_second", "seconds_waited",
        )  # fmt: skip
        return {k: without_times(v) for k, v in value.items() if k not in times}
    if isinstance(value, list):
        return [without_times(x) for x in value]
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
