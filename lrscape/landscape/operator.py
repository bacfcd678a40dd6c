"""A curvature matrix at a point: its products, and what is computed by them."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lrscape import checks
from lrscape.errors import InputError
from lrscape.landscape import flat, tree
from lrscape.landscape.accumulate import (
    accumulate,
    accumulate_linear,
    each_batch,
    fill_in,
    linearized,
    linearized_bytes,
)
from lrscape.landscape.density import (
    Quadrature,
    SpectralDensity,
    broadened,
    check_broadening,
    lanczos_quadrature,
    tridiagonal_in_one_program,
)
from lrscape.landscape.eigenpairs import (
    ENDS,
    Eigenpairs,
    SpectralNorm,
    dominant_pair,
    extreme_pairs,
)
from lrscape.landscape.loops import sums_over_examples
from lrscape.landscape.masks import Mask, as_mask
from lrscape.landscape.moments import Estimated, Moments, hutchinson
from lrscape.landscape.products import KINDS
from lrscape.landscape.protocol import as_objective, is_compilable
from lrscape.landscape.subspace import check_not_zero
from lrscape.landscape.tree import check_count

# Bytes, and batches, up to which linearisations are kept where nothing is said.
_KEPT_BYTES = 2**30
_KEPT_BATCHES = 16
# Entries from which a compiled Lanczos iteration on CPU is no faster than separate
# products, whose calls weigh little by then.
_LARGE = 20_000


class NonFiniteProductError(ArithmeticError):
    """A product with a curvature matrix that is not finite.

    Attributes:
        batch: the first batch whose share is not finite, counted from 0; None where
            every share is finite and their sum is not.
    """

    def __init__(self, batch: int | None, count: int):
        where = "only in the sum" if batch is None else f"first in batch {batch}"
        super().__init__(
            f"the product is not finite, {where} of {count}; look at that batch's loss "
            "at the point, or compute in double precision"
        )
        self.batch = batch


class Operator:
    """A symmetric curvature matrix at a point, which is never formed.

    ``A(vector)`` is the product with a flat vector of `size` entries, ``A @ tree`` the
    product with a tree like the point. The methods give the spectral norm, eigenpairs,
    the trace, the Frobenius norm and the spectral density; all of them share what the
    operator has prepared at the point. The functions of the same names in
    `lrscape.landscape` make an operator for one such result.

    Attributes:
        size: rows, after the mask.
        dtype: of its vectors.
        count: products made so far.

    Example:
        >>> M = jnp.diag(jnp.array([1.0, -5.0, 2.0]))
        >>> A = Operator(lambda w: w @ M @ w / 2, jnp.ones(3))
        >>> print(A(jnp.array([1.0, 1.0, 0.0])))
        [ 1. -5.  0.]
        >>> key = jax.random.key(0)
        >>> print(f'{float(A.spectral_norm(key=key)):.2f}')
        5.00
        >>> print(A.top_eigenpairs(2, key=key).eigenvalues.round(4))
        [2. 1.]
        >>> print(f'{A.trace(key=key, num_samples=3).mean:.2f}')
        -2.00
    """

    def __init__(
        self,
        objective: Any,
        point: Any,
        *,
        kind: str = "hessian",
        mask: Mask = None,
        reuse: bool | None = None,
    ):
        r"""Gets ready; the products are compiled by the first one.

        Args:
            objective: an objective, or a function of a point.
            point: where the matrix is taken.
            kind: the matrix. ``'hessian'`` is the second derivative of the loss.
                ``'ggn'`` is the generalised Gauss-Newton matrix, which needs an
                objective that shows its outputs. ``'second_moment'`` is
                :math:`\frac{1}{N} \sum_n g_n g_n^T` of the gradients of single
                examples, and ``'residual'`` what remains of it when the Hessian is
                subtracted, where losses are negative log-likelihoods; both need an
                objective that has examples.
            mask: restricts the matrix to the block of the entries that it selects:
                vectors hold those alone. A function of a leaf's path, or a tree of
                booleans like the point; None is the whole matrix, or the block of the
                parameters where the point holds batch statistics too.
            reuse: whether each batch's linearisation of the gradient is kept in memory
                from the first product on, so that a product with the Hessian costs no
                forward pass: on CPU two thirds of the time, for 0.6 to 0.9 GB for 128
                images of ResNet-20. None keeps those of up to 16 batches that take no
                more than 1 GiB together. Other kinds have nothing to keep.

        Raises:
            InputError: an unknown kind, an objective that lacks what the kind needs, or
                a mask that selects nothing.
        """
        checks.one_of("kind", kind, KINDS)
        if reuse is not None:
            checks.flag("reuse", reuse)
        tree.check_point("point", point)
        self._point = jax.tree.map(tree.own, point)
        with jax.ensure_compile_time_eval():  # a mask has values under `jit` too
            selected = as_mask(mask, self._point)
        self._function, suited = KINDS[kind]
        self._given = suited(as_objective(objective))
        leaves = jax.tree.leaves(self._point)
        self.dtype = flat.dtype_of(leaves)
        self.size = sum(leaf.size for leaf in leaves)
        self._entries = None
        if selected is not None:
            chosen = np.concatenate(
                [np.ravel(leaf) for leaf in jax.tree.leaves(selected)]
            )
            self._entries = jnp.asarray(np.flatnonzero(chosen))
            self.size = len(self._entries)
        can_reuse = kind == "hessian" and is_compilable(self._given)
        self._reuse = reuse if can_reuse else False
        self._linear: Any = None
        self.count = 0

    @functools.cached_property
    def _objective(self) -> Any:
        """The objective at the point, where batch statistics may be estimated.

        Once for all products, and not before the first: until then arguments may prove
        to be wrong.
        """
        if not tree.is_concrete((self._given, self._point)):
            return fill_in(self._given, self._point)
        with jax.ensure_compile_time_eval():  # also within a function that is traced
            return fill_in(self._given, self._point)

    def to_tree(self, vector: jax.Array) -> Any:
        """A flat vector as a tree like the point; zero where the mask is."""
        return flat.to_tree(vector, self._entries, self._point)

    def to_vector(self, point: Any) -> jax.Array:
        """A tree like the point as a flat vector.

        Raises:
            InputError: a tree of another structure or shapes.
        """
        tree.check_alike({"the operator's point": self._point, "the tree": point})
        return flat.to_vector(point, self._entries)[0].astype(self.dtype)

    def __call__(self, vector: jax.Array) -> jax.Array:
        """The product with a flat vector, (size,).

        Raises:
            InputError: a vector of another shape.
            NonFiniteProductError: the product is not finite.
        """
        if jnp.shape(vector) != (self.size,):
            raise InputError(
                f"the vector has shape {jnp.shape(vector)}; the matrix has "
                f"{self.size} rows: make it by to_vector"
            )
        self.count += 1
        direction = self.to_tree(vector)
        image, is_finite = flat.to_vector(self._apply(direction), self._entries)
        if tree.is_concrete(image) and not bool(is_finite):
            raise NonFiniteProductError(
                self._bad_batch(direction), self._objective.num_batches
            )
        return image

    def __matmul__(self, vector: Any) -> Any:
        """The product with a tree like the point, as such a tree.

        Raises:
            InputError: a tree of another structure or shapes.
            NonFiniteProductError: the product is not finite.
        """
        return self.to_tree(self(self.to_vector(vector)))

    def spectral_norm(
        self,
        *,
        key: jax.Array | None = None,
        start: Any = None,
        tolerance: float = 1e-3,
        max_products: int = 100,
    ) -> SpectralNorm:
        """The largest eigenvalue by magnitude, by Lanczos' iteration.

        Stops when the residual of the dominant eigenpair is below `tolerance` of its
        eigenvalue, and it is unlikely that an eigenvalue larger by more than
        `tolerance` was missed: one in a thousand at most, over the random start. A
        given start is no random one; of it, the residual alone is known.

        Args:
            key: a PRNG key, for a random start.
            start: a tree like the point to start from instead: during training, the
                last eigenvector.
            tolerance: of the residual and of the eigenvalue, relative to the
                eigenvalue.
            max_products: at most so many products; as many vectors are kept.

        Returns:
            The norm, with the sign of the dominant eigenvalue, the eigenvector, the
            residual and the number of products.

        Raises:
            InputError: neither a key nor a start, or numbers that cannot work.
            NonFiniteProductError: a product is not finite; names the batch.
        """
        if (key is None) == (start is None):
            raise InputError("pass either key, for a random start, or start")
        if start is None:
            key = checks.key("key", key)
        else:
            tree.check_alike({"point": self._point, "start": start})
            check_not_zero("start", start)
        checks.positive("tolerance", tolerance)
        check_count("max_products", max_products)
        if key is not None:
            vector = jax.random.normal(key, (self.size,)).astype(self.dtype)
        else:
            vector = self.to_vector(start)
        largest = float(jnp.abs(vector).max())
        if not np.isfinite(largest):
            raise InputError("start is not finite")
        if not largest > 0:
            raise InputError("start has norm 0 where the mask lets it move")
        return dominant_pair(
            self, vector / largest, tolerance=tolerance, max_products=max_products,
            random_share=None if key is None else 1.0,
        )  # fmt: skip

    def top_eigenpairs(
        self,
        k: int,
        *,
        key: jax.Array,
        which: str = "largest",
        tolerance: float | None = None,
        max_products: int | None = None,
    ) -> Eigenpairs:
        """The k largest or smallest eigenvalues and their eigenvectors.

        By Lanczos' iteration, fully reorthogonalised, in rounds: each starts at random,
        orthogonal to the eigenvectors that earlier rounds have found. Eigenvalues that
        occur several times, and those beside one that is a million times as large, are
        found that way. The last round finds none, and shows how unlikely it is that one
        of the k was missed.

        Products in floating-point arithmetic are exact to about eps times the largest
        eigenvalue by magnitude; where that is more than `tolerance` of an eigenvalue,
        it bounds the residual in its place.

        Args:
            k: how many.
            key: a PRNG key, for the starts.
            which: ``'largest'``, the largest first, or ``'smallest'``, the smallest
                first; both by sign and not by magnitude.
            tolerance: of each residual, relative to its own eigenvalue; None is 1e-4 in
                single precision, 1e-9 in double.
            max_products: at most so many products, and k more for the residuals; None
                is 20 k + 100.

        Returns:
            Eigenvalues, eigenvectors and residuals, and whether they have converged.
            Where the products ran out they have not; the residuals say how near they
            are to some eigenvalues.

        Raises:
            InputError: k larger than the matrix, or an unknown name.
            NonFiniteProductError: a product is not finite; names the batch.

        References:
            van Dorsselaer et al., `Computing Probabilistic Bounds for Extreme
            Eigenvalues of Symmetric Matrices with the Lanczos Method
            <https://ir.cwi.nl/pub/4505>`_, 1999
        """
        key = checks.key("key", key)
        checks.one_of("which", which, ENDS)
        check_count("k", k)
        if max_products is not None:
            check_count("max_products", max_products)
        if tolerance is not None:
            checks.positive("tolerance", tolerance)
        if k > self.size:
            raise InputError(f"k={k} is more than the matrix has rows: {self.size}")
        if tolerance is None:
            tolerance = 1e-9 if self.dtype.itemsize > 4 else 1e-4
        return extreme_pairs(
            self, k, key=key, which=which, tolerance=tolerance,
            max_products=20 * k + 100 if max_products is None else max_products,
        )  # fmt: skip

    def spectral_moments(self, *, key: jax.Array, num_samples: int) -> Moments:
        r"""The trace and the Frobenius norm, from the same random products.

        .. math:: E[z^T A z] = \operatorname{tr} A, \quad E[\|A z\|^2] = \|A\|_F^2,
            \quad z_i = \pm 1

        Args:
            key: a PRNG key.
            num_samples: random vectors, a product each.

        Returns:
            Both, each with its standard error.

        Raises:
            InputError: no samples.
            NonFiniteProductError: a product is not finite; names the batch.

        References:
            Hutchinson, `A Stochastic Estimator of the Trace
            <https://doi.org/10.1080/03610918908812806>`_, 1989
        """
        key = checks.key("key", key)
        count = check_count("num_samples", num_samples)
        return hutchinson(self, key, count)

    def trace(self, *, key: jax.Array, num_samples: int) -> Estimated:
        """The sum of the eigenvalues, by Hutchinson's estimator.

        Args:
            key: a PRNG key.
            num_samples: random vectors, a product each.

        Returns:
            The mean, which is unbiased, and its standard error.

        Raises:
            InputError: no samples.
            NonFiniteProductError: a product is not finite; names the batch.
        """
        return self.spectral_moments(key=key, num_samples=num_samples).trace

    def frobenius_norm(self, *, key: jax.Array, num_samples: int) -> Estimated:
        """The root of the sum of the eigenvalues' squares, from random products.

        Args:
            key: a PRNG key.
            num_samples: random vectors, a product each.

        Returns:
            The norm, and its standard error to first order.

        Raises:
            InputError: no samples.
            NonFiniteProductError: a product is not finite; names the batch.
        """
        return self.spectral_moments(key=key, num_samples=num_samples).frobenius_norm

    def spectral_quadrature(
        self,
        *,
        key: jax.Array,
        num_matvecs: int,
        num_samples: int,
        compiled: bool | None = None,
    ) -> Quadrature:
        """The spectrum as Ritz values and their weights, by Lanczos' iteration.

        Args:
            key: a PRNG key.
            num_matvecs: m, products for each random vector.
            num_samples: random vectors.
            compiled: whether the whole iteration is one program or a loop
                of separate products; None chooses the faster.

        Returns:
            Nodes and weights; ``(weights * f(nodes)).sum(axis=1)`` estimates the mean
            of f over the eigenvalues.

        Raises:
            InputError: no products or no samples.
            NonFiniteProductError: a product is not finite; names the batch.

        References:
            Ghorbani et al., `An Investigation into Neural Net Optimization via Hessian
            Eigenvalue Density <https://arxiv.org/abs/1901.10159>`_, 2019, Sec. 2
        """
        key = checks.key("key", key)
        check_count("num_matvecs", num_matvecs)
        count = check_count("num_samples", num_samples)
        m = min(int(num_matvecs), self.size)
        if compiled is None:
            compiled = not self.products_run_apart()
        in_one_program = None
        if compiled:
            in_one_program = functools.partial(
                tridiagonal_in_one_program, self._function, m,
                self._objective, self._point, self._entries,
            )  # fmt: skip
        return lanczos_quadrature(self, m, count, key, in_one_program)

    def spectral_density(
        self,
        *,
        key: jax.Array,
        num_matvecs: int,
        num_samples: int,
        broadening: float | None = None,
        grid_size: int | None = None,
    ) -> SpectralDensity:
        r"""The density of the eigenvalues, by stochastic Lanczos quadrature.

        .. math::

            \phi(t) = \frac{1}{S} \sum_{s,i} w_{si}\,
                \mathcal{N}(t; \theta_{si}, \sigma^2)

        with the nodes :math:`\theta` and weights w of `spectral_quadrature`.

        Args:
            key: a PRNG key.
            num_matvecs: products for each random vector.
            num_samples: S, random vectors.
            broadening: :math:`\sigma`, in units of eigenvalues. None is a hundredth of
                the range of the nodes. It widens the density's second moment by its
                square.
            grid_size: points of the grid, which reaches five :math:`\sigma` beyond the
                nodes. None is as many as show each Gaussian, four a :math:`\sigma`.

        Returns:
            The grid and the density on it, which integrates to 1.

        Raises:
            InputError: no products, no samples, or a broadening that is not positive.
            NonFiniteProductError: a product is not finite; names the batch.

        References:
            Ghorbani et al., `An Investigation into Neural Net Optimization via Hessian
            Eigenvalue Density <https://arxiv.org/abs/1901.10159>`_, 2019, Sec. 2
        """
        check_broadening(broadening, grid_size)
        found = self.spectral_quadrature(
            key=key, num_matvecs=num_matvecs, num_samples=num_samples
        )
        return broadened(found, broadening=broadening, grid_size=grid_size)

    def _apply(self, direction: Any) -> Any:
        if self._reuse is None:
            self._reuse = _fits(self._objective, self._point)
        if not self._reuse:
            return accumulate(self._function, self._objective, self._point, direction)
        if self._linear is None:
            # Kept for later products, which need not be part of the same trace.
            with jax.ensure_compile_time_eval():
                self._linear = linearized(self._objective, self._point)
        return accumulate_linear(self._linear, self._objective.weights, direction)

    def products_run_apart(self) -> bool:
        """Whether products are faster one by one than within a compiled loop."""
        if not is_compilable(self._objective):
            return True
        if jax.default_backend() == "cpu" and self.size > _LARGE:
            return True
        direction = self.to_tree(jnp.zeros(self.size, self.dtype))
        return sums_over_examples(
            self._function, self._objective, self._point, (direction,)
        )

    def _bad_batch(self, direction: Any) -> int | None:
        shares = each_batch(self._function, self._objective, self._point, direction)
        for i, share in enumerate(shares):
            if not bool(flat.to_vector(share, self._entries)[1]):
                return i
        return None


def _fits(objective: Any, point: Any) -> bool:
    """Whether all linearisations are small enough to be kept unasked."""
    count = objective.num_batches
    return count <= _KEPT_BATCHES and count * linearized_bytes(objective, point) <= (
        _KEPT_BYTES
    )
