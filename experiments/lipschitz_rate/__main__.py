"""Paper 5, "A novel adaptive learning rate scheduler": measured beside its numbers.

    python -m experiments.lipschitz_rate mnist --preset=quick
    python -m experiments.lipschitz_rate results
    python -m experiments.lipschitz_rate settings --preset=paper

Items: mnist (figures 1, 2), cifar10-fixed (figure 3), cifar10-adaptive (figures 4, 5,
beside a tuned constant rate), cifar100 (figures 6, 7), eq1 (is the last layer's
gradient the largest, and below the constants), eq9 (least squares, on the diabetes
data), eq15 (two classes, on the breast-cancer data), estimates (K_z for nothing beside
passes that measure it), stability (1/K beside 2/lambda_max), variants (with L2 and
momentum; the later text's momentum, RMSprop and Adam), claims (what all of it says of
the paper's claims), all.

Trains each network once, into one directory a preset; what is there is used again, and
what was stopped goes on. The preset quick takes a part of the examples, a few epochs,
and K_z from the updates' own forward passes; on MNIST with the constant that is a true
bound, since the paper's own rate, ten times as large, takes more epochs to settle
(--form=paper). Paper takes the text's settings, and where it is silent those of the
paper's code: K_z from a pass in inference mode each epoch, Keras' batch norm; authors
does as that code does throughout: time decay, the mean image subtracted, Keras' L2
term. Both take a GPU. Where CIFAR-100 is not prepared, quick trains on CIFAR-10, and on
digits where nothing is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
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
    NotNegative,
    Positive,
)
from experiments.lipschitz_rate.claims import claims
from experiments.lipschitz_rate.curves import (
    cifar10_adaptive,
    cifar10_fixed,
    cifar100,
    mnist,
)
from experiments.lipschitz_rate.estimates import estimates
from experiments.lipschitz_rate.lab import Lab
from experiments.lipschitz_rate.premise import eq1
from experiments.lipschitz_rate.presets import DATASETS, PRESETS, Plan
from experiments.lipschitz_rate.sources import SOURCES
from experiments.lipschitz_rate.stability import stability
from experiments.lipschitz_rate.tabular import eq9, eq15
from experiments.lipschitz_rate.variants import variants
from lrscape import console
from lrscape.errors import InputError
from lrscape.transforms.lipschitz import FORMS, NORMS

# Where K_z may come from.
FEEDS = ("free", "train", "inference")


# In the order in which `all` makes them.
ITEMS: dict[str, Callable[[Lab], Result]] = {
    "mnist": mnist,
    "cifar10-fixed": cifar10_fixed,
    "cifar10-adaptive": cifar10_adaptive,
    "cifar100": cifar100,
    "eq1": eq1,
    "eq9": eq9,
    "eq15": eq15,
    "estimates": estimates,
    "stability": stability,
    "variants": variants,
    "claims": claims,
}

# The tasks that an item looks at.
TASKS: dict[str, tuple[str, ...]] = {
    "mnist": ("mnist",),
    "cifar10-fixed": ("cifar10",),
    "cifar10-adaptive": ("cifar10",),
    "cifar100": ("cifar100",),
    "eq1": ("variants", "cifar10"),
    "eq9": (),
    "eq15": (),
    "estimates": ("variants", "cifar10"),
    "stability": ("variants", "cifar10"),
    "variants": ("variants",),
    "claims": ("mnist", "variants", "cifar10", "cifar100"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(PaperArguments):
    """Flags; None means "from the preset".

    Attributes:
        preset: quick, paper or authors.
        model: any of lrscape.models, or package.module:factory, called with
            num_classes=, instead of each task's own;
            it sows its last layer's inputs as penultimate.
        epochs: passes over the training examples, of all but eq9 and eq15.
        seeds: networks that differ by their seed alone.
        examples: trained on; 0: all of them.
        feed: where K_z comes from: free (the updates' own forward passes), or a pass
            at each epoch's start, in batch norm's mode train or inference.
        form: of the constant: paper, or bound, which it never exceeds.
        norm: what K_z is: frobenius, of a batch's activations, as in the paper's
            numbers; or max, the largest activation, as in its words.
        max_rate: a cap on rates that are made of a constant; default: 10, which is
            ours.
        batch_size: examples an update.
        weight_decay: lambda, of the constant and of the L2 term (in preset authors of
            the constant alone), in every task.
        rates: constant rates to choose among.
        dataset: instead of each task's own: mnist, cifar10, cifar100 or digits.
    """

    model: str | None = None
    epochs: Epochs | None = None
    feed: str | None = None
    form: str | None = None
    norm: str | None = None
    max_rate: Positive | None = None
    batch_size: Count | None = None
    weight_decay: NotNegative | None = None
    rates: tuple[Positive, ...] | None = None


def lab_of(arguments: Arguments) -> Lab:
    """What was asked for, with the preset's values.

    Raises:
        InputError: an unknown name, or a number that cannot work.
    """
    least = {"epochs": 1, "seeds": 1, "examples": 0}
    check_flags(
        arguments, ITEMS, PRESETS, least, dataset=DATASETS, feed=FEEDS, form=FORMS,
        norm=NORMS,
    )  # fmt: skip
    if arguments.rates == ():
        raise InputError("rates: name at least one")
    if arguments.model is not None:
        stands_in("model", arguments.model)
    plans = {}
    for task, plan in PRESETS[arguments.preset].items():
        asked = changes(
            arguments, "epochs", "seeds", "feed", "form", "norm", "max_rate",
            "batch_size", "weight_decay", "rates",
            batch_size=arguments.batch_size or plan.batch_size,
        )  # fmt: skip
        if arguments.model is not None:
            asked |= {"model": arguments.model, "model_options": {}}
        plans[task] = dataclasses.replace(plan, **asked)
    root = arguments.root("lipschitz_rate")
    return Lab(arguments.preset, plans, root, arguments.data_dir, arguments.dataset)


def datasets_of(lab: Lab, item: str) -> dict[str, str]:
    """An item's own data sets, each with the one that is taken for it."""
    return lab.datasets(TASKS[item])


def about(lab: Lab, item: str) -> dict[str, Any]:
    """An item's settings, as JSON holds them."""
    return {"plans": {task: lab.about(task) for task in TASKS[item]}}


def plans_of(lab: Lab) -> dict[str, Plan]:
    """What holds the settings, by name."""
    return lab.plans


PAPER = Paper(
    "lipschitz_rate", __doc__, Arguments, ITEMS, lab_of, datasets_of, about,
    plans_of=plans_of, sources=SOURCES,
)  # fmt: skip
main = PAPER.main

if __name__ == "__main__":
    console.run(main)
