"""Slopes along a direction: the loss's derivative at points of a ray, and the loss.

By forward mode, in the same pass as the loss: no differences, and no gradients.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lrscape import checks
from lrscape.errors import InputError
from lrscape.landscape import tree
from lrscape.landscape.accumulate import batch_gradient
from lrscape.landscape.objective import Objective, SampleObjective
from lrscape.landscape.protocol import (
    as_objective,
    filled_in,
    is_compilable,
    is_traceable,
    member,
    scalar_loss,
    settings_of,
)
from lrscape.landscape.subspace import Subspace, check_not_zero, ray
from lrscape.landscape.surface import measure_surface


class SlopeProfile(NamedTuple):
    """Loss and slope along a direction.

    Attributes:
        distances: (k,), how far was gone along the unit direction.
        losses: (k,), the mean loss.
        slopes: (k,), its derivative by the distance.
        slope_errors: (k,), the standard error of each slope that the spread over the
            sample's batches implies; NaN for a sample of one batch.
    """

    distances: np.ndarray
    losses: np.ndarray
    slopes: np.ndarray
    slope_errors: np.ndarray


def slope_profile(
    objective: Any,
    point: Any,
    direction: Any,
    distances: Any,
    *,
    progress: bool = False,
) -> SlopeProfile:
    r"""The loss and its slope along a direction.

    .. math::

        L(w + t u), \quad \frac{d}{dt} L(w + t u), \qquad u = d / \|d\|

    Args:
        objective: an objective, or a function of a point; of a dict the ``'loss'``. By
            ``norm='recalibrate'`` the slope is that of the recalibrated loss: batch
            norm's statistics move with the point.
        point: w.
        direction: d, a tree like the point, of any length but 0.
        distances: (k,), t; negative ones go the other way.
        progress: whether to show a bar.

    Returns:
        Losses and slopes. What is not finite stays so.

    Raises:
        InputError: a direction of another structure or of norm 0, or distances that are
            not (k,).

    Example:
        >>> profile = slope_profile(
        ...     lambda w: w[0] ** 2, jnp.zeros(2), jnp.array([3.0, 0.0]), [-1.0, 0.5])
        >>> print(profile.losses, profile.slopes)
        [1.   0.25] [-2.  1.]
    """
    return profile_of(
        slope_objective(objective), point, direction, distances, progress=progress
    )


def slope_objective(objective: Any) -> Objective:
    """An objective of a point and a direction: the loss, and its slope along it.

    Lets slopes be surveyed as losses are: at many points, on several devices.

    Args:
        objective: an objective, or a function of a point; of a dict the ``'loss'``.

    Returns:
        An objective whose point is a pair ``(point, direction)`` and whose loss is a
        dict: ``'loss'``, and ``'slope'``, the derivative in the direction, not divided
        by its length.

    Raises:
        InputError: something that is no objective.

    Example:
        >>> found = slope_objective(jnp.square)((jnp.float32(3), jnp.float32(1)))
        >>> print(found['loss'], found['slope'])
        9.0 6.0
    """
    objective = as_objective(objective)
    if not is_compilable(objective):
        return _ForeignSlopes(objective)
    if isinstance(objective, SampleObjective):
        whole, tail, counts = objective.whole, objective.tail, objective.counts
        objective = _with_sample(objective, None, None)
    else:  # a single batch
        whole = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], objective.batch(0))
        tail, counts = None, (1, 1, 0)
    return SlopeObjective(whole, tail, counts, objective)


def profile_of(
    slopes: Objective,
    point: Any,
    direction: Any,
    distances: Any,
    *,
    progress: bool = False,
) -> SlopeProfile:
    """`slope_profile` of what `slope_objective` made, for several directions."""
    given = checks.numbers("distances", distances, axes=1)
    distances = np.asarray(given, np.float64)
    if not distances.size:
        raise InputError(
            f"distances have shape {distances.shape}; they must be (k,), k >= 1"
        )
    surface = measure_surface(
        slopes, TangentRay(unit_ray(point, direction)), distances, progress=progress
    )
    return SlopeProfile(
        distances,
        surface.losses["loss"],
        surface.losses["slope"],
        surface.standard_errors["slope"],
    )


def unit_ray(point: Any, direction: Any) -> Subspace:
    """The ray whose coordinate is a distance, its direction in the point's dtypes.

    Raises:
        InputError: a direction of another structure, or of norm 0.
    """
    tree.check_alike({"point": point, "direction": direction})
    unit = tree.scale(1 / check_not_zero("direction", direction), direction)
    unit = jax.tree.map(lambda u, w: jnp.asarray(u, tree.leaf_dtype(w)), unit, point)
    return ray(jax.tree.map(jnp.asarray, point), unit)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class TangentRay:
    """A ray whose points come with its direction, as `slope_objective` takes them.

    Attributes:
        ray: the ray.
    """

    ray: Subspace

    @property
    def num_coordinates(self) -> int:
        """One."""
        return 1

    def __call__(self, coordinate: Any) -> tuple[Any, Any]:
        """The point, and the direction."""
        return self.ray(coordinate), self.ray.points[1]


@dataclasses.dataclass(frozen=True, eq=False)
class SlopeObjective(SampleObjective):
    """The loss and its slope; see `slope_objective`.

    Attributes:
        inner: the objective, without its sample, which is held here.
        filled: at a point, the objective, point and direction to differentiate at:
            with statistics that were estimated there.
    """

    inner: Any = None
    filled: Any = None

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the objective."""
        return {**settings_of(self.inner), "measured": "slope"}

    def at(self, point: Any) -> SlopeObjective:
        """With whatever has to be known about a point filled in."""
        if self.filled is not None:
            return self
        inner = self.inner
        if isinstance(inner, SampleObjective):
            inner = _with_sample(inner, self.whole, self.tail)
        if (along := member(inner, "along")) is not None:
            inner, at, direction = along(*point)
        else:
            inner, (at, direction) = filled_in(inner, point[0]), point
        if isinstance(inner, SampleObjective):
            inner = _with_sample(inner, None, None)
        return dataclasses.replace(self, filled=(inner, at, direction))

    def batch_loss(self, point: Any, batch: Any) -> Any:
        """The mean loss over one batch and its slope, a dict."""
        inner, at, direction = self.at(point).filled
        return _loss_and_slope((inner, at, direction), batch)


jax.tree_util.register_dataclass(
    SlopeObjective,
    data_fields=["whole", "tail", "inner", "filled"],
    meta_fields=["counts"],
)


class _ForeignSlopes(Objective):
    """The same of an objective that hands out its own batches."""

    def __init__(self, inner: Any):
        self._inner = inner
        self.is_traceable = is_traceable(inner)

    @property
    def num_batches(self) -> int:
        return self._inner.num_batches

    @property
    def weights(self) -> np.ndarray:
        return self._inner.weights

    @property
    def settings(self) -> dict[str, Any]:
        return {**settings_of(self._inner), "measured": "slope"}

    def batch(self, i: int) -> Any:
        return self._inner.batch(i)

    def at(self, point: Any) -> Objective:
        inner = filled_in(self._inner, point[0])
        return self if inner is self._inner else _ForeignSlopes(inner)

    def batch_loss(self, point: Any, batch: Any) -> Any:
        return _loss_and_slope((self._inner, *point), batch)


def _with_sample(objective: SampleObjective, whole: Any, tail: Any) -> Any:
    return dataclasses.replace(objective, whole=whole, tail=tail)


def _loss_and_slope(filled: Any, batch: Any) -> dict[str, jax.Array]:
    objective, point, direction = filled

    def loss(p):
        return scalar_loss(objective.batch_loss(p, batch))

    if not is_traceable(objective):
        slope = tree.dot(batch_gradient(objective, point, batch), direction)
        return {"loss": loss(point), "slope": slope}
    value, slope = jax.jvp(loss, (point,), (direction,))
    return {"loss": value, "slope": slope}
