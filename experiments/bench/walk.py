"""The walk over the MLP's first epoch at paper scale, beside the arithmetic's floor.

    python -m experiments.bench.walk --json walk.json

Each of an epoch's 450 updates on MNIST is walked over: 11 forward passes over all
45,000 training examples, and as many over the 15,000 that are held out. Between
stretches of 25 updates, matrix products of the same sizes are timed: no forward pass
can take less. What is measured is kept in the run directory of
``python -m experiments.walk_with_sgd table1 --preset=paper``, which uses it; a run that
was stopped goes on. Forty minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from experiments.bench.pairs import file_of_figures, write_json
from experiments.walk_with_sgd.lab import Lab
from experiments.walk_with_sgd.networks import STRETCH
from experiments.walk_with_sgd.presets import PRESETS
from experiments.walk_with_sgd.result import on_both
from lrscape import console
from lrscape.environment import describe
from lrscape.parser import Parser

# Passes over the sample that are timed for the floor.
PASSES = 2
POINTS = 11  # a segment's end is the next one's beginning


def products(params, batch_size: int):
    """A forward pass's matrix products alone, over so many batches, as one program."""
    layers = sorted(name for name in params if name.startswith("Dense"))
    kernels = [params[name]["kernel"] for name in layers]

    @jax.jit
    def run(batches):
        def one(batch):
            for kernel in kernels:
                batch = batch @ kernel
            return batch.sum()

        return jax.lax.map(one, batches).sum()

    return run, jnp.ones((1, batch_size, kernels[0].shape[0]), jnp.float32)


def timed(run, batches) -> dict[str, list[float]]:
    """Seconds of the products of one update's passes, measured a few times."""
    seconds = []
    for _ in range(PASSES):
        started = time.perf_counter()
        run(batches).block_until_ready()
        seconds.append(POINTS * (time.perf_counter() - started))
    return {"seconds": seconds}


def main() -> int:
    """Runs the benchmark."""
    parser = Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--updates", type=int, default=450)
    parser.add_argument("--run-dir", type=Path, default="runs/walk_with_sgd-paper")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--dataset", help="instead of mnist")
    parser.add_argument(
        "--json", type=file_of_figures, help="a file to write the figures to"
    )
    options = parser.parse_args()
    plan = PRESETS["paper"]["mlp"]
    lab = Lab(
        "paper", ("mlp",), {"mlp": plan}, options.run_dir, options.data_dir,
        options.dataset,
    )  # fmt: skip
    network = lab.network("mlp", rate=lab.rates("mlp")[0], seed=0)
    first, last = network.span(1, options.updates)
    size = plan.sample.batch_size
    objective, second = network.objectives(plan.sample)
    examples = objective.num_examples + second.num_examples
    run, batch = products(network.initial_params(), size)
    batches = jnp.repeat(batch, examples // size, axis=0)
    run(batches).block_until_ready()
    walks: list = []
    floors: list[float] = []
    for start in tqdm(range(first, last, STRETCH), desc="stretches"):
        walks.append(network.walk((start, min(start + STRETCH, last)), plan.sample))
        # Kept with the stretch that they were timed beside.
        kept = network.numbers(
            f"products-{start}", functools.partial(timed, run, batches)
        )
        floors += kept["seconds"]
    seconds = np.concatenate([walk["seconds"].values for walk in walks])
    crossed = [walk["crosses_barrier"].values.astype(bool) for walk in walks]
    found = {
        **describe(jax.local_devices()),
        "command": " ".join(sys.argv),
        "dataset": network.config.dataset,
        "examples": [objective.num_examples, second.num_examples],
        "updates": len(seconds),
        "barriers": int(sum(c.sum() for c in crossed)),
        "barriers_on_both_samples": int(sum(on_both(walk).sum() for walk in walks)),
        "mean_height": float(np.mean([w for x in walks for w in x["height"].values])),
        "share_with_a_floor": float(
            np.mean([w for x in walks for w in x["has_floor"].values])
        ),
        "seconds_an_update": float(np.median(seconds)),
        "seconds_of_the_products": float(np.median(floors)),
        "share_of_the_floor": float(np.median(floors) / np.median(seconds)),
        "minutes": float(seconds.sum() / 60),
    }
    for name, value in found.items():
        print(f"{name:<28}{value}")
    if options.json:
        write_json(options.json, found)
    return 0


if __name__ == "__main__":
    console.run(main)
