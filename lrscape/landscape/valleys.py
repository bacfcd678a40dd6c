"""Asymmetric valleys: directions found by trial, and neighbours that keep them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from lrscape import checks
from lrscape.landscape.asymmetry import (
    NUM_POINTS,
    STEEPER,
    Asymmetry,
    both_sides,
    largest_c,
    read_profile,
)
from lrscape.landscape.direction import gaussian_direction, uniform_direction
from lrscape.landscape.masks import Mask
from lrscape.landscape.slopes import profile_of, slope_objective, unit_ray
from lrscape.landscape.tree import check_count, check_point, combine, dot, scale


class DirectionSearch(NamedTuple):
    """The best of the directions that `find_asymmetric_direction` tried.

    Attributes:
        direction: the one with the largest c of all that were tried, whether it passed
            or not; as the sampler gave it.
        c: its c.
        p: its p; see `Asymmetry`.
        num_tried: how many directions were tried.
        num_passed: how many of them have a c above the one that was asked for.
        cs: (num_tried,), the c of each.
        asymmetry: of the direction, with its slopes.
    """

    direction: Any
    c: float
    p: float
    num_tried: int
    num_passed: int
    cs: np.ndarray
    asymmetry: Asymmetry

    @property
    def found(self) -> bool:
        """Whether any direction passed."""
        return self.num_passed > 0


def find_asymmetric_direction(
    key: jax.Array,
    objective: Any,
    point: Any,
    *,
    r: float,
    zeta: float,
    c: float,
    num_tries: int,
    sampler: Callable[[jax.Array, Any], Any] = uniform_direction,
    stop_early: bool = False,
    num_points: int = NUM_POINTS,
    progress: bool = False,
) -> DirectionSearch:
    """Tries random directions for asymmetric ones.

    Directions with entries in (0, 1), the default, all lie near that of ones, so that
    what they show may be a property of that one; compare with `ones_direction` and
    `flipped_direction` of `lrscape.landscape.direction` and with entries in (-1, 1).

    Args:
        key: a PRNG key.
        objective: an objective, or a function of a point.
        point: w.
        r: the outer end of the interval of distances.
        zeta: its inner end.
        c: a direction passes whose largest c is above this.
        num_tries: how many are tried.
        sampler: ``(key, point) -> direction``, +direction the side that is to be flat.
        stop_early: stop at the first one that passes.
        num_points: distances on each side, evenly spaced.
        progress: whether to show a bar.

    Returns:
        The best direction with its c and p, how many were tried and passed, and the c
        of each. One whose c is infinite passes; see `Asymmetry` for what that says.

    Raises:
        InputError: c not above 1, no tries, a sampler that is no function, or as
            `asymmetry`.

    Example:
        >>> import jax.numpy as jnp
        >>> valley = lambda w: jnp.sum(jnp.maximum(w, -3 * w))
        >>> found = find_asymmetric_direction(
        ...     jax.random.key(0), valley, jnp.zeros(4), r=1.0, zeta=0.1, c=2.0,
        ...     num_tries=5)
        >>> print(found.num_passed, f'{found.c:.3f}')
        5 3.000

    References:
        He et al., `Asymmetric Valleys <https://arxiv.org/abs/1902.00744>`_, 2019,
        Sec. 3.2
    """
    from tqdm import tqdm

    key = checks.key("key", key)
    checks.above("c", c, 1, meaning=STEEPER)
    check_count("num_tries", num_tries)
    checks.function("sampler", sampler, takes="(key, point) that gives a direction")
    checks.flag("stop_early", stop_early)
    checks.flag("progress", progress)
    check_point("point", point)
    distances = both_sides(r, zeta, num_points)
    slopes = slope_objective(objective)
    best: tuple[Any, Asymmetry] | None = None
    cs: list[float] = []
    keys = jax.random.split(key, num_tries)
    for one in tqdm(keys, disable=not progress, unit="direction", dynamic_ncols=True):
        direction = sampler(one, point)
        found = read_profile(profile_of(slopes, point, direction, distances))
        cs.append(found.c)
        # NaN is larger than nothing, and anything is larger than NaN.
        if best is None or found.c > best[1].c or math.isnan(best[1].c):
            best = direction, found
        if stop_early and found.c > c:
            break
    assert best is not None
    passed = sum(value > c for value in cs)
    direction, found = best
    return DirectionSearch(
        direction, found.c, found.p, len(cs), passed, np.array(cs), found
    )


class Neighborhood(NamedTuple):
    """The asymmetry of a direction at points around one; see `nearby_asymmetry`.

    Attributes:
        cs: (neighbours,), the largest c at each; see `Asymmetry`.
        distances: (k,), along the direction, those of -u negative.
        losses: (neighbours, k).
        slopes: (neighbours, k), the derivative by the distance.
    """

    cs: np.ndarray
    distances: np.ndarray
    losses: np.ndarray
    slopes: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """(k,), the mean loss over neighbours."""
        return self.losses.mean(axis=0)

    @property
    def deviation(self) -> np.ndarray:
        """(k,), the standard deviation of the loss over neighbours; NaN for one."""
        if len(self.losses) == 1:
            return np.full(self.losses.shape[1:], np.nan)
        return self.losses.std(axis=0, ddof=1)

    @property
    def common(self) -> tuple[float, float]:
        """The c and p that all neighbours share: the supremum, as for `Asymmetry`."""
        flat = self.slopes[:, self.distances > 0].max()
        sharp = -self.slopes[:, self.distances < 0].max()
        return largest_c(float(flat), float(sharp))


def nearby_asymmetry(
    key: jax.Array,
    objective: Any,
    point: Any,
    direction: Any,
    *,
    r: float,
    zeta: float,
    radius: float,
    num_neighbors: int = 10,
    mask: Mask = None,
    num_points: int = NUM_POINTS,
) -> Neighborhood:
    r"""The asymmetry of a direction at points moved orthogonally to it.

    .. math:: w + v - \langle v, u \rangle u, \qquad \|v\| = R'

    Assumption 2 of the paper is of all :math:`\|v\| \le R'`; of a ball in many
    dimensions nearly all lies at its surface, from where v is drawn. Ask for several
    radii to look inside.

    Args:
        key: a PRNG key.
        objective: an objective, or a function of a point.
        point: w.
        direction: a tree like the point, of any length; u is its unit vector.
        r: the outer end of the interval of distances.
        zeta: its inner end.
        radius: R', a distance.
        num_neighbors: how many v are drawn, Gaussian ones scaled to that norm.
        mask: what v may move.
        num_points: distances on each side, evenly spaced.

    Returns:
        c at each neighbour, and the loss along the direction.

    Raises:
        InputError: a radius that is not positive, no neighbours, or as `asymmetry`.

    Example:
        >>> import jax.numpy as jnp
        >>> valley = lambda w: jnp.maximum(w[0], -5 * w[0]) + jnp.sum(w[1:] ** 2)
        >>> found = nearby_asymmetry(
        ...     jax.random.key(0), valley, jnp.zeros(3), jnp.array([1.0, 0.0, 0.0]),
        ...     r=1.0, zeta=0.1, radius=0.5, num_neighbors=3)
        >>> print(found.cs.round(4))
        [5. 5. 5.]

    References:
        He et al., `Asymmetric Valleys <https://arxiv.org/abs/1902.00744>`_, 2019,
        Assumption 2, Fig. 4
    """
    key = checks.key("key", key)
    radius = checks.positive("radius", radius)
    check_count("num_neighbors", num_neighbors)
    distances = both_sides(r, zeta, num_points)
    slopes = slope_objective(objective)
    u = unit_ray(point, direction).points[1]
    found = []
    for one in jax.random.split(key, num_neighbors):
        v = gaussian_direction(one, point, normalize="global", mask=mask)
        v = scale(radius, v)
        moved = combine([1, 1, -dot(v, u)], [point, v, u])
        found.append(read_profile(profile_of(slopes, moved, u, distances)))
    return Neighborhood(
        np.array([one.c for one in found]),
        distances,
        np.stack([one.profile.losses for one in found]),
        np.stack([one.profile.slopes for one in found]),
    )
