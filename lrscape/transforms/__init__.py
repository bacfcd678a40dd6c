"""Optax gradient transformations: learning rates, and what is kept beside them.

Each `scale_by_NAME` is `scale_by_rate` over the schedule of that name.
"""

from typing import Any

from lrscape.activations import activation_norms as activation_norms
from lrscape.transforms.averaging import AverageWeightsState as AverageWeightsState
from lrscape.transforms.averaging import average_weights as average_weights
from lrscape.transforms.averaging import averaged as averaged
from lrscape.transforms.gradient import KeepGradientState as KeepGradientState
from lrscape.transforms.gradient import keep_gradient as keep_gradient
from lrscape.transforms.lipschitz import (
    ScaleByLipschitzState as ScaleByLipschitzState,
)
from lrscape.transforms.lipschitz import hold_norms as hold_norms
from lrscape.transforms.lipschitz import lipschitz_adam as lipschitz_adam
from lrscape.transforms.lipschitz import lipschitz_constant as lipschitz_constant
from lrscape.transforms.lipschitz import (
    lipschitz_momentum as lipschitz_momentum,
)
from lrscape.transforms.lipschitz import (
    lipschitz_rmsprop as lipschitz_rmsprop,
)
from lrscape.transforms.lipschitz import lipschitz_sgd as lipschitz_sgd
from lrscape.transforms.lipschitz import scale_by_lipschitz as scale_by_lipschitz
from lrscape.transforms.rate import ALIASES
from lrscape.transforms.rate import ScaleByRateState as ScaleByRateState
from lrscape.transforms.rate import scale_by_rate as scale_by_rate
from lrscape.transforms.runge_kutta import RungeKuttaState as RungeKuttaState
from lrscape.transforms.runge_kutta import runge_kutta as runge_kutta
from lrscape.transforms.switching import SwitchState as SwitchState
from lrscape.transforms.switching import switch as switch

globals().update(ALIASES)

__all__ = [
    "AverageWeightsState",
    "KeepGradientState",
    "RungeKuttaState",
    "ScaleByLipschitzState",
    "ScaleByRateState",
    "SwitchState",
    "activation_norms",
    "average_weights",
    "averaged",
    "hold_norms",
    "keep_gradient",
    "lipschitz_adam",
    "lipschitz_constant",
    "lipschitz_momentum",
    "lipschitz_rmsprop",
    "lipschitz_sgd",
    "runge_kutta",
    "scale_by_lipschitz",
    "scale_by_rate",
    "switch",
    *ALIASES,
]


def __getattr__(name: str) -> Any:
    # Never reached for an alias, which is a global; it tells type checkers that
    # there are names here that they cannot see.
    raise AttributeError(f"module 'lrscape.transforms' has no attribute {name!r}")
