"""Searches of traced programs (jaxprs)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def convolutions(jaxpr: Any) -> Iterator[Any]:
    """Finds every convolution in a jaxpr, also within loops and calls."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from convolutions(inner)
