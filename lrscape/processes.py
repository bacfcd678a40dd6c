"""Several processes that work as one: how they find one another, and agree.

Each process holds its own devices. Everything that is decided, such as the order of the
examples, is computed in each of them alike; what only one may do, writing above all, is
done by the first. What one of them cannot go on from ends all of them, see
`end_all`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

# There is no public name for what processes tell one another by.
from jax._src.distributed import global_state
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec

from lrscape.errors import InputError

# After so many seconds without a word from a process the others give up.
HEARTBEAT_SECONDS = 10

# Between two looks at whether another process has failed.
LOOK_SECONDS = 0.5
# How long the first process, without which the others crash, waits for them to end.
LEAVE_SECONDS = 5.0
# What is written down for all processes: the status of the first failure, and which
# processes have ended because of it.
_FAILED, _ENDED = "lrscape/failed", "lrscape/ended"
_ending = threading.Lock()


def connect(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins the other processes; before any array is made.

    Args:
        coordinator: ``host:port`` of the first process, which must be free there; or
            ``'auto'``: as JAX finds it out under Slurm, MPI, Kubernetes, on TPU and GPU
            pods. None: this process works alone, and nothing happens.
        num_processes: how many there are; ``'auto'`` finds it out.
        process_id: which one this is, from 0; ``'auto'`` finds it out.

    Raises:
        InputError: half of what is needed, or numbers that cannot be.

    Example:
        >>> connect()  # alone
        >>> jax.process_count()
        1
    """
    if coordinator is None:
        if num_processes is not None or process_id is not None:
            raise InputError(
                f"num_processes={num_processes} and process_id={process_id} need "
                "coordinator=HOST:PORT, where the first process listens"
            )
        return
    if coordinator == "auto":
        found: dict[str, Any] = {}
    else:
        if num_processes is None or process_id is None:
            raise InputError(
                f"coordinator={coordinator!r} needs num_processes and process_id; or "
                "give coordinator='auto' where the cluster says"
            )
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise InputError(
                f"coordinator={coordinator!r} must be HOST:PORT, or 'auto'"
            )
        if not 0 <= process_id < num_processes:
            raise InputError(
                f"process_id={process_id} must be 0 or more and below "
                f"num_processes={num_processes}"
            )
        found = {
            "coordinator_address": coordinator,
            "num_processes": num_processes,
            "process_id": process_id,
        }
    # Without it XLA's CPU devices cannot reach those of another process.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(**found, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"coordinator={coordinator!r}: the processes did not find one another: "
            f"{str(error).splitlines()[0]}"
        ) from error
    threading.Thread(target=_end_with_others, daemon=True).start()


def is_alone() -> bool:
    """Whether this process works alone; starts no backend."""
    return _client() is None


def end_all(status: int, say: Callable[[], None]) -> None:
    """Ends all processes, wherever they are; returns only where this one is alone.

    A process that meets an error cannot just end: the others would wait for it, for
    minutes, within whatever all of them do together.

    Args:
        status: the exit status of all.
        say: says why. Where several processes fail, only the first one to do so does.
    """
    client = _client()
    if client is None:
        say()
        return
    # Held for good: this thread, or the one that watches the others, ends the process.
    _ending.acquire()
    try:
        client.key_value_set(_FAILED, str(status))
    except Exception:  # another process has failed before
        status = _failed_status(client) or status
    else:
        say()
    _end(client, status)


def _client() -> Any:
    """What the processes tell one another by; None where this one is alone."""
    several = (global_state.num_processes or 1) > 1
    return global_state.client if several else None


def _failed_status(client: Any) -> int | None:
    """The exit status of a process that failed; None where none did."""
    try:
        return int(client.key_value_try_get(_FAILED))
    except Exception:  # it is not there, or the first process is not
        return None


def _end_with_others() -> None:
    """Ends this process once another one has failed; runs in a thread of its own."""
    client = _client()
    while client is not None:
        time.sleep(LOOK_SECONDS)
        if (status := _failed_status(client)) is not None:
            with _ending:
                _end(client, status)


def _end(client: Any, status: int) -> None:
    """Ends this process without waiting for whatever it does; the first one last."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    # Not by JAX's own functions, which may wait for the others to find the devices.
    rank, others = global_state.process_id, global_state.num_processes - 1
    with contextlib.suppress(Exception):
        if rank:
            client.key_value_set(f"{_ENDED}/{rank}", "ended")
        else:
            deadline = time.monotonic() + LEAVE_SECONDS
            while time.monotonic() < deadline:
                time.sleep(LOOK_SECONDS / 10)
                if len(client.key_value_dir_get(f"{_ENDED}/")) == others:
                    time.sleep(LOOK_SECONDS)  # which they need to end
                    break
    os._exit(status)


def is_first() -> bool:
    """Whether this is the process that writes; alone, it is."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Returns once all processes have called it with the same name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def from_first(array: np.ndarray) -> np.ndarray:
    """The first process's array, of the same shape and dtype in all, to the last bit.

    Example:
        >>> from_first(np.array([1.5, 2.5])).tolist()
        [1.5, 2.5]
    """
    if jax.process_count() == 1:
        return array
    # As bytes: JAX would cut double precision short.
    as_bytes = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
    sent = np.asarray(multihost_utils.broadcast_one_to_all(as_bytes))
    return np.frombuffer(bytearray(sent.tobytes()), array.dtype).reshape(array.shape)


def gathered(tree: Any) -> Any:
    """The rows of all processes' arrays, in the order of the processes.

    Args:
        tree: arrays of the same shape in each process.

    Returns:
        NumPy arrays, as many times as long as there are processes.
    """
    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def share_of(rows: np.ndarray) -> np.ndarray:
    """This process's share of rows whose number all processes divide."""
    return np.split(rows, jax.process_count())[jax.process_index()]


def as_global(tree: Any) -> Any:
    """Arrays that each process holds whole, as ones that all hold together.

    Orbax saves, and restores into, nothing else where there are several processes.
    """
    if jax.process_count() == 1:
        return tree
    return multihost_utils.host_local_array_to_global_array(
        tree, _mesh(), PartitionSpec()
    )


def as_local(tree: Any) -> Any:
    """The other way round."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.global_array_to_host_local_array(
        tree, _mesh(), PartitionSpec()
    )


def _mesh() -> Mesh:
    return Mesh(np.array(jax.devices()), ("batch",))


def quiet_unless_first() -> None:
    """Sends what other processes than the first print to nowhere; not their errors."""
    if not is_first():
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
