"""Double precision holds nothing in single, and needs no processor to show it."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrscape import data, models
from lrscape.landscape import (
    flax_objective,
    ggnvp,
    hvp,
    in_double,
    mean_objective,
    text_objective,
)


@pytest.fixture(autouse=True)
def standard_promotion():
    """Flax's batch norm itself asks what float32 and float64 promote to."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def single_precision(jaxpr):
    """The operations of a program, and of those within it, that compute in float32.

    Zeros that Flax makes beside what it is given are no results of arithmetic.
    """
    found = []
    for equation in jaxpr.eqns:
        dtypes = [getattr(v.aval, "dtype", None) for v in equation.outvars]
        if np.float32 in dtypes and equation.primitive.name != "broadcast_in_dim":
            found.append(str(equation.primitive))
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    found += single_precision(inner)
    return found


class Net(nn.Module):
    """Every layer follows its inputs: no field says what it computes in."""

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dense(6)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return nn.Dense(3)(nn.tanh(x))


class Holder(nn.Module):
    """A module whose inner one says what it computes in."""

    inner: nn.Module

    def __call__(self, x, *, train):
        del train
        return self.inner(x)


def sample(n=11):
    random = np.random.default_rng(0)
    x = random.normal(size=(n, 5)).astype(np.float32)
    return x, random.integers(0, 3, n).astype(np.int32)


def variables_of(model, x):
    return model.init(jax.random.key(0), x, train=False)


@pytest.mark.parametrize("norm", ["train", "eval", "recalibrate", "interpolate"])
@pytest.mark.parametrize("how", ["in_double", "point alone"])
def test_no_norm_computes_in_single_precision(x64, norm, how):
    (x, y), model = sample(), Net()
    variables = variables_of(model, x)
    stats = variables["batch_stats"]
    if how == "point alone":
        x = x.astype(np.float64)
    objective = flax_objective(
        model, (x, y), norm=norm, batch_size=4, batch_stats=stats, l2=0.1,
        calibration=2 * x if norm == "recalibrate" else None,
    )  # fmt: skip
    point = in_double(variables if norm == "interpolate" else variables["params"])
    if how == "in_double":
        objective = in_double(objective)
    for probe in (
        lambda p: objective(p),
        jax.grad(objective),
        lambda p: hvp(objective, p, p),
        lambda p: ggnvp(objective, p, p),
    ):
        assert not single_precision(jax.make_jaxpr(probe)(point).jaxpr)
    if norm == "recalibrate":
        filled = objective.at(point)
        assert {leaf.dtype for leaf in jax.tree.leaves(filled.batch_stats)} == {
            np.dtype(np.float64)
        }


def test_running_averages_are_divided_by_in_double_precision(x64):
    """Against the closed form of an inference, far closer than float32 holds it."""

    class Norm(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            return nn.BatchNorm(use_running_average=not train, epsilon=1e-3)(x)

    x = np.array([[1.0, 2.0], [3.0, -4.0]])
    stats = {"mean": np.float32([0.1, 0.7]), "var": np.float32([0.3, 1.7])}
    objective = flax_objective(
        Norm(), (x, np.zeros((2, 2))), norm="eval", batch_size=2, loss="squared_error",
        batch_stats={"BatchNorm_0": stats},
    )  # fmt: skip
    point = {"BatchNorm_0": {"scale": jnp.ones(2), "bias": jnp.zeros(2)}}
    mean, var = (np.float64(stats[name]) for name in ("mean", "var"))
    exact = ((x - mean) ** 2 / (var + 1e-3)).sum() / 2
    np.testing.assert_allclose(objective(point), exact, rtol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_modules_within_modules_compute_in_double_precision(x64, dtype):
    model = Holder(nn.Dense(3, dtype=jnp.dtype(dtype)))
    x, y = sample()
    objective = in_double(flax_objective(model, (x, y), norm="eval", batch_size=4))
    point = in_double(variables_of(model, x)["params"])
    assert not single_precision(jax.make_jaxpr(lambda p: objective(p))(point).jaxpr)


def test_a_language_model_in_double_precision(x64):
    windows = data.token_windows(np.arange(41) % 5, steps=8)
    model = models.create("lstm", num_classes=5, features=4, layers=1)
    tokens = jnp.asarray(windows.inputs[:1])
    point = in_double(model.init(jax.random.key(0), tokens, train=False)["params"])
    objective = in_double(text_objective(model, windows, batch_size=2, l2=0.1))
    # Flax's LSTM broadcasts its biases.
    with jax.numpy_rank_promotion("allow"):
        program = jax.make_jaxpr(lambda p: objective(p))(point)
    assert not single_precision(program.jaxpr)


def test_captured_arrays_are_turned_too(x64):
    scale = jnp.asarray([0.1, 0.7, 3.0], jnp.float32)

    def inner(w):
        return (w / jnp.sqrt(scale))[None]

    def loss(shift, w, batch):
        return jnp.mean((batch - inner(w) - shift["by"][None]) ** 2)

    batch = np.zeros((4, 3), np.float32)
    shift = {"by": np.float32([1.0, 2.0, 3.0])}
    objective = in_double(
        mean_objective(functools.partial(loss, shift), batch, batch_size=2)
    )
    found = objective(jnp.ones(3))
    exact = np.mean((1 / np.sqrt(np.float64(scale)) + shift["by"]) ** 2)
    np.testing.assert_allclose(found, exact, rtol=1e-13)
    assert scale.dtype == np.float32

    def plain(w, batch):
        return jnp.mean(w * batch)

    assert in_double(mean_objective(plain, batch, batch_size=2)).loss_fn is plain
