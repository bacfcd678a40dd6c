"""The commands of paper 3's experiments, in the order in which `all` makes them."""

from __future__ import annotations

from collections.abc import Callable

from experiments.paper import Result
from experiments.walking.angles import fig4
from experiments.walking.claims import claims
from experiments.walking.curvature import fig3
from experiments.walking.identity import eq3
from experiments.walking.noise import fig5
from experiments.walking.quadratic import fig28
from experiments.walking.rates import fig6
from experiments.walking.settings import Lab
from experiments.walking.tables import sec6, table1, table2
from experiments.walking.trajectories import fig1, fig2

ITEMS: dict[str, Callable[[Lab], Result]] = {
    "fig1": fig1,
    "fig2": fig2,
    "table1": table1,
    "table2": table2,
    "fig3": fig3,
    "fig4": fig4,
    "fig5": fig5,
    "fig6": fig6,
    "fig28": fig28,
    "eq3": eq3,
    "sec6": sec6,
    "claims": claims,
}
