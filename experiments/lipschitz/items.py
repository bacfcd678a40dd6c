"""The commands of paper 5's experiments, in the order in which `all` makes them."""

from __future__ import annotations

from collections.abc import Callable

from experiments.lipschitz.claims import claims
from experiments.lipschitz.curves import (
    cifar10_adaptive,
    cifar10_fixed,
    cifar100,
    mnist,
)
from experiments.lipschitz.estimates import estimates
from experiments.lipschitz.premise import eq1
from experiments.lipschitz.settings import Lab
from experiments.lipschitz.stability import stability
from experiments.lipschitz.variants import variants
from experiments.paper import Result

ITEMS: dict[str, Callable[[Lab], Result]] = {
    "mnist": mnist,
    "cifar10-fixed": cifar10_fixed,
    "cifar10-adaptive": cifar10_adaptive,
    "cifar100": cifar100,
    "eq1": eq1,
    "estimates": estimates,
    "stability": stability,
    "variants": variants,
    "claims": claims,
}

# The tasks that an item looks at.
TASKS: dict[str, tuple[str, ...]] = {
    "mnist": ("mnist",),
    "cifar10-fixed": ("cifar10",),
    "cifar10-adaptive": ("cifar10",),
    "cifar100": ("cifar100",),
    "eq1": ("variants", "cifar10"),
    "estimates": ("variants", "cifar10"),
    "stability": ("variants", "cifar10"),
    "variants": ("variants",),
    "claims": ("mnist", "variants", "cifar10", "cifar100"),
}
