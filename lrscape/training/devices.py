"""The one mapped call site: state and data stay whole, only indices are split.

Of several processes each holds state and data whole on its own devices, and maps over
its share of the batch; the mapped axis runs over the devices of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lrscape.errors import InputError
from lrscape.training.programs import reusing

AXIS = "batch"

Tree = TypeVar("Tree")


def choose_devices(num_devices: int | None, batch_size: int) -> list[jax.Device]:
    """The local devices to train on.

    Args:
        num_devices: how many; None is all local devices. Of several processes all
            devices are used.
        batch_size: the global batch, which they must divide evenly.

    Returns:
        The first `num_devices` local devices.

    Raises:
        InputError: more devices than there are, fewer in one of several processes, or
            a batch that they do not divide.
    """
    local = jax.local_devices()
    if jax.process_count() > 1 and num_devices not in (None, len(local)):
        raise InputError(
            f"num_devices={num_devices}: of {jax.process_count()} processes all "
            f"devices are used, {len(local)} in this one; leave it out"
        )
    if num_devices is not None and num_devices > len(local):
        raise InputError(
            f"num_devices={num_devices} is more than this process has: {len(local)} "
            f"({local[0].platform})"
        )
    devices = local[:num_devices]
    count = device_count(devices)
    if batch_size % count:
        below = batch_size - batch_size % count
        near = [n for n in (below, below + count) if n]
        raise InputError(
            f"batch_size={batch_size} cannot be split evenly over {count} "
            f"devices; choose {' or '.join(map(str, near))}, or another num_devices"
        )
    return devices


def device_count(devices: Sequence[jax.Device]) -> int:
    """How many devices a batch is split over: those of each process."""
    return len(devices) * jax.process_count()


def replicate(tree: Tree, devices: Sequence[jax.Device]) -> Tree:
    """Puts every leaf on every device, in the layout that a mapped step returns.

    Without this the first call of a mapped step would compile for one layout and the
    second one for another, and data would be copied at every call.
    """
    mesh = Mesh(np.array(devices), (AXIS,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def map_over_devices(
    step: Callable,
    devices: Sequence[jax.Device],
    *,
    donate_argnums: tuple[int, ...] = (),
) -> Callable:
    """Compiles `step(state, dataset, indices)` for several devices.

    State and dataset are seen whole by each device and keep their ordinary shape;
    `indices`, of shape (local devices, examples a device), are split. What `step`
    returns must be the same on every device: it has to average gradients, metrics and
    batch statistics over the axis `AXIS` itself. Nothing checks that here; a device
    that keeps its own value goes unnoticed, so the tests compare numbers of devices.
    A step that does the same as an earlier one is not compiled again.
    """

    def map_step(step: Callable) -> Callable:
        mapped = jax.pmap(
            step,
            axis_name=AXIS,
            in_axes=(None, None, 0),
            out_axes=(None, None),
            # With several processes the axis runs over the devices of all.
            devices=devices if jax.process_count() == 1 else None,
            donate_argnums=donate_argnums,
        )
        if jax.process_count() > 1:
            return mapped
        # JAX keeps what pmap compiled until the process ends; a program of jit goes
        # with its function. Of several processes only pmap joins what each one holds.
        return jax.jit(mapped, donate_argnums=donate_argnums)

    axis = AXIS, device_count(devices)
    about = tuple(devices), donate_argnums
    return reusing(step, map_step, axis=axis, about=about)


def split(indices: np.ndarray, devices: Sequence[jax.Device]) -> np.ndarray:
    """This process's share of global batches.

    Args:
        indices: of one batch, (examples,), or of any number of them,
            (..., examples).
        devices: of this process.

    Returns:
        (local devices, ..., examples a device).
    """
    shares = indices.reshape(*indices.shape[:-1], jax.process_count(), len(devices), -1)
    return np.moveaxis(shares[..., jax.process_index(), :, :], -2, 0)


def split_many(
    batches: Sequence[np.ndarray], devices: Sequence[jax.Device], length: int
) -> np.ndarray:
    """This process's share of batches, (local devices, length, ..., examples a device).

    What is missing from `length` batches is filled up with -1.
    """
    indices = np.full((length, *batches[0].shape), -1, np.int32)
    indices[: len(batches)] = batches
    return split(indices, devices)
