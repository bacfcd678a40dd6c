"""The ways in which the rate goes in paper 1's experiments."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import optax

from lrscape import schedules
from lrscape.errors import unknown_name
from lrscape.training import create_optimizer
from lrscape.training.optimizers import weights_only
from lrscape.transforms import scale_by_rate

SCHEDULES = ("gaussian", "laplacian", "step", "rational", "constant")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """How a network's rate goes, and what follows it.

    Attributes:
        schedule: a name in `SCHEDULES`.
        start: the rate at the first update.
        peak: the largest one, of ``'gaussian'`` and ``'laplacian'``.
        milestones: fractions of the run at which ``'step'`` falls ten-fold.
        decay: of ``'rational'``, see `lrscape.schedules.rational`.
        per_epoch: whether the rate changes at epochs' starts alone.
        optimizer: ``'sgd'`` or ``'rmsprop'``.
    """

    schedule: str
    start: float
    peak: float | None = None
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
        return "_".join([*parts, *(["epochs"] if self.per_epoch else [])])

    def make(self, total_steps: int, steps_per_epoch: int) -> optax.Schedule:
        """The schedule over so many updates."""
        if self.schedule in ("gaussian", "laplacian"):
            assert self.peak is not None
            made = schedules.create(
                self.schedule, peak_value=self.peak, total_steps=total_steps,
                start_value=self.start,
            )  # fmt: skip
        elif self.schedule == "step":
            made = schedules.step(self.start, total_steps, milestones=self.milestones)
        elif self.schedule == "rational":
            made = schedules.rational(self.start, total_steps, decay=self.decay)
        else:
            made = optax.constant_schedule(self.start)
        return schedules.per_epoch(made, steps_per_epoch) if self.per_epoch else made


def optimizer_of(
    rule: Rule,
    schedule: optax.Schedule,
    *,
    momentum: float,
    weight_decay: float,
    dense_decay: float | None,
    bias_rate: float,
) -> optax.GradientTransformation:
    """The optimizer that follows a rule.

    Args:
        rule: has its name.
        schedule: update count -> rate.
        momentum: of ``'sgd'``; RMSprop has none.
        weight_decay: of an L2 term on weights.
        dense_decay: of the dense layers' weights instead; None is the same.
        bias_rate: how many times the rate biases take.

    Returns:
        The transformation.
    """
    parts: list[Any] = []
    if bias_rate != 1:
        parts.append(optax.masked(optax.scale(bias_rate), _biases))
    if dense_decay is not None:
        parts.append(optax.add_decayed_weights(weight_decay, _convolutions))
        parts.append(optax.add_decayed_weights(dense_decay, _dense))
    elif weight_decay:
        parts.append(optax.add_decayed_weights(weight_decay, weights_only))
    if rule.optimizer == "sgd":
        parts += [*([optax.trace(momentum)] if momentum else []),
                  scale_by_rate(schedule)]  # fmt: skip
    else:
        parts.append(create_optimizer(rule.optimizer, schedule))
    return optax.chain(*parts)


def _biases(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim == 1, params)


def _convolutions(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 2, params)


def _dense(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim == 2, params)
