"""A state is gone on from with the settings that it was made with."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from lrscape import data, models, training
from lrscape.errors import InputError
from lrscape.transforms import average_weights

DIGITS = data.load("digits")
MODEL = models.create("mlp", num_classes=10, features=(4,))
CONFIG = training.Config(epochs=2, batch_size=256, num_devices=1)


def tx(*averages):
    return optax.chain(
        optax.sgd(0.1), *(average_weights(s, every=e) for s, e in averages)
    )


def states(optimizer, config=CONFIG, state=None):
    return training.fit(MODEL, DIGITS, optimizer, config, state=state, yield_every=2)


def test_with_another_batch_size():
    state = next(states(tx()))
    with pytest.raises(InputError, match="made with batch_size=256, .* batch_size=64"):
        states(tx(), dataclasses.replace(CONFIG, batch_size=64), state)
    fewer = dataclasses.replace(
        DIGITS, train=DIGITS.train.take(np.arange(600)), name="fewer"
    )
    with pytest.raises(InputError, match="steps_per_epoch=5, .* steps_per_epoch=2"):
        training.fit(MODEL, fewer, tx(), CONFIG, state=state)
    changed = state.replace(params=jax.tree.map(np.zeros_like, state.params))
    with pytest.raises(InputError, match="batch_size=64"):
        states(tx(), dataclasses.replace(CONFIG, batch_size=64), changed)


@pytest.mark.parametrize("other", [(2, 1), (3, 2), (0, 3)])
@pytest.mark.parametrize("from_disk", [False, True])
def test_with_another_average(other, from_disk):
    state = list(states(tx((2, 2))))[2]
    assert state.step == 6
    if from_disk:  # nothing is remembered of it but its arrays
        state = jax.device_put(jax.device_get(state))
    same = list(states(tx((2, 2)), state=state))
    assert [int(s.step) for s in same] == [8, 10]
    with pytest.raises(InputError, match="average"):
        states(tx(other), state=state)


def test_bit_for_bit_with_the_same():
    whole = list(states(tx((3, 2))))
    again = list(states(tx((3, 2)), state=whole[1]))
    for a, b in zip(jax.tree.leaves(whole[-1].opt_state),
                    jax.tree.leaves(again[-1].opt_state), strict=True):  # fmt: skip
        np.testing.assert_array_equal(a, b)
