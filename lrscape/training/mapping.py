"""The one mapped call site: how a step runs on several devices at once.

JAX has two public ways: `jax.pmap`, which is kept as it is, and `jax.shard_map`, which
takes its place. Both compile the same step to the same program, whose results agree to
the last bit; which one is used is `lrscape.training.Config.mapping`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lrscape import checks
from lrscape.matmul import MEASURED, with_precision
from lrscape.training.devices import AXIS, device_count
from lrscape.training.programs import reusing

MAPPINGS = ("pmap", "shard_map")


def map_over_devices(
    step: Callable[[Any, Any, Any], tuple[Any, Any]],
    devices: Sequence[jax.Device],
    mapping: str,
    *,
    donate_argnums: tuple[int, ...] = (),
    precision: str | None = MEASURED,
) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """Compiles ``step(state, dataset, indices)`` for several devices.

    State and dataset are seen whole by each device and keep their ordinary shape, with
    no axis of devices; the indices are split. Of several processes each passes, and
    gets back, arrays on its own devices, while the axis runs over the devices of all.

    Args:
        step: ``(state, dataset, indices) -> (state, metrics)``, as one device runs it;
            both are any trees, also of nothing. They must be the same on every device:
            the step has to average gradients, metrics and batch statistics over the
            axis `lrscape.training.devices.AXIS` itself. Nothing checks that here; a
            device that keeps its own value goes unnoticed, so the tests compare
            numbers of devices. A step that does the same as an earlier one is not
            compiled again.
        devices: of this process.
        mapping: ``'pmap'`` or ``'shard_map'``.
        donate_argnums: the arguments whose memory the returned arrays may take over.
        precision: of matrix products, see `lrscape.matmul.with_precision`.

    Returns:
        ``mapped(state, dataset, indices) -> (state, metrics)``. Each array of `indices`
        has a leading axis of this process's devices; state and dataset lie on them as
        `lrscape.training.devices.replicate` puts them.

    Raises:
        InputError: an unknown mapping.

    Example:
        >>> def step(state, dataset, indices):
        ...     return state + lax.psum(dataset[indices].sum(), AXIS), None
        >>> for mapping in MAPPINGS:
        ...     mapped = map_over_devices(step, jax.local_devices()[:1], mapping)
        ...     total, _ = mapped(np.float32(1), np.arange(4.0), np.array([[1, 3]]))
        ...     print(mapping, total)
        pmap 5.0
        shard_map 5.0
    """
    checks.one_of("mapping", mapping, MAPPINGS)
    by = _by_shard_map if mapping == "shard_map" else _by_pmap

    def map_step(step: Callable) -> Callable:
        return by(step, devices, donate_argnums)

    axis = AXIS, device_count(devices)
    about = mapping, tuple(devices), donate_argnums
    return reusing(with_precision(step, precision), map_step, axis=axis, about=about)


def _by_pmap(step, devices, donate_argnums):
    """`map_over_devices` through `jax.pmap`."""
    several = jax.process_count() > 1
    mapped = jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, None, 0),
        out_axes=(None, None),
        # With several processes the axis runs over the devices of all.
        devices=None if several else devices,
        donate_argnums=donate_argnums,
    )
    if several:
        return mapped
    # JAX keeps what pmap compiled until the process ends; a program of jit goes with
    # its function. Of several processes only pmap joins what each one holds.
    return jax.jit(mapped, donate_argnums=donate_argnums)


def _by_shard_map(step, devices, donate_argnums):
    """`map_over_devices` through `jax.shard_map`."""
    several = jax.process_count() > 1
    mesh = Mesh(np.array(_of_all_processes() if several else devices), (AXIS,))
    whole = PartitionSpec()
    specs = (whole, whole, PartitionSpec(AXIS))

    def on_one_device(state, dataset, indices):
        # Its share of the indices still has the axis of devices, of length 1.
        own = jax.tree.map(lambda leaf: lax.squeeze(leaf, (0,)), indices)
        return step(state, dataset, own)

    mapped = jax.jit(
        jax.shard_map(
            on_one_device,
            mesh=mesh,
            in_specs=specs,
            out_specs=whole,
            # With the check on, the gradient at a state that is whole on every device
            # would be added up over devices already, and the step's own average would
            # mean something else than under pmap.
            check_vma=False,
        ),
        # Said here too, so that indices go from the host to their devices at once.
        in_shardings=tuple(NamedSharding(mesh, spec) for spec in specs),
        out_shardings=NamedSharding(mesh, whole),
        donate_argnums=donate_argnums,
    )
    if not several:
        return mapped

    def from_local_arrays(state, dataset, indices):
        # A program over several processes takes arrays that all of them hold together.
        # The buffers stay where they are; these are other names for them.
        together = multihost_utils.host_local_array_to_global_array(
            (state, dataset, indices), mesh, specs
        )
        return multihost_utils.global_array_to_host_local_array(
            mapped(*together), mesh, whole
        )

    return from_local_arrays


def _of_all_processes() -> list[jax.Device]:
    """The devices of all processes, those of each one in a row, as pmap has them."""
    return [
        device
        for process in range(jax.process_count())
        for device in jax.local_devices(process_index=process)
    ]
