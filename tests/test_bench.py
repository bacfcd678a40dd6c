"""The arithmetic of the benchmarks, on times that are given. Nothing is timed here."""

import jax
import numpy as np
import optax
import pytest

from experiments.bench import convolution, curvature, lipschitz
from experiments.bench import training as bench
from experiments.bench.pairs import REFERENCE_AGAIN, interleaved, ratios, show
from lrscape import models, training
from lrscape.landscape.eigenpairs import Eigenpairs


def test_functions_take_turns_in_a_new_order_every_round():
    called = []
    functions = {"a": lambda: called.append("a"), "b": lambda: called.append("b")}
    times = interleaved(functions, repeats=20, warm_up=1)
    assert set(times) == {"a", "b", REFERENCE_AGAIN}
    assert all(len(seconds) == 20 for seconds in times.values())
    # 21 rounds of a, b and the reference again.
    rounds = [tuple(called[3 * n : 3 * n + 3]) for n in range(21)]
    assert all(sorted(turn) == ["a", "a", "b"] for turn in rounds)
    assert set(rounds) == {("a", "a", "b"), ("a", "b", "a"), ("b", "a", "a")}


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


@pytest.mark.slow
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


@pytest.fixture
def tiny_case(monkeypatch):
    """A case of the curvature benchmark, two batches of eight, and its peers."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    fields = {"features": (8, 8), "batch_norm": False}
    monkeypatch.setitem(curvature.CASES, "mlp", (fields, (4, 4, 1), 8, 2, 6, 1))
    case = curvature.Case("mlp")
    peers = case.peers()
    if not peers:
        pytest.skip("none of PyTorch's packages is installed")
    return case, peers


def test_what_the_lipschitz_rate_is_compared_with():
    """Both optimizers make the same updates: the rate for nothing is capped."""
    dataset = bench.random_images(32)
    model = models.create("mlp", num_classes=10, features=(8,))
    config = training.Config(epochs=1, batch_size=16, num_devices=1)
    constant, free = (
        list(training.fit(model, dataset, tx, config))[-1]
        for tx in lipschitz.optimizers(16).values()
    )
    assert float(optax.tree.get(free.opt_state, "lipschitz_constant")) < 100
    jax.tree.map(np.testing.assert_array_equal, constant.params, free.params)


@pytest.mark.filterwarnings("ignore")  # PyTorch's own packages warn
def test_peers_have_the_same_hessian(tiny_case):
    """A direction goes over to PyTorch, and products come back, entry by entry."""
    case, peers = tiny_case
    operator = case.operator(reuse=False)
    image = operator.to_tree(operator(operator.to_vector(case.direction)))
    ours = case.as_parameters(image)
    for name, peer in peers.items():
        theirs = peer.product(case.as_parameters(case.direction))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(
                b.detach().cpu(), a.cpu(), rtol=1e-4, atol=1e-5, err_msg=name
            )


@pytest.mark.filterwarnings("ignore")
def test_peers_make_as_many_products_as_they_are_asked_for(tiny_case):
    """Else tasks of the same name would not be the same work."""
    for name, peer in tiny_case[1].items():
        assert peer.products(lambda peer=peer: peer.trace(7)) == 7, name
        if peer.density:
            density = peer.density
            made = peer.products(lambda density=density: density(6, 2, (-1.0, 2.0)))
            assert made == 12, name


@pytest.mark.filterwarnings("ignore")
def test_errors_of_eigenvalues_are_those_of_the_kind_that_was_found(tiny_case):
    case, _ = tiny_case
    case.exact = Eigenpairs(np.array([5.0, 3.0, 2.0]), None, None)
    case.by_magnitude = np.array([5.0, -4.0, 3.0])
    assert case.errors(np.array([5.0, 2.0, 3.0])).max() == 0  # in any order
    assert case.errors(np.array([5.0, -4.0, 3.3])).max() == pytest.approx(0.1)


@pytest.mark.slow
def test_the_same_gradients_are_compared(monkeypatch):
    monkeypatch.setitem(convolution.BATCHES, "small", (20, (16, 16, 3)))
    (whole, _), (sliced, _) = (
        convolution.compiled_gradient("small", slices=slices)
        for slices in (False, True)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        whole(), sliced(),
    )  # fmt: skip
