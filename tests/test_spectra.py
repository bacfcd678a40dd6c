"""Largest eigenvalues in single precision against dense spectra in double."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.bench import spectra
from lrscape.landscape import mean_objective, spectral_norm, top_eigenpairs
from lrscape.landscape.lanczos import tridiagonalize
from lrscape.landscape.missed import chance_missed

SIZE = 60
EPS = float(np.finfo(np.float32).eps)
DENSE = np.linspace(-0.1, 0.1, SIZE - 5)

SPECTRA = {
    "one gap": np.r_[3e5, 7, 4, 2, 1, DENSE],
    "gaps in gaps": np.r_[1e6, 1e3, 7, 4, 1, DENSE],
    "below zero": np.r_[-2e5, 7, 4, 2, 1, DENSE],
    "both signs": np.r_[8, -8, 4, -4, 1, DENSE],
    "flat top": np.r_[3, 2.8 * np.ones(20), np.zeros(SIZE - 21)],
    "all alike": np.full(SIZE, 3.0),
    "repeated": np.r_[6, 6, 6, 2, 2, DENSE],
    "low rank": np.r_[5, 3, -4, np.zeros(SIZE - 3)],
}


def problem(spectrum, rotated):
    random = np.random.default_rng(3)
    if rotated:
        basis, _ = np.linalg.qr(random.normal(size=(SIZE, SIZE)))
        full = (basis * spectrum) @ basis.T
    else:
        full = np.diag(random.permutation(spectrum))
    full = np.float32((full + full.T) / 2)
    return full, mean_objective(spectra.quadratic, full[None], batch_size=1)


@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("name", SPECTRA)
def test_values_to_their_own_scale(name, rotated):
    full, objective = problem(SPECTRA[name], rotated)
    exact = np.linalg.eigvalsh(np.float64(full))
    norm = np.abs(exact).max()
    point = jnp.zeros(SIZE)
    for which, expected in (("largest", exact[::-1][:4]), ("smallest", exact[:2])):
        pairs = top_eigenpairs(
            objective, point, len(expected), key=jax.random.key(5), which=which
        )
        values, vectors, residuals = pairs
        allowed = np.maximum(1e-3 * np.abs(expected), 4 * EPS * norm)
        assert (np.abs(values - expected) <= allowed).all()
        assert pairs.converged and len(expected) < pairs.products <= 200
        gram = np.float64(vectors) @ np.float64(vectors).T
        np.testing.assert_allclose(gram, np.eye(len(expected)), atol=1e-5)
        bound = np.maximum(1e-4 * np.abs(values), 20 * EPS * norm)
        assert (residuals <= bound).all()
    found = spectral_norm(objective, point, key=jax.random.key(5))
    assert found.converged and float(found) == pytest.approx(norm, rel=1e-3)


def test_what_has_not_converged_does_not_say_so():
    """A smooth edge without gaps, and too few products for it."""
    diagonal = jnp.linspace(0.0, 1.0, 3000)

    def loss(w):
        return jnp.sum(diagonal * w**2) / 2

    options = {"key": jax.random.key(0), "max_products": 12}
    pairs = top_eigenpairs(loss, jnp.zeros(3000), 2, **options)
    assert not pairs.converged and pairs.products == 14
    assert not spectral_norm(loss, jnp.zeros(3000), **options).converged


def test_a_small_residual_alone_is_no_convergence():
    """The start all but lacks the largest eigenvector, and shows another one."""
    diagonal = np.r_[2.0, 1.0, np.zeros(98)]
    start = np.r_[1e-9, 1.0, np.zeros(98)]
    found = tridiagonalize(
        lambda v: jnp.asarray(diagonal, jnp.float32) * v, jnp.float32(start), 1
    )
    assert found.remainder <= 1e-6
    random = np.random.default_rng(0)
    missed = []
    for _ in range(200):
        start = random.normal(size=100)
        found = tridiagonalize(
            lambda v: jnp.asarray(diagonal, jnp.float32) * v, jnp.float32(start), 2
        )
        values = found.eigen()[0]
        chance = chance_missed(found, values, values[-1] * 1.1, 100)
        missed.append((chance <= 0.1, values[-1] < 2 / 1.1))
    said, wrong = np.array(missed).T
    # At most a tenth of those that say so, with room for chance.
    assert (said & wrong).sum() <= 0.2 * len(said)


def test_rates_have_exact_bounds():
    low, high = spectra.bounds(0, 1000)
    assert low == 0 and high == pytest.approx(1 - 0.025 ** (1 / 1000))
    assert spectra.bounds(5, 5)[1] == 1
    rows = [
        {"wrong": wrong, "converged": said, "products": 10}
        for wrong, said in ((True, True), (True, False), (False, True), (False, True))
    ]
    one = spectra.summary(rows)
    assert (one["wrong"], one["wrong_yet_converged"], one["converged"]) == (2, 1, 3)
    both = spectra.pooled([one, spectra.summary(rows[:1])])
    assert (both["matrices"], both["wrong_yet_converged"]) == (5, 2)
    assert both["products"] == 10


def test_the_kinds_are_as_large_as_asked_for():
    random = np.random.default_rng(0)
    for kind in spectra.KINDS:
        full = spectra.matrix(random, kind, 50, rotated=True)
        assert full.shape == (50, 50) and full.dtype == np.float32
        np.testing.assert_array_equal(full, full.T)
    exact = np.array([10.0, 1e-3])
    assert not spectra.is_wrong(exact + 1e-7, exact, 10.0)
    assert spectra.is_wrong(exact + np.array([0, 2e-5]), exact, 10.0)
    assert spectra.is_wrong(np.array([np.nan, 0]), exact, 10.0)
