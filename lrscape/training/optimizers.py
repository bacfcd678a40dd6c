"""Optimizers by name: Optax's own and `sgdm`, at rates that are remembered."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import optax

from lrscape import checks, layers
from lrscape.errors import InputError
from lrscape.transforms.rate import scale_by_rate

# Each is linear in its learning rate, so that a rate of 1 and `scale_by_rate` after it
# give the optimizer itself.
NAMES = (
    "sgd",
    "adabelief",
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "amsgrad",
    "lamb",
    "lion",
    "nadam",
    "nadamw",
    "radam",
    "rmsprop",
    "sgdm",
    "yogi",
)


def sgdm(learning_rate: float, momentum: float = 0.9) -> optax.GradientTransformation:
    r"""SGD along an average of gradients, :math:`E \leftarrow (1-\alpha) g + \alpha E`.

    The momentum of ``sgd`` adds gradients up, :math:`E \leftarrow g + \alpha E`: its
    step is :math:`1 / (1 - \alpha)` times as long, ten times at 0.9. The average is not
    corrected for its start at zero.

    Args:
        learning_rate: per update.
        momentum: :math:`\alpha`, in [0, 1).

    References:
        Im, Tao and Branson, `An empirical analysis of deep network loss surfaces
        <https://arxiv.org/abs/1612.04010>`_, 2016, Sec. A.2.2, Eq. 12
    """
    return optax.chain(
        optax.ema(momentum, debias=False), optax.scale_by_learning_rate(learning_rate)
    )


def weights_only(params: Any, axes: Any = None) -> Any:
    """A mask of what is decayed: kernels and embeddings, not biases, not norm scales.

    What an array is comes from its layer, not from its rank: the biases of attention,
    and those of layers that `flax.linen.scan` stacks, have two axes or more.

    Args:
        params: any pytree of arrays.
        axes: what leaves are where names do not tell; see `lrscape.layers.roles`.

    Returns:
        A tree of booleans like the parameters.

    Raises:
        InputError: an array of two or more axes that nothing identifies.

    Example:
        >>> import jax.numpy as jnp
        >>> weights_only({'kernel': jnp.ones((2, 3)), 'bias': jnp.ones(3)})
        {'bias': False, 'kernel': True}
        >>> weights_only({'w': jnp.ones((2, 3)), 'b': jnp.ones(3)}, axes={'w': -1})
        {'b': False, 'w': True}
    """
    return layers.weights_mask(params, axes, needed_by="weight decay")


def create_optimizer(
    name: str,
    schedule: optax.Schedule,
    *,
    momentum: float | None = None,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    decay_all: bool = False,
    axes: Any = None,
    **kwargs: Any,
) -> optax.GradientTransformation:
    """Makes an optimizer by its name.

    Args:
        name: one of `NAMES`, as Optax spells it, or ``sgdm``: see `sgdm`.
        schedule: update count -> rate.
        momentum: of ``sgd``, ``sgdm`` and ``rmsprop``: the share of the last update
            that is kept, in [0, 1).
        nesterov: Nesterov's form of the momentum.
        weight_decay: for optimizers that decay weights themselves (``adamw``,
            ``lion`` ...) their own; for all others an L2 term: ``weight_decay *
            params`` is added to the gradient.
        decay_all: decays biases and norm scales too, not only weights.
        axes: what leaves are where names do not tell, for the decay's mask; see
            `lrscape.layers.roles`.
        **kwargs: the optimizer's other arguments.

    Returns:
        The transformation; `lrscape.training.learning_rate` reads its rate.

    Raises:
        InputError: an unknown name, an argument that this optimizer does not take, a
            momentum outside [0, 1), or a negative decay; by ``init`` of the
            transformation, with decay, an array that nothing identifies.

    Example:
        >>> from lrscape import schedules, training
        >>> tx = create_optimizer('sgd', schedules.step(0.1, 10), momentum=0.9)
        >>> state = tx.init({'w': 1.0})
        >>> print(f"{training.learning_rate(state):.1f}")
        0.1
    """
    checks.one_of("optimizer", name, NAMES)
    if momentum is not None:
        checks.fraction("momentum", momentum, below_one=True)
    checks.not_negative("weight_decay", weight_decay)
    checks.flag("nesterov", nesterov)
    checks.flag("decay_all", decay_all)
    factory = sgdm if name == "sgdm" else getattr(optax, name)
    taken = inspect.signature(factory).parameters
    # None of it is Optax's default, and not that of `sgdm`.
    if momentum or (name == "sgdm" and momentum is not None):
        kwargs["momentum"] = momentum
    if nesterov:
        kwargs["nesterov"] = nesterov
    mask = None if decay_all else functools.partial(weights_only, axes=axes)
    before = []
    if "weight_decay" in taken:
        kwargs["weight_decay"] = weight_decay
        kwargs["mask" if "mask" in taken else "weight_decay_mask"] = mask
    elif weight_decay:
        before = [optax.add_decayed_weights(weight_decay, mask)]
    for argument, value in kwargs.items():
        if argument not in taken:
            raise InputError(f"{argument}={value!r} is not taken by optimizer={name!r}")
    # Optax's updates at rate 1 are turned back, since scale_by_rate turns them again.
    return optax.chain(
        *before,
        factory(learning_rate=1.0, **kwargs),
        optax.scale(-1.0),
        scale_by_rate(schedule),
    )
