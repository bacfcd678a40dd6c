"""Placement on devices: state and data are whole on each, only indices are split.

Of several processes each holds state and data whole on its own devices, and takes its
share of the batch; see `lrscape.training.mapping` for how a step runs on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lrscape.errors import InputError

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
    """The number of devices of each process that a batch is split over."""
    return len(devices) * jax.process_count()


def replicate(tree: Tree, devices: Sequence[jax.Device]) -> Tree:
    """Puts every leaf on every device, in the layout that a mapped step returns.

    Without this the first call of a mapped step would compile for one layout and the
    second one for another, and data would be copied at every call.
    """
    mesh = Mesh(np.array(devices), (AXIS,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


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
