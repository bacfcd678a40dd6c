"""Flatness: how the loss answers to moved weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lrscape import checks
from lrscape.errors import InputError
from lrscape.landscape import tree
from lrscape.landscape.accumulate import mean_loss
from lrscape.landscape.direction import gaussian_direction
from lrscape.landscape.protocol import as_objective, scalar_loss
from lrscape.landscape.subspace import check_not_zero, ray
from lrscape.landscape.surface import measure_surface
from lrscape.landscape.tree import check_count


class Curves(NamedTuple):
    """Losses over the size of a perturbation, one curve a direction.

    Attributes:
        scales: (k,), how far was gone.
        losses: (directions, k).
        standard_errors: (directions, k), of each loss, as the sample's batches imply;
            NaN for a sample of one batch.
    """

    scales: np.ndarray
    losses: np.ndarray
    standard_errors: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """(k,), the mean over directions."""
        return self.losses.mean(axis=0)

    @property
    def spread(self) -> np.ndarray:
        """(k,), the standard error of that mean over directions; NaN for one."""
        count = len(self.losses)
        if count == 1:
            return np.full(self.losses.shape[1:], np.nan)
        return self.losses.std(axis=0, ddof=1) / np.sqrt(count)


def average_slope(objective: Any, minimum: Any, entrance: Any) -> jax.Array:
    r"""The mean slope from a minimum to a point at its basin's entrance.

    .. math:: \frac{L(w_0) - L(w^*)}{\|w_0 - w^*\|}

    Args:
        objective: an objective, or a function of a point.
        minimum: :math:`w^*`, the point within the basin.
        entrance: :math:`w_0`, a point at its entrance.

    Returns:
        A scalar, in units of loss a unit of distance between parameters; small is flat.

    Raises:
        InputError: points of different structure or shapes, or equal ones.

    Example:
        >>> import jax.numpy as jnp
        >>> print(average_slope(jnp.sum, jnp.zeros(2), jnp.array([3.0, 4.0])))
        1.4

    References:
        Seong et al., `Towards Flatter Loss Surface via Nonmonotonic Learning Rate
        Scheduling <http://auai.org/uai2018/proceedings/papers/363.pdf>`_, 2018,
        Sec. 6.3
    """
    tree.check_alike({"minimum": minimum, "entrance": entrance})
    distance = tree.norm(tree.subtract(entrance, minimum))
    if tree.is_concrete(distance) and not float(distance) > 0:
        raise InputError("minimum and entrance are the same point: there is no slope")
    rise = scalar_loss(mean_loss(objective, entrance)) - scalar_loss(
        mean_loss(objective, minimum)
    )
    return rise / distance


def perturbation_losses(
    objective: Any,
    point: Any,
    scales: Any,
    *,
    key: jax.Array | None = None,
    num_directions: int = 10,
    directions: Sequence[Any] | None = None,
    normalize: str | None = "global",
    mask: Any = None,
    axes: Any = None,
    progress: bool = False,
) -> Curves:
    r"""The loss along random directions of the weights, or along given ones.

    .. math:: L(w + t\, d_i), \quad t \in \text{scales}

    Args:
        objective: an objective, or a function of a point.
        point: w, from where the weights are moved.
        scales: (k,), t.
        key: a PRNG key, to draw Gaussian directions.
        num_directions: how many of them.
        directions: trees like the point, instead of random ones: such as
            `lrscape.landscape.fooling_direction`.
        normalize: of the random ones, None, ``'filter'``, ``'layer'`` or ``'global'``.
            By default the whole direction has norm 1, so that t is a distance.
        mask: which entries the random ones move; such as
            `lrscape.landscape.masks.first_layer`.
        axes: what leaves are where names do not tell; see `lrscape.layers.roles`.
        progress: whether to show a bar for each direction.

    Returns:
        A curve for each direction.

    Raises:
        InputError: neither a key nor directions, both of them, or no scales.

    Example:
        >>> import jax.numpy as jnp
        >>> curves = perturbation_losses(
        ...     lambda w: jnp.sum(w ** 2), jnp.zeros(5), [0.0, 1.0, 2.0],
        ...     key=jax.random.key(0), num_directions=3)
        >>> print(curves.losses.shape, curves.mean.round(4))
        (3, 3) [0. 1. 4.]

    References:
        Seong et al., `Towards Flatter Loss Surface via Nonmonotonic Learning Rate
        Scheduling <http://auai.org/uai2018/proceedings/papers/363.pdf>`_, 2018,
        Sec. 6.1 and Fig. 4
    """
    objective = as_objective(objective)
    scales = check_scales(scales)
    checks.flag("progress", progress)
    if (key is None) == (directions is None):
        raise InputError("pass either key, for random directions, or directions")
    draw: Callable[[int], Any]
    if key is not None:
        num_directions = check_count("num_directions", num_directions)
        keys = jax.random.split(checks.key("key", key), num_directions)

        def draw(i):
            return gaussian_direction(
                keys[i], point, normalize=normalize, mask=mask, axes=axes
            )

        count = len(keys)
    else:
        assert directions is not None
        given = checks.sequence("directions", directions)
        count = len(given)
        if not given:
            raise InputError("directions=[] holds no direction")
        for i, direction in enumerate(given):
            tree.check_alike({"point": point, f"directions[{i}]": direction})
            check_not_zero(f"directions[{i}]", direction)

        def draw(i):
            return given[i]

    surfaces = [
        measure_surface(objective, ray(point, draw(i)), scales, progress=progress)
        for i in range(count)
    ]
    return curves_of(scales, surfaces)


def curves_of(scales: np.ndarray, surfaces: list[Any]) -> Curves:
    """One-dimensional surfaces as curves."""

    def stacked(values):
        return np.stack([v["loss"] if isinstance(v, dict) else v for v in values])

    return Curves(
        scales,
        stacked([surface.losses for surface in surfaces]),
        stacked([surface.standard_errors for surface in surfaces]),
    )


def check_scales(scales: Any) -> np.ndarray:
    """Scales as (k,); raises InputError for another shape."""
    array = np.asarray(checks.numbers("scales", scales, axes=1), np.float64)
    if not array.size:
        raise InputError(f"scales={checks.shown(scales)} holds none: pass (k,), k >= 1")
    return array
