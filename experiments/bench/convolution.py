"""Gradients of convolutional networks on CPU: kernels' in slices against XLA's own.

    python -m experiments.bench.convolution --json convolution.json

The gradient of one batch's loss in training mode, by `lrscape.models.convolution` as it
is and with its slices off. On an accelerator both are the same program. Ten minutes on
two CPU cores.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import optax

from experiments.bench.pairs import (
    file_of_figures,
    interleaved,
    ratios,
    show,
    write_json,
)
from lrscape import console, models
from lrscape.environment import describe
from lrscape.models import convolution
from lrscape.parser import Parser

# Model -> images a batch, and the shape of one.
BATCHES: dict[str, tuple[int, tuple[int, int, int]]] = {
    "resnet20": (128, (32, 32, 3)),
    "small": (64, (32, 32, 3)),
    "mnist_cnn": (128, (28, 28, 1)),
}


def compiled_gradient(name: str, *, slices: bool) -> tuple[Callable[[], Any], float]:
    """A function that takes one gradient, and the seconds that compiling it took."""
    count, shape = BATCHES[name]
    model = models.create(name, num_classes=10)
    images = jax.random.normal(jax.random.key(0), (count, *shape))
    labels = jnp.arange(count) % 10
    keys = {"params": jax.random.key(1), "dropout": jax.random.key(2)}
    variables = model.init(keys, images[:1], train=False)
    params = variables.pop("params")

    def loss(params, images):
        logits, _ = model.apply(
            {"params": params, **variables}, images, train=True,
            mutable=["batch_stats", "intermediates"], rngs=keys,
        )  # fmt: skip
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean()

    most = convolution._TOGETHER if slices else sys.maxsize
    started = time.perf_counter()
    with mock.patch.object(convolution, "_TOGETHER", most):
        compiled = jax.jit(jax.grad(loss)).lower(params, images).compile()
    seconds = time.perf_counter() - started
    return lambda: jax.block_until_ready(compiled(params, images)), seconds


def convolution_table(name: str, repeats: int) -> dict[str, Any]:
    """A model's gradient, both ways."""
    whole, whole_seconds = compiled_gradient(name, slices=False)
    sliced, sliced_seconds = compiled_gradient(name, slices=True)
    table = ratios(interleaved({"as XLA does": whole, "in slices": sliced}, repeats))
    count, shape = BATCHES[name]
    show(f"{name}, {count} images of {shape}", table, count)
    print(f"compiling: {whole_seconds:.1f} s, in slices {sliced_seconds:.1f} s")
    return {
        "images": count,
        "shape": shape,
        "compile_seconds": {"as XLA does": whole_seconds, "in slices": sliced_seconds},
        "table": table,
    }


def command_line(docstring: str, table: Callable[[str, int], dict[str, Any]]) -> None:
    """Runs a benchmark of these models' gradients.

    Args:
        docstring: of its file, shown by ``--help``.
        table: measures and prints a model, in so many rounds; returns its figures.
    """
    parser = Parser(
        description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=BATCHES, default=list(BATCHES))
    parser.add_argument("--repeats", type=int, default=30, help="interleaved rounds")
    parser.add_argument(
        "--json", type=file_of_figures, help="a file to write the figures to"
    )
    options = parser.parse_args()
    figures = {
        **describe(jax.local_devices()),
        "repeats": options.repeats,
        "gradients": {name: table(name, options.repeats) for name in options.models},
    }
    if options.json:
        write_json(options.json, figures)
        print(f"\nfigures are in {options.json}")


def main() -> None:
    """Runs the benchmark."""
    command_line(__doc__ or "", convolution_table)


if __name__ == "__main__":
    console.run(main)
