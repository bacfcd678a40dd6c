"""Eigenvalues of drawn spectra in single precision: how many are wrong, and say so.

    python -m experiments.bench.spectra --json spectra.json

Draws symmetric matrices of known kinds of spectrum, diagonal and in random orthogonal
bases, and asks `top_eigenpairs` for the largest eigenvalues and `spectral_norm` for the
norm, each of a quadratic function in float32. Both are held against the dense spectrum
of the same matrix in float64; so is SciPy's `eigsh` in float32.

An answer is wrong where one of its values is further from the dense one than 1e-3 of it
and than 10 eps of the spectral norm, with float32's eps of 1.2e-7. Rates come with 95 %
bounds after Clopper and Pearson. What the file holds already is not repeated. About 15
minutes on two CPU cores for 1,008 matrices.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from scipy.stats import beta

from experiments.bench.pairs import file_of_figures, write_json
from lrscape import console, landscape
from lrscape.parser import Parser
from lrscape.reading import Reader

RELATIVE, ROUNDING = 1e-3, 10.0
SIZES = (50, 120, 250, 500)
COUNTS = (1, 3, 5)

Random = np.random.Generator


def _gap(random: Random, n: int) -> np.ndarray:
    top = 10 ** random.uniform(3, 6)
    return np.r_[top, 10, 5, 3, 2, 1, random.uniform(0, 0.1, n - 6)]


def _flat_top(random: Random, n: int) -> np.ndarray:
    width = n // 3
    return np.r_[10, 9.5 * np.ones(width), np.zeros(n - 1 - width)]


def _two_signs(random: Random, n: int) -> np.ndarray:
    bottom = -(10 ** random.uniform(0, 5))
    return np.r_[bottom, 10, 8, 5, 3, 2, random.normal(0, 0.3, n - 6)]


def _repeated(random: Random, n: int) -> np.ndarray:
    copies = random.integers(2, 6)
    return np.r_[10 * np.ones(copies), 4, 4, random.uniform(-1, 1, n - copies - 2)]


def _clustered(random: Random, n: int) -> np.ndarray:
    cluster = 10 * (1 + 10 ** random.uniform(-6, -2) * np.arange(6))
    return np.r_[cluster, random.uniform(-1, 1, n - 6)]


def _decaying(random: Random, n: int) -> np.ndarray:
    return 10 * np.arange(1.0, n + 1) ** -random.uniform(0.5, 2)


def _random_matrix(random: Random, n: int) -> np.ndarray:
    root = random.normal(size=(n, n)) / (2 * n) ** 0.5
    return np.linalg.eigvalsh(root + root.T)


def _network(random: Random, n: int) -> np.ndarray:
    """Nine outliers of one size, and a bulk around zero that falls off by powers."""
    bulk = 10 ** random.uniform(-6, -1, n - 9)
    return np.r_[
        random.uniform(0.2, 2, 9), bulk * random.choice([1, 1, 1, -0.3], n - 9)
    ]


KINDS: dict[str, Callable[[Random, int], np.ndarray]] = {
    "gap of 1e3 to 1e6": _gap,
    "flat top": _flat_top,
    "two signs": _two_signs,
    "repeated": _repeated,
    "clustered": _clustered,
    "decaying": _decaying,
    "random matrix": _random_matrix,
    "network": _network,
}


def bounds(count: int, total: int) -> tuple[float, float]:
    """Clopper and Pearson's 95 % bounds of a rate.

    Example:
        >>> low, high = bounds(0, 100)
        >>> print(f'{low:.3f} {high:.3f}')
        0.000 0.036
    """
    low = beta.ppf(0.025, count, total - count + 1) if count else 0.0
    high = beta.ppf(0.975, count + 1, total - count) if count < total else 1.0
    return float(low), float(high)


def matrix(random: Random, kind: str, size: int, *, rotated: bool) -> np.ndarray:
    """A symmetric matrix in float32."""
    spectrum = KINDS[kind](random, size)
    if not rotated:
        return np.diag(random.permutation(spectrum)).astype(np.float32)
    basis, _ = np.linalg.qr(random.normal(size=(size, size)))
    full = ((basis * spectrum) @ basis.T).astype(np.float32)
    return np.triu(full) + np.triu(full, 1).T


def is_wrong(found: np.ndarray, exact: np.ndarray, norm: float) -> bool:
    """Whether one of some values is off by more than is allowed, or is no number."""
    eps = float(np.finfo(np.float32).eps)
    allowed = np.maximum(RELATIVE * np.abs(exact), ROUNDING * eps * norm)
    return not bool((np.abs(found - exact) <= allowed).all())


def quadratic(point: jax.Array, batch: jax.Array) -> jax.Array:
    """Half of ``w A w``, with the matrix as the only example of a sample."""
    image = jnp.matmul(batch[0], point, precision="highest")
    return jnp.matmul(point, image, precision="highest") / 2


def measure(full: np.ndarray, k: int, key: jax.Array) -> dict[str, dict[str, Any]]:
    """What each method makes of a matrix.

    Returns:
        By method, ``wrong``, and where it says so ``converged`` and ``products``.
    """
    exact = np.linalg.eigvalsh(full.astype(np.float64))[::-1]
    norm = float(np.abs(exact).max())
    objective = landscape.mean_objective(quadratic, full[None], batch_size=1)
    point = jnp.zeros(len(full), jnp.float32)
    keys = jax.random.split(key)
    pairs = landscape.top_eigenpairs(objective, point, k, key=keys[0])
    largest = landscape.spectral_norm(objective, point, key=keys[1])
    counted = {"products": 0}

    def product(vector: np.ndarray) -> np.ndarray:
        counted["products"] += 1
        return full @ vector

    operator = LinearOperator(full.shape, matvec=product, dtype=np.float32)
    start = np.asarray(jax.random.normal(keys[0], (len(full),)), np.float32)
    try:
        peer = eigsh(operator, k, which="LA", v0=start, return_eigenvectors=False)
    except ArpackError:
        peer = np.full(k, np.nan)
    return {
        "top_eigenpairs": {
            "wrong": is_wrong(pairs.eigenvalues, exact[:k], norm),
            "converged": bool(pairs.converged),
            "products": pairs.products,
        },
        "spectral_norm": {
            "wrong": is_wrong(np.array(float(largest)), np.array(norm), norm),
            "converged": largest.converged,
            "products": largest.products,
        },
        "SciPy's eigsh": {
            "wrong": is_wrong(np.sort(peer)[::-1], exact[:k], norm),
            "converged": bool(np.isfinite(peer).all()),
            **counted,
        },
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rates of one method over some matrices, a row each."""
    total = len(rows)
    wrong = sum(row["wrong"] for row in rows)
    silent = sum(row["wrong"] and row["converged"] for row in rows)
    return {
        "matrices": total,
        "wrong": wrong,
        "wrong_bounds": bounds(wrong, total),
        "wrong_yet_converged": silent,
        "wrong_yet_converged_bounds": bounds(silent, total),
        "converged": sum(row["converged"] for row in rows),
        "products": float(np.mean([row["products"] for row in rows])),
    }


def pooled(tables: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Rates of one method over the matrices of several tables."""
    tables = list(tables)
    counts = {
        name: sum(table[name] for table in tables)
        for name in ("matrices", "wrong", "wrong_yet_converged", "converged")
    }
    total = counts["matrices"]
    products = sum(table["products"] * table["matrices"] for table in tables)
    return {
        **counts,
        "wrong_bounds": bounds(counts["wrong"], total),
        "wrong_yet_converged_bounds": bounds(counts["wrong_yet_converged"], total),
        "products": products / total,
    }


def draw_and_measure(kind: str, basis: str, draws: int, seed: int) -> dict[str, Any]:
    """Measures `draws` matrices of one kind in one basis; a table of rates."""
    rows: dict[str, list] = {}
    for draw in range(draws):
        place = [list(KINDS).index(kind), int(basis == "rotated"), draw]
        random = np.random.default_rng([seed, *place])
        size, k = SIZES[draw % len(SIZES)], int(random.choice(COUNTS))
        full = matrix(random, kind, size, rotated=basis == "rotated")
        key = jax.random.key(int(random.integers(2**31)))
        for method, row in measure(full, k, key).items():
            rows.setdefault(method, []).append(row)
    return {method: summary(found) for method, found in rows.items()}


def show(title: str, table: dict[str, Any]) -> None:
    """Prints a table of rates."""
    print(title, flush=True)
    for method, row in table.items():
        low, high = (100 * bound for bound in row["wrong_yet_converged_bounds"])
        print(
            f"  {method:<16}wrong {row['wrong']:>4} of {row['matrices']:<5} yet "
            f"converged {row['wrong_yet_converged']:>4} ({low:.2f} to {high:.2f} %), "
            f"converged {row['converged']:>4}, {row['products']:>6.1f} products",
            flush=True,
        )


def main(argv: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = Parser(
        prog="python -m experiments.bench.spectra", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--draws", type=int, default=63, help="of each kind and basis")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--json", type=file_of_figures, help="a file of what is measured"
    )
    options = parser.parse_args(argv)
    settings = {
        "draws": options.draws, "seed": options.seed, "sizes": list(SIZES),
        "k": list(COUNTS),
        "wrong_beyond": {"relative": RELATIVE, "eps_times_norm": ROUNDING},
    }  # fmt: skip
    found: dict[str, Any] = {}
    if options.json is not None and options.json.exists():
        before = Reader(options.json.parent).json(options.json)
        if not isinstance(before, dict) or before.get("settings") != settings:
            parser.error(f"--json={options.json} holds other settings' figures")
        found = before["rates"]
    for kind in KINDS:
        for basis in ("diagonal", "rotated"):
            title = f"{kind}, {basis}"
            if title not in found:
                found[title] = draw_and_measure(
                    kind, basis, options.draws, options.seed
                )
                _write(options.json, settings, found)
            show(title, found[title])
    show("all", _all(found))


def _all(found: dict[str, Any]) -> dict[str, Any]:
    tables = [table for title, table in found.items() if title != "all"]
    return {method: pooled(t[method] for t in tables) for method in tables[0]}


def _write(file: Path | None, settings: dict[str, Any], found: dict[str, Any]) -> None:
    """After each kind, so that a run that was stopped goes on from there."""
    if file is not None:
        found["all"] = _all(found)
        write_json(file, {"settings": settings, "rates": found})


if __name__ == "__main__":
    console.run(main)
