"""Paper 1, "Towards Flatter Loss Surface": measured beside its numbers.

    python -m experiments.nonmonotonic fig5 --preset=quick
    python -m experiments.nonmonotonic results
    python -m experiments.nonmonotonic settings --preset=paper

Items: fig3 (the loss towards the peak's weights, in noise, towards test images), fig4
(perturbed weights), fig5 (rate, gradient and errors over epochs), fig6 (Gaussian and
Laplacian, continuous and per epoch), fig7 (largest rates and epochs), slow-start,
table1 (ensembles), table2 (MNIST, NIN), table3 (CIFAR, deep networks), table4
(ImageNet), eq11 (the quadratic around the last weights, and descent on it), eq13 (the
limit of stability), eq15 (the bound on the largest gradient), lemma1, claims (what all
of it says of the paper's claims), all.

Trains each network once, into one directory a preset; what is there is used again, and
what was stopped goes on. The preset quick takes a part of CIFAR-10 and a few epochs on
two CPU cores, digits where nothing is prepared; paper takes the published settings, and
a GPU.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from experiments.harness.own_models import stands_in
from experiments.harness.paper import (
    Paper,
    PaperArguments,
    Result,
    changes,
    check_flags,
    flags_given,
)
from experiments.harness.values import (
    Count,
    Epochs,
    Fraction,
    Networks,
    NotNegative,
    Positive,
)
from experiments.nonmonotonic import deep
from experiments.nonmonotonic.bounds import eq13, eq15, lemma1
from experiments.nonmonotonic.claims import claims
from experiments.nonmonotonic.curves import fig5
from experiments.nonmonotonic.deep import TABLES
from experiments.nonmonotonic.lab import Lab
from experiments.nonmonotonic.lines import fig3
from experiments.nonmonotonic.presets import DATASETS, INSTEAD, PRESETS
from experiments.nonmonotonic.quadratic import eq11
from experiments.nonmonotonic.scatter import fig4
from experiments.nonmonotonic.sources import SOURCES, plans_of
from experiments.nonmonotonic.sweeps import fig6, fig7, slow_start
from experiments.nonmonotonic.tables import table1, table2
from lrscape import console
from lrscape.errors import InputError, unknown_name

# In the order in which `all` makes them.
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
    "eq11": eq11,
    "eq13": eq13,
    "eq15": eq15,
    "lemma1": lemma1,
    "claims": claims,
}

# The tasks that an item looks at.
TASKS: dict[str, tuple[str, ...]] = {
    "fig5": ("small", "large"),
    "table2": ("nin",),
    "eq11": ("descent",),
    "eq13": ("small", "descent"),
    "claims": ("small", "large", "descent"),
    **{item: tuple(row.task for row in rows) for item, rows in deep.TABLES.items()},
}


# Flags that are fields of a plan.
KNOBS = (
    "rule", "start", "peak", "variance", "momentum", "weight_decay", "batch_size",
)  # fmt: skip


def tasks_of(item: str) -> tuple[str, ...]:
    """The tasks that an item looks at; most look at the small model alone."""
    return TASKS.get(item, ("small",))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(PaperArguments):
    """Flags; None means "from the preset".

    Attributes:
        preset: quick or paper.
        model: any of lrscape.models, or package.module:factory, called with
            num_classes=, instead of each task's own.
        epochs: passes over the training examples, of all networks but figures 6's and
            7's and the slow start's.
        seeds: networks that differ by their seed alone.
        examples: trained on, but by figures 6 and 7 and the slow start; 0: all of
            them.
        ensemble: networks by each rule that table 1 draws from.
        dataset: instead of each task's own: cifar10, cifar100, mnist, imagenet2012,
            folder (streamed images, of table 4) or digits.
        rows: of tables 3 and 4, such as resnet110_cifar10; default: all of the preset.
        rule: in the Gaussian's place: gaussian, laplacian or constant (at its peak);
            not of figures 6 and 7 and the slow start, which are about the Gaussian.
        start: the rate at the first update, of all rules; likewise those below, of all
            networks but full-batch descent's.
        peak: the Gaussian's largest rate.
        variance: the Gaussian's sigma squared; it has no slow start then.
        momentum: of SGD.
        weight_decay: of an L2 term on weights, a dense layer's own not among them.
        batch_size: examples an update.
    """

    model: str | None = None
    epochs: Epochs | None = None
    ensemble: Networks | None = None
    rows: tuple[str, ...] | None = None
    rule: str | None = None
    start: Positive | None = None
    peak: Positive | None = None
    variance: Positive | None = None
    momentum: Fraction | None = None
    weight_decay: NotNegative | None = None
    batch_size: Count | None = None


def lab_of(arguments: Arguments) -> Lab:
    """What was asked for, with the preset's values.

    Raises:
        InputError: an unknown name, or a number that cannot work.
    """
    least = {"epochs": 1, "seeds": 1, "examples": 0, "ensemble": 1}
    check_flags(arguments, ITEMS, PRESETS, least, dataset=DATASETS, rule=INSTEAD)
    settings = PRESETS[arguments.preset]
    looked_at = list(ITEMS) if arguments.item == "all" else [arguments.item]
    about_it = {"fig6", "fig7", "slow-start", "claims"}.intersection(looked_at)
    if arguments.rule not in (None, "gaussian") and about_it:
        raise InputError(
            f"rule={arguments.rule!r}: {', '.join(sorted(about_it))} would be about "
            "the Gaussian all the same; leave it out, or name another item"
        )
    touched = {task for item in looked_at for task in tasks_of(item)}
    if arguments.model is not None:
        stands_in("model", arguments.model)
    plans = {}
    for task, plan in settings.plans.items():
        asked = changes(arguments, "epochs", "seeds")
        whole = task == "descent"  # all examples are one batch
        if not whole:
            asked |= flags_given(arguments, *KNOBS)
        if arguments.model is not None:
            asked |= {"model": arguments.model, "model_options": {}}
        if not whole and arguments.start is not None and arguments.variance is None:
            # Else its start, which only the step rule would follow, were of no effect.
            asked["variance"] = None
        batch_size = asked.get("batch_size", plan.batch_size)
        found = dataclasses.replace(plan, **asked)
        if task in touched and found.variance is None and found.start > found.peak:
            raise InputError(
                f"start={found.start:g} is above peak={found.peak:g} ({task}): set "
                "both, or a smaller start"
            )
        if (
            task in touched
            and arguments.examples is not None
            and not (
                arguments.examples >= batch_size or whole or not arguments.examples
            )
        ):
            raise InputError(
                f"examples={arguments.examples} must be at least one batch, "
                f"{batch_size} of {task}, or 0 for all"
            )
        plans[task] = found
    sweep = settings.sweep
    if arguments.seeds is not None:
        sweep = dataclasses.replace(sweep, seeds=arguments.seeds)
    settings = dataclasses.replace(
        settings,
        plans=plans,
        sweep=sweep,
        ensemble=arguments.ensemble or settings.ensemble,
    )
    rows = arguments.rows or ()
    known = [row.task for table in TABLES.values() for row in table]
    for row in rows:
        if row not in known:
            raise unknown_name("rows", row, known)
        if row not in settings.plans:
            raise InputError(
                f"rows={row!r} is not in preset={arguments.preset!r}, which has "
                f"{', '.join(name for name in known if name in settings.plans)}"
            )
    root = arguments.root("nonmonotonic")
    return Lab(
        arguments.preset, settings, root, arguments.data_dir, arguments.dataset, rows
    )


def datasets_of(lab: Lab, item: str) -> dict[str, str]:
    """An item's own data sets, each with the one that is taken for it."""
    tasks = tasks_of(item)
    if lab.rows and item in TABLES:
        tasks = tuple(task for task in tasks if task in lab.rows)
    return lab.datasets(tasks)


def about(lab: Lab, item: str) -> dict[str, Any]:
    """An item's settings, as JSON holds them."""
    return {
        "plans": {
            task: lab.about(task) for task in tasks_of(item) if task in lab.plans
        },
        "survey": dataclasses.asdict(lab.settings.survey),
        "sweep": dataclasses.asdict(lab.settings.sweep),
        "ensemble": lab.settings.ensemble,
        "draws": lab.settings.draws,
    }


def items_of(arguments: Arguments, lab: Lab) -> dict[str, Callable[[Lab], Result]]:
    """The items, with a note where another rule stands in for the Gaussian."""
    del lab

    def followed(item: str) -> Callable[[Lab], Result]:
        @functools.wraps(ITEMS[item])
        def made(lab: Lab) -> Result:
            found = ITEMS[item](lab)
            if arguments.rule not in (None, "gaussian"):
                found.notes.insert(0, f"Gaussian: here the rule {arguments.rule}")
            return found

        return made

    return {item: followed(item) for item in ITEMS}


PAPER = Paper(
    "nonmonotonic", __doc__, Arguments, ITEMS, lab_of, datasets_of, about, items_of,
    plans_of=plans_of, sources=SOURCES,
)  # fmt: skip
main = PAPER.main

if __name__ == "__main__":
    console.run(main)
