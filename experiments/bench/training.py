"""The training loop against the bare step, and against PyTorch.

    python -m experiments.bench.training --json training.json

Images a second of ResNet-20 at batch 128: the loop (`lrscape.training.fit`, as it is
chosen for this device) against a hand-written jitted step on a batch that is ready, and
against the same network in PyTorch where that is installed; memory; seconds to the
first state; and the time of ``import lrscape``. The images are random: values do not
change speed. Four minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.bench.pairs import (
    file_of_figures,
    installed,
    interleaved,
    ratios,
    show,
    write_json,
)
from lrscape import console, data, models, training, transforms
from lrscape.environment import describe
from lrscape.parser import Parser
from lrscape.training.fit import scan_steps

PARTS = ("training", "import")
LEARNING_RATE = 0.01  # small: random labels are not to be learnt, nor to diverge


def random_images(count: int) -> data.Dataset:
    """A set in the shape of CIFAR-10."""
    random = np.random.default_rng(0)
    examples = data.Examples(
        random.integers(0, 256, (count, 32, 32, 3), np.uint8),
        random.integers(0, 10, count).astype(np.int32),
    )
    return data.Dataset(
        name="random", num_classes=10, max_value=255, train=examples, test=examples
    )


def make_tx() -> optax.GradientTransformation:
    """Momentum SGD at a constant rate."""
    rate = transforms.scale_by_rate(lambda count: LEARNING_RATE)
    return optax.chain(optax.trace(0.9), rate)


def bare_step(model, tx, dataset: data.Dataset, batch_size: int):
    """One update as one would write it by hand: jitted, on a batch that is ready.

    Returns:
        The update, and the floating-point operations that XLA counts in it, or None.
    """
    variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
    params = variables["params"]
    state = (params, variables["batch_stats"], tx.init(params))
    images = jnp.asarray(dataset.train.image[:batch_size], jnp.float32) / 127.5 - 1.0
    labels = jnp.asarray(dataset.train.label[:batch_size])

    @jax.jit
    def step(params, batch_stats, opt_state):
        def loss_fn(params):
            logits, updated = model.apply(
                {"params": params, "batch_stats": batch_stats},
                images,
                train=True,
                mutable=["batch_stats"],
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), updated["batch_stats"]

        gradient, new_stats = jax.grad(loss_fn, has_aux=True)(params)
        updates, opt_state = tx.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), new_stats, opt_state

    def one() -> None:
        nonlocal state
        state = jax.block_until_ready(step(*state))

    counted = step.lower(*state).cost_analysis() or {}
    return one, counted.get("flops")


def loop_step(
    model, tx, dataset: data.Dataset, batch_size: int, calls: int, stride: int
):
    """The next state of the loop; and the seconds that the first one took."""
    config = training.Config(
        epochs=-(-calls * stride * batch_size // len(dataset.train)) + 1,
        batch_size=batch_size,
        num_devices=1,
        scan_steps=stride,
    )
    started = time.perf_counter()
    states = training.fit(model, dataset, tx, config, yield_every=stride)
    jax.block_until_ready(next(states))
    first = time.perf_counter() - started
    return (lambda: jax.block_until_ready(next(states))), first


def training_table(model_name: str, batch_size: int, repeats: int) -> dict:
    """Bare step, loop, compiled loop (where it is no trap) and PyTorch."""
    dataset = random_images(10 * batch_size)
    model = models.create(model_name, num_classes=10)
    stride = scan_steps(training.Config(epochs=1), jax.local_devices())
    calls = 2 * repeats + 10
    one, flops = bare_step(model, make_tx(), dataset, batch_size)
    loop, first = loop_step(model, make_tx(), dataset, batch_size, calls, 1)
    # What is compared works through `stride` updates a call.
    functions = {
        "bare jitted step": lambda: [one() for _ in range(stride)],
        "loop, step by step": lambda: [loop() for _ in range(stride)],
    }
    if stride > 1:
        scanned, first = loop_step(model, make_tx(), dataset, batch_size, calls, stride)
        functions[f"loop, {stride} updates compiled"] = scanned
    peak = peak_memory()
    if installed("torch") and model_name == "resnet20":
        from experiments.bench.torch_resnet import make_training_step

        torch_step = make_training_step(batch_size, LEARNING_RATE)
        functions["PyTorch, channels last"] = lambda: [
            torch_step() for _ in range(stride)
        ]
    else:
        print("PyTorch is left out: not installed, or another model than resnet20")
    table = ratios(interleaved(functions, repeats))
    show(f"{model_name}, batch {batch_size}", table, stride * batch_size)
    print(f"  first state after {first:.1f} s; peak memory {peak / 2**20:,.0f} MiB")
    return {
        "model": model_name,
        "batch_size": batch_size,
        "updates_per_call": stride,
        "flops_per_call": flops and stride * flops,
        "table": table,
        "first_state_seconds": first,
        "peak_memory_bytes": peak,
    }


def peak_memory() -> int:
    """Bytes: of the device where it counts them, else of this process."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    of_process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if (status := Path("/proc/self/status")).exists():
        # A process that was started by a large one inherits its peak in ru_maxrss.
        (line,) = [x for x in status.read_text().splitlines() if "VmHWM" in x]
        of_process = int(line.split()[1]) * 1024
    return int(statistics.get("peak_bytes_in_use", of_process))


def import_table(repeats: int) -> dict:
    """`import lrscape` with schedules, transformations and models, in new processes."""

    def running(code: str):
        return lambda: subprocess.run([sys.executable, "-c", code], check=True)

    functions = {
        "import jax, flax.linen, optax": running("import jax, flax.linen, optax"),
        "import lrscape, and its parts": running(
            "import lrscape; lrscape.schedules, lrscape.transforms, lrscape.models"
        ),
    }
    table = ratios(interleaved(functions, repeats, warm_up=1))
    show("import", table)
    return table


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
    parser.add_argument("--parts", choices=PARTS, nargs="*", default=PARTS)
    options = parser.parse_args()
    figures = {**describe(jax.local_devices()), "repeats": options.repeats}
    if "training" in options.parts:
        figures["training"] = training_table(
            options.model, options.batch_size, options.repeats
        )
    if "import" in options.parts:
        figures["import"] = import_table(options.repeats)
    if options.json:
        write_json(options.json, figures)
        print(f"\nfigures are in {options.json}")


if __name__ == "__main__":
    console.run(main)
