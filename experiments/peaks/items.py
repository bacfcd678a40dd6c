"""The commands of paper 1's experiments, in the order in which `all` makes them."""

from __future__ import annotations

from collections.abc import Callable

from experiments.paper import Result
from experiments.peaks import deep
from experiments.peaks.bounds import eq13, eq15, lemma1
from experiments.peaks.claims import claims
from experiments.peaks.curves import fig5
from experiments.peaks.lines import fig3
from experiments.peaks.scatter import fig4
from experiments.peaks.settings import Lab
from experiments.peaks.sweeps import fig6, fig7, slow_start
from experiments.peaks.tables import table1, table2

ITEMS: dict[str, Callable[[Lab], Result]] = {
    "fig5": fig5,
    "fig3": fig3,
    "fig4": fig4,
    "fig6": fig6,
    "fig7": fig7,
    "slow-start": slow_start,
    "table1": table1,
    "table2": table2,
    "table3": deep.table3,
    "table4": deep.table4,
    "eq13": eq13,
    "eq15": eq15,
    "lemma1": lemma1,
    "claims": claims,
}

# The tasks that an item looks at.
TASKS: dict[str, tuple[str, ...]] = {
    "fig5": ("small", "large"),
    "table2": ("nin",),
    "eq13": ("small", "descent"),
    "claims": ("small", "large", "descent"),
    **{item: tuple(row.task for row in rows) for item, rows in deep.TABLES.items()},
}


def tasks_of(item: str) -> tuple[str, ...]:
    """The tasks that an item looks at; most look at the small model alone."""
    return TASKS.get(item, ("small",))
