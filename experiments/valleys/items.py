"""The commands of paper 4's experiments, in the order in which `all` makes them."""

from __future__ import annotations

from collections.abc import Callable

from experiments.paper import Result
from experiments.valleys.assumptions import fig3, fig4
from experiments.valleys.averages import fig13, fig14
from experiments.valleys.claims import claims
from experiments.valleys.directions import fig2, fig12
from experiments.valleys.lines import fig8, fig10, table1
from experiments.valleys.projections import fig7, fig9
from experiments.valleys.settings import Lab
from experiments.valleys.theory import fig5, fig6, theorem1, theorem2, toy_item
from experiments.valleys.widths import fig11

ITEMS: dict[str, Callable[[Lab], Result]] = {
    "theorem1": theorem1,
    "theorem2": theorem2,
    "toy": toy_item,
    "fig5": fig5,
    "fig6": fig6,
    "fig2": fig2,
    "fig3": fig3,
    "fig4": fig4,
    "fig7": fig7,
    "fig8": fig8,
    "table1": table1,
    "fig9": fig9,
    "fig10": fig10,
    "fig11": fig11,
    "fig12": fig12,
    "fig13": fig13,
    "fig14": fig14,
    "claims": claims,
}
