"""The ways in which the rate goes in paper 1's experiments."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness.rates import scale_by_rates
from lrscape import layers, schedules
from lrscape.errors import unknown_name
from lrscape.training.optimizers import weights_only

SCHEDULES = ("gaussian", "laplacian", "step", "rational", "constant")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """How a network's rate goes, and what follows it.

    Attributes:
        schedule: a name in `SCHEDULES`.
        start: the rate at the first update.
        peak: the largest one, of ``'gaussian'`` and ``'laplacian'``.
        variance: of ``'gaussian'``: the paper's naive version, which has no slow start;
            `start` is not looked at then.
        milestones: fractions of the run at which ``'step'`` falls ten-fold.
        decay: of ``'rational'``, see `lrscape.schedules.rational`.
        per_epoch: whether the rate changes at epochs' starts alone.
        optimizer: ``'sgd'`` or ``'rmsprop'``.
    """

    schedule: str
    start: float
    peak: float | None = None
    variance: float | None = None
    milestones: tuple[float, ...] = ()
    decay: float = 0.0
    per_epoch: bool = False
    optimizer: str = "sgd"

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise unknown_name("schedule", self.schedule, SCHEDULES)

    @property
    def name(self) -> str:
        """In file names: what tells it from the others of an experiment."""
        parts = [self.schedule if self.optimizer == "sgd" else self.optimizer]
        parts += [f"{self.start:g}"]
        if self.peak is not None:
            parts += [f"to_{self.peak:g}"]
        if self.variance is not None:
            parts += [f"variance_{self.variance:g}"]
        if self.schedule == "rational":
            parts += [f"decay_{self.decay:g}"]
        return "_".join([*parts, *(["epochs"] if self.per_epoch else [])])

    @property
    def options(self) -> dict[str, Any]:
        """The schedule's arguments, without the run's length."""
        if self.schedule in ("gaussian", "laplacian"):
            if self.variance is not None:
                return {"peak_value": self.peak, "variance": self.variance}
            return {"peak_value": self.peak, "start_value": self.start}
        if self.schedule == "step":
            return {"init_value": self.start, "milestones": self.milestones}
        return {"init_value": self.start, "decay": self.decay}

    @property
    def fields(self) -> dict[str, Any]:
        """A run's settings that say how its rate goes, and what follows it."""
        constant = self.schedule == "constant"
        return {
            "schedule": "rational" if constant else self.schedule,
            "schedule_options": self.options,
            "per_epoch": self.per_epoch,
            "optimizer": self.optimizer,
        }

    def make(self, total_steps: int, steps_per_epoch: int) -> np.ndarray:
        """(total_steps,), the rate of each update."""
        name, options = self.fields["schedule"], self.options
        made = schedules.create(name, total_steps=total_steps, **options)
        if self.per_epoch:
            made = schedules.per_epoch(made, steps_per_epoch)
        return rates_of(made, total_steps)


def rates_of(schedule: optax.Schedule, total_steps: int) -> np.ndarray:
    """(total_steps,), the rate of each update by a schedule."""
    rates = schedule(jnp.arange(total_steps))
    return np.broadcast_to(np.asarray(rates, np.float32), total_steps)


def optimizer_of(
    name: str,
    rates: Any,
    *,
    momentum: float | None,
    weight_decay: float,
    dense_decay: float | None,
    bias_rate: float,
) -> optax.GradientTransformation:
    """The optimizer that follows a rule.

    Args:
        name: ``'sgd'`` or ``'rmsprop'``.
        rates: (updates,), see `Rule.make`.
        momentum: of ``'sgd'``; RMSprop has none.
        weight_decay: of an L2 term on weights.
        dense_decay: of the dense layers' weights instead; None is the same.
        bias_rate: how many times the rate biases take.

    Returns:
        The transformation.
    """
    parts: list[Any] = []
    if dense_decay is not None:
        parts.append(optax.add_decayed_weights(weight_decay, _convolutions))
        parts.append(optax.add_decayed_weights(dense_decay, _dense))
    elif weight_decay:
        parts.append(optax.add_decayed_weights(weight_decay, weights_only))
    if name == "sgd":
        parts += [optax.trace(momentum)] if momentum else []
    else:
        parts.append(optax.scale_by_rms())
    if bias_rate != 1:
        parts.append(optax.masked(optax.scale(bias_rate), _biases))
    return optax.chain(*parts, scale_by_rates(rates))


# Batch norm's scales take the biases' rate too.
_biases = layers.of_role(("bias", "scale"))


def _convolutions(params: Any) -> Any:
    return _kernels(params, lambda inputs: inputs > 1)


def _dense(params: Any) -> Any:
    return _kernels(params, lambda inputs: inputs == 1)


def _kernels(params: Any, select: Callable[[int], bool]) -> Any:
    """Of all kernels those of so many input axes: a window and channels, or one.

    An array of other names counts as one whose last axis counts units.
    """

    def selected(leaf: layers.Leaf) -> bool:
        if leaf.role == "unknown":
            return select(len(leaf.shape) - 1)
        return leaf.role == "kernel" and select(len(leaf.inputs))

    return jax.tree.map(selected, layers.roles(params))
