"""Low-dimensional subspaces of points: coordinates become points.

Each is a pytree that is called with coordinates, so that a compiled probe takes the
points that span it as arguments.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lrscape import checks
from lrscape.errors import InputError
from lrscape.landscape.tree import (
    Point,
    check_alike,
    combine,
    cosine,
    is_concrete,
    norm,
    scale,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Subspace:
    """Weighted sums of a few points, the weights being functions of coordinates.

    Attributes:
        points: the points or directions that are summed.
        kind: how coordinates become weights; a name in `KINDS`.
    """

    points: tuple[Point, ...]
    kind: str

    @property
    def num_coordinates(self) -> int:
        """The number of coordinates of a point of the subspace."""
        count = KINDS[self.kind][0]
        return len(self.points) - 1 if count is None else count

    def __call__(self, coordinates: Any) -> Point:
        """The point at coordinates: a scalar for one of them, else a vector."""
        coordinates = jnp.asarray(checks.numbers("coordinates", coordinates))
        shape = () if self.num_coordinates == 1 else (self.num_coordinates,)
        if coordinates.shape != shape:
            raise InputError(
                f"coordinates have shape {coordinates.shape}; a point of this "
                f"{self.kind} needs shape {shape}"
            )
        weights = KINDS[self.kind][1](coordinates)
        return combine(list(weights), list(self.points))


jax.tree_util.register_dataclass(Subspace, data_fields=["points"], meta_fields=["kind"])


def _affine_weights(coordinates):
    return [1, *(jnp.atleast_1d(coordinates))]


def _barycentric_weights(coordinates):
    alpha, beta = coordinates
    return [1 - alpha, alpha * beta, alpha * (1 - beta)]


def _bilinear_weights(coordinates):
    alpha, beta = coordinates
    one, other = beta, 1 - beta
    return [alpha * one, (1 - alpha) * one, alpha * other, (1 - alpha) * other]


# How many coordinates (None: as many as directions), and the weights that they give.
KINDS: dict[str, tuple[int | None, Callable[[Any], Sequence[Any]]]] = {
    "line": (1, lambda alpha: [1 - alpha, alpha]),
    "ray": (1, _affine_weights),
    "plane": (2, _affine_weights),
    "span": (None, _affine_weights),
    "barycentric": (2, _barycentric_weights),
    "bilinear": (2, _bilinear_weights),
}


def line(a: Point, b: Point) -> Subspace:
    r"""The straight line through two points.

    .. math:: \theta(\alpha) = (1 - \alpha) a + \alpha b

    Args:
        a: the point at 0, exactly.
        b: the point at 1, exactly.

    Returns:
        ``alpha -> point``; beyond 0 and 1 it goes on.

    Raises:
        InputError: points of different structure or shapes.

    Example:
        >>> print(line({'w': jnp.zeros(2)}, {'w': jnp.ones(2)})(0.25)['w'])
        [0.25 0.25]

    References:
        Im et al., `An empirical analysis of deep network loss surfaces
        <https://arxiv.org/abs/1612.04010>`_, 2016, Eq. 2
    """
    check_alike({"a": a, "b": b})
    return Subspace((a, b), "line")


def ray(origin: Point, direction: Point, *, absolute: bool = False) -> Subspace:
    r"""The line from a point along a direction.

    .. math::

        \theta(\alpha) = \theta_0 + \alpha d, \quad \text{or} \quad
        \theta(\lambda) = \theta_0 + \lambda d / \|d\|

    Args:
        origin: the point at 0.
        direction: what is added once at 1.
        absolute: whether a coordinate is a distance, the Euclidean norm of what is
            added, rather than a multiple of the direction.

    Returns:
        ``alpha -> point``.

    Raises:
        InputError: different structure or shapes, or a direction of norm zero.

    Example:
        >>> print(ray(jnp.zeros(2), jnp.array([3.0, 4.0]), absolute=True)(10.0))
        [6. 8.]

    References:
        Im et al., `An empirical analysis of deep network loss surfaces
        <https://arxiv.org/abs/1612.04010>`_, 2016, Eq. 1
    """
    checks.flag("absolute", absolute)
    check_alike({"origin": origin, "direction": direction})
    length = check_not_zero("direction", direction)
    if absolute:
        direction = scale(1 / length, direction)
    return Subspace((origin, direction), "ray")


def plane(origin: Point, u: Point, v: Point) -> Subspace:
    r"""The plane through a point along two directions.

    .. math:: \theta(x, y) = \theta_0 + x u + y v

    Args:
        origin: the point at (0, 0).
        u: the first direction.
        v: the second one; it need not be orthogonal to the first.

    Returns:
        ``(x, y) -> point``, the coordinates as an array of shape (2,).

    Raises:
        InputError: different structure or shapes, a direction of norm zero, or two
            that are parallel.

    Example:
        >>> at = plane(jnp.ones(2), jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]))
        >>> print(at(jnp.array([2.0, 3.0])))
        [3. 4.]
    """
    check_alike({"origin": origin, "u": u, "v": v})
    for name, direction in {"u": u, "v": v}.items():
        check_not_zero(name, direction)
    check_independent({"u": u, "v": v})
    return Subspace((origin, u, v), "plane")


def span(origin: Point, *directions: Point) -> Subspace:
    """The subspace through a point along any number of directions.

    Args:
        origin: the point at 0.
        *directions: one a coordinate.

    Returns:
        ``coordinates -> point``, of shape (len(directions),); a scalar for one.

    Raises:
        InputError: no directions, or as `plane`.

    Example:
        >>> print(span(jnp.zeros(3), *jnp.eye(3))(jnp.array([1.0, 2.0, 3.0])))
        [1. 2. 3.]
    """
    if not directions:
        raise InputError("directions: a span needs at least one")
    names = {f"direction {i}": d for i, d in enumerate(directions)}
    check_alike({"origin": origin, **names})
    for name, direction in names.items():
        check_not_zero(name, direction)
    check_independent(names)
    return Subspace((origin, *directions), "span")


def barycentric(a: Point, b: Point, c: Point) -> Subspace:
    r"""The triangle between three points, swept by lines from the first one.

    .. math:: \theta(\alpha, \beta) = a + \alpha (\beta (b - a) + (1 - \beta) (c - a))

    Args:
        a: the point at alpha = 0, whatever beta.
        b: the point at (1, 1).
        c: the point at (1, 0).

    Returns:
        ``(alpha, beta) -> point``.

    Raises:
        InputError: points of different structure or shapes, or all on one line.

    Example:
        >>> at = barycentric(jnp.zeros(2), jnp.array([2.0, 0.0]), jnp.array([0.0, 5.0]))
        >>> print(at(jnp.array([1.0, 1.0])), at(jnp.array([1.0, 0.0])))
        [2. 0.] [0. 5.]

    References:
        Im et al., `An empirical analysis of deep network loss surfaces
        <https://arxiv.org/abs/1612.04010>`_, 2016, Eq. 6 to 8
    """
    check_alike({"a": a, "b": b, "c": c})
    check_spread({"a": a, "b": b, "c": c})
    return Subspace((a, b, c), "barycentric")


def bilinear(a: Point, b: Point, c: Point, d: Point) -> Subspace:
    r"""The surface between four points.

    .. math::

        \theta(\alpha, \beta) = \beta (\alpha a + (1 - \alpha) b)
            + (1 - \beta) (\alpha c + (1 - \alpha) d)

    Args:
        a: the point at (1, 1).
        b: the point at (0, 1).
        c: the point at (1, 0).
        d: the point at (0, 0).

    Returns:
        ``(alpha, beta) -> point``.

    Raises:
        InputError: points of different structure or shapes, or all on one line.

    Example:
        >>> at = bilinear(*jnp.array([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]))
        >>> print(at(jnp.array([0.0, 1.0])), at(jnp.array([0.5, 0.5])))
        [0. 1.] [0.5 0.5]

    References:
        Im et al., `An empirical analysis of deep network loss surfaces
        <https://arxiv.org/abs/1612.04010>`_, 2016, Eq. 3 to 5, whose indices slip by
        one: its four points are counted from 0 and used from 1
    """
    check_alike({"a": a, "b": b, "c": c, "d": d})
    check_spread({"a": a, "b": b, "c": c, "d": d})
    return Subspace((a, b, c, d), "bilinear")


def grid_coordinates(*axes: Any) -> np.ndarray:
    """The coordinates of a grid, for `lrscape.landscape.evaluate`.

    Args:
        *axes: the values along each coordinate, (n_i,) each.

    Returns:
        (n_1, ..., n_k, k); for one axis (n_1,), as a subspace of one coordinate takes.

    Example:
        >>> grid_coordinates(np.linspace(-1, 1, 3), np.linspace(0, 1, 2)).shape
        (3, 2, 2)
    """
    if not axes:
        raise InputError("axes: a grid needs at least one")
    values = []
    for i, axis in enumerate(axes):
        array = np.asarray(checks.numbers(f"axes[{i}]", axis, axes=1))
        if not array.size or not np.isfinite(array).all():
            raise InputError(
                f"axes[{i}]={checks.shown(axis)} must be finite numbers, one or more"
            )
        values.append(array)
    if len(values) == 1:
        return values[0]
    return np.stack(np.meshgrid(*values, indexing="ij"), axis=-1)


# The least eigenvalue of unit directions' inner products; of two it is 1 - |cosine|.
_DEPENDENT = 1e-6


def check_independent(directions: Mapping[str, Point], *, rank: int | None = None):
    """Raises InputError where directions span fewer dimensions than they should.

    Args:
        directions: by name; none of them zero.
        rank: how many dimensions they must span at the least; None is one each.
    """
    trees = list(directions.values())
    gram = np.eye(len(trees))
    for i, j in itertools.combinations(range(len(trees)), 2):
        between = cosine(trees[i], trees[j])
        if not is_concrete(between):
            return
        gram[i, j] = gram[j, i] = float(between)
    if not np.isfinite(gram).all():
        raise InputError(f"{', '.join(directions)} are not all finite")
    rank = len(trees) if rank is None else rank
    if len(trees) < rank or np.linalg.eigvalsh(gram)[-rank] < _DEPENDENT:
        names = " and ".join(directions)
        kind = "parallel" if len(trees) == 2 else "linearly dependent"
        shown = f" (cosine {gram[0, 1]:.6f})" if len(trees) == 2 else ""
        raise InputError(
            f"{names} are {kind}{shown}: they span fewer than {rank} dimensions; use "
            "ray or line, or leave some of them out"
        )


def check_spread(points: Mapping[str, Point]) -> None:
    """Raises InputError where points all lie on one line, or coincide."""
    if not is_concrete(list(points.values())):
        return
    (first, origin), *others = points.items()
    directions = {}
    for name, point in others:
        difference = combine([1, -1], [point, origin])
        if float(norm(difference)) > 0:
            directions[f"{name} - {first}"] = difference
        elif not np.isfinite(float(norm(difference))):
            raise InputError(f"{name} or {first} is not finite")
    # Points of a single number have no second dimension to span.
    entries = sum(np.size(leaf) for leaf in jax.tree.leaves(origin))
    try:
        check_independent(directions, rank=min(2, entries))
    except InputError as error:
        raise InputError(
            f"{', '.join(points)} all lie on one line, or are equal: they span no "
            "surface; use line"
        ) from error


def check_not_zero(name: str, direction: Point) -> Any:
    """The norm of a direction; raises InputError where it is 0 or not finite."""
    length = norm(direction)
    if is_concrete(length) and not float(length) > 0:
        raise InputError(
            f"{name} has norm {float(length):g}; a direction needs a positive one"
        )
    if is_concrete(length) and not np.isfinite(float(length)):
        raise InputError(f"{name} is not finite")
    return length
