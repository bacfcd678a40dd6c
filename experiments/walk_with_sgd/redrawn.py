"""The loss as the paper's authors measure it: on examples that are drawn anew.

Their code shuffles and augments the sample at every point of a segment, so that two
points differ by what was drawn as well, and a barrier can be sampling noise.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax.flatten_util import ravel_pytree

from lrscape.data import augment_batch
from lrscape.errors import InputError
from lrscape.landscape import barrier_height, crosses_barrier
from lrscape.training.device_data import DeviceData

# Their points of a segment: its beginning and nine within; its end is the next one's
# beginning.
ALPHAS = np.arange(10) / 10


class RedrawnLoss:
    """The mean loss over a sample that is shuffled and augmented at every call.

    Batch norm is in train mode. Everything random comes from the key.
    """

    def __init__(
        self,
        model: nn.Module,
        data: DeviceData,
        *,
        num_examples: int,
        batch_size: int,
        augment: tuple[str, ...],
    ):
        """Gets ready.

        Args:
            model: called as ``model(x, train=True)``.
            data: of which the first examples are the sample.
            num_examples: how many; what is left of the last whole batch is left out.
            batch_size: examples a batch.
            augment: names of augmentations.
        """
        if num_examples > len(data.label):
            raise InputError(
                f"num_examples={num_examples} of {len(data.label)} that there are"
            )
        self._model, self._data = model, jax.tree.map(jnp.asarray, data)
        self._batch_size, self._augment = batch_size, augment
        self.num_batches = max(1, num_examples // batch_size)
        self.num_examples = num_examples

    def __call__(self, params: Any, key: jax.Array) -> float:
        """The loss in nats."""
        return float(np.mean([_loss(self, params, *b) for b in self._batches(key)]))

    def gradient(self, params: Any, key: jax.Array) -> Any:
        """The gradient of the loss over one such draw."""
        return self._mean(_gradient, params, key)

    def spectral_norm(self, params: Any, key: jax.Array, *, iterations: int = 15):
        """The Hessian's dominant eigenvalue, by power iteration.

        Another sample's Hessian at every iteration.

        Returns:
            The norm of the last product with a vector of length 1.
        """
        start, *keys = jax.random.split(key, iterations + 1)
        flat, unravel = ravel_pytree(params)
        vector = jax.random.normal(start, flat.shape, flat.dtype)
        size = jnp.linalg.norm(vector)
        for one in keys:
            direction = unravel(vector / size)
            product = self._mean(_product, params, one, direction)
            vector = ravel_pytree(product)[0]
            size = jnp.linalg.norm(vector)
        return float(size)

    def _mean(self, function: Any, params: Any, key: jax.Array, *args: Any) -> Any:
        values = [function(self, params, *b, *args) for b in self._batches(key)]

        def mean(*leaves: jax.Array) -> jax.Array:
            # In double precision: a sum over hundreds of batches loses digits.
            total = sum(np.asarray(leaf, np.float64) for leaf in leaves)
            return jnp.asarray(total / len(leaves), leaves[0].dtype)

        return jax.tree.map(mean, *values)

    def _batches(self, key: jax.Array):
        order = jax.random.permutation(jax.random.fold_in(key, 0), self.num_examples)
        size = min(self._batch_size, self.num_examples)
        for i in range(self.num_batches):
            yield order[i * size : (i + 1) * size], jax.random.fold_in(key, 1)

    def batch_loss(self, params: Any, data: DeviceData, indices: Any, key: Any) -> Any:
        """The mean loss over the examples at `indices`, augmented by the key."""
        images = data.image[indices]
        if self._augment:
            images = augment_batch(
                key, jnp.int32(0), indices, images, self._augment, data.max_value
            )
        outputs, _ = self._model.apply(
            {"params": params}, data.normalize(images), train=True,
            mutable=["batch_stats"],
        )  # fmt: skip
        return optax.softmax_cross_entropy_with_integer_labels(
            outputs, data.label[indices]
        ).mean()

    @functools.cached_property
    def _compiled(self) -> dict[str, Any]:
        def product(params, data, indices, key, direction):
            def slope(at):
                return jax.grad(self.batch_loss)(at, data, indices, key)

            return jax.jvp(slope, (params,), (direction,))[1]

        return {
            "loss": jax.jit(self.batch_loss),
            "gradient": jax.jit(jax.grad(self.batch_loss)),
            "product": jax.jit(product),
        }


def _loss(loss, params, indices, key):
    return float(loss._compiled["loss"](params, loss._data, indices, key))


def _gradient(loss, params, indices, key):
    return loss._compiled["gradient"](params, loss._data, indices, key)


def _product(loss, params, indices, key, direction):
    return loss._compiled["product"](params, loss._data, indices, key, direction)


class RedrawnWalk:
    """Records the loss between consecutive iterates, each point on its own draw."""

    def __init__(self, loss: RedrawnLoss, *, seed: int):
        """Gets ready.

        Args:
            loss: measured at every point.
            seed: of the draws; a step and an alpha always get the same one.
        """
        self._loss, self._key = loss, jax.random.key(seed)
        self._before: tuple[int, Any] | None = None
        self._rows: dict[int, np.ndarray] = {}

    def record(self, step: int, params: Any) -> None:
        """Takes in the iterate after so many updates."""
        if self._before is not None and self._before[0] == step - 1:
            first = self._before[1]
            losses = [
                self._at(step - 1, i, _between(first, params, np.float32(alpha)))
                for i, alpha in enumerate(ALPHAS)
            ]
            self._rows[step - 1] = np.array([*losses, self._at(step, 0, params)])
        self._before = (step, params)

    def _at(self, step: int, number: int, params: Any) -> float:
        key = jax.random.fold_in(jax.random.fold_in(self._key, step), number)
        return self._loss(params, key)

    def to_dataset(self) -> xr.Dataset:
        """Over step and redrawn_alpha: redrawn_loss; over step: the barriers in it."""
        losses = np.stack(list(self._rows.values()))
        with jax.enable_x64(True):
            crossed = np.asarray(crosses_barrier(losses))
            heights = np.asarray(barrier_height(losses))
        return xr.Dataset(
            {
                "redrawn_loss": (("step", "redrawn_alpha"), losses, {"units": "nat"}),
                "redrawn_crosses_barrier": ("step", crossed, {"units": "1"}),
                "redrawn_barrier_height": ("step", heights, {"units": "nat"}),
            },
            {
                "step": ("step", list(self._rows), {"units": "update"}),
                "redrawn_alpha": (
                    "redrawn_alpha", np.append(ALPHAS, 1.0), {"units": "1"}
                ),
            },
        )  # fmt: skip


@jax.jit
def _between(first, last, alpha):
    return jax.tree.map(lambda a, b: a + alpha * (b - a), first, last)
