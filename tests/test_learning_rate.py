"""The rate read from an optimizer's state is the one that was used, or an error."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lrscape import schedules, training, transforms
from lrscape.errors import InputError

HALVING = schedules.rational(0.25, 4, decay=1.0)
PARAMS = {"first": jnp.ones(2), "second": jnp.ones(3)}
RATE = transforms.scale_by_rate(HALVING)
INJECTED = optax.inject_hyperparams(optax.adam)(learning_rate=0.5)


@pytest.mark.parametrize(
    ("tx", "expected"),
    [
        (RATE, 0.25),
        (optax.chain(optax.trace(0.9), RATE, transforms.average_weights(1)), 0.25),
        (optax.masked(RATE, {"first": False, "second": True}), 0.25),
        (optax.MultiSteps(RATE, 2), 0.25),
        (INJECTED, 0.5),
        (optax.inject_hyperparams(optax.sgd)(learning_rate=HALVING), 0.25),
        (optax.adamw(HALVING), None),  # its state holds a count alone
        (optax.sgd(0.1), None),
    ],
)
def test_one_rate_or_none(tx, expected):
    found = training.learning_rate(tx.init(PARAMS))
    assert found is None if expected is None else found == np.float32(expected)


@pytest.mark.parametrize("partition", [optax.partition, optax.multi_transform])
def test_rates_by_label(partition):
    labels = {"first": "slow", "second": "fast"}
    tx = partition({"slow": optax.chain(optax.trace(0.9), RATE), "fast": INJECTED},
                   labels)  # fmt: skip
    state = tx.init(PARAMS)
    assert training.learning_rate(state) == {"slow": 0.25, "fast": 0.5}
    one = partition({"slow": optax.set_to_zero(), "fast": INJECTED}, labels)
    assert training.learning_rate(one.init(PARAMS)) == 0.5


def test_rates_that_nothing_tells_apart():
    with pytest.raises(InputError, match="2 rates named 'learning_rate'"):
        training.learning_rate(optax.chain(RATE, INJECTED).init(PARAMS))
    tx = optax.chain(RATE, optax.masked(RATE, {"first": False, "second": True}))
    with pytest.raises(InputError, match="get_all_with_path"):
        training.learning_rate(tx.init(PARAMS))


@pytest.mark.parametrize(
    "tx",
    [
        transforms.scale_by_rate(optax.constant_schedule(0.3)),
        optax.chain(
            optax.trace(0.9), transforms.scale_by_rate(optax.constant_schedule(0.3))
        ),
    ],
)
def test_of_the_state_of_an_nnx_optimizer(tx):
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    state = nnx.state(nnx.Optimizer(model, tx, wrt=nnx.Param))
    for one in (state, state["opt_state"]):
        assert float(training.learning_rate(one)) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("tx", "expected"), [(RATE, 0.25), (INJECTED, 0.5), (optax.adam(0.1), None)]
)
def test_of_an_nnx_optimizer(tx, expected):
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    assert training.learning_rate(optimizer.opt_state) == expected
