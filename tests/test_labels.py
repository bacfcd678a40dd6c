"""Labels that a model has no output for are refused before anything is compiled."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lrscape import data, landscape, models, training
from lrscape.errors import InputError

DIGITS = data.load("digits")
CONFIG = training.Config(epochs=1, batch_size=256)
MLP = models.create("mlp", num_classes=10, features=(4,))
BAD = [-1, 10, 255, np.iinfo(np.int32).min]


def relabelled(part, label):
    examples = getattr(DIGITS, part)
    labels = examples.label.copy()
    labels[7] = label
    return dataclasses.replace(DIGITS, **{part: data.Examples(examples.image, labels)})


@pytest.mark.parametrize("label", BAD)
def test_in_training_and_evaluation(label):
    said = rf"label {label} of example 7 has no output: the model has 10 outputs"
    tx = optax.sgd(0.1)
    with pytest.raises(InputError, match=rf"data\.train\.label: {said}"):
        training.fit(MLP, relabelled("train", label), tx, CONFIG)
    with pytest.raises(InputError, match=rf"data\.train\.label: {said}"):
        training.fit_seeds(MLP, relabelled("train", label), tx, CONFIG, [0, 1])
    with pytest.raises(InputError, match=rf"data\.test\.label: {said}"):
        training.make_evaluate(MLP, relabelled("test", label), CONFIG)


def test_a_model_with_fewer_outputs_than_classes():
    small = models.create("mlp", num_classes=3, features=(4,))
    with pytest.raises(InputError, match="the model has 3 outputs"):
        training.fit(small, DIGITS, optax.sgd(0.1), CONFIG)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32])
@pytest.mark.parametrize("label", BAD[:3])
def test_in_an_objective(label, dtype):
    labels = np.arange(6).astype(dtype)
    labels[4] = np.array(label).astype(dtype)
    with pytest.raises(InputError, match=rf"label {labels[4]} of example 4 .* 6 outp"):
        landscape.flax_objective(
            nn.Dense(6), (np.ones((6, 2), np.float32), labels),
            norm="train", batch_size=2,
        )  # fmt: skip


@pytest.mark.parametrize("place", [0, 1])
def test_in_a_text(place):
    windows = [np.zeros((3, 4), np.int32), np.zeros((3, 4), np.int32)]
    windows[place][2, 1] = 5
    model = models.create("lstm", num_classes=5, features=4, layers=1)
    with pytest.raises(InputError, match="label 5 of example 2 .* 5 outputs"):
        landscape.text_objective(model, tuple(windows), batch_size=2)
    text = data.Text(
        name="t", level="characters", vocabulary=tuple("abcdef"),
        train=np.arange(60, dtype=np.int32) % 6,
        validation=np.zeros(9, np.int32), test=np.zeros(9, np.int32),
    )  # fmt: skip
    config = training.TextConfig(epochs=1, batch_size=2, window=3, num_devices=1)
    with pytest.raises(InputError, match=r"text\.train: label 5 of example 5"):
        training.fit_text(model, text, optax.sgd(0.1), config)
    with pytest.raises(InputError, match=r"text\.train: label 5 of example 5"):
        training.make_evaluate_text(model, text, config)


class Pair(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3)(x), x


def test_models_and_inputs_of_another_kind():
    from flax import nnx

    sample = (np.ones((4, 2), np.float32), np.zeros(4, np.int32))
    settings = {"norm": "train", "batch_size": 2}
    for model in (nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nn.Dense, jnp.sum, None):
        with pytest.raises(InputError, match=r"model=.*flax\.linen\.Module"):
            landscape.flax_objective(model, sample, **settings)
    with pytest.raises(InputError, match="gives a tuple and not an array"):
        landscape.flax_objective(Pair(), sample, **settings)
    with pytest.raises(InputError, match="inputs are a dict, not one array"):
        landscape.flax_objective(nn.Dense(3), ({"a": sample[0]}, sample[1]), **settings)
    with pytest.raises(InputError, match="error=True counts wrong classes"):
        landscape.flax_objective(
            nn.Dense(4), (sample[0], np.eye(4, dtype=np.float32)),
            **settings, loss="squared_error", error=True,
        )  # fmt: skip
    for leaf in ("text", np.array(["a", "b"]), np.array([None, 1]), None.__class__):
        with pytest.raises(InputError, match="arrays of numbers alone"):
            landscape.mean_objective(
                lambda w, x: w, {"x": np.ones(2), "name": leaf}, batch_size=1
            )


def test_labels_that_are_traced_are_not_looked_at():
    objective = landscape.flax_objective(
        nn.Dense(3), (jnp.ones((4, 2)), jnp.zeros(4, jnp.int32)), norm="eval",
        batch_size=2,
    )  # fmt: skip
    relabelled = objective.relabelled(jax.random.key(0))
    params = {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}
    np.testing.assert_allclose(relabelled(params), np.log(3), rtol=1e-6)
