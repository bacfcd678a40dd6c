"""Paper 2, "An Empirical Analysis of Deep Network Loss Surfaces".

    python -m experiments.loss_surfaces table1 --preset=quick
    python -m experiments.loss_surfaces results
    python -m experiments.loss_surfaces settings --preset=paper

Items: table1 (every two optimizers: surfaces, functions, barriers), fig2, fig3
(surfaces between four networks), fig4 (accuracies), fig5, fig6 (losses around minima),
fig7, fig12 to fig15 (one optimizer after another), table2, fig8 (without batch norm),
fig9 (Runge-Kutta), table3 (its coefficients, and the order of its error), fig10 (beyond
the minima), fig11 (extreme starts), claims (what all of it says of the paper's claims),
all.

Trains each network once, into one directory a preset; what is there is used again, and
what was stopped goes on. All optimizers share a seed's start and its order of the
examples. The preset quick takes a small dense network and a part of MNIST on two CPU
cores, digits where nothing is prepared; with --model=vgg or nin a network of a quarter
of the paper's channels and a part of CIFAR-10, by two optimizers. Paper takes the
paper's NIN and VGG, and a GPU.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from experiments.harness.own_models import stands_in
from experiments.harness.paper import (
    Paper,
    PaperArguments,
    Result,
    changes,
    check_flags,
)
from experiments.harness.values import (
    Count,
    Epochs,
    Grid,
    Networks,
)
from experiments.loss_surfaces.around import fig4, fig5, fig6, fig8, fig10
from experiments.loss_surfaces.claims import claims
from experiments.loss_surfaces.extreme import fig11
from experiments.loss_surfaces.integrators import fig9, table3
from experiments.loss_surfaces.lab import Lab
from experiments.loss_surfaces.methods import NAMES
from experiments.loss_surfaces.pairs import table1
from experiments.loss_surfaces.presets import DATASETS, PRESETS, RATES
from experiments.loss_surfaces.sources import SOURCES, plans_of
from experiments.loss_surfaces.surfaces import fig2, fig3, table2
from experiments.loss_surfaces.switching import fig7, fig12, fig13, fig14, fig15
from lrscape import checks, console
from lrscape.errors import InputError, unknown_name

# In the order in which `all` makes them.
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(PaperArguments):
    """Flags; None means "from the preset".

    Attributes:
        preset: quick or paper.
        model: mlp, nin or vgg, another of lrscape.models, or package.module:factory,
            called with num_classes=, that is trained as the preset's first; default:
            mlp of quick, of paper each item's own.
        optimizers: of table 1 and what follows from it.
        epochs: passes over the training examples.
        seeds: starts; all optimizers share each.
        examples: trained on; 0: all of them.
        grid: values a side of a surface.
        rates: of optimizers, those to choose among, such as sgd=0.1,0.05 adam=0.001.
        batch_size: examples an update.
        panel_seeds: starts of each panel of figures 12 to 15.
        dataset: instead of the plan's: mnist, cifar10, cifar100 or digits.
    """

    model: str | None = None
    optimizers: tuple[str, ...] | None = None
    epochs: Epochs | None = None
    grid: Grid | None = None
    rates: tuple[str, ...] | None = None
    batch_size: Count | None = None
    panel_seeds: Networks | None = None


def rates_of(given: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """The rates of optimizers that a command line names.

    Raises:
        InputError: an unknown optimizer, one that is named twice, or a rate that
            cannot work.

    Example:
        >>> rates_of(['sgd=0.1,0.05', 'adam=0.001'])
        {'sgd': (0.1, 0.05), 'adam': (0.001,)}
    """
    found: dict[str, tuple[float, ...]] = {}
    for one in given:
        name, _, values = one.partition("=")
        if name not in RATES:
            raise unknown_name("rates", name, RATES)
        if name in found:
            raise InputError(f"rates={one!r} names {name} again")
        try:
            rates = tuple(float(value) for value in values.split(","))
        except ValueError as error:
            raise InputError(
                f"rates={one!r} must be an optimizer and its rates, such as "
                f"{name}=0.1,0.05"
            ) from error
        found[name] = tuple(checks.positive("rates", rate) for rate in rates)
    return found


def lab_of(arguments: Arguments) -> Lab:
    """What was asked for, with the preset's values.

    Raises:
        InputError: an unknown name, or a number that cannot work.
    """
    # A switch after a quarter of the run needs four epochs.
    least = {"epochs": 4, "seeds": 1, "examples": 0, "grid": 3}
    check_flags(arguments, ITEMS, PRESETS, least, dataset=DATASETS)
    for name in arguments.optimizers or ():
        if name not in NAMES:
            raise unknown_name("optimizers", name, NAMES)
    if len(set(arguments.optimizers or ())) < len(arguments.optimizers or ()):
        raise InputError(f"optimizers={' '.join(arguments.optimizers or ())!r} repeats")
    chosen = rates_of(arguments.rates or ())
    plans = {}
    preset = dict(PRESETS[arguments.preset])
    if arguments.model is not None and arguments.model not in preset:
        first = next(iter(preset.values()))
        model = stands_in("model", arguments.model)
        preset[model] = dataclasses.replace(first, model=model, options={}, plain={})
    for model, plan in preset.items():
        asked = changes(
            arguments,
            "epochs",
            "seeds",
            "optimizers",
            "grid",
            "batch_size",
            "panel_seeds",
            batch_size=arguments.batch_size or plan.batch_size,
        )
        rates = {**plan.rates, **chosen}
        plans[model] = dataclasses.replace(plan, **asked, rates=rates)
    root = arguments.root("loss_surfaces")
    lab = Lab(
        arguments.preset, arguments.model, plans, root, arguments.data_dir,
        arguments.dataset,
    )  # fmt: skip
    return lab.of("nin") if arguments.item == "claims" else lab


def datasets_of(lab: Lab, item: str) -> dict[str, str]:
    """An item's own data sets, each with the one that is taken for it."""
    del item  # all are of one
    return lab.datasets()


def about(lab: Lab, item: str) -> dict[str, Any]:
    """An item's settings, as JSON holds them."""
    return {"plan": lab.about()}


PAPER = Paper(
    "loss_surfaces", __doc__, Arguments, ITEMS, lab_of, datasets_of, about,
    plans_of=plans_of, sources=SOURCES,
)  # fmt: skip
main = PAPER.main

if __name__ == "__main__":
    console.run(main)
