"""The ways in which paper 5's networks get their rate."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax

from lrscape import transforms

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
    ) -> optax.GradientTransformationExtraArgs:
        """The Optax transformation."""
        decay = weight_decay if self.weight_decay is None else self.weight_decay
        before = [optax.add_decayed_weights(decay)] if decay else []
        options: dict[str, Any] = {
            "num_classes": num_classes,
            "batch_size": batch_size,
            "weight_decay": decay,
            "form": self.form,
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
        else:
            parts = [_OPTIMIZERS[self.variant](**options)]
        if self.time_decay:
            parts.append(optax.scale_by_schedule(self.decayed))
        return optax.with_extra_args_support(optax.chain(*parts))

    def decayed(self, count):
        """The share of the rate that is left after so many updates."""
        return 1 / (1 + self.time_decay * jnp.asarray(count, jnp.float32))
