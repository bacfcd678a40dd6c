"""Run by test_processes in one or several processes: trains, walks, surveys, saves.

python -m tests.together FOLDER [COORDINATOR NUM_PROCESSES PROCESS_ID]
"""

import json
import sys
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np

from lrscape import data, landscape, processes, training, transforms
from lrscape.training.checkpoint import Checkpoints
from lrscape.training.devices import choose_devices, replicate


class Net(nn.Module):
    """A convolution with batch norm, and dropout of nothing."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(4, (3, 3))(x)
        x = nn.BatchNorm(use_running_average=not train, axis_name=self.axis_name)(x)
        return nn.Dense(10)(nn.relu(x).reshape(len(x), -1))


def main(folder, coordinator=None, count=None, rank=None):
    """Writes what was measured to FOLDER/found.json, and a checkpoint."""
    processes.connect(coordinator, count and int(count), rank and int(rank))
    folder = Path(folder)
    digits, model = data.load("digits"), Net()
    config = training.Config(epochs=1, batch_size=64)
    tx = transforms.scale_by_gaussian(0.3, config.total_steps(digits), start_value=0.1)
    images = digits.train.image[:200].astype(np.float32) / digits.max_value
    sample = landscape.flax_objective(
        model, (images, digits.train.label[:200]), norm="train", batch_size=100
    )
    walk = landscape.Walk(sample, windows=[(0, 4)], num_points=3)
    state = training.initial_state(model, digits, tx, config.seed)
    state = replicate(state, choose_devices(None, config.batch_size))
    start = state.params
    with Checkpoints(folder / "checkpoints") as checkpoints:
        if checkpoints.steps:
            state, _, problems = checkpoints.restore(state)
            assert not problems
        resumed = int(state.step)
        if not resumed:
            walk.record(0, state.params)
        for state in training.fit(model, digits, tx, config, state=state):  # noqa: B020
            if not resumed and state.step <= 4:
                walk.record(int(state.step), state.params)
            if state.step == 6:
                checkpoints.save(state, {})
    surface = landscape.measure_surface(
        sample, landscape.line(start, state.params), np.linspace(0, 1, 7),
        store=folder / "line.store",
    )  # fmt: skip
    measured = training.make_evaluate(model, digits, config)(state)
    # Of a stream each process reads its share of a batch.
    stream = data.open_stream("digits", image_size=8, crop="random_resized")
    updates = training.fit(model, stream, tx, config)
    *_, last = (next(updates) for _ in range(3))
    updates.close()
    found = {
        "devices": jax.device_count(),
        "loss": measured["loss"],
        "wrong": measured["error"] * len(digits.test),
        "params": [float(abs(leaf).sum()) for leaf in jax.tree.leaves(state.params)],
        "batch_stats": [float(x.sum()) for x in jax.tree.leaves(state.batch_stats)],
        "line": surface.losses.tolist(),
        "resumed": resumed,
        "streamed": [float(abs(leaf).sum()) for leaf in jax.tree.leaves(last.params)],
        "walk": [] if resumed else walk.to_dataset().loss.values.tolist(),
    }
    if processes.is_first():
        (folder / "found.json").write_text(json.dumps(found))
    processes.wait_for_all("written")


if __name__ == "__main__":
    main(*sys.argv[1:])
