"""Several processes: the same numbers as one, and what is left when one dies."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from lrscape import processes
from lrscape.errors import InputError
from lrscape.records import Records
from tests.processes import ROOT, newest_checkpoint

pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


def together(folder, num_processes, num_devices):
    """Runs `tests.together`; what it found."""
    folder.mkdir(exist_ok=True)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listening.getsockname()[1]}"
    running = [
        subprocess.Popen(
            [
                sys.executable, "-m", "tests.together", str(folder),
                *([address, str(num_processes), str(i)] if num_processes > 1 else []),
            ],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "JAX_NUM_CPU_DEVICES": str(num_devices),
                 "XLA_FLAGS": ""},
        )
        for i in range(num_processes)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=300)[0] for process in running]
    assert not any(process.returncode for process in running), "\n".join(outputs)
    return json.loads((folder / "found.json").read_text())


def assert_equal(one, other):
    """To the rounding of float32, which a step or two of training makes larger."""
    for name in ("loss", "params", "batch_stats", "line", "walk", "streamed"):
        np.testing.assert_allclose(
            one[name], other[name], rtol=2e-4, atol=1e-6, err_msg=name
        )
    assert abs(one["wrong"] - other["wrong"]) <= 1


@pytest.mark.slow
def test_two_processes_are_as_one(tmp_path):
    alone = together(tmp_path / "1x1", 1, 1)
    four = together(tmp_path / "1x4", 1, 4)
    two = together(tmp_path / "2x2", 2, 2)
    assert [found["devices"] for found in (alone, four, two)] == [1, 4, 4]
    assert alone["walk"] and len(alone["line"]) == 7
    assert_equal(alone, four)
    assert_equal(four, two)
    # What one layout saved, another goes on from.
    for layout, folder in (((1, 1), "2x2"), ((2, 2), "1x4"), ((2, 1), "1x1")):
        resumed = tmp_path / f"from-{folder}"
        shutil.copytree(tmp_path / folder / "checkpoints", resumed / "checkpoints")
        found = together(resumed, *layout)
        assert found["resumed"] == 6
        assert_equal({**alone, "walk": []}, found)


def launch(run_dir, *flags):
    return subprocess.Popen(
        [
            sys.executable, "-m", "experiments.launch", "--processes=2", "digits",
            "--model=mlp", "--epochs=6", "--checkpoint-every=5",
            f"--run-dir={run_dir}", *flags,
        ],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "XLA_FLAGS": ""},
    )  # fmt: skip


def wait_for_checkpoint(run_dir, step, process):
    deadline = time.monotonic() + 120
    while newest_checkpoint(run_dir) < step:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_sigterm_to_the_launcher_stops_both_after_the_same_update(tmp_path):
    run_dir = tmp_path / "run"
    process = launch(run_dir)
    wait_for_checkpoint(run_dir, 10, process)
    process.terminate()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, out
    assert "stopped by SIGTERM" in out
    process = launch(run_dir, "--resume")
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    undisturbed = launch(tmp_path / "undisturbed")
    out, _ = undisturbed.communicate(timeout=120)
    assert undisturbed.returncode == 0, out
    one, other = Records(run_dir), Records(tmp_path / "undisturbed")
    assert one.summary()["last"]["test_loss"] == other.summary()["last"]["test_loss"]
    assert [line["train_loss"] for line in one.metrics()] == [
        line["train_loss"] for line in other.metrics()
    ]


def test_who_is_first_alone():
    assert processes.is_first()
    np.testing.assert_array_equal(processes.share_of(np.arange(3)), np.arange(3))
    processes.wait_for_all("nobody")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_processes": 2}, "need coordinator"),
        ({"coordinator": "here:1"}, "needs num_processes and process_id"),
        (
            {"coordinator": "here", "num_processes": 2, "process_id": 0},
            "must be HOST:PORT",
        ),
        (
            {"coordinator": "here:99999", "num_processes": 2, "process_id": 0},
            "must be HOST:PORT",
        ),
        (
            {"coordinator": "here:1", "num_processes": 2, "process_id": 2},
            "process_id=2 must be",
        ),
    ],
)
def test_processes_that_cannot_be(given, message):
    with pytest.raises(InputError, match=message):
        processes.connect(**given)


def test_a_launch_of_nothing(capsys):
    from experiments import launch as launcher

    assert launcher.main(["--processes=0", "digits"]) == 2
    assert "processes=0 must be a whole number, from 1" in capsys.readouterr().err
    assert launcher.main([]) == 2
