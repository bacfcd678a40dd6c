"""The plane that lies nearest to a trajectory, and how far off it the path runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lrscape import checks
from lrscape.errors import InputError
from lrscape.landscape.subspace import Subspace
from lrscape.landscape.tree import Point, as_vectors, check_alike

ORIGINS = ("mean", "last")


@dataclasses.dataclass(frozen=True, eq=False)
class PCAPlane(Subspace):
    """A plane fitted to points; called as any plane, ``(x, y) -> point``.

    Attributes:
        coordinates: (n, 2), where each point falls on the plane, in units of distance
            between parameters.
        off_plane: (n,), the distance of each point from the plane. What a picture of
            the plane shows beneath a projected path is the loss at this distance from
            the path.
        explained_variance_ratio: (2,), the share of the points' squared distances from
            the origin that lies along each axis.
    """

    coordinates: np.ndarray
    off_plane: np.ndarray
    explained_variance_ratio: np.ndarray


def _as_subspace(kind: str, children: Any) -> Any:
    return Subspace(children[0], kind)


# To a compiled probe it is any plane; what was measured on the host stays out.
jax.tree_util.register_pytree_node(
    PCAPlane, lambda plane: ((plane.points,), plane.kind), _as_subspace
)


def pca_plane(points: Sequence[Point], *, origin: str = "mean") -> PCAPlane:
    r"""The plane nearest to several points, by principal components.

    With the points as rows of :math:`X`, less the origin, and :math:`X = U S V^T`, the
    plane is spanned by the first two rows of :math:`V^T`, and the squares of the
    points' distances from it add up to :math:`\sum_{k > 2} S_k^2`.

    Args:
        points: three or more snapshots of a trajectory, in order.
        origin: what lies at (0, 0): ``'mean'`` of the points, through which the nearest
            plane runs, or the ``'last'`` one, as in Li et al.

    Returns:
        The plane, with the points' coordinates on it, their distances off it, and the
        variance it explains. Axes have unit length; each points towards the last point
        where it can.

    Raises:
        InputError: fewer than three points, different structure or shapes, or points
            that all lie on one line.

    Example:
        >>> path = [jnp.array([t, t ** 2, 0.1 * t ** 3]) for t in (0.0, 1.0, 2.0, 3.0)]
        >>> plane = pca_plane(path)
        >>> print(plane.coordinates.shape, plane.off_plane.round(3))
        (4, 2) [0.031 0.079 0.069 0.021]

    References:
        Li et al., `Visualizing the Loss Landscape of Neural Nets
        <https://arxiv.org/abs/1712.09913>`_, 2018, Sec. 7.2
    """
    checks.one_of("origin", origin, ORIGINS)
    points = checks.sequence("points", points)
    if len(points) < 3:
        raise InputError(f"points: a plane needs three or more, not {len(points)}")
    check_alike({f"point {i}": point for i, point in enumerate(points)})
    columns = as_vectors(list(points))
    for i in range(len(points)):
        if not all(np.isfinite(column[i]).all() for column in columns):
            raise InputError(
                f"points: point {i} holds values that are not finite; leave it out"
            )
    zeros = [
        column.mean(axis=0) if origin == "mean" else column[-1] for column in columns
    ]
    gram = sum(
        (column - zero) @ (column - zero).T
        for column, zero in zip(columns, zeros, strict=True)
    )
    values, vectors = np.linalg.eigh(gram)
    singular = np.sqrt(np.maximum(values[::-1], 0))
    vectors = vectors[:, ::-1]
    if not singular[1] > 1e-7 * singular[0]:
        raise InputError(
            "points all lie on one line (or are equal): they span no plane; use line"
        )
    # Rows of `weights` say how much of each point an axis is made of.
    weights = (vectors[:, :2] / singular[:2]).T
    weights *= np.where(vectors[-1, :2] < 0, -1.0, 1.0)[:, None]
    leaves, structure = jax.tree.flatten(points[0])
    shapes = [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]

    def as_point(vectors_of_leaves):
        arrays = [
            jnp.asarray(vector.reshape(shape), dtype)
            for vector, (shape, dtype) in zip(vectors_of_leaves, shapes, strict=True)
        ]
        return jax.tree.unflatten(structure, arrays)

    axes = [
        [row @ (column - zero) for column, zero in zip(columns, zeros, strict=True)]
        for row in weights
    ]
    coordinates = np.stack([weights[k] @ gram for k in range(2)], axis=1)
    squares = np.zeros(len(points))
    for leaf, (column, zero) in enumerate(zip(columns, zeros, strict=True)):
        on_plane = coordinates @ np.stack([axes[0][leaf], axes[1][leaf]])
        squares += ((column - zero - on_plane) ** 2).sum(axis=1)
    return PCAPlane(
        points=(as_point(zeros), as_point(axes[0]), as_point(axes[1])),
        kind="plane",
        coordinates=coordinates,
        off_plane=np.sqrt(squares),
        explained_variance_ratio=singular[:2] ** 2 / (singular**2).sum(),
    )
