"""Checks of models' fields, by their annotations and names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from lrscape import checks
from lrscape.models import densenet, nin, plain, resnet, vgg
from lrscape.models.layers import DTYPES, INITS

# The values of fields that are names.
_CHOICES = {
    "block": resnet.BLOCKS,
    "dtype": DTYPES,
    "initializer": plain.INITIALIZERS,
    "second_pool": tuple(nin.POOLS),
    "shortcut": resnet.SHORTCUTS,
    "weight_init": INITS,
}


def _rate(name: str, value: Any) -> float:
    """A rate of dropout, below 1; another number is a weight, 0 or more."""
    if name.startswith("dropout"):
        return checks.fraction(name, value, below_one=True)
    return checks.not_negative(name, value)


def _text(name: str, value: Any) -> str:
    if name in _CHOICES:
        return checks.one_of(name, value, _CHOICES[name])
    return checks.instance(name, value, str, way_out="a name")


def _each(check: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    def of_all(name: str, value: Any) -> tuple[Any, ...]:
        return tuple(check(name, item) for item in checks.sequence(name, value))

    return of_all


# By annotation, as it is written. A field of another one is left to its model.
_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "bool": checks.flag,
    "float": _rate,
    "int": checks.count,
    "str": _text,
    "Sequence[float]": _each(_rate),
    "Sequence[int]": _each(checks.count),
    "Sequence[Sequence[int]]": _each(_each(checks.count)),
}


def check_fields(factory: Any, values: Mapping[str, Any]) -> None:
    """Raises InputError for values that no network can have.

    Args:
        factory: a module's class, or a partial call of it.
        values: by the names of its fields.
    """
    kinds = {
        field.name: str(field.type)
        for field in dataclasses.fields(getattr(factory, "func", factory))
    }
    for name, value in values.items():
        kind = kinds[name].removesuffix(" | None")
        if kind in _CHECKS and not (value is None and kind != kinds[name]):
            _CHECKS[kind](name, value)


def check_together(model: nn.Module) -> None:
    """Raises InputError for fields that do not go together."""
    if isinstance(model, resnet.ResNet):
        resnet.blocks_per_stage(model.depth, "basic")
    elif isinstance(model, resnet.PreActResNet):
        resnet.blocks_per_stage(model.depth, model.block)
    elif isinstance(model, densenet.DenseNet):
        densenet.layers_per_block(model.depth, model.bottleneck)
    elif isinstance(model, vgg.DropoutVGG):
        vgg.check_rates(model.dropout, model.stages)
