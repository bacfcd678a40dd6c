"""What is measured takes every digit of float32, whatever the device's default is."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lrscape import data, landscape, models, training
from lrscape.errors import InputError
from lrscape.training import Config

POINT = {"w": jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)}
INPUTS = jnp.sin(jnp.arange(32.0)).reshape(8, 4)
LABELS = jnp.arange(8) % 3


class Seen:
    """Notes the precision that products were traced with, each time they are computed.

    Shapes are traced too, in any precision, and never computed.
    """

    def __init__(self):
        self._found = set()

    def note(self):
        traced_with = jax.config.jax_default_matmul_precision
        jax.debug.callback(lambda: self._found.add(traced_with))

    @property
    def precisions(self):
        jax.effects_barrier()
        return self._found


class Spied:
    """A linear classifier on two batches, which notes how it is traced."""

    num_batches, weights = 2, np.array([0.5, 0.5])

    def __init__(self, seen):
        self.seen = seen

    def batch(self, i):
        half = slice(4 * i, 4 * i + 4)
        return INPUTS[half], LABELS[half]

    def batch_loss(self, point, batch):
        return self.output_loss(self.outputs(point, batch), batch)

    def outputs(self, point, batch):
        self.seen.note()
        return batch[0] @ point["w"]

    def output_loss(self, outputs, batch):
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs, batch[1])
        return losses.mean()


KEY = jax.random.key(0)
PROBES = {
    "value": lambda o: landscape.evaluate(
        o, landscape.ray(POINT, POINT), np.array([0.0, 0.5])
    ),
    "hvp": lambda o: landscape.hvp(o, POINT, POINT),
    "ggnvp": lambda o: landscape.ggnvp(o, POINT, POINT),
    "segment": lambda o: landscape.segment_losses(o, POINT, POINT),
    "eigenpairs": lambda o: landscape.top_eigenpairs(o, POINT, 2, key=KEY),
    "trace": lambda o: landscape.trace(o, POINT, key=KEY, num_samples=2),
    "density": lambda o: landscape.spectral_density(
        o, POINT, key=KEY, num_matvecs=3, num_samples=1
    ),
    "gradient": lambda o: landscape.loss_gradient(o, POINT),
}


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("default", [None, "bfloat16"])
def test_every_probe_is_traced_in_float32(probe, default):
    seen = Seen()
    with jax.default_matmul_precision(default):
        PROBES[probe](Spied(seen))
    assert seen.precisions == {"float32"}


def test_a_sample_held_as_an_array_is_measured_in_float32_and_says_so():
    seen = Seen()

    def loss_fn(point, batch):
        seen.note()
        return jnp.mean((batch[0] @ point["w"]).sum(-1) ** 2)

    sample = landscape.mean_objective(loss_fn, (INPUTS, LABELS), batch_size=3)
    landscape.hvp(sample, POINT, POINT)
    sample(POINT)
    landscape.Operator(sample, POINT).top_eigenpairs(1, key=KEY)
    assert seen.precisions == {"float32"}
    assert sample.settings["matmul_precision"] == "float32"


@pytest.mark.parametrize("precision", [None, "bfloat16"])
def test_training_has_a_precision_of_its_own_and_errors_are_measured_in_float32(
    precision,
):
    digits, seen = data.load("digits", examples=64), {True: Seen(), False: Seen()}
    inner = models.create("mlp", num_classes=10, features=(8,))

    class Spy(type(inner)):
        def __call__(self, x, *, train):
            seen[train].note()
            return super().__call__(x, train=train)

    model = Spy(num_classes=10, features=(8,))
    config = Config(epochs=1, batch_size=32, matmul_precision=precision)
    *_, state = training.fit(model, digits, optax.sgd(0.1), config)
    seen[False].precisions.clear()  # of the initial weights
    training.make_evaluate(model, digits, config)(state)
    assert seen[True].precisions == {precision}
    assert seen[False].precisions == {"float32"}


def test_an_unknown_precision_is_an_error_before_anything_is_compiled():
    with pytest.raises(InputError, match="matmul_precision='float64'.*bfloat16"):
        Config(epochs=1, matmul_precision="float64")
