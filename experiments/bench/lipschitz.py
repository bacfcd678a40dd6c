"""What the Lipschitz-adaptive rate costs: for nothing, and by a pass each epoch.

    python -m experiments.bench.lipschitz --json lipschitz.json

An update of ResNet-20 at batch 128 by `lrscape.training.fit`, at a constant rate
against the rate that its own forward pass gives; and a batch of the pass that the paper
makes at each epoch's start, in train mode and in inference mode. A pass over as many
batches as an epoch has updates costs the same share of it. The images are random:
values do not change speed. Three minutes on two CPU cores.
"""

from __future__ import annotations

import argparse

import jax
import optax

from experiments.bench.pairs import (
    file_of_figures,
    interleaved,
    ratios,
    show,
    write_json,
)
from experiments.bench.training import LEARNING_RATE, loop_step, random_images
from lrscape import console, models, training, transforms
from lrscape.environment import describe
from lrscape.parser import Parser
from lrscape.training.fit import scan_steps

NUM_CLASSES = 10


def optimizers(batch_size: int) -> dict[str, optax.GradientTransformation]:
    """SGD at a constant rate, and at the rate for nothing, capped at the same."""
    rate = transforms.scale_by_rate(lambda count: LEARNING_RATE)
    free = transforms.lipschitz_sgd(
        num_classes=NUM_CLASSES, batch_size=batch_size, window=391,
        max_rate=LEARNING_RATE,
    )  # fmt: skip
    return {"update at a constant rate": rate, "update, K_z for nothing": free}


def cost_table(model_name: str, batch_size: int, repeats: int) -> dict:
    """An update by either optimizer, and a batch of each pass."""
    dataset = random_images(10 * batch_size)
    model = models.create(model_name, num_classes=NUM_CLASSES)
    stride = scan_steps(training.Config(epochs=1), jax.local_devices())
    functions, calls = {}, 2 * repeats + 10
    for name, tx in optimizers(batch_size).items():
        functions[name], _ = loop_step(
            model, tx, dataset, batch_size, calls, stride
        )  # fmt: skip
    config = training.Config(epochs=1, batch_size=batch_size, num_devices=1)
    state = training.initial_state(model, dataset, optax.sgd(0.1), 0)
    # As many batches as there are updates in a call.
    times = max(1, stride // 10)
    for mode in ("train", "inference"):
        measure = training.make_largest_activations(
            model, dataset, config, mode=mode, num_batches=min(stride, 10)
        )
        functions[f"the pass, {mode} mode"] = lambda measure=measure: [
            measure(state) for _ in range(times)
        ]
    table = ratios(interleaved(functions, repeats))
    show(f"{model_name}, batch {batch_size}", table, stride * batch_size)
    return {
        "model": model_name,
        "batch_size": batch_size,
        "updates_per_call": stride,
        "table": table,
    }


def main() -> None:
    """Runs the benchmark."""
    parser = Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=30, help="interleaved rounds")
    parser.add_argument(
        "--json", type=file_of_figures, help="a file to write the figures to"
    )
    options = parser.parse_args()
    figures = {
        **describe(jax.local_devices()),
        "repeats": options.repeats,
        "cost": cost_table(options.model, options.batch_size, options.repeats),
    }
    if options.json:
        write_json(options.json, figures)
        print(f"\nfigures are in {options.json}")


if __name__ == "__main__":
    console.run(main)
