"""The ways in which paper 5's networks get their rate."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lrscape import layers, transforms
from lrscape.transforms.lipschitz import MAX_RATE

FEEDS = ("free", "train", "inference", "fixed", "none")

_OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformationExtraArgs]] = {
    "sgd": transforms.lipschitz_sgd,
    "momentum": transforms.lipschitz_momentum,
    "rmsprop": transforms.lipschitz_rmsprop,
    "adam": transforms.lipschitz_adam,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """How a network gets its rate.

    Attributes:
        name: in tables and file names.
        feed: where K_z comes from: the updates' own forward passes (``'free'``), a pass
            at each epoch's start in train mode (``'train'``) or in inference mode
            (``'inference'``), or given once (``'fixed'``); ``'none'`` is a constant
            rate.
        rate: the constant rate, of ``'none'``.
        activation_norm: K_z, of ``'fixed'``.
        weight_norm: the largest norm among the weights, of ``'fixed'``.
        variant: ``'sgd'``; ``'trace'``, SGD's momentum with the same rate, which the
            paper says does not work; ``'momentum'``, ``'rmsprop'`` and ``'adam'`` of
            the authors' later text.
        form: of the constant, ``'paper'`` or ``'bound'``.
        norm: what K_z is, ``'frobenius'``, of a batch's activations, or ``'max'``, the
            largest of them.
        max_rate: no rate is larger; neither paper nor authors have such a cap.
        weight_decay: of the L2 term; None is the plan's.
        time_decay: d of a rate that is multiplied by 1 / (1 + d * updates).
    """

    name: str
    feed: str = "free"
    rate: float | None = None
    activation_norm: float | None = None
    weight_norm: float | None = None
    variant: str = "sgd"
    form: str = "paper"
    norm: str = "frobenius"
    max_rate: float = MAX_RATE
    weight_decay: float | None = None
    time_decay: float = 0.0

    @property
    def measured(self) -> bool:
        """Whether K_z is measured by passes: where it is the rate, or compared."""
        compared = ("adaptive", "adaptive_decay", "adaptive_steady", "free")
        return self.feed in ("train", "inference") or self.name in compared

    @property
    def held(self) -> bool:
        """Whether the optimizer is told K_z, rather than handed it at every update."""
        return self.feed in ("train", "inference", "fixed")

    def optimizer(
        self,
        *,
        num_classes: int,
        batch_size: int,
        weight_decay: float,
        steps_per_epoch: int,
        kernel_l2: float | None = None,
    ) -> optax.GradientTransformationExtraArgs:
        """The Optax transformation.

        Args:
            num_classes: k.
            batch_size: m.
            weight_decay: lambda, of the constant and of an L2 term, half its square, on
                all parameters.
            steps_per_epoch: updates an epoch.
            kernel_l2: instead of that term, what multiplies the sum of the squares of
                convolutions' kernels, as Keras' ``l2`` does: their gradient is twice as
                much. None: the term is that of `weight_decay`.
        """
        decay = weight_decay if self.weight_decay is None else self.weight_decay
        apart = kernel_l2 is not None and self.weight_decay is None
        before = [optax.add_decayed_weights(decay)] if decay else []
        if apart:
            doubled = 2 * (kernel_l2 or 0.0)
            before = [optax.add_decayed_weights(doubled, mask=convolutions)]
        options: dict[str, Any] = {
            "num_classes": num_classes,
            "batch_size": batch_size,
            "weight_decay": decay,
            "form": self.form,
            "norm": self.norm,
            "max_rate": self.max_rate,
        }
        if self.held:
            # Until a pass has measured it, if that is how it comes.
            options["activation_norm"] = self.activation_norm or 1.0
            options["weight_norm"] = self.weight_norm
        else:
            options["window"] = steps_per_epoch
        if self.feed == "none":
            rate = self.rate
            parts = [*before, transforms.scale_by_rate(lambda count: rate)]
        elif self.variant == "trace":
            last = transforms.scale_by_lipschitz(**options)
            parts = [*before, optax.trace(0.9), last]
        elif apart and self.variant == "sgd":
            parts = [*before, transforms.scale_by_lipschitz(**options)]
        else:
            parts = [_OPTIMIZERS[self.variant](**options)]
        if self.time_decay:
            parts.append(optax.scale_by_schedule(self.decayed))
        return optax.with_extra_args_support(optax.chain(*parts))

    def decayed(self, count):
        """The share of the rate that is left after so many updates."""
        return 1 / (1 + self.time_decay * jnp.asarray(count, jnp.float32))

    def measured_as(self, mode: str) -> str:
        """What a pass in a mode calls K_z, in a history's rows.

        Example:
            >>> Method(name='adaptive', norm='max').measured_as('train')
            'train_max'
        """
        return f"{mode}_{'norm' if self.norm == 'frobenius' else 'max'}"


def convolutions(params: Any) -> Any:
    """A mask of convolutions' kernels.

    Example:
        >>> convolutions({'Conv_0': {'kernel': jnp.ones((3, 3, 1, 2)),
        ...     'bias': jnp.ones(2)}, 'Dense_0': {'kernel': jnp.ones((2, 5))}})
        {'Conv_0': {'bias': False, 'kernel': True}, 'Dense_0': {'kernel': False}}
    """
    return jax.tree.map(
        lambda leaf: leaf.is_weight and len(leaf.shape) == 4, layers.roles(params)
    )
