"""The engine beneath surfaces and walks: batch losses at points of a subspace.

Chosen by measurement: points one after another or side by side, on one device or shared
among several (of several processes too, which then have to ask for the same points),
each walking through the sample in one compiled loop.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lrscape.jaxprs import convolutions
from lrscape.landscape.accumulate import batch_losses, sample_losses
from lrscape.landscape.programs import jit_objectives, once_a_shape
from lrscape.landscape.protocol import as_objective, is_compilable
from lrscape.processes import from_first, gathered, share_of

AXIS = "points"

# Below this many seconds of work the choice of a chunk costs more than it can save.
_WORTH_MEASURING = 2.0


def mean_and_error(losses: np.ndarray, weights: np.ndarray) -> tuple[Any, Any]:
    """The mean over batches, and its standard error from their spread.

    Args:
        losses: (..., num_batches), the mean loss of each batch.
        weights: (num_batches,), each batch's share.

    Returns:
        Two arrays of shape (...). The standard error takes the batches for a random
        sample, and is NaN where there is but one.
    """
    losses = np.asarray(losses, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        mean = losses @ weights
        count = losses.shape[-1]
        if count == 1:
            return mean, np.full_like(mean, np.nan)
        spread = ((losses - mean[..., None]) ** 2) @ weights**2
        return mean, np.sqrt(spread * count / (count - 1))


class PointLosses:
    """Computes batch losses at points of a subspace, on one device or several.

    Attributes:
        devices: what the points are shared among.
    """

    def __init__(
        self,
        objective: Any,
        subspace: Any,
        *,
        devices: Sequence[jax.Device] | None = None,
    ):
        self._objective = as_objective(objective)
        self._compilable = is_compilable(self._objective)
        local = jax.local_devices() if devices is None else list(devices)
        self.devices = local if self._compilable else local[:1]
        self._mesh = None
        if len(self.devices) > 1:
            self._mesh = Mesh(np.array(self.devices), (AXIS,))
        if self._compilable:
            self._objective = self._placed(self._objective)
        self.use(subspace)

    def use(self, subspace: Any) -> None:
        """Goes on with another subspace; of the same kind and shapes, nothing compiles.

        A function as a subspace is compiled once for each function.
        """
        if jax.tree_util.all_leaves([subspace]):
            subspace = jax.tree_util.Partial(subspace)
        self._subspace = self._placed(subspace)

    def _placed(self, tree: Any) -> Any:
        if self._mesh is not None:
            return jax.device_put(tree, NamedSharding(self._mesh, PartitionSpec()))
        if self.devices[0] != jax.local_devices()[0]:
            return jax.device_put(tree, self.devices[0])
        return jax.tree.map(jnp.asarray, tree)

    def run(
        self, coordinates: np.ndarray, todo: np.ndarray, chunk_size: int
    ) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Computes the points `todo`, and hands them out as they are done.

        Yields:
            Indices (n,), and by name the batch losses (n, num_batches).
        """
        if not self._compilable:
            make = jax.jit(lambda subspace, c: subspace(c))
            for index in todo:
                point = make(self._subspace, coordinates[index])
                losses = batch_losses(self._objective, point)
                yield np.array([index]), _named(losses, leading=True)
            return
        step = chunk_size * self._width
        waiting: tuple[np.ndarray, Any] | None = None
        for start in range(0, len(todo), step):
            indices = todo[start : start + step]
            # The last chunk is filled up, so that it compiles to nothing new.
            rows = np.append(indices, np.full(step - len(indices), indices[-1]))
            mine = coordinates[share_of(rows)]
            running = indices, self._compute(mine, chunk_size)
            # Handed out while the next ones run; on CPU two programs at once would
            # only be in each other's way.
            if self.devices[0].platform == "cpu":
                jax.block_until_ready(running[1])
            if waiting is not None:
                yield waiting[0], _fetched(*waiting)
            waiting = running
        if waiting is not None:
            yield waiting[0], _fetched(*waiting)

    @property
    def _width(self) -> int:
        """Devices that points are shared among, those of other processes too."""
        return len(self.devices) * jax.process_count()

    def _compute(self, coordinates: np.ndarray, chunk_size: int) -> Any:
        if self._mesh is None:
            program = _one if chunk_size == 1 else _many
            return program(self._objective, self._subspace, jnp.asarray(coordinates))
        coordinates = jax.device_put(
            coordinates, NamedSharding(self._mesh, PartitionSpec(AXIS))
        )
        return _shared(
            self._mesh, chunk_size, self._objective, self._subspace, coordinates
        )

    def choose_chunk(self, coordinates: np.ndarray, *, alone: bool = False) -> int:
        """The number of points side by side that is fastest, by a short measurement.

        Doubles it while that saves a tenth or more of the time a point. Measured on
        the first batch alone. Of several processes the first one decides, unless it
        is `alone` in asking.
        """
        chunk = self._fastest_chunk(coordinates)
        return chunk if alone else int(from_first(np.array(chunk)))

    def _fastest_chunk(self, coordinates: np.ndarray) -> int:
        most = -(-len(coordinates) // self._width)
        if not self._compilable or most == 1:
            return 1
        first = np.broadcast_to(coordinates[:1], (most, *coordinates.shape[1:]))
        size = self._objective.num_batches
        # Side by side, weights that differ make a grouped convolution, which on CPU is
        # ten times slower than one after another: nothing to measure.
        if jax.default_backend() == "cpu" and _convolves(
            self._objective, self._subspace, first[0]
        ):
            return 1
        chunk, best = 1, self._seconds(first[:1])
        if best * most * size < _WORTH_MEASURING:
            return 1
        while 2 * chunk <= most:
            try:
                seconds = self._seconds(first[: 2 * chunk]) / (2 * chunk)
            except jax.errors.JaxRuntimeError:  # out of memory: the last one fitted
                break
            if seconds > 0.9 * best:
                break
            chunk, best = 2 * chunk, seconds
        return chunk

    def _seconds(self, coordinates: np.ndarray) -> float:
        """How long points take side by side, over the first batch."""
        program = _one if len(coordinates) == 1 else _many
        arguments = (
            _one_batch(self._objective),
            self._subspace,
            jnp.asarray(coordinates),
        )
        jax.block_until_ready(program(*arguments))
        times = []
        for _ in range(3):
            started = time.perf_counter()
            jax.block_until_ready(program(*arguments))
            times.append(time.perf_counter() - started)
        return min(times)


@once_a_shape
def _convolves(objective: Any, subspace: Any, coordinates: Any) -> bool:
    """Whether there is a convolution in what is computed at a point."""
    # A function of its own: JAX keeps what it traced for as long as the function is.
    trace = jax.make_jaxpr(lambda *arguments: _point_losses(*arguments))
    jaxpr = trace(objective, subspace, coordinates)
    return any(True for _ in convolutions(jaxpr.jaxpr))


# Compiled programs. Objective and subspace are arguments, so that another sample or
# another line of the same shapes compiles nothing.


def _point_losses(objective, subspace, coordinates):
    # The barrier keeps the weights' arithmetic out of the convolutions that use them:
    # on CPU the whole is a tenth faster for it.
    point = jax.lax.optimization_barrier(subspace(coordinates))
    return sample_losses(objective, point)


@jit_objectives
def _one(objective, subspace, coordinates):
    losses = _point_losses(objective, subspace, coordinates[0])
    return jax.tree.map(lambda values: values[None], losses)


def _side_by_side(objective, subspace, coordinates):
    return jax.vmap(lambda c: _point_losses(objective, subspace, c))(coordinates)


_many = jit_objectives(_side_by_side)


@jit_objectives(static_argnums=(0, 1))
def _shared(mesh, chunk_size, objective, subspace, coordinates):
    def share(objective, subspace, coordinates):
        if chunk_size == 1:
            losses = _point_losses(objective, subspace, coordinates[0])
            return jax.tree.map(lambda values: values[None], losses)
        return _side_by_side(objective, subspace, coordinates)

    whole, split = PartitionSpec(), PartitionSpec(AXIS)
    return jax.shard_map(
        share,
        mesh=mesh,
        in_specs=(whole, whole, split),
        out_specs=split,
        check_vma=False,
    )(objective, subspace, coordinates)


def _one_batch(objective: Any) -> Any:
    """The objective over its first batch alone."""
    if objective.num_batches == 1:
        return objective
    whole = jax.tree.map(lambda leaf: leaf[:1], objective.whole)
    counts = (1, objective.counts[1], 0)
    return dataclasses.replace(objective, whole=whole, tail=None, counts=counts)


def _named(losses: Any, *, leading: bool = False) -> dict[str, np.ndarray]:
    named = losses if isinstance(losses, dict) else {"loss": losses}
    return {
        k: np.asarray(v)[None] if leading else np.asarray(v) for k, v in named.items()
    }


def _fetched(indices: np.ndarray, losses: Any) -> dict[str, np.ndarray]:
    everyones = gathered(losses)
    return {k: v[: len(indices)] for k, v in _named(everyones).items()}
