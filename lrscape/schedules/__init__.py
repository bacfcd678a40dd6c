r"""Learning-rate schedules with a peak, and their baselines, as Optax schedules.

Each factory returns an `optax.Schedule`, a pure function of the update count that
works under ``jit`` and ``vmap``. A count of 0 gives the start of the schedule;
``total_steps`` and everything beyond give its end. Rates are per update, steps are
optimizer updates, fractions are of ``total_steps``.

The nonmonotonic shapes are those of Seong et al. (2018), Sec. 5. With the normalised
time :math:`t = t_0 + (1 - t_0)\,n / N` of update :math:`n` of :math:`N`, they peak at
:math:`t = 1/2`, and the offset :math:`t_0` cuts off a start that would be too slow.

Computed in float32 (float64 under ``jax_enable_x64``), and arranged so that no digits
are lost where a schedule is small beside its peak: a relative error of a few 1e-6.

References:
    Seong et al., `Towards Flatter Loss Surface via Nonmonotonic Learning Rate
    Scheduling <http://auai.org/uai2018/proceedings/papers/361.pdf>`_, 2018
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import optax

from lrscape import checks
from lrscape.errors import InputError
from lrscape.schedules.baselines import per_epoch as per_epoch
from lrscape.schedules.baselines import rational as rational
from lrscape.schedules.baselines import step as step
from lrscape.schedules.baselines import swa as swa
from lrscape.schedules.baselines import trapezoid as trapezoid
from lrscape.schedules.baselines import triangular as triangular
from lrscape.schedules.peaks import gaussian as gaussian
from lrscape.schedules.peaks import laplacian as laplacian

FACTORIES: dict[str, Callable[..., optax.Schedule]] = {
    factory.__name__: factory
    for factory in (gaussian, laplacian, rational, step, triangular, trapezoid, swa)
}

NAMES: tuple[str, ...] = tuple(FACTORIES)


def create(name: str, **kwargs: Any) -> optax.Schedule:
    """Makes a schedule by its name, as command lines do.

    Args:
        name: one of `NAMES`.
        **kwargs: the arguments of the factory of that name.

    Returns:
        The schedule.

    Raises:
        InputError: an unknown name, or an argument that this schedule does not take or
            that it lacks.

    Example:
        >>> round(float(create('step', init_value=0.1, total_steps=10)(9)), 4)
        0.001
    """
    checks.one_of("schedule", name, NAMES)
    parameters = inspect.signature(FACTORIES[name]).parameters
    for argument, value in kwargs.items():
        if argument not in parameters:
            raise InputError(
                f"{argument}={value!r} is not taken by schedule={name!r}, which takes "
                f"{', '.join(parameters)}"
            )
    for argument, parameter in parameters.items():
        if parameter.default is parameter.empty and argument not in kwargs:
            raise InputError(f"schedule={name!r} needs {argument}")
    return FACTORIES[name](**kwargs)


__all__ = ["FACTORIES", "NAMES", "create", "per_epoch", *NAMES]
