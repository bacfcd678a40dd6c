"""Hessian products, eigenvalues, traces and densities against PyTorch's packages.

    python -m experiments.bench.curvature --run runs/resnet20 --json curvature.json

On the same weights and the same images as PyHessian, hessian-eigenthings and curvlinops
(the extra ``[bench]``), in inference mode, which is all that they have. First that the
products, eigenvalues and traces agree; then what they take:

- products, in units of one gradient over the same batches;
- loops (Lanczos, Hutchinson) in units of as many separate products;
- whole tasks: the three largest eigenvalues, a trace, a density;
- memory (Linux), for one, four and sixteen times as many examples.

``--run`` takes ResNet-20's weights and images from a finished run on CIFAR-10; without
it they are the initial weights and random images. 30 interleaved rounds, but for
ResNet-20's tasks, of which a round takes minutes on CPU: 3. Forty minutes on two CPU
cores.
"""

from __future__ import annotations

import argparse
import functools
import gc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.pairs import (
    file_of_figures,
    installed,
    interleaved,
    ratios,
    show,
    write_json,
)
from lrscape import console, landscape, models
from lrscape.environment import describe
from lrscape.landscape.accumulate import loss_gradient
from lrscape.landscape.lanczos import tridiagonalize
from lrscape.landscape.moments import Estimated
from lrscape.parser import Parser
from lrscape.runs import open_run

# model -> its fields, the shape of an image, images a batch, batches, products of the
# density, rounds of the tasks.
CASES: dict[str, tuple[dict[str, Any], tuple[int, int, int], int, int, int, int]] = {
    "mlp": (
        {"features": (512, 512), "batch_norm": False}, (28, 28, 1), 500, 2, 20, 30
    ),
    "resnet20": ({}, (32, 32, 3), 128, 1, 10, 3),
}  # fmt: skip
TOP = 3
BY_HAND = "PyTorch, double backward"
PARTS = ("agreement", "products", "loops", "tasks", "memory")
SAMPLES = 10
LOOP = 5
# Images a batch for loops, whose own work weighs the more, the fewer there are.
LOOP_SIZE = {"mlp": 500, "resnet20": 16}


class Case:
    """A network, a sample of equal batches, and a direction."""

    def __init__(self, name: str, run: Path | None = None, times: int = 1):
        fields, shape, size, batches, self.matvecs, self.task_repeats = CASES[name]
        self.name, count = name, size * batches * times
        random = np.random.default_rng(0)
        if run is None:
            self.model = models.create(name, num_classes=10, **fields)
            images = jnp.asarray(random.normal(size=(count, *shape)), jnp.float32)
            labels = jnp.asarray(random.integers(0, 10, count), jnp.int32)
            self.variables = self.model.init(jax.random.key(0), images[:1], train=False)
        else:
            opened = open_run(run)
            self.model, snapshot = opened.model, opened.snapshots["final"]
            images, labels = opened.sample("train", count)
            self.variables = snapshot.variables
        self.params = self.variables["params"]
        self.objectives = {
            norm: landscape.flax_objective(
                self.model, (images, labels), norm=norm, batch_size=size,
                batch_stats=self.variables.get("batch_stats"),
            )
            for norm in ("eval", "train")
        }  # fmt: skip
        self.objective = self.objectives["eval"]
        self.images = images.reshape(-1, size, *shape)
        self.labels = labels.reshape(-1, size)
        self.sample_bytes = images.nbytes + labels.nbytes
        self.direction = jax.tree.map(
            lambda leaf: jnp.asarray(random.normal(size=leaf.shape), leaf.dtype),
            self.params,
        )

    def operator(self, *, reuse: bool, norm: str = "eval") -> landscape.Operator:
        """The Hessian, compiled."""
        operator = landscape.Operator(self.objectives[norm], self.params, reuse=reuse)
        operator(operator.to_vector(self.direction))
        return operator

    def product(self, *, reuse: bool, norm: str = "eval") -> Callable[[], Any]:
        """The product with the direction."""
        operator = self.operator(reuse=reuse, norm=norm)
        vector = operator.to_vector(self.direction)
        return lambda: operator(vector).block_until_ready()

    def gradient(self, norm: str = "eval") -> Callable[[], Any]:
        """The gradient over the same batches."""
        return lambda: jax.block_until_ready(
            loss_gradient(self.objectives[norm], self.params)
        )

    def peers(self) -> dict[str, Any]:
        """What is installed of PyTorch's packages, by name."""
        if not installed("torch"):
            print("PyTorch is not installed: the packages are left out")
            return {}
        from experiments.bench.torch_curvature import make_peers

        return make_peers(self.variables, self.images, self.labels)

    def as_parameters(self, tree: Any) -> list[Any]:
        """A tree like the parameters, as PyTorch has them."""
        from experiments.bench.torch_curvature import as_parameters

        return as_parameters(tree, self.variables)

    def by_hand(self) -> Callable[[], Any]:
        """The product as one would write it in PyTorch; raises if it is another."""
        from experiments.bench.torch_curvature import double_backward

        product = double_backward(self.variables, self.images, self.labels)
        vector = self.as_parameters(self.direction)
        operator = self.operator(reuse=False)
        ours = self.as_parameters(
            operator.to_tree(operator(operator.to_vector(self.direction)))
        )
        pairs = list(zip(ours, product(vector), strict=True))
        apart = sum(float(((a - b) ** 2).sum()) for a, b in pairs)
        error = (apart / sum(float((a**2).sum()) for a, _ in pairs)) ** 0.5
        # TensorFloat-32 keeps eleven bits of each factor.
        if not error < (1e-3 if jax.local_devices()[0].platform == "cpu" else 0.05):
            raise AssertionError(f"{BY_HAND} disagrees: {error:.1e} off")
        return functools.partial(product, vector)

    def eigenvalues(self, tolerance: float, reuse: bool | None = None) -> Any:
        """The largest ones and their residuals."""
        return landscape.top_eigenpairs(
            self.objective, self.params, TOP, key=jax.random.key(0),
            tolerance=tolerance, reuse=reuse,
        )  # fmt: skip

    @functools.cached_property
    def exact(self) -> Any:
        """The largest eigenvalues, closely, and their residuals."""
        return self.eigenvalues(1e-6)

    @functools.cached_property
    def by_magnitude(self) -> np.ndarray:
        """The eigenvalues of largest magnitude, closely."""
        lowest = landscape.top_eigenpairs(
            self.objective, self.params, TOP, key=jax.random.key(0), which="smallest",
            tolerance=1e-6,
        ).eigenvalues  # fmt: skip
        values = np.concatenate([self.exact.eigenvalues, lowest])
        return values[np.argsort(-np.abs(values))][:TOP]

    def errors(self, values: np.ndarray) -> np.ndarray:
        """How far eigenvalues are off, relatively; of a power iteration's too."""
        # That finds the largest by magnitude, which shows where one is negative.
        expected = self.by_magnitude if min(values) < 0 else self.exact.eigenvalues
        return np.abs(np.sort(values) / np.sort(expected) - 1)

    def trace(self, num_samples: int, seed: int = 0) -> Estimated:
        """Hutchinson's estimate."""
        return landscape.trace(
            self.objective, self.params, key=jax.random.key(seed),
            num_samples=num_samples,
        )  # fmt: skip


def agreement(case: Case, peers: dict[str, Any]) -> dict[str, Any]:
    """How far each package's numbers are from ours; raises where it is too far."""
    operator = case.operator(reuse=True)
    ours = case.as_parameters(
        operator.to_tree(operator(operator.to_vector(case.direction)))
    )
    found = case.exact
    mine = case.trace(3 * SAMPLES)
    table: dict[str, Any] = {
        "eigenvalues": found.eigenvalues.tolist(),
        "residuals": found.residuals.tolist(),
        "trace": mine.mean,
        "trace_standard_error": mine.standard_error,
    }
    print(f"\n{case.name}: agreement")
    print(
        f"  lrscape: eigenvalues {found.eigenvalues.round(5)}, residuals up to "
        f"{found.residuals.max():.1e}, "
        f"trace {mine.mean:.4g} +- {mine.standard_error:.2g}"
    )
    for name, peer in peers.items():
        theirs = peer.product(case.as_parameters(case.direction))
        apart = sum(
            float(((a - b) ** 2).sum()) for a, b in zip(ours, theirs, strict=True)
        )
        size = sum(float((a**2).sum()) for a in ours)
        error = (apart / size) ** 0.5
        # Where there is no rule to stop by, as many products as ours needed.
        most = 60 if name == "hessian-eigenthings" else 300
        values = peer.eigenvalues(TOP, 1e-6, most)
        relative = case.errors(values)
        if min(values) < 0:
            print(f"  {name} finds others, the largest by magnitude: {values.round(5)}")
        mean, its_error = peer.trace(3 * SAMPLES)
        spread = np.hypot(
            mine.standard_error,
            mine.standard_error if np.isnan(its_error) else its_error,
        )
        table[name] = {
            "product_relative_error": error,
            "eigenvalues": values.tolist(),
            "eigenvalues_relative_difference": relative.tolist(),
            "trace": mean,
            "trace_standard_error": None if np.isnan(its_error) else its_error,
            "trace_difference_in_standard_errors": abs(mean - mine.mean) / spread,
        }
        print(f"  {name}: product {error:.1e} off, eigenvalues {relative.max():.1e}, "
              f"trace {mean:.4g} +- {its_error:.2g}")  # fmt: skip
        if not (error < 1e-3 and relative.max() < 1e-3):
            raise AssertionError(f"{name} disagrees: {table[name]}")
        if not abs(mean - mine.mean) < 5 * spread:
            raise AssertionError(f"{name}'s trace disagrees: {table[name]}")
    return table


def product_tables(case: Case, peers: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Products in units of a gradient; by batch norm's own statistics too."""
    functions: dict[str, Callable[[], Any]] = {
        "gradient": case.gradient(),
        "product": case.product(reuse=False),
        "product, linearisation kept": case.product(reuse=True),
    }
    if peers:
        vector = case.as_parameters(case.direction)
        for name, peer in peers.items():
            functions[name] = functools.partial(peer.product, vector)
    if installed("torch"):
        functions[BY_HAND] = case.by_hand()
    tables = {"inference": ratios(interleaved(functions, repeats))}
    show(f"{case.name}: products in inference mode", tables["inference"])
    for name in peers:
        for way in ("product", "product, linearisation kept"):
            theirs, own = (tables["inference"][x]["seconds"] for x in (name, way))
            print(f"  {way}: {theirs / own:.2f} times the speed of {name}")
    if "batch_stats" in case.variables:
        functions = {
            "gradient": case.gradient("train"),
            "product": case.product(reuse=False, norm="train"),
            "product, linearisation kept": case.product(reuse=True, norm="train"),
        }
        tables["training"] = ratios(interleaved(functions, repeats))
        show(f"{case.name}: products in training mode", tables["training"])
    return tables


def loop_table(case: Case, repeats: int) -> dict[str, Any]:
    """Loops of products in units of as many separate ones."""
    size = LOOP_SIZE[case.name]
    data = (case.images[:, :size], case.labels[:, :size])
    objective = landscape.flax_objective(
        case.model, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), data),
        norm="eval", batch_size=size, batch_stats=case.variables.get("batch_stats"),
    )  # fmt: skip
    where = (objective, case.params)
    operator = landscape.Operator(*where, reuse=False)
    vector = operator.to_vector(case.direction)
    options: dict[str, Any] = {"key": jax.random.key(0), "reuse": False}
    functions: dict[str, Callable[[], Any]] = {
        f"{LOOP} separate products": lambda: [
            operator(vector).block_until_ready() for _ in range(LOOP)
        ],
        "Lanczos": lambda: tridiagonalize(operator, vector, LOOP),
        "power iteration": lambda: landscape.spectral_norm(
            *where, max_products=LOOP, tolerance=1e-30, **options
        ),
        "Hutchinson": lambda: landscape.trace(*where, num_samples=LOOP, **options),
    }
    functions["density"] = lambda: operator.spectral_quadrature(
        key=jax.random.key(0), num_matvecs=LOOP, num_samples=1
    )
    table = ratios(interleaved(functions, repeats))
    show(f"{case.name}: loops, {size} images a batch", table)
    return table


def task_tables(case: Case, peers: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Eigenvalues, traces and densities, from beginning to end."""
    products = _products_of(lambda: case.eigenvalues(1e-3))
    # The residuals of the pairs are products too, which others do not look at.
    steps = products - TOP
    operator = landscape.Operator(case.objective, case.params)
    nodes = operator.spectral_quadrature(
        key=jax.random.key(0), num_matvecs=case.matvecs, num_samples=1
    ).nodes
    ends = (float(nodes.min()), float(nodes.max()))
    tasks: dict[str, dict[str, Callable[[], Any]]] = {
        f"{TOP} largest eigenvalues": {
            "lrscape": lambda: case.eigenvalues(1e-3),
            **{
                name: functools.partial(
                    peer.eigenvalues, TOP, 1e-3,
                    100 if name != "hessian-eigenthings" else steps,
                )
                for name, peer in peers.items()
            },
        },
        f"trace, {SAMPLES} samples": {
            "lrscape": lambda: case.trace(SAMPLES),
            **{n: functools.partial(p.trace, SAMPLES) for n, p in peers.items()},
        },
        f"density, {case.matvecs} products": {
            "lrscape": lambda: landscape.spectral_density(
                case.objective, case.params, key=jax.random.key(0),
                num_matvecs=case.matvecs, num_samples=1,
            ),
            **{
                name: functools.partial(peer.density, case.matvecs, 1, ends)
                for name, peer in peers.items()
                if peer.density
            },
        },
    }  # fmt: skip
    eigenvalues = next(iter(tasks.values()))
    reached: dict[str, Any] = {}
    print(f"\n{case.name}: what a tolerance of 1e-3 leaves, of the eigenvalues")
    for name, function in eigenvalues.items():
        values = function() if name in peers else function().eigenvalues
        made = peers[name].products(function) if name in peers else products
        error = float(case.errors(values).max())
        reached[name] = {"products": made, "largest_relative_error": error}
        print(f"  {name}: {error:.1e} after {made} products")
    tables: dict[str, Any] = {"eigenvalues_reached": reached, "repeats": repeats}
    for task, functions in tasks.items():
        tables[task] = ratios(interleaved(functions, repeats, warm_up=1))
        show(f"{case.name}: {task}", tables[task])
    return tables


def _products_of(function: Callable[[], Any]) -> int:
    """How many separate products a function of ours makes."""
    call = landscape.Operator.__call__
    with mock.patch.object(
        landscape.Operator, "__call__", autospec=True, side_effect=call
    ) as calls:
        function()
    return calls.call_count


def memory_table(name: str) -> dict[str, Any]:
    """What a product adds to a process that holds ever more examples."""
    table: dict[str, Any] = {}
    print(f"\n{name}: memory of a product")
    for times in (1, 4, 16):
        command = [sys.executable, "-m", "experiments.bench.curvature"]
        out = subprocess.run(
            [*command, "--model", name, "--memory-of", str(times)], check=True,
            capture_output=True, text=True,
        )  # fmt: skip
        added, sample = map(int, out.stdout.split()[-2:])
        table[str(times)] = {"added_bytes": added, "sample_bytes": sample}
        print(
            f"  {times:>2} times the examples ({sample / 2**20:,.0f} MiB): "
            f"{added / 2**20:,.0f} MiB"
        )
    return table


def added_memory(function: Callable[[], Any]) -> int:
    """Bytes that a call adds at its peak to what the process holds before it."""
    gc.collect()
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    function()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    (line,) = [line for line in lines if line.startswith(field)]
    return 1024 * int(line.split()[1])


def main() -> None:
    """Runs the benchmark."""
    parser = Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=[*CASES], nargs="*", default=[*CASES])
    parser.add_argument("--run", type=Path, help="a finished run, for resnet20")
    parser.add_argument("--repeats", type=int, default=30, help="interleaved rounds")
    parser.add_argument("--task-repeats", type=int, help="those of whole tasks")
    parser.add_argument("--parts", choices=PARTS, nargs="*", default=PARTS)
    parser.add_argument(
        "--json", type=file_of_figures, help="a file to write the figures to"
    )
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        case = Case(options.model[0], times=options.memory_of)
        print(added_memory(case.product(reuse=False)), case.sample_bytes)
        return
    found: dict[str, Any] = {
        **describe(jax.local_devices()), "repeats": options.repeats,
        "command": " ".join(["python -m experiments.bench.curvature", *sys.argv[1:]]),
    }  # fmt: skip
    for name in options.model:
        case = Case(name, options.run if name == "resnet20" else None)
        peers = case.peers()
        found[name] = {"batches": list(case.labels.shape)}
        task_repeats = options.task_repeats or case.task_repeats
        parts: dict[str, Callable[[], Any]] = {
            "agreement": functools.partial(agreement, case, peers),
            "products": functools.partial(product_tables, case, peers, options.repeats),
            "loops": functools.partial(loop_table, case, options.repeats),
            "tasks": functools.partial(task_tables, case, peers, task_repeats),
            "memory": functools.partial(memory_table, name),
        }
        for part, measure in parts.items():
            if part not in options.parts:
                continue
            found[name][part] = measure()
            if options.json:  # what is measured is not lost if the rest is stopped
                write_json(options.json, found)
    if options.json:
        print(f"\nfigures are in {options.json}")


if __name__ == "__main__":
    console.run(main)
