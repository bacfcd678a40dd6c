"""Paper 4, "Asymmetric Valleys": measured beside its numbers.

    python -m experiments.asymmetric_valleys fig2 --preset=quick
    python -m experiments.asymmetric_valleys results
    python -m experiments.asymmetric_valleys settings --preset=paper

Items: theorem1, theorem2, toy, fig5 and fig6 (no networks: seconds); fig2 (asymmetric
directions, and what is not merely the direction of ones), fig3 (test loss, shifted),
fig4 (neighbours), fig7 (projected losses, epoch by epoch), fig8 and table1 (weight
averaging and SGD after it), fig9 (on which side the average lies), fig10 (a small batch
after a large one), fig11 (widths), fig12 (batch norm's directions), fig13 (its averages
alone), fig14 (networks with and without it), claims, all. Of the appendix: appendix_c
(fig3 of other networks), fig25 to fig27 (fig8 of others), fig28 to fig30 (fig9 of
others: asymmetric directions), appendix_h (widths at SWA's solution and at SGD's after
it), appendix_i (fig12 of others); all leaves out those whose networks are the text's.

Trains each network once, into one directory a preset; what is there is used again, and
what was stopped goes on. The preset quick trains an 8-layer ResNet on a part of the
images for some epochs: within the hour on two CPU cores. Paper takes the text's
networks and settings, as far as they are known; authors draws lines as the paper's code
does, and keeps only those epochs of SGD after SWA that bear the paper out. Both take a
GPU. Where CIFAR-100 is not prepared, quick trains on CIFAR-10, and on digits where
nothing is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from experiments.asymmetric_valleys.assumptions import fig3, fig4
from experiments.asymmetric_valleys.averages import fig13, fig14
from experiments.asymmetric_valleys.claims import claims
from experiments.asymmetric_valleys.directions import fig2, fig12
from experiments.asymmetric_valleys.lab import Lab, check
from experiments.asymmetric_valleys.lines import fig8, fig10, table1
from experiments.asymmetric_valleys.presets import APPENDIX, DATASETS, PRESETS
from experiments.asymmetric_valleys.projections import fig7, fig9
from experiments.asymmetric_valleys.sources import SOURCES, plans_of
from experiments.asymmetric_valleys.theory import (
    fig5,
    fig6,
    theorem1,
    theorem2,
    toy_item,
)
from experiments.asymmetric_valleys.widths import appendix_h, fig11
from experiments.harness.own_models import stands_in
from experiments.harness.paper import (
    ALL,
    Paper,
    PaperArguments,
    Result,
    changes,
    check_flags,
)
from experiments.harness.values import (
    Count,
    Epochs,
    Positive,
)
from lrscape import console


def of_others(make_item: Callable[..., Result], item: str, title: str) -> Any:
    """A figure of the text, made of the networks of one of the appendix."""

    def made(lab: Lab) -> Result:
        return make_item(lab, item)

    made.__doc__ = title
    return made


# In the order in which `all` makes them.
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
    "appendix_c": of_others(fig3, "appendix_c", "Appendix C: figure 3 of others."),
    **{
        f"fig{n}": of_others(fig8, f"fig{n}", f"Figure {n}: figure 8 of another.")
        for n in (25, 26, 27)
    },
    **{
        f"fig{n}": of_others(fig9, f"fig{n}", f"Figure {n}: figure 9 of another.")
        for n in (28, 29, 30)
    },
    "appendix_h": appendix_h,
    "appendix_i": of_others(fig12, "appendix_i", "Appendix I: figure 12 of others."),
    "claims": claims,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(PaperArguments):
    """Flags; None means "from the preset".

    Attributes:
        preset: quick, paper or authors.
        seeds: networks that differ by their seed alone.
        examples: trained on; 0: all of them.
        sgd_epochs: of SGD's solution.
        swa_epochs: of the run whose weights are averaged.
        swa_from: the epoch after which averaging begins.
        rate: the first, of SGD and SWA.
        swa_rate: while weights are averaged.
        after_epochs: of SGD from the averaged weights.
        after_rate: its rate.
        small_batch: that of the smaller batch's solution.
        small_epochs: with it.
        small_rate: the rate then, with either batch.
        r: the outer distance of Definition 1.
        zeta: its inner one: what is nearer does not count.
        models: any of lrscape.models, or package.module:factory, instead of each
            figure's own network; figure 14 keeps its own.
        dataset: instead of each figure's own: cifar10, cifar100 or digits.
    """

    sgd_epochs: Epochs | None = None
    swa_epochs: Epochs | None = None
    swa_from: Epochs | None = None
    rate: Positive | None = None
    swa_rate: Positive | None = None
    after_epochs: Epochs | None = None
    after_rate: Positive | None = None
    small_batch: Count | None = None
    small_epochs: Epochs | None = None
    small_rate: Positive | None = None
    r: Positive | None = None
    zeta: Positive | None = None
    models: tuple[str, ...] | None = None


def lab_of(arguments: Arguments) -> Lab:
    """What was asked for, with the preset's values.

    Raises:
        InputError: an unknown name, or a number that cannot work.
    """
    least = {"seeds": 1, "examples": 0, "sgd_epochs": 1, "swa_epochs": 1, "swa_from": 1}
    check_flags(arguments, ITEMS, PRESETS, least, dataset=DATASETS)
    for name in arguments.models or ():
        stands_in("models", name)
    settings = PRESETS[arguments.preset]
    asked = changes(
        arguments, "seeds", "sgd_epochs", "swa_epochs", "swa_from", "rate", "swa_rate",
        "after_epochs", "after_rate", "small_batch", "small_epochs", "small_rate",
    )  # fmt: skip
    plan = dataclasses.replace(settings.plan, **asked)
    survey = settings.survey.reaching(arguments.r, arguments.zeta)
    settings = dataclasses.replace(settings, plan=plan, survey=survey)
    check(settings)
    root = arguments.root("asymmetric_valleys")
    return Lab(
        arguments.preset, settings, root, arguments.data_dir, arguments.dataset,
        arguments.models or (),
    )  # fmt: skip


def datasets_of(lab: Lab, item: str) -> dict[str, str]:
    """An item's own data sets, each with the one that is taken for it."""
    return lab.datasets(item)


def about(lab: Lab, item: str) -> dict[str, Any]:
    """An item's settings, as JSON holds them."""
    return lab.about()


def items_of(arguments: Arguments, lab: Lab) -> dict[str, Callable[[Lab], Result]]:
    """The items; of all of them those of the appendices that show something else."""
    if arguments.item != ALL:
        return ITEMS
    return {
        item: make_item
        for item, make_item in ITEMS.items()
        if item not in APPENDIX or lab.pairs(item) != lab.pairs(APPENDIX[item])
    }


PAPER = Paper(
    "asymmetric_valleys",
    __doc__,
    Arguments,
    ITEMS,
    lab_of,
    datasets_of,
    about,
    items_of,
    plans_of=plans_of,
    sources=SOURCES,
)
main = PAPER.main

if __name__ == "__main__":
    console.run(main)
