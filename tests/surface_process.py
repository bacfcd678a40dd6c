"""Measures a 25 x 25 surface into a store, slowly; to be killed by `test_surfaces`.

    python -m tests.surface_process STORE COUNTER RESULT

COUNTER gets a byte for each point that is measured.
"""

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from lrscape.landscape import evaluate, grid_coordinates, plane

AXIS = np.linspace(-1, 1, 25)


class Slow:
    """A bowl whose loss takes its time; 0 at the origin, which is on the grid."""

    num_batches = 1
    weights = np.ones(1)

    def __init__(self, counter: Path):
        self._counter = counter

    def batch(self, i):
        with self._counter.open("ab") as file:
            file.write(b".")
        time.sleep(0.004)
        return jnp.ones(2)

    def batch_loss(self, point, batch):
        return jnp.sum(batch * point**2)


def main() -> None:
    store, counter, result = map(Path, sys.argv[1:])
    u, v = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    losses = evaluate(
        Slow(counter), plane(jnp.zeros(2), u, v), grid_coordinates(AXIS, AXIS),
        store=store, devices=jax.local_devices()[:1],
    )  # fmt: skip
    np.save(result, losses)


if __name__ == "__main__":
    main()
