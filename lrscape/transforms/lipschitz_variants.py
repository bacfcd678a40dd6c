"""Momentum, RMSprop and Adam with a rate from the Lipschitz constant.

The authors' later, longer text extends `lrscape.transforms.lipschitz_sgd` so: where an
optimizer averages gradients, K is averaged like them.
"""

from __future__ import annotations

from typing import Any

import jax
import optax

from lrscape import checks
from lrscape.transforms.lipschitz import scale_by_lipschitz


def lipschitz_momentum(
    *, momentum: float = 0.9, weight_decay: float = 0.0, **options: Any
) -> optax.GradientTransformationExtraArgs:
    r"""Averaged gradients, divided by the equally averaged Lipschitz constant.

    .. math::

        v &\leftarrow \beta v + (1 - \beta) g, \quad
        \bar K \leftarrow \beta \bar K + (1 - \beta) K \\
        w &\leftarrow w - \hat v / \hat K

    with both averages corrected for their start at zero.

    Args:
        momentum: :math:`\beta`, in [0, 1).
        weight_decay: of an L2 term, on all parameters.
        **options: of `lrscape.transforms.scale_by_lipschitz`.

    Returns:
        The optimizer; its update takes ``activation_norm``.

    Raises:
        InputError: settings that cannot work.

    Example:
        >>> import jax.numpy as jnp
        >>> tx = lipschitz_momentum(num_classes=2, batch_size=4)
        >>> updates, _ = tx.update(
        ...     jnp.ones(1), tx.init(jnp.ones(1)), jnp.ones(1), activation_norm=16.0)
        >>> print(updates.round(3))
        [-0.5]

    References:
        Yedida, Saha and Prashanth, `LipschitzLR: Using theoretically computed adaptive
        learning rates for fast convergence <https://arxiv.org/abs/1902.07399>`_, 2020
    """
    checks.fraction("momentum", momentum, below_one=True)
    return _chained(optax.ema(momentum), weight_decay, b1=momentum, **options)


def lipschitz_rmsprop(
    *,
    decay: float = 0.9,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    **options: Any,
) -> optax.GradientTransformationExtraArgs:
    r"""RMSprop with the rate :math:`\sqrt{\hat K_2} / K`.

    :math:`K_2` is the average of :math:`K^2`, as the gradients' squares are averaged:
    the rate that makes up for dividing by the gradients' own root mean square. As long
    as K stays, it is 1.

    Args:
        decay: of both averages, in [0, 1).
        eps: added to the root of the averaged squares.
        weight_decay: of an L2 term, on all parameters.
        **options: of `lrscape.transforms.scale_by_lipschitz`.

    Returns:
        The optimizer; its update takes ``activation_norm``.

    Raises:
        InputError: settings that cannot work.

    Example:
        >>> import jax.numpy as jnp
        >>> tx = lipschitz_rmsprop(num_classes=2, batch_size=4)
        >>> updates, _ = tx.update(
        ...     jnp.ones(1), tx.init(jnp.ones(1)), jnp.ones(1), activation_norm=16.0)
        >>> print(updates.round(3))
        [-1.]

    References:
        Yedida, Saha and Prashanth, `LipschitzLR: Using theoretically computed adaptive
        learning rates for fast convergence <https://arxiv.org/abs/1902.07399>`_, 2020
    """
    checks.fraction("decay", decay, below_one=True)
    checks.not_negative("eps", eps)
    scale = optax.scale_by_rms(decay=decay, eps=eps, bias_correction=True)
    return _chained(scale, weight_decay, b2=decay, **options)


def lipschitz_adam(
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    **options: Any,
) -> optax.GradientTransformationExtraArgs:
    r"""Adam with the rate :math:`\sqrt{\hat K_2} / \hat K_1`.

    :math:`K_1` and :math:`K_2` are the averages of K and :math:`K^2`, with Adam's own
    decays. As long as K stays, that rate is 1, a thousand times what Adam is used with.

    Args:
        b1: decay of the gradients' average, and of K's, in [0, 1).
        b2: decay of their squares' averages, in [0, 1).
        eps: added to the root of the averaged squares.
        weight_decay: of an L2 term, on all parameters.
        **options: of `lrscape.transforms.scale_by_lipschitz`.

    Returns:
        The optimizer; its update takes ``activation_norm``.

    Raises:
        InputError: settings that cannot work.

    Example:
        >>> import jax.numpy as jnp
        >>> tx = lipschitz_adam(num_classes=2, batch_size=4)
        >>> updates, _ = tx.update(
        ...     jnp.ones(1), tx.init(jnp.ones(1)), jnp.ones(1), activation_norm=16.0)
        >>> print(updates.round(3))
        [-1.]

    References:
        Yedida, Saha and Prashanth, `LipschitzLR: Using theoretically computed adaptive
        learning rates for fast convergence <https://arxiv.org/abs/1902.07399>`_, 2020
    """
    checks.fraction("b1", b1, below_one=True)
    checks.fraction("b2", b2, below_one=True)
    checks.not_negative("eps", eps)
    scale = optax.scale_by_adam(b1=b1, b2=b2, eps=eps)
    return _chained(scale, weight_decay, b1=b1, b2=b2, **options)


def _chained(scale, weight_decay: float, **options: Any):
    last = scale_by_lipschitz(weight_decay=weight_decay, **options)  # checks first
    decay = [optax.add_decayed_weights(weight_decay)] if weight_decay else []
    chain = optax.chain(*decay, _promoting(scale), last)
    return optax.with_extra_args_support(chain)


def _promoting(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Optax's own under any rules: it raises a float to an integer's power.

    Strict promotion forbids that; and its state's weak types change at the first
    update, so that the second one compiles again.
    """

    def firm(state):
        return jax.tree.map(lambda leaf: leaf.astype(leaf.dtype), state)

    def update(updates, state, params=None):
        with jax.numpy_dtype_promotion("standard"):
            updates, state = tx.update(updates, state, params)
        return updates, firm(state)

    return optax.GradientTransformation(lambda params: firm(tx.init(params)), update)
