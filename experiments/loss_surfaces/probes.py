"""Losses and functional differences between networks of paper 2, measured once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.loss_surfaces.lab import Lab
from experiments.loss_surfaces.networks import Network
from lrscape import landscape
from lrscape.landscape.distance import distance_objective

# Where functions are compared, from one network to another.
FUNCTIONAL_ALPHAS = np.linspace(0, 1, 11)


def chunk_size() -> int | None:
    """Points side by side: one on CPU, where that is fastest; None measures."""
    return 1 if jax.default_backend() == "cpu" else None


def losses_at(
    lab: Lab, network: Network, subspace: Callable[[], Any], coordinates: Any,
    name: str, *, surface: bool = False,
) -> np.ndarray:  # fmt: skip
    """Training losses over a subspace, measured once.

    Args:
        lab: says how many examples.
        network: whose model and data they are of; they are kept in its directory.
        subspace: makes it.
        coordinates: see `lrscape.landscape.evaluate`.
        name: that they are kept by, beside the setting.
        surface: whether they are of a surface, which takes fewer examples.
    """
    count = lab.plan.surface_sample if surface else lab.plan.sample

    def make() -> dict[str, Any]:
        found = landscape.evaluate(
            network.objective(count, lab.plan.batch), subspace(), coordinates,
            chunk_size=chunk_size(),
        )  # fmt: skip
        return {"losses": np.asarray(found).tolist()}

    shape = "x".join(map(str, np.shape(coordinates)))
    kept = network.numbers(f"{name}-{count}_{lab.plan.batch}-{shape}", make)
    return np.asarray(kept["losses"], float)


def line(
    lab: Lab, a: Network, b: Network, alphas: np.ndarray, name: str = "line"
) -> np.ndarray:
    """(points,), losses between the last weights of two networks."""

    def subspace():
        return landscape.line(a.final.params, b.final.params)

    return losses_at(lab, a, subspace, alphas, f"{name}-{b.records.path.name}")


def barrier(losses: np.ndarray) -> float:
    """The highest loss within less that of the higher end."""
    return float(np.max(losses[1:-1]) - max(losses[0], losses[-1]))


def pair_alphas(lab: Lab) -> np.ndarray:
    """(points,), between two minima."""
    return np.linspace(0.0, 1.0, lab.plan.points)


def barrier_between(lab: Lab, a: Network, b: Network) -> float:
    """Between the last weights of two networks; NaN where one failed."""
    if a.failed() or b.failed():
        return float("nan")
    return barrier(line(lab, a, b, pair_alphas(lab)))


def from_start(lab: Lab, network: Network, alphas: np.ndarray, name: str) -> np.ndarray:
    """(points,), losses on the line from the initial weights, at 0, to the last."""

    def subspace():
        return landscape.line(network.initial, network.final.params)

    return losses_at(lab, network, subspace, alphas, name)


def triangle(lab: Lab, a: Network, b: Network) -> np.ndarray:
    """(grid, grid), losses between the start and two last weights, Eq. 6 to 8."""
    axis = np.linspace(0, 1, lab.plan.grid)

    def subspace():
        return landscape.barycentric(a.initial, a.final.params, b.final.params)

    return losses_at(
        lab, a, subspace, landscape.grid_coordinates(axis, axis),
        f"triangle-{b.records.path.name}", surface=True,
    )  # fmt: skip


def quadrangle(
    lab: Lab, points: Sequence[Any], network: Network, name: str
) -> np.ndarray:
    """(grid, grid), losses between four points, Eq. 3 to 5."""
    axis = np.linspace(0, 1, lab.plan.grid)
    return losses_at(
        lab, network, lambda: landscape.bilinear(*points),
        landscape.grid_coordinates(axis, axis), name, surface=True,
    )  # fmt: skip


# What networks compute.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Against:
    """A network against those on a line, batch norm's averages taken anew at each.

    The averages that training kept belong to the ends of the line alone.
    """

    objective: Any
    fixed: Any
    line: Any
    num_coordinates = 1

    def __call__(self, alpha: Any) -> Any:
        return self.fixed, with_statistics(self.objective, self.line(alpha))


@jax.jit
def with_statistics(objective: Any, params: Any) -> Any:
    """Parameters with batch statistics taken over a sample at them.

    Args:
        objective: a `ModelObjective` with ``norm='recalibrate'``.
        params: the parameters.
    """
    stats = objective.at(params).batch_stats
    return {"params": params, **({} if stats is None else {"batch_stats": stats})}


class Functions:
    """Compares networks by what they compute, on test examples.

    Args:
        lab: says on how many.
        network: one of the networks that are compared; all are of the same model.
    """

    def __init__(self, lab: Lab, network: Network):
        plan = lab.plan
        images, labels = network.examples("train", plan.sample)
        self.recalibrated = landscape.flax_objective(
            network.model, (images, labels), norm="recalibrate",
            batch_size=min(plan.batch, len(labels)),
        )  # fmt: skip
        test, self.labels = network.examples("test", plan.functional)

        def outputs(point: Any, inputs: Any) -> Any:
            return jnp.asarray(network.model.apply(point, inputs, train=False))

        self.distances = distance_objective(
            outputs, test, softmax=True, batch_size=min(plan.batch, len(test))
        )

        def error(point: Any, batch: Any) -> Any:
            logits = outputs(point, batch[0])
            wrong = jnp.argmax(logits, axis=-1) != batch[1]
            return jnp.mean(wrong.astype(logits.dtype))

        self.errors = landscape.mean_objective(
            error, (test, self.labels), batch_size=min(plan.batch, len(test))
        )

    def compared(self, a: Network, b: Network, alphas: np.ndarray) -> dict[str, Any]:
        """The first network against those on the line to the second.

        Returns:
            ``distance`` and ``disagreement`` at each alpha, the last of which is 1, and
            the ``errors`` of both.
        """
        ends = [
            with_statistics(self.recalibrated, network.final.params)
            for network in (a, b)
        ]
        against = _Against(
            self.recalibrated, ends[0], landscape.line(a.final.params, b.final.params)
        )
        found = landscape.evaluate(
            self.distances, against, alphas, chunk_size=chunk_size()
        )
        return {
            "distance": np.sqrt(found["loss"]).tolist(),
            "disagreement": np.asarray(found["disagreement"]).tolist(),
            "errors": [float(self.errors(end)) for end in ends],
        }


def functions(lab: Lab, a: Network, b: Network) -> dict[str, Any]:
    """What `Functions.compared` found of two networks, measured once."""
    plan = lab.plan

    def make() -> dict[str, Any]:
        kind = f"{plan.model}-{lab.data_name}-{a.config.model_options['batch_norm']}"
        if kind not in lab.shared:
            lab.shared[kind] = Functions(lab, a)
        return lab.shared[kind].compared(a, b, FUNCTIONAL_ALPHAS)

    name = f"functions-{b.records.path.name}-{plan.sample}_{plan.functional}"
    return a.numbers(name, make)
