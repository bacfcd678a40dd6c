r"""The probability that a Lanczos iteration has missed an eigenvalue.

A residual says that some eigenvalue is near, and nothing of those that are not. The
start says more. After m products the iteration has applied a known polynomial to it,

.. math:: \chi_m(A)\, q_1 = \beta_1 \cdots \beta_m\, q_{m+1}, \qquad
    \chi_m(t) = \prod_i (t - \theta_i)

with the Ritz values :math:`\theta` and the off-diagonals :math:`\beta`. An eigenvalue
:math:`\lambda` whose eigenvector makes a share :math:`\gamma` of the start therefore
has :math:`|\gamma| \le \prod \beta_i / |\chi_m(\lambda)|`, and a start drawn evenly
from the sphere has so small a share with a probability of at most
:math:`|\gamma| \sqrt{2 n / \pi}`.

References:
    van Dorsselaer et al., `Computing Probabilistic Bounds for Extreme Eigenvalues of
    Symmetric Matrices with the Lanczos Method
    <https://ir.cwi.nl/pub/4505>`_, 1999
"""

from __future__ import annotations

import numpy as np

from lrscape.landscape.lanczos import Tridiagonal

# Of an answer that is called converged: the probability allowed that an eigenvalue was
# missed, over the random start.
CHANCE = 1e-3


def chance_missed(
    found: Tridiagonal,
    values: np.ndarray,
    beyond: float,
    size: int,
    *,
    random_share: float = 1.0,
) -> float:
    r"""Bounds the probability that an eigenvalue of one size or more was missed.

    Args:
        found: an iteration from a random start.
        values: its Ritz values, (m,).
        beyond: a number outside their range; the bound is for all eigenvalues on its
            far side, itself included.
        size: n, the dimension that the start was drawn from.
        random_share: the norm of the random part of a start of norm 1.

    Returns:
        A number of 0 or more; nothing is known from 1 up.

    Example:
        >>> import jax.numpy as jnp
        >>> from lrscape.landscape.lanczos import tridiagonalize
        >>> diagonal = jnp.linspace(0.0, 1.0, 50).at[-1].set(4.0)
        >>> found = tridiagonalize(lambda v: diagonal * v, jnp.ones(50) / 7, 20)
        >>> bool(chance_missed(found, found.eigen()[0], 4.01, 50) < 1e-6)
        True
    """
    distances = np.abs(beyond - values)
    if not distances.all():
        return float("inf")
    betas = np.append(found.off_diagonal, found.remainder)
    if not betas.all():
        return 0.0
    log = np.log(betas).sum() - np.log(distances).sum() - np.log(random_share)
    return float(np.exp(min(log + np.log(2 * size / np.pi) / 2, 700.0)))
