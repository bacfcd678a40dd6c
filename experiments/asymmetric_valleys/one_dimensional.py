"""SGD on functions of one variable: on which side its averages lie (Theorem 2)."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Valley(NamedTuple):
    r"""A function of one variable with its minimum at 0, given by its slopes.

    On each side the slope grows in size from the least at 0 to the most at a distance
    of `width`, and stays there: in the paper's letters

    .. math:: 0 \le b_+ \le L' \le a_+ \text{ for } w > 0, \qquad
        b_- \le L' \le a_- \le 0 \text{ for } w < 0

    Attributes:
        flat_least: :math:`b_+`.
        flat_most: :math:`a_+`.
        sharp_least: :math:`-a_-`.
        sharp_most: :math:`-b_-`.
        width: where a side is steepest; a distance.
    """

    flat_least: float
    flat_most: float
    sharp_least: float
    sharp_most: float
    width: float = 1.0

    def slope(self, w: jax.Array) -> jax.Array:
        """The derivative at w; what is not above 0 is on the sharp side."""
        share = jnp.minimum(jnp.abs(w) / self.width, 1.0)
        flat = self.flat_least + (self.flat_most - self.flat_least) * share
        sharp = self.sharp_least + (self.sharp_most - self.sharp_least) * share
        return jnp.where(w > 0, flat, -sharp)

    @property
    def c(self) -> float:
        """How many times steeper the sharp side is, everywhere: :math:`-a_- / a_+`."""
        return self.sharp_least / self.flat_most

    def meets_theorem_2(self, noise: float) -> bool:
        r"""Whether the theorem is of this valley, with noise bounded by :math:`\nu`.

        .. math:: b_+ > 0, \quad \nu \le a_+, \quad
            \frac{\nu - b_-}{b_+} < \frac{e^{c / 3}}{6}
        """
        if not (self.flat_least > 0 and 0 <= noise <= self.flat_most):
            return False
        spread = (self.sharp_most + noise) / self.flat_least
        return math.log(6 * spread) < self.c / 3


# Figures 5, 6, 24 and 23: where the slope does not vanish at the minimum, every rate
# makes SGD oscillate around it; where it does, a small one does not.
VALLEYS = {
    "asymmetric": Valley(0.8, 1.0, 20.0, 24.0),
    "asymmetric, smooth": Valley(0.0, 1.0, 0.0, 20.0),
    "symmetric, sharp": Valley(20.0, 24.0, 20.0, 24.0),
    "symmetric, flat": Valley(0.8, 1.0, 0.8, 1.0),
}


def descend(
    key: jax.Array,
    valley: Valley,
    starts: jax.Array,
    *,
    rate: float,
    noise: float,
    num_steps: int,
) -> jax.Array:
    r"""SGD with bounded noise, from many starts at once.

    .. math:: w_{t+1} = w_t - \eta (L'(w_t) + \omega_t), \qquad
        \omega_t \sim U(-\nu, \nu)

    Args:
        key: a PRNG key; each start has noise of its own.
        valley: L.
        starts: (n,), :math:`w_0`.
        rate: :math:`\eta`.
        noise: :math:`\nu`.
        num_steps: updates.

    Returns:
        (n, num_steps + 1), the iterates, the start included.

    Example:
        >>> valley = Valley(1.0, 1.0, 3.0, 3.0)
        >>> path = descend(
        ...     jax.random.key(0), valley, jnp.array([0.5]), rate=1.0, noise=0.0,
        ...     num_steps=4)
        >>> print(path)
        [[ 0.5 -0.5  2.5  1.5  0.5]]
    """
    keys = jax.random.split(key, len(starts))
    return _descend(keys, valley, starts, rate, noise, num_steps)


@functools.partial(jax.jit, static_argnames="num_steps")
def _descend(keys, valley, starts, rate, noise, num_steps):
    def one(key, start):
        def update(w, t):
            omega = jax.random.uniform(
                jax.random.fold_in(key, t), (), w.dtype, -1.0, 1.0
            )
            w = w - rate * (valley.slope(w) + noise * omega)
            return w, w

        _, path = jax.lax.scan(update, start, jnp.arange(num_steps))
        return jnp.append(start, path)

    return jax.vmap(one)(keys, jnp.asarray(starts, jnp.float32))


class Rounds(NamedTuple):
    """Rounds of oscillation; see `rounds`.

    Attributes:
        means: (n, k), the mean of each round's iterates; NaN of one that did not end.
        lengths: (n, k), how many iterates it has; 0 likewise.
    """

    means: np.ndarray
    lengths: np.ndarray


def rounds(paths: jax.Array, num_rounds: int) -> Rounds:
    """The mean iterate of each round of oscillation.

    A round begins with the iterate after a jump from the sharp side to the flat one
    (above 0), and ends before the next that does: so many iterates on the flat side,
    and then those on the sharp one. What comes before the first jump is no round, nor
    is what comes after the last.

    A round that did not end within the path is missing, and a long one is so more
    often: choose paths long enough for all.

    On a symmetric function the mean of all iterates is 0 by symmetry; that of a round
    need not be, since every round begins on the same side and what follows depends on
    how: with slopes of 0.8 to 1 and noise of half of that it is small, and positive.

    Args:
        paths: (n, iterates).
        num_rounds: k, how many of them, from the first.

    Returns:
        Means and lengths.

    Example:
        >>> found = rounds(jnp.array([[0.5, -0.5, 2.5, 1.5, 0.5, -0.5, 2.5]]), 2)
        >>> print(found.means, found.lengths)
        [[ 1. nan]] [[4 0]]
    """
    sums, lengths, ended = _rounds(jnp.asarray(paths), num_rounds)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(ended, np.asarray(sums) / np.asarray(lengths), np.nan)
    return Rounds(means, np.where(ended, lengths, 0))


@functools.partial(jax.jit, static_argnames="num_rounds")
def _rounds(paths, num_rounds):
    def one(path):
        flat = path > 0
        begins = jnp.append(False, ~flat[:-1] & flat[1:])
        # 0 before the first round; what belongs to none of the first k is left out.
        index = jnp.cumsum(begins)
        within = jnp.minimum(index, num_rounds + 1)
        sums = jax.ops.segment_sum(path, within, num_rounds + 2)
        lengths = jax.ops.segment_sum(jnp.ones_like(index), within, num_rounds + 2)
        ended = jnp.arange(1, num_rounds + 1) < index[-1]
        return sums[1:-1], lengths[1:-1], ended

    return jax.vmap(one)(paths)


def interval(values: np.ndarray, quantile: float = 2.576) -> tuple[float, float, float]:
    """The mean of many independent values and its normal interval, 99 % by default.

    Example:
        >>> [round(x, 3) for x in interval(np.array([1.0, 2.0, 3.0, 4.0]))]
        [2.5, 0.837, 4.163]
    """
    values = np.asarray(values, np.float64)
    error = quantile * float(values.std(ddof=1)) / math.sqrt(len(values))
    mean = float(values.mean())
    return mean, mean - error, mean + error
