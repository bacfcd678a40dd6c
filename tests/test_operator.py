"""One operator: kept linearisations, products of trees, several results at a point."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrscape import models
from lrscape.errors import InputError
from lrscape.landscape import (
    Operator,
    flax_objective,
    frobenius_norm,
    hvp,
    in_double,
    mean_objective,
    spectral_density,
    spectral_norm,
    top_eigenpairs,
    trace,
)
from lrscape.landscape.operator import NonFiniteProductError

KEY = jax.random.key(0)


def bare():
    return lambda w: jnp.sum(jnp.cos(w) ** 3) + w[0] * w[1], jnp.linspace(0.0, 1.0, 6)


def mean():
    x = jax.random.normal(KEY, (50, 6))
    y = jnp.sin(jnp.arange(50.0))

    def loss_fn(w, batch):
        return jnp.mean((jnp.tanh(batch["x"] @ w) - batch["y"]) ** 2)

    return mean_objective(loss_fn, {"x": x, "y": y}, batch_size=7), jnp.ones(6)


def linen():
    model = models.create("cnn", num_classes=3, features=(2,), width=4)
    x = np.asarray(jax.random.normal(KEY, (11, 4, 4, 1)))
    y = np.arange(11) % 3
    with jax.numpy_dtype_promotion("standard"):
        params = model.init(KEY, x, train=False)["params"]
    return flax_objective(model, (x, y), norm="train", batch_size=4, l2=1e-2), params


CASES = {"bare": bare, "mean": mean, "linen": linen}


@pytest.fixture(autouse=True)
def standard_promotion():
    with jax.numpy_dtype_promotion("standard"):
        yield


def flatten(tree):
    return jax.tree_util.tree_flatten_with_path(tree)[0]


def products(objective, point, seed):
    apart = Operator(objective, point, reuse=False)
    kept = Operator(objective, point, reuse=True)
    vector = jax.random.normal(jax.random.key(seed), (apart.size,), apart.dtype)
    return np.asarray(apart(vector)), np.asarray(kept(vector)), vector


@pytest.mark.parametrize("case", CASES)
def test_kept_linearisations_change_a_product_by_rounding_alone(case):
    objective, point = CASES[case]()
    for seed in range(3):
        apart, kept, _ = products(objective, point, seed)
        eps = float(np.finfo(np.float32).eps)
        np.testing.assert_allclose(kept, apart, atol=4 * eps * np.linalg.norm(apart))


@pytest.mark.parametrize("case", CASES)
def test_kept_linearisations_in_double_precision(x64, case):
    objective, point = CASES[case]()
    if case != "bare":
        objective = in_double(objective)
    point = in_double(point)
    apart, kept, vector = products(objective, point, 0)
    assert apart.dtype == np.float64
    np.testing.assert_allclose(kept, apart, atol=1e-12 * np.linalg.norm(apart))
    operator = Operator(objective, point)
    tree = operator.to_tree(vector)
    expected = operator.to_vector(hvp(objective, point, tree))
    np.testing.assert_allclose(apart, expected, atol=1e-12 * np.linalg.norm(apart))


def test_a_product_with_a_tree_is_a_tree():
    objective, params = linen()
    vector = jax.tree.map(jnp.ones_like, params)
    found = Operator(objective, params) @ vector
    for one, other in zip(
        jax.tree.leaves(found),
        jax.tree.leaves(hvp(objective, params, vector)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    # Of a block: zero elsewhere, whatever the vector is there.
    is_bias = {"mask": lambda path: path.endswith("bias")}
    block = Operator(objective, params, **is_bias) @ vector
    moved = {path for path, leaf in flatten(block) if np.any(leaf)}
    assert moved == {path for path, _ in flatten(params) if path[-1].key == "bias"}
    with pytest.raises(InputError, match="structure"):
        Operator(objective, params) @ jnp.ones(3)


@pytest.mark.parametrize("reuse", [False, True, None])
def test_one_operator_gives_what_the_functions_give(reuse):
    objective, point = mean()
    operator = Operator(objective, point, reuse=reuse)
    options = {"key": KEY, "num_samples": 2}
    norm = operator.spectral_norm(key=KEY)
    pairs = operator.top_eigenpairs(2, key=KEY)
    assert operator.count == norm.products + pairs.products
    same = spectral_norm(objective, point, key=KEY, reuse=reuse)
    assert float(norm) == float(same) and norm.products == same.products
    found = top_eigenpairs(objective, point, 2, key=KEY, reuse=reuse)
    np.testing.assert_array_equal(pairs.eigenvalues, found.eigenvalues)
    assert pairs.products == found.products and pairs.converged == found.converged
    assert operator.trace(**options) == trace(objective, point, **options, reuse=reuse)
    assert operator.frobenius_norm(**options) == frobenius_norm(
        objective, point, **options, reuse=reuse
    )
    density = operator.spectral_density(num_matvecs=3, **options)
    other = spectral_density(objective, point, num_matvecs=3, **options, reuse=reuse)
    np.testing.assert_array_equal(density.density, other.density)


def test_a_point_is_linearised_once():
    traced = []

    def loss(w):
        traced.append(None)
        return jnp.sum(w**4)

    operator = Operator(loss, jnp.arange(1.0, 5.0), reuse=True)
    operator.spectral_norm(key=KEY)
    count = len(traced)
    operator.top_eigenpairs(2, key=KEY)
    operator.trace(key=KEY, num_samples=3)
    assert len(traced) == count


def test_an_operator_within_a_compiled_function():
    """What is kept does not belong to the trace that it was made in."""
    operator = Operator(lambda w: jnp.sum(w**3), jnp.ones(3), reuse=True)
    compiled = jax.jit(operator)
    np.testing.assert_allclose(compiled(jnp.ones(3)), 6.0)
    np.testing.assert_allclose(operator(jnp.ones(3)), 6.0)
    made_inside = jax.jit(
        lambda w: Operator(lambda p: jnp.sum(p**3), w, reuse=True)(jnp.ones(3))
    )
    np.testing.assert_allclose(made_inside(2 * jnp.ones(3)), 12.0)


def test_the_batch_that_is_not_finite_is_named_with_kept_linearisations():
    data = jnp.array([1.0, 2.0, -1.0, 3.0])
    objective = mean_objective(
        lambda w, x: jnp.mean(jnp.sqrt(x) * w**2), data, batch_size=1
    )
    for reuse in (False, True):
        with pytest.raises(NonFiniteProductError, match="first in batch 2 of 4"):
            Operator(objective, jnp.float32(1), reuse=reuse)(jnp.ones(1))
