"""Surfaces against the bare forward pass, PyTorch, and the package loss-landscapes.

    python -m experiments.bench.surface --json surface.json

Points times images a second along a line between two networks, in batches of 250, by:
the bare jitted forward pass on weights that are ready; `lrscape.landscape.evaluate`;
one point after another by calling the objective; a careful PyTorch loop (channels last,
no gradients); and ``loss_landscapes.linear_interpolation`` with its own ``Loss`` over
the whole sample and with one that takes batches, where they are installed.
The same weights and images everywhere, and the same losses, which is checked. Then the
walk: what `Walk.record` costs in units of its 11 bare forward passes, beside PyTorch's
careful loop over as many points. The images are random: values do not change speed;
accelerators get more of them. Twenty minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from typing import Any

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
from experiments.bench.training import peak_memory
from lrscape import console, landscape, models
from lrscape.environment import describe
from lrscape.parser import Parser

BATCH = 250
# Times as many images where a batch takes less than a millisecond.
ENLARGED = 20
PARTS = ("surface", "walk")

# model -> its fields, the shape of an image, images in the sample, points.
CASES: dict[str, tuple[dict[str, Any], tuple[int, int, int], int, int]] = {
    "mlp": ({"features": (512, 512), "batch_norm": False}, (28, 28, 1), 5000, 10),
    "resnet20": ({}, (32, 32, 3), 500, 3),
}


class Case:
    """Two networks of one kind, a sample, and points on the line between them."""

    def __init__(self, name: str):
        fields, shape, self.num_images, num_points = CASES[name]
        model = models.create(name, num_classes=10, **fields)
        random = np.random.default_rng(0)
        if jax.local_devices()[0].platform != "cpu":
            self.num_images *= ENLARGED
        count = self.num_images
        images = jnp.asarray(random.normal(size=(count, *shape)), jnp.float32)
        labels = jnp.asarray(random.integers(0, 10, count), jnp.int32)
        self.start, self.end = (
            model.init(jax.random.key(seed), images[:1], train=False) for seed in (0, 1)
        )
        stats = self.start.get("batch_stats")
        self.images = images.reshape(-1, BATCH, *shape)
        self.labels = labels.reshape(-1, BATCH)
        self.batches = [
            (self.images[i], self.labels[i]) for i in range(len(self.labels))
        ]
        # What loss-landscapes visits: every point but the start.
        self.alphas = np.arange(1, num_points + 1) / num_points
        self.objective = landscape.flax_objective(
            model, (images, labels), norm="eval", batch_size=BATCH, batch_stats=stats
        )
        self.line = landscape.line(self.start["params"], self.end["params"])
        self.points = [
            jax.tree.map(jnp.asarray, self.line(float(alpha))) for alpha in self.alphas
        ]

        @jax.jit
        def forward(params, images, labels):
            variables = {"params": params}
            if stats is not None:
                variables["batch_stats"] = stats
            logits = model.apply(variables, images, train=False)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean()

        self.forward = forward

    def bare(self, points: list[Any] | None = None) -> list[float]:
        """The loss at each point, by the forward pass and nothing else."""
        losses = [
            [self.forward(point, *batch) for batch in self.batches]
            for point in (self.points if points is None else points)
        ]
        return [float(np.mean(jax.device_get(row))) for row in losses]

    def own_functions(self) -> dict[str, Callable[[], Any]]:
        """What needs nothing but JAX, the reference first."""
        return {
            "bare jitted forward pass": self.bare,
            "evaluate": lambda: landscape.evaluate(
                self.objective, self.line, self.alphas
            ),
            "one point after another": lambda: [
                float(self.objective(self.line(float(alpha)))) for alpha in self.alphas
            ],
        }

    def functions(self) -> dict[str, Callable[[], Any]]:
        """What is compared, the reference first."""
        functions = self.own_functions()
        arguments = (self.start, self.end, self.images, self.labels)
        if installed("torch"):
            from experiments.bench.torch_surface import careful_line, package_line

            functions["PyTorch, careful"] = careful_line(*arguments, self.alphas)
            if installed("loss_landscapes"):
                for how, batched in (("its Loss", False), ("in batches", True)):
                    functions[f"loss-landscapes, {how}"] = package_line(
                        *arguments, len(self.alphas), batched=batched
                    )
            else:
                print("loss-landscapes is not installed: left out")
        else:
            print("PyTorch is not installed: left out")
        return functions


def surface_table(name: str, repeats: int) -> dict[str, Any]:
    """Points times images a second by each way."""
    case = Case(name)
    functions = case.functions()
    expected = case.bare()
    # Where products are of TensorFloat-32, eleven bits are left of a number.
    exact = jax.local_devices()[0].platform == "cpu"
    for way, function in functions.items():
        found = np.asarray(function(), float)
        # Statistics of the end are not moved along by loss-landscapes either.
        np.testing.assert_allclose(
            found, expected, rtol=2e-3 if exact else 2e-2, err_msg=way
        )
    table = ratios(interleaved(functions, repeats))
    show(f"{name}: surface", table, case.num_images * len(case.alphas))
    chunk = landscape.measure_surface(case.objective, case.line, case.alphas).chunk_size
    print(f"  chunk size {chunk}")
    return {
        "images": case.num_images,
        "points": len(case.alphas),
        "chunk_size": chunk,
        "table": table,
        "peak_memory_bytes": {
            way: _memory(name, way) for way in ("bare jitted forward pass", "evaluate")
        },
    }


def walk_table(name: str, repeats: int) -> dict[str, Any]:
    """One step of a walk against its 11 forward passes."""
    case = Case(name)
    ends = [case.start["params"], case.end["params"]]
    steps = 3 * (repeats + 5)
    walk = landscape.Walk(case.objective, windows=[(0, steps)])
    segment = landscape.line(*ends)
    eleven = [segment(float(k / 11)) for k in range(1, 12)]
    count = 0

    def record() -> None:
        nonlocal count
        walk.record(count, ends[count % 2])
        count += 1

    record()
    functions: dict[str, Callable[[], Any]] = {
        "11 bare forward passes": lambda: case.bare(eleven),
        "Walk.record": record,
    }
    if installed("torch"):
        from experiments.bench.torch_surface import careful_line

        functions["PyTorch, careful, 11 points"] = careful_line(
            case.start, case.end, case.images, case.labels, np.arange(1, 12) / 11
        )
    table = ratios(interleaved(functions, repeats))
    show(f"{name}: a step of the walk", table, 11 * case.num_images)
    return table


def _memory(name: str, way: str) -> int:
    """Bytes at the peak of a process that measures one way alone."""
    command = [sys.executable, "-m", "experiments.bench.surface"]
    out = subprocess.run(
        [*command, "--model", name, "--memory-of", way], check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    return int(out.stdout.split()[-1])


def main() -> None:
    """Runs the benchmark."""
    parser = Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=[*CASES], nargs="*", default=[*CASES])
    parser.add_argument("--repeats", type=int, default=30, help="interleaved rounds")
    parser.add_argument(
        "--json", type=file_of_figures, help="a file to write the figures to"
    )
    parser.add_argument("--parts", choices=PARTS, nargs="*", default=PARTS)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        case = Case(options.model[0])
        case.own_functions()[options.memory_of]()
        print(peak_memory())
        return
    figures: dict[str, Any] = {
        **describe(jax.local_devices()),
        "repeats": options.repeats,
        "batch_size": BATCH,
    }
    for name in options.model:
        figures[name] = {}
        if "surface" in options.parts:
            figures[name]["surface"] = surface_table(name, options.repeats)
            for way, peak in figures[name]["surface"]["peak_memory_bytes"].items():
                print(f"  peak memory, {way}: {peak / 2**20:,.0f} MiB")
        if "walk" in options.parts:
            figures[name]["walk"] = walk_table(name, options.repeats)
        if options.json:
            write_json(options.json, figures)
    if options.json:
        print(f"\nfigures are in {options.json}")


if __name__ == "__main__":
    console.run(main)
