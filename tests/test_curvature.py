"""Curvature against dense matrices in double precision."""

import functools

import flax.linen as nn
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
    ggnvp,
    hvp,
    mean_objective,
    spectral_density,
    spectral_norm,
    top_eigenpairs,
    trace,
)
from lrscape.landscape.curvature import layer_shares, subspace_overlap
from lrscape.landscape.lanczos import tridiagonalize
from lrscape.landscape.masks import batch_norm_only, layer_only
from lrscape.landscape.operator import NonFiniteProductError
from lrscape.landscape.products import residual_product, second_moment_product
from tests.points import regression


@pytest.fixture(autouse=True)
def standard_promotion():
    """Linen's batch norm keeps float32 averages beside float64 inputs."""
    with jax.numpy_dtype_promotion("standard"):
        yield


SLOW = pytest.mark.slow
SIZES = {"batch_size": 7}  # 20 examples: 7, 7 and 6


class Net(nn.Module):
    """A few hundred parameters in double precision, with a convolution and BN."""

    @nn.compact
    def __call__(self, x, *, train):
        double = {"dtype": jnp.float64, "param_dtype": jnp.float64}
        x = nn.Conv(3, (3, 3), strides=(2, 2), **double)(x)
        x = nn.BatchNorm(use_running_average=not train, **double)(x)
        x = nn.tanh(x).reshape(len(x), -1)
        return nn.Dense(4, **double)(x)


class Dense(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        double = {"dtype": jnp.float64, "param_dtype": jnp.float64}
        x = nn.Dense(9, **double)(x.reshape(len(x), -1))
        x = nn.BatchNorm(use_running_average=not train, **double)(x)
        return nn.Dense(4, **double)(nn.softplus(x))


@functools.cache
def network(name):
    with jax.enable_x64(True):
        model = {"conv": Net, "dense": Dense}[name]()
        random = np.random.default_rng(0)
        x = random.normal(size=(20, 5, 5, 2))
        variables = model.init(jax.random.key(0), x, train=False)
        # Scales and biases away from 1 and 0, so that nothing is special.
        params = jax.tree.map(
            lambda leaf: leaf + 0.1 * random.normal(size=leaf.shape),
            variables["params"],
        )
        return model, params, variables["batch_stats"], x, random.integers(0, 4, 20)


def objective_of(name="dense", norm="train", loss="cross_entropy", l2=0.0):
    model, params, stats, x, labels = network(name)
    if loss == "squared_error":
        labels = np.eye(4)[labels]
    objective = flax_objective(
        model, (x, labels), norm=norm, batch_stats=stats, loss=loss, l2=l2, **SIZES
    )
    return objective, params


def dense_hessian(objective, params):
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    return np.asarray(jax.jit(jax.hessian(lambda w: objective(unravel(w))))(flat))


def flat(tree):
    return np.asarray(jax.flatten_util.ravel_pytree(tree)[0])


@functools.cache
def dense_case(name, norm, loss, l2):
    with jax.enable_x64(True):
        objective, params = objective_of(name, norm, loss, l2)
        return objective, params, dense_hessian(objective, params)


def direction_like(params, seed=1):
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(random.normal(size=leaf.shape)), params
    )


CASES = [
    ("dense", "train", "cross_entropy", 0.0),
    ("dense", "eval", "squared_error", 0.3),
    ("conv", "train", "cross_entropy", 0.1),
    ("conv", "train", "squared_error", 0.0),
]


@pytest.mark.parametrize("case", CASES)
def test_products_with_the_hessian(x64, case):
    objective, params, H = dense_case(*case)
    v = direction_like(params)
    expected = H @ flat(v)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        flat(hvp(objective, params, v)), expected, atol=1e-9 * scale
    )
    for reuse in (False, True):
        operator = Operator(objective, params, reuse=reuse)
        found = operator(operator.to_vector(v))
        np.testing.assert_allclose(found, expected, atol=1e-9 * scale)
    assert operator.size == len(H) and operator.count == 1


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
@pytest.mark.parametrize("norm", ["train", "eval"])
def test_the_gauss_newton_matrix(x64, norm, loss):
    objective, params = objective_of("dense", norm, loss, l2=0.2)
    vector, unravel = jax.flatten_util.ravel_pytree(params)
    G = np.zeros((len(vector), len(vector)))

    @jax.jit
    def share(w, batch):
        J = jax.jacobian(lambda u: objective.outputs(unravel(u), batch).ravel())(w)
        outputs = objective.outputs(unravel(w), batch)
        inner = jax.hessian(
            lambda o: objective.output_loss(o.reshape(outputs.shape), batch)
        )(outputs.ravel())
        return J.T @ inner @ J

    for i, weight in enumerate(objective.weights):
        G += weight * np.asarray(share(vector, objective.batch(i)))
    G += np.asarray(jax.hessian(lambda w: objective.penalty(unravel(w)))(vector))
    v = direction_like(params)
    expected = G @ flat(v)
    np.testing.assert_allclose(
        flat(ggnvp(objective, params, v)), expected, atol=1e-9 * np.abs(expected).max()
    )


@pytest.mark.parametrize("norm", ["train", "eval"])
def test_second_moments_and_equation_3(x64, norm):
    objective, params = objective_of("dense", norm)
    vector, unravel = jax.flatten_util.ravel_pytree(params)
    slopes = jax.jit(
        lambda w, b: jax.jacobian(
            lambda u: objective.example_losses(unravel(u), b)
        )(w)
    )  # fmt: skip
    gradients = [
        slopes(vector, objective.batch(i)) for i in range(objective.num_batches)
    ]
    g = np.concatenate(gradients)
    v = direction_like(params)
    uncentred = g.T @ (g @ flat(v)) / 20
    centred = (g - g.mean(axis=0)).T @ ((g - g.mean(axis=0)) @ flat(v)) / 20
    atol = 1e-9 * np.abs(uncentred).max()
    moment = functools.partial(second_moment_product, objective, params, v)
    np.testing.assert_allclose(flat(moment()), uncentred, atol=atol)
    np.testing.assert_allclose(flat(moment(centered=True)), centred, atol=atol)
    # The Hessian is the sum of the two, each computed by itself.
    total = flat(moment()) + flat(residual_product(objective, params, v))
    np.testing.assert_allclose(total, flat(hvp(objective, params, v)), atol=atol)


def test_per_example_gradients_of_any_loss(x64):
    objective, x, y = regression(11, 4)
    point = {"w": jnp.array([0.5, -1.0, 2.0]), "b": jnp.array(0.3)}
    residual = x @ np.array([0.5, -1.0, 2.0]) + 0.3 - y
    g = 2 * residual[:, None] * np.concatenate([np.ones((11, 1)), x], axis=1)
    v = {"w": jnp.array([1.0, 2.0, 3.0]), "b": jnp.array(-1.0)}
    found = second_moment_product(objective, point, v)
    expected = g.T @ (g @ np.array([-1.0, 1.0, 2.0, 3.0])) / 11
    np.testing.assert_allclose(flat(found), expected, rtol=1e-6)


@pytest.mark.parametrize("mask", [batch_norm_only, layer_only("Dense_1")])
def test_blocks(x64, mask):
    objective, params, H = dense_case(*CASES[0])
    entries = np.concatenate([
        np.full(leaf.size, mask(path), bool)
        for path, leaf in zip(
            ["BatchNorm_0/bias", "BatchNorm_0/scale", "Dense_0/bias", "Dense_0/kernel",
             "Dense_1/bias", "Dense_1/kernel"], jax.tree.leaves(params), strict=True,
        )
    ])  # fmt: skip
    block = H[np.ix_(entries, entries)]
    v = direction_like(params)
    found = flat(hvp(objective, params, v, mask=mask))
    np.testing.assert_allclose(found[entries], block @ flat(v)[entries], atol=1e-9)
    np.testing.assert_array_equal(found[~entries], 0)
    values, vectors, _ = top_eigenpairs(
        objective, params, 3, key=jax.random.key(0), mask=mask
    )
    np.testing.assert_allclose(values, np.linalg.eigvalsh(block)[::-1][:3], rtol=1e-7)
    rows = [flat(jax.tree.map(lambda leaf, i=i: leaf[i], vectors)) for i in range(3)]
    np.testing.assert_array_equal(np.array(rows)[:, ~entries], 0)


@pytest.mark.parametrize("which", ["largest", "smallest"])
@pytest.mark.parametrize("case", [CASES[0], pytest.param(CASES[2], marks=SLOW)])
def test_eigenpairs(x64, case, which):
    objective, params, H = dense_case(*case)
    values, vectors = np.linalg.eigh(H)
    order = np.argsort(values)[::-1][:5] if which == "largest" else np.arange(5)
    found = top_eigenpairs(objective, params, 5, key=jax.random.key(0), which=which)
    scale = np.abs(values).max()
    np.testing.assert_allclose(found.eigenvalues, values[order], atol=1e-7 * scale)
    assert (found.residuals <= 1e-7 * scale).all()
    for i, j in enumerate(order):
        v = flat(jax.tree.map(lambda leaf, i=i: leaf[i], found.eigenvectors))
        np.testing.assert_allclose(abs(v @ vectors[:, j]), 1, atol=1e-7)
        residual = np.linalg.norm(H @ v - found.eigenvalues[i] * v)
        np.testing.assert_allclose(found.residuals[i], residual, atol=1e-9 * scale)


def test_the_spectral_norm_and_its_sign(x64):
    A = jnp.diag(jnp.array([3.0, -7.0, 2.0, 1.0]))

    def loss(w):
        return w @ A @ w / 2

    found = spectral_norm(loss, jnp.ones(4), key=jax.random.key(0), tolerance=1e-10)
    np.testing.assert_allclose([float(found), found.eigenvalue], [7, -7], rtol=1e-8)
    np.testing.assert_allclose(found, 7, rtol=1e-8)
    assert found.converged and 3 < found.products < 100
    warm = spectral_norm(loss, jnp.ones(4), start=found.eigenvector, tolerance=1e-10)
    assert warm.products < found.products / 3 and warm.converged
    few = spectral_norm(loss, jnp.ones(4), key=jax.random.key(0), max_products=2)
    assert few.products == 2 and not few.converged and few.residual > 0.01
    objective, params, H = dense_case(*CASES[0])
    found = spectral_norm(objective, params, key=jax.random.key(1), tolerance=1e-7)
    np.testing.assert_allclose(found, np.abs(np.linalg.eigvalsh(H)).max(), rtol=1e-3)
    zero = spectral_norm(lambda w: jnp.sum(w), jnp.ones(4), key=jax.random.key(0))
    assert float(zero) == 0 and zero.converged


def test_the_smaller_end_is_found_beside_a_huge_other_one():
    values = jnp.concatenate([jnp.array([-1000.0]), jnp.linspace(-1.0, 30.0, 200)])

    def bowl(w):
        return jnp.sum(values * w**2) / 2

    for seed in range(3):
        found = top_eigenpairs(
            bowl, jnp.zeros(201), 1, key=jax.random.key(seed), tolerance=1e-2
        )
        assert float(found.eigenvalues[0]) == pytest.approx(30, rel=1e-2)


def test_the_trace_is_unbiased_and_its_error_honest(x64):
    random = np.random.default_rng(0)
    root = random.normal(size=(30, 30))
    A = jnp.asarray((root + root.T) / 2)
    exact = float(np.trace(A))
    estimates = [
        trace(lambda w: w @ A @ w / 2, jnp.ones(30), key=jax.random.key(seed),
              num_samples=10)
        for seed in range(40)
    ]  # fmt: skip
    means, errors = np.array(estimates).T
    spread = means.std(ddof=1)
    assert abs(means.mean() - exact) < 3 * spread / np.sqrt(40)
    np.testing.assert_allclose(errors.mean(), spread, rtol=0.35)
    squares = [
        frobenius_norm(lambda w: w @ A @ w / 2, jnp.ones(30), key=jax.random.key(seed),
                       num_samples=10)
        for seed in range(10)
    ]  # fmt: skip
    norms = np.array([found.mean for found in squares])
    np.testing.assert_allclose(norms.mean(), np.linalg.norm(A), rtol=0.05)


@pytest.mark.slow
def test_the_trace_is_unbiased_over_200_seeds(x64):
    objective, params, H = dense_case(*CASES[0])
    means = np.array([
        trace(objective, params, key=jax.random.key(seed), num_samples=5).mean
        for seed in range(200)
    ])  # fmt: skip
    assert abs(means.mean() - np.trace(H)) < 3 * means.std(ddof=1) / np.sqrt(200)


def test_the_density_has_the_spectrums_moments(x64):
    objective, params, H = dense_case(*CASES[0])
    values = np.linalg.eigvalsh(H)
    options = {"key": jax.random.key(0), "num_matvecs": 40, "num_samples": 30}
    found = Operator(objective, params).spectral_quadrature(**options)
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, rtol=1e-9)
    for power in (1, 2, 3):
        per_vector = (found.weights * found.nodes**power).sum(axis=1)
        error = per_vector.std(ddof=1) / np.sqrt(30)
        assert abs(per_vector.mean() - (values**power).mean()) < 4 * error
    grid, density = spectral_density(objective, params, broadening=1e-3, **options)
    np.testing.assert_allclose(np.trapezoid(density, grid), 1, rtol=0.01)
    exact_nodes = (found.weights * found.nodes).sum() / 30
    np.testing.assert_allclose(
        np.trapezoid(grid * density, grid), exact_nodes, rtol=0.01, atol=1e-4
    )


def test_quadrature_of_all_vectors_is_exact(x64):
    """Over whole Krylov spaces of a fixed matrix, in one program and in a loop."""
    random = np.random.default_rng(0)
    root = random.normal(size=(12, 12))
    A = jnp.asarray(root + root.T)
    options = {"key": jax.random.key(0), "num_matvecs": 12, "num_samples": 3}
    apart, together = (
        Operator(lambda w: w @ A @ w / 2, jnp.ones(12)).spectral_quadrature(
            compiled=compiled, **options
        )
        for compiled in (False, True)
    )
    np.testing.assert_allclose(apart.nodes, together.nodes, atol=1e-9)
    np.testing.assert_allclose(apart.weights, together.weights, atol=1e-9)
    np.testing.assert_allclose(
        apart.nodes, np.tile(np.linalg.eigvalsh(A), (3, 1)), atol=1e-9
    )


@pytest.mark.parametrize("compiled", [False, True])
def test_a_space_that_ends_early_has_no_ghosts(compiled):
    """Rank 2 of 50: the space is exhausted after three products."""
    operator = Operator(lambda w: w[0] ** 2 + 3 * w[1] ** 2, jnp.ones(50))
    found = operator.spectral_quadrature(
        key=jax.random.key(0), num_matvecs=20, num_samples=3, compiled=compiled
    )
    heavy = found.nodes[found.weights > 1e-12]
    distance = np.abs(heavy[:, None] - np.array([[0.0, 2.0, 6.0]])).min(axis=1)
    assert distance.max() < 1e-3
    zero = spectral_density(
        lambda w: jnp.sum(w), jnp.ones(5), key=jax.random.key(0), num_matvecs=3,
        num_samples=1,
    )  # fmt: skip
    np.testing.assert_allclose(np.trapezoid(zero.density, zero.grid), 1, rtol=1e-3)


# Lanczos on prescribed spectra.

SPECTRA = {
    "spread": np.linspace(1, 100, 60),
    "clustered": np.concatenate([np.full(5, 10.0), np.full(55, 1.0)]),
    "clustered closely": np.concatenate(
        [10 + 1e-6 * np.arange(5), np.linspace(0, 1, 55)]
    ),
    "indefinite": np.linspace(-50, 50, 60) + 0.3,
    "low rank": np.concatenate([[9.0, 4.0, -6.0], np.zeros(57)]),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_lanczos_finds_spectra_and_no_ghosts(x64, name):
    spectrum = SPECTRA[name]
    random = np.random.default_rng(0)
    Q, _ = np.linalg.qr(random.normal(size=(60, 60)))
    A = jnp.asarray(Q @ np.diag(spectrum) @ Q.T)
    start = jnp.asarray(random.normal(size=60))
    found = tridiagonalize(lambda v: A @ v, start, 60, key=jax.random.key(0))
    # As many of each as there are: a ghost would be one too many.
    np.testing.assert_allclose(found.eigen()[0], np.sort(spectrum), atol=1e-8)
    np.testing.assert_allclose(found.basis @ found.basis.T, np.eye(60), atol=1e-9)
    short = tridiagonalize(lambda v: A @ v, start, 60)
    # One more than there are different ones, where rounding hides the end.
    distinct = len(np.unique(spectrum))
    assert distinct <= len(short.diagonal) <= distinct + 1


def test_single_precision_has_no_ghosts_either():
    spectrum = np.concatenate([[1000.0, 500.0], np.linspace(0, 1, 198)])
    random = np.random.default_rng(0)
    Q, _ = np.linalg.qr(random.normal(size=(200, 200)))
    A = jnp.asarray(Q @ np.diag(spectrum) @ Q.T, jnp.float32)
    found = tridiagonalize(
        lambda v: A @ v, jnp.asarray(random.normal(size=200), jnp.float32), 80
    )
    values = found.eigen()[0]
    assert (values > 2).sum() == 2
    np.testing.assert_allclose(values[-2:], [500, 1000], rtol=1e-5)


def test_shares_and_overlaps():
    shares = layer_shares({"a": jnp.ones((2, 2)), "b": jnp.zeros(3), "c": jnp.ones(12)})
    assert shares == {"a": 0.25, "b": 0.0, "c": 0.75}
    random = np.random.default_rng(0)
    Q, _ = np.linalg.qr(random.normal(size=(9, 9)))
    spaces = [{"w": jnp.asarray(Q.T[rows])} for rows in (slice(0, 3), slice(2, 5))]
    np.testing.assert_allclose(subspace_overlap(*spaces), 1 / 3, atol=1e-6)
    turned, _ = np.linalg.qr(random.normal(size=(3, 3)))
    rotated = {"w": jnp.asarray(turned) @ spaces[0]["w"]}
    np.testing.assert_allclose(subspace_overlap(spaces[0], rotated), 1, atol=1e-5)


def test_convolutions_are_multiplied_apart_on_cpu(x64):
    conv, params = objective_of("conv")
    dense, dense_params = objective_of("dense")
    assert Operator(conv, params).products_run_apart()
    assert not Operator(dense, dense_params).products_run_apart()


@pytest.mark.slow
def test_real_models_in_single_precision():
    model = models.create("cnn", num_classes=3, features=(2,), width=4)
    random = np.random.default_rng(0)
    x = random.normal(size=(12, 4, 4, 1)).astype(np.float32)
    y = random.integers(0, 3, 12).astype(np.int32)
    params = model.init(jax.random.key(0), x, train=False)["params"]
    objective = flax_objective(model, (x, y), norm="train", batch_size=5)
    H = dense_hessian(objective, params)
    values, _, residuals = top_eigenpairs(objective, params, 2, key=jax.random.key(0))
    exact = np.linalg.eigvalsh(H)[::-1][:2]
    np.testing.assert_allclose(values, exact, rtol=2e-3)
    assert (residuals < 2e-3 * exact[0]).all()


def broken():
    data = np.ones((6, 2), np.float32)
    data[4] = np.nan
    return mean_objective(lambda w, x: jnp.mean(x @ w) ** 2, data, batch_size=2)


def test_a_product_that_is_not_finite_names_its_batch():
    calls = [
        lambda: spectral_norm(broken(), jnp.ones(2), key=jax.random.key(0)),
        lambda: trace(broken(), jnp.ones(2), key=jax.random.key(0), num_samples=1),
        lambda: spectral_density(
            broken(), jnp.ones(2), key=jax.random.key(0), num_matvecs=2, num_samples=1
        ),
    ]
    for call in calls:
        with pytest.raises(NonFiniteProductError, match="first in batch 2 of 3"):
            call()


def test_what_is_beside_a_mask_does_not_spoil_a_block():
    data = np.zeros((6, 2), np.float32)
    data[0, 1], data[4, 0] = np.nan, np.nan
    objective = mean_objective(
        lambda w, x: jnp.mean(w**2 @ (1 + x.T)), data, batch_size=2
    )
    mask = jnp.array([True, False])
    with pytest.raises(NonFiniteProductError, match="first in batch 2 of 3"):
        Operator(objective, jnp.ones(2), mask=mask, reuse=False)(jnp.ones(1))
    product = jax.jit(lambda w: Operator(square, w, mask=mask)(jnp.ones(1)))
    np.testing.assert_allclose(product(jnp.ones(2)), [2.0])


def test_half_precision_points_have_vectors_of_single_precision():
    spectrum = np.concatenate([[100.0, 50.0, 25.0], np.linspace(0, 1, 61)])
    diagonal = jnp.asarray(spectrum, jnp.bfloat16)
    point = jnp.ones(64, jnp.bfloat16)

    def loss(w):
        return jnp.sum((diagonal * w * w).astype(jnp.float32)) / 2

    values, _, _ = top_eigenpairs(loss, point, 3, key=jax.random.key(0))
    np.testing.assert_allclose(values, [100, 50, 25], rtol=0.02)
    found = Operator(loss, point).spectral_quadrature(
        key=jax.random.key(0), num_matvecs=6, num_samples=1
    )
    np.testing.assert_allclose(found.nodes[0, -3:], [25, 50, 100], rtol=0.02)


def test_foreign_objectives_are_compiled_once():
    traced = []

    class Foreign:
        num_batches = 2
        weights = np.array([0.5, 0.5])

        def batch(self, i):
            return jnp.full(3, i + 1.0)

        def batch_loss(self, point, batch):
            traced.append(1)
            return jnp.sum(batch * point**2)

    operator = Operator(Foreign(), jnp.ones(3))
    np.testing.assert_allclose(operator(jnp.ones(3)), 3)
    count = len(traced)
    for _ in range(3):
        operator(jnp.ones(3))
    # Shapes are looked at every time; compiled is the first time.
    assert len(traced) - count <= 3


def test_running_averages_are_neither_scales_nor_biases():
    assert not batch_norm_only("batch_stats/BatchNorm_0/mean")
    assert batch_norm_only("params/BatchNorm_0/scale")


KEY = jax.random.key(0)
W = jnp.ones(3)


def square(w):
    return jnp.sum(w**2)


BAD = {
    "structure": (lambda: hvp(square, W, {"w": W}), "first leaf"),
    "shape": (lambda: hvp(square, W, jnp.ones(4)), "shapes"),
    "outputs": (lambda: ggnvp(square, W, W), "has no outputs"),
    "examples": (lambda: second_moment_product(square, W, W), "without examples"),
    "loss": (lambda: hvp(lambda w: {"cost": square(w)}, W, W), "'loss'"),
    "k": (lambda: top_eigenpairs(square, W, 4, key=KEY), "k=4"),
    "no k": (lambda: top_eigenpairs(square, W, 0, key=KEY), "k=0"),
    "samples": (lambda: trace(square, W, key=KEY, num_samples=0), "num_samples=0"),
    "which": (
        lambda: top_eigenpairs(square, W, 1, key=KEY, which="top"),
        "which='top'",
    ),
    "kind": (lambda: Operator(square, W, kind="fisher"), "kind='fisher'"),
    "no start": (lambda: spectral_norm(square, W), "either key"),
    "zero start": (lambda: spectral_norm(square, W, start=0 * W), "norm 0"),
    "tolerance": (
        lambda: spectral_norm(square, W, key=KEY, tolerance=0),
        "tolerance=0",
    ),
    "mask": (lambda: hvp(square, W, W, mask=lambda path: False), "selects nothing"),
    "broadening": (
        lambda: spectral_density(
            square, W, key=KEY, num_matvecs=2, num_samples=1, broadening=0.0
        ),
        "broadening=0.0",
    ),
    "most": (lambda: top_eigenpairs(square, W, 1, key=KEY, max_products=0), "=0"),
    "bad tolerance": (
        lambda: top_eigenpairs(square, W, 1, key=KEY, tolerance=np.nan),
        "tolerance=nan",
    ),
    "length": (lambda: Operator(square, W)(jnp.ones(5)), "3 rows"),
    "tree": (lambda: Operator(square, W).to_vector(jnp.ones(5)), "shapes"),
    "start": (lambda: spectral_norm(square, W, start=W * np.inf), "not finite"),
    "shares": (lambda: layer_shares(0 * W), "norm 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, message = BAD[name]
    with pytest.raises(InputError, match=message):
        call()
