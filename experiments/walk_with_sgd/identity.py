"""Eq. 3: the Hessian as the second moment of gradients, and a residual."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import xarray as xr
from tqdm import tqdm

from experiments.harness.paper import Result
from experiments.harness.statistics import mean_and_interval
from experiments.walk_with_sgd.lab import Lab
from experiments.walk_with_sgd.networks import Network, Sample
from lrscape import landscape
from lrscape.landscape import tree
from lrscape.landscape.curvature import subspace_overlap
from lrscape.landscape.products import residual_product, second_moment_product

# Eigenvectors whose spaces are compared.
TOP = 10
SAMPLES = 20
# Errors of single precision are not those of the identity.
IDENTITY_EXAMPLES = 100


def decompositions_of(lab: Lab, model: str, seed: int) -> list[dict[str, Any]]:
    """Eq. 3's two terms at the initial weights and after each epoch walked over."""
    plan = lab.plan(model)
    sample = plan.curvature
    network = lab.network(model, rate=lab.rates(model)[0], seed=seed)
    epochs = sorted({0, *plan.epochs, plan.trained})
    missing = [e for e in epochs if not network.has_numbers(_name(sample, e))]
    if missing:
        per_epoch = network.steps_per_epoch
        wanted = {e * per_epoch: e for e in missing}
        for state in network.states(min(wanted), max(wanted), wanted.__contains__):
            make = functools.partial(measured, network, sample, state.params)
            network.numbers(_name(sample, wanted[int(state.step)]), make)
    return [
        {"epoch": epoch, **network.numbers(_name(sample, epoch), dict)}
        for epoch in epochs
    ]


def measured(network: Network, sample: Sample, params: Any) -> dict[str, float]:
    """The identity's error, the residual's share, and the overlap of top spaces."""
    count = sample.examples or network.num_examples
    objective = network.training_objective(min(count, network.num_examples),
                                           sample.batch_size)  # fmt: skip
    keys = jax.random.split(jax.random.key(network.config.seed), 5)
    with tqdm(total=5, desc="eq3", leave=False) as bar:
        error = identity_error(network, params, keys[0])
        bar.update()
        matrices = {
            kind: landscape.Operator(objective, params, kind=kind)
            for kind in ("hessian", "residual", "second_moment")
        }
        norms = {}
        for key, kind in zip(keys[1:3], ("hessian", "residual"), strict=True):
            found = matrices[kind].frobenius_norm(key=key, num_samples=SAMPLES)
            norms[kind] = found.mean
            bar.update()
        spaces = {}
        for key, kind in zip(keys[3:], ("hessian", "second_moment"), strict=True):
            spaces[kind] = matrices[kind].top_eigenpairs(TOP, key=key, tolerance=1e-3)
            bar.update()
    return {
        "identity_error": error,
        "hessian_norm": norms["hessian"],
        "residual_norm": norms["residual"],
        "overlap": subspace_overlap(
            spaces["hessian"].eigenvectors, spaces["second_moment"].eigenvectors
        ),
        "largest_eigenvalue": float(spaces["hessian"].eigenvalues[0]),
        "largest_second_moment": float(spaces["second_moment"].eigenvalues[0]),
    }


def identity_error(network: Network, params: Any, key: jax.Array) -> float:
    """How far the terms' products with a random vector miss the Hessian's, relative.

    In double precision, on a few examples: the identity holds for any.
    """
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        objective = landscape.in_double(
            network.training_objective(IDENTITY_EXAMPLES, IDENTITY_EXAMPLES)
        )
        point = landscape.in_double(params)
        leaves, structure = jax.tree.flatten(point)
        vector = jax.tree.unflatten(structure, [
            jax.random.normal(k, leaf.shape, leaf.dtype)
            for k, leaf in zip(jax.random.split(key, len(leaves)), leaves, strict=True)
        ])  # fmt: skip
        whole = landscape.hvp(objective, point, vector)
        parts = [
            second_moment_product(objective, point, vector),
            residual_product(objective, point, vector),
        ]
        rest = tree.combine([1, -1, -1], [whole, *parts])
        return float(tree.norm(rest) / tree.norm(whole))


def eq3(lab: Lab) -> Result:
    """Hessian = second moment of gradients + residual; how small the residual is."""
    rows, variables = [], {}
    for model in lab.models_of("eq3"):
        seeds = range(lab.plan(model).seeds)
        found = [decompositions_of(lab, model, seed) for seed in seeds]
        for i, first in enumerate(found[0]):
            at = [one[i] for one in found]
            rows.append({
                "network": model,
                "data": lab.dataset_of(model),
                "epoch": first["epoch"],
                "identity's error": f"{max(r['identity_error'] for r in at):.1e}",
                "residual / Hessian": mean_and_interval([ratio(r) for r in at]),
                f"overlap of top {TOP}": mean_and_interval([r["overlap"] for r in at]),
                "largest eigenvalue": mean_and_interval(
                    [r["largest_eigenvalue"] for r in at]
                ),
                "of the second moment": mean_and_interval(
                    [r["largest_second_moment"] for r in at]
                ),
            })  # fmt: skip
        for name in found[0][0]:
            values = np.array([[row[name] for row in one] for one in found])
            variables[f"{model}_{name}"] = ((f"{model}_seed", f"{model}_point"), values)
    notes = [
        ("residual / Hessian: of Frobenius norms, by random vectors; per-example "
         "gradients within their batch, batch norm in train mode"),
        (f"identity's error: relative, in double precision, on {IDENTITY_EXAMPLES} "
         "examples, the largest of the seeds"),
    ]  # fmt: skip
    return Result(rows, xr.Dataset(variables), {}, notes)


def _name(sample: Sample, epoch: int) -> str:
    return f"identity-{sample.examples or 'all'}-{sample.batch_size}-{epoch}"


def ratio(row: dict[str, Any]) -> float:
    """The residual's Frobenius norm as a share of the Hessian's."""
    return row["residual_norm"] / row["hessian_norm"]
