"""What a traced program contains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def convolutions(jaxpr: Any) -> Iterator[Any]:
    """Every convolution in a jaxpr, those within loops and calls too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from convolutions(inner)
