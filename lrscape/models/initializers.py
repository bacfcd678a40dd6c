"""How the weights of the plain networks are drawn: two readings of "He-normal"."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn

from lrscape.errors import unknown_name

Initializer = Callable[..., object]

# Of convolutions, of dense layers, and of outputs where a network tells these apart.
# `fan_in` is He et al. (2015), Eq. 10; `fan_out` their Eq. 14 for convolutions, and
# for dense layers what PyTorch draws where nothing is asked for: uniform within
# 1 / sqrt(fan_in).
_DENSE = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
_INITIALIZERS: dict[str, tuple[Initializer, Initializer, Initializer]] = {
    "fan_in": (
        nn.initializers.he_normal(),
        nn.initializers.he_normal(),
        nn.initializers.lecun_normal(),
    ),
    "fan_out": (
        nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
        _DENSE,
        _DENSE,
    ),
}
INITS = tuple(_INITIALIZERS)


def initializers(weight_init: str) -> tuple[Initializer, Initializer, Initializer]:
    """The initializers of convolutions, of dense layers and of outputs.

    Args:
        weight_init: a name in `INITS`.

    Raises:
        InputError: another name.
    """
    if weight_init not in _INITIALIZERS:
        raise unknown_name("weight_init", weight_init, INITS)
    return _INITIALIZERS[weight_init]
