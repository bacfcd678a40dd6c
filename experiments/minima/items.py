"""The commands of paper 2's experiments, in the order in which `all` makes them."""

from __future__ import annotations

from collections.abc import Callable

from experiments.minima.around import fig4, fig5, fig6, fig8, fig10
from experiments.minima.claims import claims
from experiments.minima.extreme import fig11
from experiments.minima.integrators import fig9, table3
from experiments.minima.pairs import table1
from experiments.minima.settings import Lab
from experiments.minima.surfaces import fig2, fig3, table2
from experiments.minima.switching import fig7, fig12, fig13, fig14, fig15
from experiments.paper import Result

ITEMS: dict[str, Callable[[Lab], Result]] = {
    "table1": table1,
    "fig2": fig2,
    "fig3": fig3,
    "fig4": fig4,
    "fig5": fig5,
    "fig6": fig6,
    "fig7": fig7,
    "table2": table2,
    "fig8": fig8,
    "fig9": fig9,
    "table3": table3,
    "fig10": fig10,
    "fig11": fig11,
    "fig12": fig12,
    "fig13": fig13,
    "fig14": fig14,
    "fig15": fig15,
    "claims": claims,
}
