"""Objectives and sums over batches: exact, and for anybody's point."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lrscape import data, models
from lrscape.errors import InputError
from lrscape.landscape import (
    Objective,
    accumulate,
    evaluate,
    flax_objective,
    hvp,
    line,
    loss_gradient,
    mean_objective,
)
from lrscape.landscape.accumulate import batch_losses
from lrscape.landscape.loops import loops_slowly
from tests.points import Weights, linear_point, regression


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 99])
def test_a_ragged_last_batch_counts_by_what_it_holds(batch_size):
    objective, x, y = regression(10, batch_size)
    point = linear_point()
    exact = np.mean((x @ np.asarray(point["w"]) + np.asarray(point["b"]) - y) ** 2)
    np.testing.assert_allclose(objective(point), exact, rtol=1e-6)
    assert len(batch_losses(objective, point)) == objective.num_batches
    np.testing.assert_allclose(objective.weights.sum(), 1)
    sizes = [len(objective.batch(i)[1]) for i in range(objective.num_batches)]
    np.testing.assert_allclose(objective.weights, np.array(sizes) / 10)


def test_no_digits_are_lost_over_60_000_examples():
    # Added up in float32 as they come, these are wrong in the fourth digit.
    values = np.full(60_000, 0.1, np.float32)
    values[0] = 3e4
    objective = mean_objective(lambda w, x: jnp.mean(w * x), values, batch_size=1)
    exact = values.astype(np.float64).mean()
    naive = functools.reduce(lambda a, b: np.float32(a + b), values) / 60_000
    assert abs(naive - exact) > 1e-4 * exact
    one = jnp.float32(1)
    np.testing.assert_allclose(objective(one), exact, rtol=1.3e-7)
    np.testing.assert_allclose(loss_gradient(objective, one), exact, rtol=1.3e-7)


def test_a_dict_of_losses_takes_one_pass():
    calls = []

    def loss_fn(w, batch):
        calls.append(1)
        return {"loss": jnp.mean(w * batch), "largest": jnp.max(batch)}

    objective = mean_objective(loss_fn, jnp.arange(6.0), batch_size=3)
    found = objective(jnp.float32(2))
    assert {k: float(v) for k, v in found.items()} == {"loss": 5.0, "largest": 3.5}
    assert len(calls) == 1  # traced once: both come from one program


def test_a_bare_function_is_an_objective_of_one_batch():
    assert float(batch_losses(jnp.sum, jnp.ones(3))[0]) == 3.0
    np.testing.assert_allclose(loss_gradient(jnp.sum, jnp.ones(3)), 1)


class Foreign:
    """An object of a stranger's, that hands out its own batches."""

    num_batches = 3
    weights = np.array([0.5, 0.25, 0.25])

    def batch(self, i):
        if getattr(self, "broken", None) == i:
            raise OSError("no such file")
        return jnp.arange(4.0) + i

    def batch_loss(self, point, batch):
        return jnp.mean(point * batch)


def test_an_object_with_its_own_batches():
    objective = Foreign()
    np.testing.assert_allclose(batch_losses(objective, jnp.float32(2)), [3, 5, 7])
    np.testing.assert_allclose(loss_gradient(objective, jnp.float32(2)), 2.25)
    objective.broken = 1
    with pytest.raises(OSError, match="no such file") as caught:
        loss_gradient(objective, jnp.float32(2))
    assert "in batch 1 of 3" in caught.value.__notes__[0]


class MyObjective(Objective):
    """A subclass of a stranger's, with the defaults of the base."""

    num_batches = 2

    def batch(self, i):
        return jnp.float32(i)

    def batch_loss(self, point, batch):
        return jnp.sum(point) * batch


def test_a_subclass_needs_three_methods():
    assert float(MyObjective()(jnp.ones(2))) == 1.0
    assert MyObjective().settings == {
        "objective": "MyObjective", "matmul_precision": "float32",
    }  # fmt: skip


def test_under_jit_grad_and_vmap():
    objective, x, y = regression()
    point = linear_point()
    value = objective(point)
    np.testing.assert_allclose(jax.jit(lambda p: objective(p))(point), value, rtol=1e-6)
    residual = x @ np.asarray(point["w"]) + np.asarray(point["b"]) - y
    exact = 2 * residual @ x / 10
    np.testing.assert_allclose(jax.grad(objective)(point)["w"], exact, rtol=1e-5)
    np.testing.assert_allclose(loss_gradient(objective, point)["w"], exact, rtol=1e-5)
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), point)
    twice = jax.tree.map(lambda leaf: 2 * leaf, point)
    both = jax.vmap(lambda p: objective(p))(many)
    np.testing.assert_allclose(both, [value, objective(twice)], rtol=1e-6)


def batch_square(objective, point, batch, factor):
    return {"square": factor * jnp.mean(batch[0] ** 2, axis=0)}


@pytest.mark.parametrize("batch_size", [1, 3, 5, 10])
@pytest.mark.parametrize("how", ["loop", "calls", "devices", "traced"])
def test_accumulation_is_the_same_however_it_runs(how, batch_size):
    objective, x, _ = regression(10, batch_size)
    run = functools.partial(accumulate, batch_square, objective)
    options = {
        "loop": {"compiled": True},
        "calls": {"compiled": False},
        "devices": {"devices": jax.local_devices()},
        "traced": {},
    }[how]
    arguments = (linear_point(), jnp.float32(2))
    if how == "traced":
        found = jax.jit(lambda point, factor: run(point, factor))(*arguments)
    else:
        found = run(*arguments, **options)
    np.testing.assert_allclose(found["square"], 2 * (x**2).mean(axis=0), rtol=1e-6)


def weights_gradient(objective, point, batch):
    return jax.grad(objective.batch_loss)(point, batch)


def test_a_convolutions_weight_gradient_is_kept_out_of_loops_on_cpu():
    x = np.random.default_rng(0).normal(size=(8, 6, 6, 2)).astype(np.float32)
    conv = nn.Conv(3, (3, 3))
    params = conv.init(jax.random.key(0), x)["params"]

    def loss_fn(p, batch):
        return jnp.mean(conv.apply({"params": p}, batch) ** 2)

    objective = mean_objective(loss_fn, x, batch_size=2)
    assert loops_slowly(weights_gradient, objective, params, ())
    assert not loops_slowly(lambda o, p, b: o.batch_loss(p, b), objective, params, ())
    dense, _, _ = regression()
    assert not loops_slowly(weights_gradient, dense, linear_point(), ())
    chosen = loss_gradient(objective, params)
    looped = loss_gradient(objective, params, compiled=True)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-7),
        chosen,
        looped,
    )


@pytest.fixture(scope="module")
def digits():
    examples = data.load("digits").train
    return examples.image[:50].astype(np.float32) / 16, examples.label[:50]


@pytest.fixture(scope="module")
def network(digits):
    """An MLP with batch norm whose running averages are far from the sample's."""
    model = models.create("mlp", num_classes=10, features=(12,))
    variables = model.init(jax.random.key(0), digits[0][:1], train=False)
    stats = jax.tree.map(lambda leaf: leaf + 0.5, variables["batch_stats"])
    return model, variables["params"], stats


def cross_entropy(logits, labels):
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return -log_probabilities[np.arange(len(labels)), labels].mean()


def dense_parts(params, digits):
    hidden = digits[0].reshape(50, -1) @ np.asarray(params["Dense_0"]["kernel"])
    return hidden.astype(np.float64) + np.asarray(params["Dense_0"]["bias"])


def rest(params, hidden, mean, variance):
    norm = params["BatchNorm_0"]
    x = (hidden - mean) / np.sqrt(variance + 1e-5) * np.asarray(norm["scale"])
    x = np.maximum(x + np.asarray(norm["bias"]), 0)
    return x @ np.asarray(params["Dense_1"]["kernel"]) + np.asarray(
        params["Dense_1"]["bias"]
    )


def test_batch_norm_policies_by_hand(digits, network):
    model, params, stats = network
    labels, hidden = digits[1], dense_parts(params, digits)
    parts = [slice(0, 20), slice(20, 40), slice(40, 50)]
    means = [hidden[part].mean(axis=0) for part in parts]
    variances = [hidden[part].var(axis=0) for part in parts]
    shares = np.array([0.4, 0.4, 0.2])
    running = stats["BatchNorm_0"]

    expected = {
        "train": sum(
            share * cross_entropy(rest(params, hidden[part], m, v), labels[part])
            for part, m, v, share in zip(parts, means, variances, shares, strict=True)
        ),
        "eval": cross_entropy(
            rest(params, hidden, *(np.asarray(running[k]) for k in ("mean", "var"))),
            labels,
        ),
        "recalibrate": cross_entropy(
            rest(params, hidden, shares @ means, shares @ variances), labels
        ),
    }  # fmt: skip
    for norm, loss in expected.items():
        objective = flax_objective(
            model, digits, norm=norm, batch_size=20, batch_stats=stats
        )
        np.testing.assert_allclose(objective(params), loss, rtol=1e-5, err_msg=norm)
        assert objective.settings["norm"] == norm
        # A single batch gives what the whole does of it.
        one = objective.batch_loss(params, objective.batch(2))
        np.testing.assert_allclose(one, batch_losses(objective, params)[2], rtol=1e-6)
    assert len(set(np.round(list(expected.values()), 4))) == 3
    both = {"params": params, "batch_stats": stats}
    objective = flax_objective(model, digits, norm="interpolate", batch_size=20)
    np.testing.assert_allclose(objective(both), expected["eval"], rtol=1e-5)


def test_l2_error_and_outputs(digits, network):
    model, params, stats = network
    make = functools.partial(
        flax_objective, model, digits, norm="eval", batch_size=20, batch_stats=stats
    )
    plain = make()(params)
    kernels = [np.asarray(params[name]["kernel"]) for name in ("Dense_0", "Dense_1")]
    penalty = 0.05 * sum((kernel**2).sum() for kernel in kernels)
    objective = make(l2=0.1, error=True)
    found = objective(params)
    np.testing.assert_allclose(found["loss"], plain + penalty, rtol=1e-5)
    assert objective.settings["l2"] == 0.1
    variables = {"params": params, "batch_stats": stats}
    logits = model.apply(variables, digits[0], train=False)
    error = np.mean(np.argmax(logits, axis=1) != digits[1])
    np.testing.assert_allclose(found["error"], error, rtol=1e-6)
    batch = objective.batch(0)
    outputs = objective.outputs(params, batch)
    np.testing.assert_allclose(outputs, logits[:20], atol=1e-5)
    np.testing.assert_allclose(
        objective.output_loss(outputs, batch),
        batch_losses(make(), params)[0],
        rtol=1e-6,
    )


def test_the_compiled_probe_serves_another_sample(digits, network):
    """Objectives of equal shapes share one program."""
    model, params, stats = network
    make = functools.partial(
        flax_objective, model, norm="eval", batch_size=25, batch_stats=stats
    )
    make(digits)(params)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(event) if "backend_compile" in event
        else None
    )  # fmt: skip
    try:
        other = make((digits[0] + 1, digits[1]))
        compiled.clear()
        value = other(params)
    finally:
        jax.monitoring.clear_event_listeners()
    assert not compiled
    assert value != make(digits)(params)


class WithDropout(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dropout(0.5, deterministic=not train)(x.reshape(len(x), -1))
        return nn.Dense(10)(x)


def test_dropout_is_off(digits):
    model = WithDropout()
    params = model.init(jax.random.key(0), digits[0][:1], train=False)["params"]
    losses = [
        float(flax_objective(model, digits, norm=norm, batch_size=50)(params))
        for norm in ("train", "eval", "recalibrate")
    ]
    assert losses[0] == losses[1] == losses[2]


@jax.numpy_rank_promotion("allow")  # a stranger's code relies on it
def test_any_tree_is_a_point():
    """The same numbers for Linen, NNX, a dict and a registered dataclass."""
    random = np.random.default_rng(0)
    x = random.normal(size=(6, 3)).astype(np.float32)
    y = random.normal(size=(6, 2)).astype(np.float32)
    kernel, bias = jnp.asarray(random.normal(size=(3, 2)), jnp.float32), jnp.ones(2)

    def square(outputs, batch):
        return jnp.mean((outputs - batch["y"]) ** 2)

    linen = nn.Dense(2)
    layer = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    layer.kernel[...], layer.bias[...] = kernel, bias
    graph, state = nnx.split(layer, nnx.Param)
    cases = {
        "dict": (
            lambda p, b: square(b["x"] @ p["kernel"] + p["bias"], b),
            {"kernel": kernel, "bias": bias},
        ),
        "linen": (
            lambda p, b: square(linen.apply({"params": p}, b["x"]), b),
            {"kernel": kernel, "bias": bias},
        ),
        "nnx": (lambda p, b: square(nnx.merge(graph, p)(b["x"]), b), state),
        "dataclass": (
            lambda p, b: square(b["x"] @ p.kernel + p.bias, b),
            Weights(kernel, bias),
        ),
    }
    exact = np.mean((x @ np.asarray(kernel) + 1 - y) ** 2)
    for name, (loss_fn, point) in cases.items():
        objective = mean_objective(loss_fn, {"x": x, "y": y}, batch_size=4)
        np.testing.assert_allclose(objective(point), exact, rtol=1e-6, err_msg=name)
        far = jax.tree.map(lambda leaf: leaf + 1, point)
        midway = evaluate(objective, line(point, far), [0.5])
        residual = x @ np.asarray(kernel + 0.5) + 1.5 - y
        np.testing.assert_allclose(midway, [np.mean(residual**2)], rtol=1e-5)
        slope = loss_gradient(objective, point)
        assert jax.tree.structure(slope) == jax.tree.structure(point)


def test_double_precision(x64):
    values = np.random.default_rng(0).normal(size=1000)
    objective = mean_objective(lambda w, x: jnp.mean(w * x), values, batch_size=7)
    assert objective(jnp.float64(1)).dtype == jnp.float64
    np.testing.assert_allclose(objective(jnp.float64(1)), values.mean(), rtol=1e-13)


BAD = {
    "empty": (lambda: mean_objective(jnp.sum, np.zeros((0, 3)), batch_size=2), "empty"),
    "lengths": (
        lambda: mean_objective(jnp.sum, (np.zeros(3), np.zeros(4)), batch_size=2),
        "leading axis",
    ),
    "nothing": (lambda: mean_objective(jnp.sum, {}, batch_size=2), "no arrays"),
    "size": (
        lambda: mean_objective(jnp.sum, np.zeros(3), batch_size=0),
        "batch_size=0",
    ),
    "fraction": (lambda: mean_objective(jnp.sum, np.zeros(3), batch_size=1.5), "1.5"),
    "no function": (lambda: loss_gradient(3, jnp.ones(2)), "objective=3"),
    "a vector": (lambda: batch_losses(lambda w: w, jnp.ones(2)), r"shape \(2,\)"),
    "no loss": (lambda: batch_losses(lambda w: {"cost": w}, jnp.float32(1)), "'loss'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(InputError, match=message):
        call()


def test_bad_input_of_flax_objectives(digits, network):
    model = network[0]
    make = functools.partial(flax_objective, model, digits, batch_size=20)
    cases = [
        (lambda: make(norm="evaluate"), "did you mean 'eval'"),
        (lambda: make(norm="eval"), "batch_stats"),
        (lambda: make(norm="eval", batch_stats={"a": jnp.ones(3)}), "first leaf"),
        (lambda: make(norm="train", loss="mse"), "loss='mse' is unknown"),
        (lambda: make(norm="train", l2=-1.0), "l2=-1.0"),
        (
            lambda: flax_objective(model, digits[0], norm="train", batch_size=5),
            r"pass \(inputs, labels\)",
        ),
        (
            lambda: flax_objective(
                model, (digits[0].astype(np.uint8), digits[1]), norm="train",
                batch_size=5,
            ),
            "uint8",
        ),
    ]  # fmt: skip
    for call, message in cases:
        with pytest.raises(InputError, match=message):
            call()
    assert dataclasses.is_dataclass(make(norm="train"))


def test_a_sample_is_fixed_whatever_becomes_of_the_callers_array():
    values = np.ones(100_000, np.float32)
    objective = mean_objective(lambda w, x: jnp.mean(w * x), values, batch_size=100_000)
    values[:] = 7
    assert objective(jnp.float32(1)) == 1


class Regression(nn.Module):
    outputs: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.outputs)(x)


def test_squared_errors_do_not_broadcast():
    random = np.random.default_rng(0)
    x, y = (
        random.normal(size=(8, 3)).astype(np.float32),
        np.arange(8.0, dtype=np.float32),
    )
    options = {"norm": "eval", "batch_size": 8, "loss": "squared_error"}
    one = Regression(1)
    params = one.init(jax.random.key(0), x)["params"]
    outputs = np.asarray(one.apply({"params": params}, x))
    exact = np.mean((outputs[:, 0] - y) ** 2)
    for labels in (y, y[:, None]):
        found = flax_objective(one, (x, labels), **options)(params)
        np.testing.assert_allclose(found, exact, rtol=1e-6)
    with pytest.raises(InputError, match=r"needs \(n, 8\)"):
        flax_objective(Regression(8), (x, y), **options)
    with pytest.raises(InputError, match="whole numbers"):
        flax_objective(one, (x, y), norm="eval", batch_size=8)


def test_labels_of_what_is_no_number_are_no_labels(digits, network):
    model, params, stats = network
    objective = flax_objective(
        model, digits, norm="eval", batch_size=50, batch_stats=stats, error=True
    )
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, params)
    assert np.isnan(objective(broken)["error"])


@pytest.mark.float16
def test_half_precision_sums_do_not_overflow():
    data = np.full(3001, 2.5, np.float16)
    objective = mean_objective(lambda w, x: jnp.mean(w * x), data, batch_size=1000)
    np.testing.assert_allclose(objective(jnp.float16(1)), 2.5, rtol=1e-3)


def test_counts_beside_a_loss_are_means():
    def loss_fn(w, batch):
        right = batch > w
        return {
            "loss": jnp.mean((w - batch) ** 2),
            "correct": jnp.sum(right),
            "any": jnp.any(right),
        }

    objective = mean_objective(loss_fn, jnp.arange(5.0), batch_size=2)
    w = jnp.float32(2.0)
    for found in (objective(w), jax.jit(objective)(w)):
        assert {name: float(value) for name, value in found.items()} == pytest.approx(
            {"loss": 2.0, "correct": 0.6, "any": 0.6}
        )
    surface = evaluate(objective, line(w, w + 1), [0.0, 1.0])
    np.testing.assert_allclose(surface["correct"], [0.6, 0.2], rtol=1e-6)
    assert float(loss_gradient(objective, w + 1)) == pytest.approx(2.0)
    assert float(hvp(objective, w, w)) == pytest.approx(4.0)


def test_a_loss_that_is_counted_has_no_gradient():
    with pytest.raises(InputError, match="int32"):
        loss_gradient(lambda w: jnp.sum(w > 0), jnp.ones(3))


@pytest.mark.parametrize("at", [linear_point, dict])
def test_a_point_of_another_model(at):
    model = models.create("mlp", num_classes=10, features=(4,))
    inputs = jnp.zeros((6, 8))
    objective = flax_objective(
        model, (inputs, np.arange(6)), norm="train", batch_size=3
    )
    for ask in (objective, lambda point: loss_gradient(objective, point)):
        with pytest.raises(InputError, match=r"^point"):
            ask(at())
