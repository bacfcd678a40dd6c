"""The optimizers of paper 2, at rates that are data and not part of a program."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import optax

from lrscape import transforms
from lrscape.errors import InputError, unknown_name
from lrscape.training.optimizers import sgdm, weights_only

# Constants are Optax's; the paper's appendix gives none but Adadelta's rate of 1.
# RMSprop: decay 0.9; Adadelta: 0.9, 1e-6; Adam: 0.9, 0.999, 1e-8; SGDM is the paper's
# average of gradients, at 0.9, whose step is a tenth of the usual momentum's.
_OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    "sgdm": sgdm,
    "rmsprop": optax.rmsprop,
    "adadelta": optax.adadelta,
    "adam": optax.adam,
}

# The paper does not say by which of its three methods RK2 and Adam&RK2 go.
RUNGE_KUTTA = "heun"
# Table 1's, in its order: optimizer, Runge-Kutta method.
METHODS: dict[str, tuple[str, str]] = {
    "sgd": ("sgd", ""),
    "sgdm": ("sgdm", ""),
    "rmsprop": ("rmsprop", ""),
    "adadelta": ("adadelta", ""),
    "adam": ("adam", ""),
    "rk2": ("sgd", RUNGE_KUTTA),
    "adam_rk2": ("adam", RUNGE_KUTTA),
}
NAMES = tuple(METHODS)
TITLES = {
    "sgd": "SGD", "sgdm": "SGDM", "rmsprop": "RMSprop", "adadelta": "Adadelta",
    "adam": "ADAM", "rk2": "RK2", "adam_rk2": "ADAM&RK2",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """How a network is optimized.

    Attributes:
        optimizer: ``'sgd'``, ``'sgdm'``, ``'rmsprop'``, ``'adadelta'`` or ``'adam'``.
        rate: its learning rate, constant.
        runge_kutta: the method of `lrscape.transforms.runge_kutta` before it, if any.
        then: what takes over.
        after: the epoch after which it does; 0 where nothing does.

    Raises:
        InputError: an unknown optimizer, or a rate that is not positive.
    """

    optimizer: str
    rate: float
    runge_kutta: str = ""
    then: Method | None = None
    after: int = 0

    def __post_init__(self) -> None:
        if self.optimizer not in _OPTIMIZERS:
            raise unknown_name("optimizer", self.optimizer, tuple(_OPTIMIZERS))
        if not self.rate > 0:
            raise InputError(f"rate={self.rate!r} must be positive")
        if (self.then is None) != (self.after == 0):
            raise InputError(
                f"after={self.after}: a switch needs both the epoch and what follows"
            )

    @property
    def name(self) -> str:
        """In file names.

        Example:
            >>> adam = Method(optimizer='adam', rate=0.001)
            >>> Method(optimizer='sgd', rate=0.1, then=adam, after=5).name
            'sgd_0.1-5-adam_0.001'
        """
        parts = [self.optimizer, *filter(None, [self.runge_kutta]), f"{self.rate:g}"]
        own = "_".join(parts)
        return own if self.then is None else f"{own}-{self.after}-{self.then.name}"

    @property
    def gradients(self) -> int:
        """Gradients that an update takes."""
        return 2 if self.runge_kutta else 1

    def make(
        self, steps_per_epoch: int, weight_decay: float = 0.0
    ) -> optax.GradientTransformationExtraArgs:
        """The Optax transformation.

        Args:
            steps_per_epoch: updates an epoch.
            weight_decay: of an L2 term on weights.

        Raises:
            InputError: an L2 term before a Runge-Kutta method, whose second gradient
                would lack it.
        """
        if weight_decay and self.runge_kutta:
            raise InputError(
                f"weight_decay={weight_decay:g}: a Runge-Kutta method takes its second "
                "gradient without it; train that method without decay"
            )
        made = _single(self)
        if self.then is not None:
            rest = _single(self.then)
            made = transforms.switch([made, rest], [self.after * steps_per_epoch])
        if weight_decay:
            decay = optax.add_decayed_weights(weight_decay, weights_only)
            made = optax.chain(decay, made)
        return optax.with_extra_args_support(made)


def _single(method: Method) -> Any:
    """An optimizer whose rate lies in its state.

    Runs that differ by their rates alone then share one program.
    """

    def factory(learning_rate):
        parts = [_OPTIMIZERS[method.optimizer](learning_rate)]
        if method.runge_kutta:
            runge_kutta = transforms.runge_kutta(
                method.runge_kutta, lambda count: learning_rate
            )
            parts.insert(0, runge_kutta)
        return optax.chain(*parts)

    return optax.inject_hyperparams(factory)(learning_rate=method.rate)
