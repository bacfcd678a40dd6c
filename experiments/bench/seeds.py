"""Several seeds in one program against the same seeds one after another.

    python -m experiments.bench.seeds --json seeds.json

Updates of eight seeds of the digits' MLP (`experiments.digits`, preset quick), by
`lrscape.training.fit_seeds` in one program and by `lrscape.training.fit` eight times
over, each as it is chosen for this device. Compiling, which the one program does once
and `experiments` shares among runs one after another, is left out, and so is measuring.
Half a minute on two CPU cores.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import jax

from experiments.bench.pairs import (
    file_of_figures,
    interleaved,
    ratios,
    show,
    write_json,
)
from experiments.digits import PRESETS
from experiments.harness.arguments import resolve
from experiments.harness.paper import compiled_once
from lrscape import console, training
from lrscape.data import Dataset
from lrscape.environment import describe
from lrscape.parser import Parser
from lrscape.runs import RunConfig
from lrscape.training.devices import choose_devices
from lrscape.training.fit import scan_steps


def calls_of(states: Generator[Any, Any], updates: int, stride: int):
    """A function that passes through so many updates."""

    def call() -> None:
        for _ in range(updates // stride - 1):
            next(states)
        jax.block_until_ready(next(states))

    return call


def seeds_table(config: RunConfig, count: int, updates: int, repeats: int) -> dict:
    """So many updates of each seed, one after another and together."""
    data = config.load_data()
    assert isinstance(data, Dataset)
    model = config.make_model(data.num_classes)
    steps_per_epoch, total_steps = (
        config.steps_per_epoch(data),
        config.total_steps(data),
    )
    tx = config.make_optimizer(config.make_schedule(total_steps, steps_per_epoch))
    stride = scan_steps(config, choose_devices(config.num_devices, config.batch_size))
    updates = -(-updates // stride) * stride
    # The reference is called twice a round.
    needed = 2 * (repeats + 2) * updates
    fields = {**config.to_dict(), "epochs": -(-needed // steps_per_epoch)}

    def of_seed(seed: int) -> RunConfig:
        return RunConfig.from_dict({**fields, "seed": seed})

    options: dict[str, Any] = {"yield_every": stride, "donate": True}
    each = [
        calls_of(
            training.fit(model, data, tx, of_seed(seed), **options), updates, stride
        )
        for seed in range(count)
    ]
    together = training.fit_seeds(model, data, tx, of_seed(0), range(count), **options)
    functions = {
        "one after another": lambda: [call() for call in each],
        "in one program": calls_of(together, updates, stride),
    }
    table = ratios(interleaved(functions, repeats))
    images = count * updates * config.batch_size
    show(f"{count} seeds of {config.model}, {updates} updates each", table, images)
    return {
        "model": config.model,
        "dataset": config.dataset,
        "batch_size": config.batch_size,
        "seeds": count,
        "updates": updates,
        "updates_per_call": stride,
        "table": table,
    }


def main() -> None:
    """Runs the benchmark."""
    parser = Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--updates", type=int, default=4, help="of each seed, a round")
    parser.add_argument("--repeats", type=int, default=30, help="interleaved rounds")
    parser.add_argument(
        "--json", type=file_of_figures, help="a file to write the figures to"
    )
    options = parser.parse_args()
    config: RunConfig = resolve("digits", PRESETS, "quick", {}, None)
    with tempfile.TemporaryDirectory() as folder, compiled_once(Path(folder)):
        table = seeds_table(config, options.seeds, options.updates, options.repeats)
    figures = {
        **describe(jax.local_devices()),
        "repeats": options.repeats,
        "training": table,
    }
    if options.json:
        write_json(options.json, figures)
        print(f"\nfigures are in {options.json}")


if __name__ == "__main__":
    console.run(main)
