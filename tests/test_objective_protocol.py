"""An objective of one's own, computed outside JAX, with and without derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lrscape import landscape
from lrscape.errors import InputError
from lrscape.landscape.products import second_moment_product

CURVATURES = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5]])


class Values:
    """Quadratics in NumPy: values alone."""

    is_traceable = False
    num_batches = 2
    weights = np.array([0.25, 0.75])

    def batch(self, i):
        return CURVATURES[i]

    def batch_loss(self, point, batch):
        return float(np.sum(batch * np.asarray(point, np.float64) ** 2) / 2)


class Derivatives(Values):
    """The same with derivatives of its own."""

    def batch_gradient(self, point, batch):
        return jnp.asarray(batch * np.asarray(point), jnp.float32)

    def batch_product(self, kind, point, batch, vector):
        if kind != "hessian":
            return NotImplemented
        return jnp.asarray(batch * np.asarray(vector), jnp.float32)


MEAN = np.array([0.25, 0.75]) @ CURVATURES
POINT = jnp.array([1.0, -2.0, 3.0])


@pytest.mark.parametrize("kind", [Values, Derivatives])
def test_losses(kind):
    objective = kind()
    line = landscape.line(POINT, -POINT)
    found = landscape.evaluate(objective, line, [0.0, 0.5, 1.0])
    exact = MEAN @ np.asarray(POINT) ** 2 / 2
    np.testing.assert_allclose(found, [exact, 0, exact], rtol=1e-6)
    losses = landscape.segment_losses(objective, POINT, -POINT, num_points=1)
    np.testing.assert_allclose(losses, found, rtol=1e-6)
    assert bool(landscape.has_floor(losses))


def test_derivatives_of_its_own():
    objective = Derivatives()
    np.testing.assert_allclose(
        landscape.loss_gradient(objective, POINT), MEAN * POINT, rtol=1e-6
    )
    v = jnp.array([1.0, 1.0, 1.0])
    np.testing.assert_allclose(landscape.hvp(objective, POINT, v), MEAN, rtol=1e-6)
    pairs = landscape.top_eigenpairs(objective, POINT, 2, key=jax.random.key(0))
    np.testing.assert_allclose(pairs.eigenvalues, np.sort(MEAN)[:0:-1], rtol=1e-5)


def test_what_it_lacks_is_said():
    with pytest.raises(InputError, match="no gradient of its own"):
        landscape.loss_gradient(Values(), POINT)
    with pytest.raises(InputError, match="product of kind 'hessian'"):
        landscape.hvp(Values(), POINT, POINT)
    with pytest.raises(InputError, match="product of kind 'second_moment'"):
        second_moment_product(Derivatives(), POINT, POINT)
    with pytest.raises(InputError, match="cannot be traced"):
        jax.jit(lambda p: landscape.segment_losses(Values(), p, -p))(POINT)
