"""The largest curvature while a network is trained, beside the rate that it bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from lrscape import checks
from lrscape.errors import InputError
from lrscape.landscape import tree
from lrscape.landscape.eigenpairs import (
    SpectralNorm,
    dominant_pair,
)
from lrscape.landscape.masks import Mask
from lrscape.landscape.operator import Operator
from lrscape.landscape.products import KINDS
from lrscape.landscape.protocol import as_objective, settings_of
from lrscape.landscape.tree import check_count

if TYPE_CHECKING:
    import xarray as xr


class CurvatureTrack:
    r"""Records the dominant curvature of iterates, and what rate it would bear.

    Gradient descent along an eigenvector of curvature h is stable only where

    .. math:: h < 2 / \gamma

    so each record holds both sides of it; with heavy-ball momentum :math:`\beta` the
    limit is :math:`1 + \beta` times as high. Lanczos' iteration starts half from the
    last eigenvector, so that a few products do, and half at random, so that one that
    has overtaken it is found.

    Example:
        >>> track = CurvatureTrack(lambda w: jnp.sum(w ** 4), key=jax.random.key(0))
        >>> for step, w in enumerate([2.0, 1.0]):
        ...     _ = track.record(step, jnp.array([w, 0.1]), learning_rate=0.1)
        >>> found = track.to_dataset()
        >>> print(found['eigenvalue'].values.round(2), found['limit'].values)
        [48. 12.] [20. 20.]

    References:
        Seong et al., `Towards Flatter Loss Surface via Nonmonotonic Learning Rate
        Scheduling <http://auai.org/uai2018/proceedings/papers/363.pdf>`_, 2018, Eq. 13
    """

    def __init__(
        self,
        objective: Any,
        *,
        key: jax.Array,
        tolerance: float = 1e-2,
        max_products: int = 50,
        mask: Mask = None,
        kind: str = "hessian",
        reuse: bool | None = None,
    ):
        """Gets ready; nothing is compiled yet.

        Args:
            objective: whose curvature is tracked: a fixed sample, a few batches of
                which will do.
            key: a PRNG key, for the starts.
            tolerance: of the residual and of the eigenvalue, relative to the
                eigenvalue, as for `spectral_norm`.
            max_products: at most so many products a record; as many vectors are kept.
            mask: restricts the matrix to the block of the entries that it selects.
            kind: the matrix: ``'hessian'``, ``'ggn'``, ``'second_moment'`` or
                ``'residual'``.
            reuse: whether linearisations are kept in memory while a record is made, so
                that a product with the Hessian costs no forward pass; None keeps up to
                1 GiB of them.
        """
        key = checks.key("key", key)
        checks.positive("tolerance", tolerance)
        checks.one_of("kind", kind, KINDS)
        if reuse is not None:
            checks.flag("reuse", reuse)
        check_count("max_products", max_products)
        self._objective = as_objective(objective)
        self._key = key
        self._tolerance, self._max_products = tolerance, max_products
        self._options: dict[str, Any] = {"mask": mask, "kind": kind, "reuse": reuse}
        self._vector: Any = None
        self._rows: list[dict[str, Any]] = []

    def record(
        self, step: int, point: Any, *, learning_rate: float | None = None
    ) -> SpectralNorm:
        r"""Measures an iterate.

        Args:
            step: updates made before it; larger than at the last record.
            point: the iterate, of the same structure every time.
            learning_rate: :math:`\gamma`, of the update that led here or of the next.

        Returns:
            What was found; ``eigenvalue`` keeps its sign.

        Raises:
            InputError: a step that does not come later, or another structure.
            NonFiniteProductError: a product is not finite; names the batch.
        """
        step = checks.whole("step", step)
        if learning_rate is not None:
            checks.not_negative("learning_rate", learning_rate)
        if self._rows and step <= self._rows[-1]["step"]:
            raise InputError(
                f"step={step} was recorded after step {self._rows[-1]['step']}; record "
                "iterates in their order, each once"
            )
        if self._vector is not None:
            tree.check_alike({"the point before": self._vector, "point": point})
        operator = Operator(self._objective, point, **self._options)
        found = self._dominant(operator, jax.random.fold_in(self._key, step))
        alignment = np.nan
        if self._vector is not None:
            alignment = abs(float(tree.dot(self._vector, found.eigenvector)))
        self._vector = found.eigenvector
        rate = np.nan if learning_rate is None else float(learning_rate)
        self._rows.append({
            "step": step,
            "spectral_norm": found.value,
            "eigenvalue": found.eigenvalue,
            "residual": found.residual,
            "products": found.products,
            "converged": found.converged,
            "alignment": alignment,
            "learning_rate": rate,
            "limit": 2 / rate if rate > 0 else np.nan,
        })  # fmt: skip
        return found

    def _dominant(self, operator: Operator, key: jax.Array) -> SpectralNorm:
        start = jax.random.normal(key, (operator.size,)).astype(operator.dtype)
        start, share = start / jnp.linalg.norm(start), 1.0
        if self._vector is not None:
            start = start + operator.to_vector(self._vector)
            share = 1 / float(jnp.linalg.norm(start))
        return dominant_pair(
            operator, start, tolerance=self._tolerance,
            max_products=self._max_products, random_share=share,
        )  # fmt: skip

    def to_dataset(self) -> xr.Dataset:
        r"""Returns the records as labelled arrays.

        Returns:
            Over ``step``: ``spectral_norm``, ``eigenvalue`` (the dominant one, with its
            sign), ``residual``, ``products``, ``converged``, ``alignment`` (the cosine
            of the eigenvector and the one before, without its sign),
            ``learning_rate`` and ``limit``, :math:`2 / \gamma`.

        Raises:
            InputError: nothing was recorded.
        """
        import xarray as xr

        if not self._rows:
            raise InputError("the track is empty: record at least one iterate")
        units = {
            "spectral_norm": "nat", "eigenvalue": "nat", "residual": "nat",
            "limit": "nat",
        }  # fmt: skip
        return xr.Dataset(
            {
                name: (
                    "step",
                    np.array([row[name] for row in self._rows]),
                    {"units": units.get(name, "1")},
                )
                for name in self._rows[0]
                if name != "step"
            },
            {"step": ("step", [row["step"] for row in self._rows],
                      {"units": "update"})},
        )  # fmt: skip

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the measurement, as JSON holds them."""
        return {
            "kind": self._options["kind"],
            "tolerance": self._tolerance,
            "max_products": self._max_products,
            "objective": settings_of(self._objective),
        }
