r"""Asymmetric directions: the loss rises slowly on one side and abruptly on the other.

A unit direction u is :math:`(r, p, c, \zeta)`-asymmetric at w if for all l in
:math:`(\zeta, r)`

.. math:: \frac{d}{dl} L(w + l u) < p, \qquad \frac{d}{dl} L(w - l u) > c\, p,

with p > 0 and c > 1: +u is the flat side. All functions here read both slopes from the
same distances, evenly spaced in the interval.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from lrscape import checks
from lrscape.errors import InputError
from lrscape.landscape.slopes import (
    SlopeProfile,
    profile_of,
    slope_objective,
)
from lrscape.landscape.tree import check_count

NUM_POINTS = 20
# What c is.
STEEPER = "how many times steeper the sharp side is"

# The interval is open. Its first and last distance lie by this share of it inside, so
# that a kink at an end, such as that of a V-shaped valley at 0, is not looked at.
_INSIDE = 1e-6


class Asymmetry(NamedTuple):
    r"""The asymmetry of a direction.

    Attributes:
        c: the supremum of all c for which some p makes the direction asymmetric:
            `sharp_slope` over `flat_slope`. It is approached as p comes down to the
            flat slope and, both inequalities being strict, not reached where the slopes
            are continuous. 1 or less: not asymmetric. Infinite where the flat side does
            not rise anywhere, so that the point is no minimum along the direction; 0
            where the sharp side does not rise everywhere; NaN where a slope is.
        p: what p comes down to: the flat slope, or 0 where that is not positive.
        flat_slope: the largest slope on the side of +u.
        sharp_slope: the smallest on the side of -u, going outwards.
        profile: losses and slopes that these were read from, the distances of -u
            negative.
    """

    c: float
    p: float
    flat_slope: float
    sharp_slope: float
    profile: SlopeProfile

    @property
    def distances(self) -> np.ndarray:
        """(num_points,), the distances l of either side, smallest first."""
        return self.profile.distances[self.profile.distances > 0]

    @property
    def flat_slopes(self) -> np.ndarray:
        """(num_points,), the slopes on the side of +u, at `distances`."""
        return self.profile.slopes[self.profile.distances > 0]

    @property
    def sharp_slopes(self) -> np.ndarray:
        """(num_points,), the slopes on the side of -u, going outwards."""
        return -self.profile.slopes[self.profile.distances < 0][::-1]

    @property
    def reversed(self) -> Asymmetry:
        """The asymmetry of the opposite direction, from the same slopes."""
        d, losses, slopes, errors = (values[::-1] for values in self.profile)
        return read_profile(SlopeProfile(-d, losses, -slopes, errors))

    def holds(self, *, p: float, c: float) -> bool:
        """Tests whether the definition holds with these constants everywhere."""
        return bool(self.flat_slope < p and self.sharp_slope > c * p)

    def admissible_p(self, c: float) -> float:
        """A p with which the direction is asymmetric for this c.

        Args:
            c: any below `Asymmetry.c`.

        Returns:
            The middle of those that would do.

        Raises:
            InputError: a c for which there is none.

        Example:
            >>> import jax.numpy as jnp
            >>> found = asymmetry(
            ...     lambda w: jnp.maximum(w, -6 * w), jnp.float32(0), jnp.float32(1),
            ...     r=1.0, zeta=0.1)
            >>> found.admissible_p(2.0), found.holds(p=2.0, c=2.0)
            (2.0, True)
        """
        if not checks.number("c", c) > 0 or not c < self.c:
            raise InputError(
                f"c={c!r} must be positive and below {self.c:g}, the largest that this "
                "direction has"
            )
        return (self.p + self.sharp_slope / c) / 2


def asymmetry(
    objective: Any,
    point: Any,
    direction: Any,
    *,
    r: float,
    zeta: float,
    num_points: int = NUM_POINTS,
) -> Asymmetry:
    r"""The largest c for which a direction is asymmetric, and its p.

    .. math::

        c = \frac{\min_l \frac{d}{dl} L(w - l u)}{\max_l \frac{d}{dl} L(w + l u)},
        \qquad l \in (\zeta, r), \quad u = d / \|d\|

    Slopes are exact derivatives. They are taken on a grid: between its distances the
    loss may do what it likes, so that c is an upper bound of that of the definition,
    and more points can only lower it if they include the old ones.

    Args:
        objective: an objective, or a function of a point; see
            `lrscape.landscape.slope_profile`.
        point: w.
        direction: d, a tree like the point, of any length but 0; only where it points
            to counts. +d is the flat side.
        r: the outer end of the interval, a distance.
        zeta: the inner one: what is nearer to the point, where slopes are small
            whatever the direction, does not count. The definition has it positive;
            0 is for losses that have a kink at the point.
        num_points: distances on each side, evenly spaced; the first and the last lie
            just inside the interval, which is open.

    Returns:
        ``c, p, flat_slope, sharp_slope, profile``. For the opposite direction see
        `Asymmetry.reversed`, which costs nothing.

    Raises:
        InputError: a direction of another structure or of norm 0, ends that are not
            ``0 <= zeta < r``, or fewer than 2 points.

    Example:
        >>> import jax.numpy as jnp
        >>> valley = lambda w: jnp.maximum(w[0], -5 * w[0])
        >>> found = asymmetry(
        ...     valley, jnp.zeros(2), jnp.array([2.0, 0.0]), r=1.0, zeta=0.1)
        >>> print(found.c, found.p, found.reversed.c)
        5.0 1.0 0.2

    References:
        He et al., `Asymmetric Valleys <https://arxiv.org/abs/1902.00744>`_, 2019,
        Definition 1
    """
    distances = both_sides(r, zeta, num_points)
    return read_profile(
        profile_of(slope_objective(objective), point, direction, distances)
    )


def is_asymmetric(
    objective: Any,
    point: Any,
    direction: Any,
    *,
    r: float,
    zeta: float,
    p: float,
    c: float,
    num_points: int = NUM_POINTS,
) -> bool:
    r"""Tests whether a direction is :math:`(r, p, c, \zeta)`-asymmetric.

    Slopes are exact derivatives on a grid of distances, as `asymmetry` takes them.

    Args:
        objective: an objective, or a function of a point.
        point: w.
        direction: a tree like the point, of any length but 0; +direction is the flat
            side.
        r: the outer end of the interval of distances.
        zeta: its inner end; the definition has it positive.
        p: every slope on the flat side must be smaller, in loss a unit of distance.
        c: every slope on the sharp side must be more than c times p.
        num_points: distances on each side, evenly spaced.

    Returns:
        Whether both hold at every distance. Where a slope is NaN they do not.

    Raises:
        InputError: p not positive, c not above 1, or as `asymmetry`.

    Example:
        >>> import jax.numpy as jnp
        >>> valley = lambda w: jnp.maximum(w, -5 * w)
        >>> at = {'point': jnp.float32(0), 'direction': jnp.float32(1)}
        >>> [is_asymmetric(valley, **at, r=1.0, zeta=0.1, p=1.1, c=c) for c in (4, 5)]
        [True, False]

    References:
        He et al., `Asymmetric Valleys <https://arxiv.org/abs/1902.00744>`_, 2019,
        Definition 1
    """
    checks.positive("p", p)
    checks.above("c", c, 1, meaning=STEEPER)
    found = asymmetry(
        objective, point, direction, r=r, zeta=zeta, num_points=num_points
    )
    return found.holds(p=p, c=c)


def both_sides(r: float, zeta: float, num_points: int) -> np.ndarray:
    """Distances within (zeta, r), and their opposites before them."""
    r, zeta = checks.positive("r", r), checks.not_negative("zeta", zeta)
    if not zeta < r:
        raise InputError(f"zeta={zeta!r} must be 0 or more and below r={r!r}")
    if check_count("num_points", num_points) < 2:
        raise InputError(f"num_points={num_points!r} must be 2 or more on each side")
    inside = _INSIDE * (r - zeta)
    distances = np.linspace(zeta + inside, r - inside, num_points)
    return np.concatenate([-distances[::-1], distances])


def read_profile(profile: SlopeProfile) -> Asymmetry:
    """The asymmetry that slopes on both sides show."""
    flat = float(profile.slopes[profile.distances > 0].max())
    sharp = -float(profile.slopes[profile.distances < 0].max())
    return Asymmetry(*largest_c(flat, sharp), flat, sharp, profile)


def largest_c(flat: float, sharp: float) -> tuple[float, float]:
    """The supremum of c, and the p that goes with it."""
    p = max(flat, 0.0) if not math.isnan(flat) else math.nan
    if math.isnan(flat) or math.isnan(sharp):
        return math.nan, p
    if sharp <= 0:
        return 0.0, p
    return (sharp / flat if flat > 0 else math.inf), p
