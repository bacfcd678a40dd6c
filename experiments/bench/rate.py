"""The device's rate of large matrix products, which no training step can exceed.

    python -m experiments.bench.rate --json rate.json

Floating-point operations a second of one product of two square matrices, in float32 by
the precision that JAX takes unless told otherwise (TensorFloat-32 on recent GPUs), in
float32 by the highest, and in bfloat16 on accelerators; the same in PyTorch where that
is installed. Seconds on a GPU, half a minute on two CPU cores.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from experiments.bench.pairs import file_of_figures, installed, interleaved, write_json
from lrscape import console
from lrscape.environment import describe
from lrscape.parser import Parser

SIZES = {"cpu": 2048, "gpu": 8192, "tpu": 8192}
DEFAULT = "float32"


def products(size: int, accelerator: bool) -> dict[str, Callable[[], Any]]:
    """A product of each kind, by name; each returns once it is done."""
    one, other = (
        jax.random.normal(jax.random.key(seed), (size, size)) for seed in (0, 1)
    )
    kinds: dict[str, tuple[Any, str | None]] = {
        DEFAULT: (jnp.float32, None),
        "float32, highest precision": (jnp.float32, "highest"),
    }
    if accelerator:
        kinds["bfloat16"] = (jnp.bfloat16, None)
    functions: dict[str, Callable[[], Any]] = {}
    for name, (dtype, precision) in kinds.items():
        a, b = one.astype(dtype), other.astype(dtype)
        product = jax.jit(functools.partial(jnp.matmul, precision=precision))
        functions[name] = functools.partial(_waited, product, a, b)
    return functions


def _waited(product: Callable[..., jax.Array], a: jax.Array, b: jax.Array) -> None:
    jax.block_until_ready(product(a, b))


def torch_product(size: int) -> Callable[[], Any]:
    """PyTorch's, in float32 by its default precision."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    a, b = (torch.randn(size, size, device=device) for _ in range(2))

    def product() -> None:
        torch.matmul(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return product


def main() -> None:
    """Runs the benchmark."""
    parser = Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, help="rows and columns")
    parser.add_argument("--repeats", type=int, default=15, help="interleaved rounds")
    parser.add_argument(
        "--json", type=file_of_figures, help="a file to write the figures to"
    )
    options = parser.parse_args()
    platform = jax.local_devices()[0].platform
    size = options.size or SIZES.get(platform, 4096)
    functions = products(size, platform != "cpu")
    if installed("torch"):
        functions["PyTorch, float32"] = torch_product(size)
    # The fastest: what slows a product down is no property of the device.
    rates = {
        name: 2 * size**3 / float(seconds.min())
        for name, seconds in interleaved(functions, options.repeats).items()
        if name in functions
    }
    print(f"products of {size} x {size} matrices")
    for name, rate in rates.items():
        print(f"  {name:<34}{rate / 1e9:>12,.0f} GFLOP/s")
    if options.json:
        found = {**describe(jax.local_devices()), "size": size, "flops": rates}
        write_json(options.json, found)


if __name__ == "__main__":
    console.run(main)
