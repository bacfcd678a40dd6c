"""The commands of paper 2's experiments, in the order in which `all` makes them."""

from __future__ import annotations

from collections.abc import Callable

from experiments.minima.pairs import table1
from experiments.minima.settings import Lab
from experiments.paper import Result

ITEMS: dict[str, Callable[[Lab], Result]] = {
    "table1": table1,
}
