r"""The shift between training and test loss: how well one fits the other, moved.

.. math::

    \xi_\delta(w) = \max_{\|v\| \le R} |L'(w + v + \delta) - \hat L(w + v)|, \qquad
    L' = L - \min L + \min \hat L

with :math:`\hat L` the training loss and :math:`L` the test loss.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lrscape import checks
from lrscape.errors import InputError
from lrscape.landscape import tree
from lrscape.landscape.accumulate import loss_gradient, mean_loss
from lrscape.landscape.direction import gaussian_direction
from lrscape.landscape.masks import apply_mask, as_mask
from lrscape.landscape.protocol import as_objective, scalar_loss
from lrscape.landscape.slopes import unit_ray
from lrscape.landscape.surface import evaluate


class ShiftGap(NamedTuple):
    """The largest gap that `shift_gap_search` met, and where.

    Attributes:
        gap: the largest difference that was met.
        displacement: v, where it was met: a tree like the point.
        drawn_gap: the largest among the random v alone, without any ascent.
        train_min: what was taken for the least training loss.
        test_min: likewise, of the test loss.
    """

    gap: float
    displacement: Any
    drawn_gap: float
    train_min: float
    test_min: float


def shift_gap(
    train_objective: Any,
    test_objective: Any,
    point: Any,
    shift: Any,
    *,
    radius: float,
    key: jax.Array,
    **options: Any,
) -> float:
    r"""The largest difference of test and training loss around a point, one shifted.

    .. math::

        \xi_\delta(w) = \max_{\|v\| \le R} |L'(w + v + \delta) - \hat L(w + v)|

    **A lower bound of it**, as far as the minima in L' are right: the maximum is looked
    for at random v and from there by gradient ascent, and what is not found is not
    counted.

    Args:
        train_objective: :math:`\hat L`, an objective, or a function of a point.
        test_objective: L, likewise.
        point: w.
        shift: :math:`\delta`, a tree like the point; zeros give the gap that a shift
            is compared with.
        radius: R, a distance.
        key: a PRNG key, of the random v.
        **options: ``num_draws``, ``num_steps``, ``train_min`` and ``test_min`` of
            `shift_gap_search`.

    Returns:
        The gap, in units of loss. NaN where a loss was.

    Raises:
        InputError: a shift of another structure, a radius that is not positive, or
            counts that are not.

    Example:
        >>> train = lambda w: jnp.sum(w ** 2)
        >>> test = lambda w: jnp.sum((w - 1) ** 2) + 3
        >>> w, key = jnp.zeros(2), jax.random.key(0)
        >>> gap = shift_gap(train, test, w, jnp.ones(2), radius=0.5, key=key)
        >>> print(round(gap, 5))
        0.0

    References:
        He et al., `Asymmetric Valleys <https://arxiv.org/abs/1902.00744>`_, 2019,
        Definition 3
    """
    return shift_gap_search(
        train_objective, test_objective, point, shift, radius=radius, key=key, **options
    ).gap


def shift_gap_search(
    train_objective: Any,
    test_objective: Any,
    point: Any,
    shift: Any,
    *,
    radius: float,
    key: jax.Array,
    num_draws: int = 10,
    num_steps: int = 20,
    train_min: float | None = None,
    test_min: float | None = None,
) -> ShiftGap:
    """The gap of `shift_gap`, and the moves at which it was met.

    From the draw where the difference is largest it goes up, from the one where it is
    smallest down, along the normalised gradient and back onto the ball; a step that
    does not help is taken back, and the next one is half as long.

    Args:
        train_objective: an objective, or a function of a point.
        test_objective: the one whose point is shifted.
        point: w.
        shift: a tree like the point.
        radius: R, a distance.
        key: a PRNG key, of the random v.
        num_draws: random v of norm R; 0 itself is always looked at.
        num_steps: steps up, and as many down, two gradients each.
        train_min: the least training loss; None takes the least that the search met.
            At a minimum with its own shift that is exact; otherwise pass it if it is
            known, since the gap depends on it. To compare the gaps of several shifts,
            pass the same to all.
        test_min: likewise, of the test loss.

    Returns:
        The gap and what it was found with.

    Raises:
        InputError: see `shift_gap`.

    Example:
        >>> found = shift_gap_search(
        ...     lambda w: w[0], lambda w: 3 * w[0], jnp.zeros(2), jnp.zeros(2),
        ...     radius=1.0, key=jax.random.key(0), train_min=0.0, test_min=0.0)
        >>> print(round(found.gap, 3))
        2.0
    """
    tree.check_alike({"point": point, "shift": shift})
    key = checks.key("key", key)
    radius = checks.positive("radius", radius)
    for name, value in (("train_min", train_min), ("test_min", test_min)):
        if value is not None:
            checks.finite(name, value)
    tree.check_count("num_draws", num_draws)
    tree.check_count("num_steps", num_steps)
    train, test = as_objective(train_objective), as_objective(test_objective)
    met: list[tuple[float, float]] = []

    def difference(v: Any) -> float:
        losses = (
            float(scalar_loss(mean_loss(train, _moved(point, v)))),
            float(scalar_loss(mean_loss(test, _moved(point, v, shift)))),
        )
        met.append(losses)
        return losses[1] - losses[0]

    selected = as_mask(None, point)  # running averages that a point holds do not move

    def slope(v: Any) -> Any:
        up = loss_gradient(test, _moved(point, v, shift))
        return apply_mask(
            selected, tree.subtract(up, loss_gradient(train, _moved(point, v)))
        )

    draws = [jax.tree.map(jnp.zeros_like, point)]
    for one in jax.random.split(key, num_draws):
        v = gaussian_direction(one, point, normalize="global")
        draws.append(tree.scale(radius, v))
    drawn = [(difference(v), v) for v in draws]
    # The minima shift all differences alike, so that the ends are what is needed.
    ends = [
        _climb(sign, drawn, difference, slope, radius, num_steps) for sign in (1, -1)
    ]
    least = np.min(met, axis=0)
    train_min = float(least[0]) if train_min is None else float(train_min)
    test_min = float(least[1]) if test_min is None else float(test_min)

    def gap(of: float) -> float:
        return abs(of - test_min + train_min)

    for value, v in [*drawn, *ends]:
        if math.isnan(value):
            return ShiftGap(math.nan, v, math.nan, train_min, test_min)
    value, displacement = max(ends, key=lambda end: gap(end[0]))
    drawn_gap = max(gap(value) for value, _ in drawn)
    return ShiftGap(gap(value), displacement, drawn_gap, train_min, test_min)


def _climb(sign, drawn, difference, slope, radius, num_steps):
    """Goes up (sign 1) or down (-1) the difference, within the ball."""
    value, v = max(drawn, key=lambda pair: sign * pair[0])
    step, ascent = radius, None
    for _ in range(num_steps):
        if math.isnan(value):
            break
        ascent = slope(v) if ascent is None else ascent
        length = float(tree.norm(ascent))
        if not length > 0:
            break
        moved = tree.combine([1, sign * step / length], [v, ascent])
        inside = min(1.0, radius / max(float(tree.norm(moved)), 1e-30))
        moved = tree.scale(inside, moved)
        new = difference(moved)
        if not sign * new <= sign * value:  # NaN is kept
            value, v, ascent = new, moved, None
        else:
            step /= 2
    return value, v


class LineShift(NamedTuple):
    """Training and test loss along a line, and how they fit; see `best_shift`.

    Attributes:
        shift: the one with the smallest gap, a distance along the direction.
        ratio: its gap over that without a shift; NaN where both are 0.
        shifts: (m,), those that were tried, evenly spaced around 0.
        gaps: (m,), the gap of each.
        distances: (k,), where both losses were measured: as far as radius and largest
            shift together, on both sides.
        train_losses: (k,).
        test_losses: (k,).
    """

    shift: float
    ratio: float
    shifts: np.ndarray
    gaps: np.ndarray
    distances: np.ndarray
    train_losses: np.ndarray
    test_losses: np.ndarray

    @property
    def ratios(self) -> np.ndarray:
        """(m,), each gap over that without a shift."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.gaps / self.gaps[len(self.gaps) // 2]


def best_shift(
    train_objective: Any,
    test_objective: Any,
    point: Any,
    direction: Any,
    *,
    radius: float,
    max_shift: float,
    num_points: int = 40,
    progress: bool = False,
) -> LineShift:
    r"""The shift along a direction by which the test loss fits the training loss best.

    .. math::

        \xi_\delta = \max_{|l| \le R} |L'(w + (l + \delta) u) - \hat L(w + l u)|,
        \qquad \xi_{\delta^*} / \xi_0 = \min_\delta \xi_\delta / \xi_0

    with the minima of both losses taken over the same stretch of the line, as far as
    radius and largest shift together: if one of them has none there, the gaps mean
    little. Losses are measured at evenly spaced points, and shifts are multiples of
    their spacing, so that nothing is interpolated.

    Args:
        train_objective: :math:`\hat L`, an objective, or a function of a point; of a
            dict the ``'loss'``.
        test_objective: L, likewise.
        point: w.
        direction: a tree like the point, of any length; u is its unit vector.
        radius: R, a distance.
        max_shift: the largest shift that is tried, either way.
        num_points: points a radius.
        progress: whether to show bars.

    Returns:
        The best shift, its ratio, and the losses that they were read from.

    Raises:
        InputError: a direction of norm 0, a radius that is not positive, or a largest
            shift below the spacing ``radius / num_points``.

    Example:
        >>> found = best_shift(
        ...     lambda w: w ** 2, lambda w: (w - 0.5) ** 2 + 1, jnp.float32(0),
        ...     jnp.float32(1), radius=1.0, max_shift=1.0, num_points=10)
        >>> print(found.shift, found.gaps[10])
        0.5 1.25

    References:
        He et al., `Asymmetric Valleys <https://arxiv.org/abs/1902.00744>`_, 2019,
        Sec. 4.2, Fig. 3
    """
    checks.flag("progress", progress)
    radius = checks.positive("radius", radius)
    max_shift = checks.positive("max_shift", max_shift)
    tree.check_count("num_points", num_points)
    spacing = radius / num_points
    if not max_shift * (1 + 1e-9) >= spacing:
        raise InputError(
            f"max_shift={max_shift!r} must be at least the spacing of the points, "
            f"radius / num_points = {spacing:g}"
        )
    most = int(max_shift / spacing * (1 + 1e-9))
    way = unit_ray(point, direction)
    distances = spacing * np.arange(-num_points - most, num_points + most + 1)
    train, test = (
        losses["loss"] if isinstance(losses, dict) else losses
        for losses in (
            evaluate(objective, way, distances, progress=progress)
            for objective in (train_objective, test_objective)
        )
    )
    level = test - test.min() + train.min()
    size = 2 * num_points + 1
    inner = train[most : most + size]
    gaps = np.array([
        np.abs(level[k : k + size] - inner).max() for k in range(2 * most + 1)
    ])  # fmt: skip
    shifts = spacing * np.arange(-most, most + 1)
    # Of equal gaps the shortest shift's; NaN is worse than any.
    order = np.lexsort((np.abs(shifts), gaps))
    found = LineShift(
        float(shifts[order[0]]), math.nan, shifts, gaps, distances, train, test
    )
    return found._replace(ratio=float(found.ratios[order[0]]))


@jax.jit
def _moved(point: Any, *by: Any) -> Any:
    return tree.combine([1] * (1 + len(by)), [point, *by])
