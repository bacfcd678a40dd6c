"""The presets learn on real data, a part of their length. Run by .ci/run.

What they reach at full length is in experiments/results.
"""

import pytest

from experiments import cifar, mnist
from experiments.harness.train import main
from lrscape.records import Records

pytestmark = [pytest.mark.slow, pytest.mark.real_data]


def test_mnist_quick(mnist_dir, tmp_path):
    flags = ["--schedule=gaussian", f"--data-dir={mnist_dir}", "--num-devices=1"]
    flags += ["--epochs=1", "--examples=20000"]
    flags.append(f"--run-dir={tmp_path / 'run'}")
    assert main("mnist", mnist.__doc__, mnist.PRESETS, flags) == 0
    summary = Records(tmp_path / "run").summary()
    assert summary["last"]["test_error"] <= 0.04


def test_cifar_quick(cifar10_dir, tmp_path):
    flags = [
        "--schedule=gaussian",
        "--model=small",
        "--preset=quick",
        "--num-devices=1",
        "--epochs=2",
        "--examples=12800",
    ]
    flags += [f"--data-dir={cifar10_dir}", f"--run-dir={tmp_path / 'run'}"]
    assert main("cifar", cifar.__doc__, cifar.PRESETS, flags) == 0
    summary = Records(tmp_path / "run").summary()
    assert summary["last"]["test_error"] <= 0.65
