"""What Optax's own transformations ask for in training, and what does not fit them."""

import jax
import jax.numpy as jnp
import optax
import optax.contrib
import pytest

from lrscape import data, models, training
from lrscape.errors import InputError
from lrscape.transforms import average_weights, averaged, keep_gradient, runge_kutta

DIGITS = data.load("digits")
MODEL = models.create("mlp", num_classes=10, features=(4,))
CONFIG = training.Config(epochs=1, batch_size=700, num_devices=1)


@pytest.mark.parametrize(
    "tx",
    [
        optax.lbfgs(linesearch=optax.scale_by_zoom_linesearch(max_linesearch_steps=3)),
        optax.contrib.sam(
            optax.sgd(0.1), optax.sgd(0.05), sync_period=2, opaque_mode=True
        ),
    ],
    ids=["lbfgs", "sam"],
)
def test_in_training(tx):
    first = training.initial_state(MODEL, DIGITS, tx, 0)
    *_, last = training.fit(MODEL, DIGITS, tx, CONFIG, state=first)
    assert last.step == 2
    assert all(
        jnp.isfinite(leaf).all() and (leaf != before).any()
        for leaf, before in zip(
            jax.tree.leaves(last.params), jax.tree.leaves(first.params), strict=True
        )
    )


def test_masked_runge_kutta():
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    tx = optax.masked(runge_kutta("heun", 0.1), {"a": True, "b": False})
    with pytest.raises(InputError, match="chain it before"):
        tx.update(params, tx.init(params), params, grad_fn=lambda p: p)


def test_keep_gradient_keeps_its_dtypes_in_a_loop():
    params = jnp.ones(3, jnp.bfloat16)
    tx = keep_gradient()

    def body(state, gradient):
        return tx.update(gradient, state, params)[1], None

    state, _ = jax.lax.scan(body, tx.init(params), jnp.ones((4, 3), jnp.float32))
    assert state.gradient.dtype == jnp.bfloat16


def test_whole_numbers_outside_the_mask_of_an_average():
    params = {"w": jnp.ones(2), "n": jnp.asarray(3, jnp.int32)}
    with pytest.raises(InputError, match="n has dtype int32"):
        average_weights(1).init(params)
    tx = average_weights(1, mask={"w": True, "n": False})
    updates = {"w": jnp.ones(2), "n": jnp.asarray(1, jnp.int32)}
    _, state = tx.update(updates, tx.init(params), params)
    found = averaged(state, params)
    assert (found["w"] == 2).all() and found["n"] == 3
