"""The protocol of objectives: required and optional members, and bare functions.

Written for any object with the members that `lrscape.landscape.Objective` documents,
whether it derives from that class or not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lrscape.errors import InputError
from lrscape.landscape.programs import HoldsFunctions, jit_objectives


def member(objective: Any, name: str) -> Any:
    """An optional member of an objective; None where it has none."""
    return getattr(objective, name, None)


def is_traceable(objective: Any) -> bool:
    """Whether an objective can be compiled and differentiated by JAX."""
    return bool(getattr(objective, "is_traceable", True))


def check_traceable(objective: Any, what: str) -> None:
    """Raises InputError where JAX cannot compute `what` of an objective."""
    if not is_traceable(objective):
        raise InputError(
            f"objective={type(objective).__name__} is computed outside JAX and has no "
            f"{what} of its own; give it the members batch_gradient and batch_product, "
            "or choose a probe that needs losses alone"
        )


def settings_of(objective: Any) -> dict[str, Any]:
    """An objective's settings, or the little that can be said of a foreign one."""
    found = member(objective, "settings")
    return dict(found) if found is not None else {"objective": type(objective).__name__}


def filled_in(objective: Any, point: Any) -> Any:
    """The objective at a point; a foreign one may have nothing to fill in."""
    at = member(objective, "at")
    return objective if at is None else at(point)


def is_compilable(objective: Any) -> bool:
    """Whether an objective is a pytree that holds its whole sample on the device."""
    if jax.tree_util.all_leaves([objective]):
        return False
    return bool(member(objective, "holds_sample")) or objective.num_batches == 1


# What a loss is.


def scalar_loss(loss: Any) -> jax.Array:
    """The loss itself, of a scalar or of a dict of scalars; checked."""
    loss = checked_loss(loss)
    return loss["loss"] if isinstance(loss, dict) else loss


def checked_loss(loss: Any) -> Any:
    """Raises InputError unless it is a scalar, or a dict of them with ``'loss'``."""
    if isinstance(loss, dict) and "loss" not in loss:
        raise InputError(
            "the loss is a dict without the key 'loss'; it has "
            f"{', '.join(map(repr, loss)) or 'none'}"
        )
    for name, value in (loss if isinstance(loss, dict) else {"loss": loss}).items():
        shape = getattr(value, "shape", () if isinstance(value, float | int) else None)
        if shape != ():
            what = f"has shape {shape}" if shape is not None else f"is {value!r}"
            raise InputError(
                f"the loss of a batch must be a scalar, the mean over its examples, or "
                f"a dict of scalars; {name!r} {what}"
            )
        if jnp.iscomplexobj(value):
            raise InputError(
                f"the loss of a batch must be real; {name!r} has dtype {value.dtype}"
            )
    return jax.tree.map(_as_float, loss)


def _as_float(value: Any) -> jax.Array:
    """A scalar as a float, so that counts have means too."""
    array = jnp.asarray(value)
    if jnp.issubdtype(array.dtype, jnp.floating):
        return array
    return array.astype(jnp.result_type(float))


# Bare functions.


@dataclasses.dataclass(frozen=True)
class FunctionObjective(HoldsFunctions):
    """A bare function as an objective of one batch.

    Attributes:
        function: ``point -> loss``.
    """

    function: Callable[[Any], Any]

    @property
    def num_batches(self) -> int:
        """One."""
        return 1

    @property
    def settings(self) -> dict[str, Any]:
        """The function's name."""
        name = getattr(self.function, "__qualname__", type(self.function).__name__)
        return {"objective": name}

    @property
    def weights(self) -> np.ndarray:
        """The one batch is the whole sample."""
        return np.ones(1)

    def batch(self, i: int) -> Any:
        """There are no examples to hand out."""
        return ()

    def batch_loss(self, point: Any, batch: Any) -> Any:
        """The function's value."""
        return self.function(point)

    def at(self, point: Any) -> FunctionObjective:
        """There is nothing to fill in."""
        return self

    def __call__(self, point: Any) -> Any:
        """The function's value, compiled and checked to be a loss."""
        return _value_of(self, point)


jax.tree_util.register_dataclass(
    FunctionObjective, data_fields=[], meta_fields=["function"]
)


@jit_objectives
def _value_of(objective: FunctionObjective, point: Any) -> Any:
    return checked_loss(objective.function(point))


def as_objective(objective: Any) -> Any:
    """Takes an objective as it is, and a bare function as one of a single batch.

    A function is compiled, and must be pure: if data that it reads changes, make a new
    function, or hand the data to `mean_objective`.

    Raises:
        InputError: something that is neither.
    """
    if hasattr(objective, "batch_loss"):
        return objective
    if callable(objective):
        try:
            hash(objective)
        except TypeError:
            return FunctionObjective(lambda point: objective(point))
        return FunctionObjective(objective)
    raise InputError(
        f"objective={objective!r} must be a function of a point, or an objective made "
        "by mean_objective or flax_objective"
    )
