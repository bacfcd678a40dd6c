"""Theorem 1: a bias to the flat side lowers the expected population loss."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SEGMENTS = 8


class Landscape(NamedTuple):
    r"""An empirical loss with asymmetric directions, and how the population's differs.

    The empirical loss is a sum of functions of one coordinate each, minimal at 0, whose
    slopes are, between the distances :math:`\zeta` and r, below :math:`p_i` on one side
    and above :math:`c_i p_i` on the other; the axes are its k orthogonal directions.
    The population loss is the same, moved by :math:`\delta` with
    :math:`\delta_i = \pm\bar\delta_i`, each of the :math:`2^k` equally likely, and
    raised or lowered by no more than :math:`\xi`.

    Attributes:
        r: the outer distance.
        zeta: the inner one.
        p: (k,).
        c: (k,).
        delta: (k,), :math:`\bar\delta`, between zeta and r.
        xi: the shift gap.
        knots: (m,), where the slopes change.
        heights: (k, m), the functions there; straight between them.
    """

    r: float
    zeta: float
    p: np.ndarray
    c: np.ndarray
    delta: np.ndarray
    xi: float
    knots: np.ndarray
    heights: np.ndarray

    def empirical(self, points: np.ndarray) -> np.ndarray:
        """The empirical loss at points (..., k), without its minimum."""
        return sum(
            np.interp(points[..., i], self.knots, heights)
            for i, heights in enumerate(self.heights)
        )

    @property
    def longest(self) -> np.ndarray:
        r"""(k,), the largest bias that the theorem allows.

        .. math:: l_i \le \min(r - \bar\delta_i, \bar\delta_i - \zeta)
        """
        return np.minimum(self.r - self.delta, self.delta - self.zeta)

    @property
    def shortest(self) -> np.ndarray:
        r"""(k,), what it must exceed: :math:`4 \xi / ((c_i - 1) p_i)`."""
        return 4 * self.xi / ((self.c - 1) * self.p)

    def admits(self, bias: np.ndarray) -> bool:
        """Whether the theorem is of this bias."""
        return bool(((self.shortest < bias) & (bias <= self.longest)).all())


def draw(random: np.random.Generator, num_directions: int) -> Landscape:
    """A random landscape that the theorem is of, with room for a bias.

    Args:
        random: the source of it.
        num_directions: k.

    Returns:
        The landscape. Its shift gap is drawn up to the largest that leaves a bias.
    """
    k = num_directions
    r = random.uniform(0.5, 3.0)
    zeta = r * random.uniform(0.01, 0.4)
    p = 10 ** random.uniform(-2, 1, k)
    c = 1 + 10 ** random.uniform(-1, 1.5, k)
    delta = random.uniform(zeta + 0.05 * (r - zeta), r - 0.05 * (r - zeta), k)
    longest = np.minimum(r - delta, delta - zeta)
    xi = random.uniform(0, 0.99) * np.min(longest * (c - 1) * p / 4)
    outer = np.linspace(zeta, r, SEGMENTS + 1)
    # Of what lies beyond r nothing is said; here the steepest slopes go on.
    far = 1000 * r * c.max()
    knots = np.concatenate([[-far], -outer[::-1], [0.0], outer, [far]])
    heights = []
    for i in range(k):
        # Slopes going outwards: near the point anything above 0.
        near = random.uniform(0, p[i], 2)
        flat = random.uniform(-0.2, 1, SEGMENTS) * p[i]
        sharp = c[i] * p[i] * random.uniform(1, 2, SEGMENTS)
        right = np.cumsum(np.append(near[0] * zeta, flat * np.diff(outer)))
        left = np.cumsum(np.append(near[1] * zeta, sharp * np.diff(outer)))
        ends = [left[-1] + c[i] * p[i] * (far - r)], [right[-1] + p[i] * (far - r)]
        heights.append(np.concatenate([ends[0], left[::-1], [0.0], right, ends[1]]))
    return Landscape(r, zeta, p, c, delta, xi, knots, np.stack(heights))


def gain(landscape: Landscape, bias: np.ndarray) -> float:
    r"""By how much a bias lowers the expected population loss, at worst.

    .. math:: E_\delta L(w) - E_\delta L(w + \textstyle\sum_i l_i u^i)

    exactly, over all signs of the shift; the population loss differs from the moved
    empirical one as unfavourably as the shift gap allows.

    Args:
        landscape: both losses.
        bias: (k,), l.

    Returns:
        The gain; positive where the biased point is better.
    """
    k = len(bias)
    signs = 2 * ((np.arange(2**k)[:, None] >> np.arange(k)) & 1) - 1
    shifts = signs * landscape.delta
    unbiased = landscape.empirical(-shifts).mean() - landscape.xi
    biased = landscape.empirical(bias - shifts).mean() + landscape.xi
    return float(unbiased - biased)


def bound(landscape: Landscape, bias: np.ndarray) -> float:
    r"""What the theorem, as derived anew from its proof, says of the gain.

    .. math:: \sum_i \frac{(c_i - 1)\, l_i p_i}{2} - 2 k \xi
    """
    each = (landscape.c - 1) * bias * landscape.p / 2
    return float(each.sum() - 2 * len(bias) * landscape.xi)
