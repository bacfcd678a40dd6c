"""The arithmetic of the benchmarks, on times that are given. Nothing is timed here."""

import numpy as np
import optax
import pytest

from experiments.bench import training as bench
from experiments.bench.pairs import REFERENCE_AGAIN, interleaved, ratios, show
from lrscape import models


def test_functions_take_turns_and_start_in_turn():
    called = []
    functions = {"a": lambda: called.append("a"), "b": lambda: called.append("b")}
    times = interleaved(functions, repeats=6, warm_up=1)
    assert set(times) == {"a", "b", REFERENCE_AGAIN}
    assert all(len(seconds) == 6 for seconds in times.values())
    # Seven rounds of a, b and the reference again; each third starts with another.
    assert called.count("a") == 14 and called.count("b") == 7
    assert {tuple(called[3 * n : 3 * n + 3]) for n in range(7)} == {
        ("a", "b", "a"), ("b", "a", "a"), ("a", "a", "b"),
    }  # fmt: skip


def test_ratios_are_medians_over_pairs(capsys):
    machine = np.linspace(1, 3, 31)  # a machine that slows down
    times = {"a": machine, "b": 2 * machine, REFERENCE_AGAIN: machine}
    times["b"] = times["b"].copy()
    times["b"][:5] *= 50  # and hiccups
    table = ratios(times)
    assert table["a"] == {"seconds": 2.0, "ratio": 1.0, "low": 1.0, "high": 1.0}
    assert table["b"]["ratio"] == 2.0
    assert table["b"]["low"] <= 2.0 <= table["b"]["high"]
    show("title", table, unit=100)
    out = capsys.readouterr().out
    assert "ratio 2.000" in out and "50 images/s" in out


def test_bare_step_and_loop_do_the_same_work():
    """Both update the same network; the torch twin has as many parameters."""
    dataset = bench.random_images(64)
    model = models.create("resnet20", num_classes=10)
    loop, first = bench.loop_step(
        model, bench.make_tx(), dataset, 16, calls=3, stride=1
    )
    assert first > 0
    assert int(loop().step) == 2
    assert isinstance(bench.make_tx(), optax.GradientTransformation)
    torch_resnet = pytest.importorskip(
        "experiments.bench.torch_resnet", reason="PyTorch is not installed",
        exc_type=ImportError,
    )  # fmt: skip
    twin = torch_resnet.TorchResNet()
    assert sum(parameter.numel() for parameter in twin.parameters()) == 269_722
