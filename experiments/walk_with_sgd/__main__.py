"""Paper 3, "A Walk with SGD": its tables and figures, measured beside its numbers.

    python -m experiments.walk_with_sgd table1 --preset=quick
    python -m experiments.walk_with_sgd results
    python -m experiments.walk_with_sgd settings --preset=paper

Items: fig1 (the ground under full-batch gradient descent; figures 9, 17, 20), fig2
(under SGD; 10 to 16, 18, 19, 21), table1 (barriers crossed in an epoch), fig8 (the
same, epoch by epoch: 1 to 40 of VGG-11), table2 (height above the valley's floor), fig3
(the Hessian's spectral norm; 7), fig4 (cosines over batch sizes and rates; 22 to 24),
fig5 (isotropic noise; 25, 26), fig6 (cyclical, trapezoidal, stepwise rates; 27), fig28
(a quadratic), eq3 (Hessian and second moment), sec6 (barriers at a tenth of the rate),
claims (what all of it says of the paper's claims), all.

Trains each network once, into one directory a preset, and walks over the epochs that
were asked for; what is there is used again, and what was stopped goes on. MLP on MNIST,
VGG-11 and ResNet-56 on CIFAR-10, digits where these are not prepared; Tiny ImageNet by
--dataset=tiny_imagenet; other networks by --models, on CIFAR-10 unless --dataset says
otherwise. Weights are drawn as in the paper's code, since its text does not say. The
preset quick walks over a part of an epoch, on a part of the examples; paper over whole
epochs on all examples: 11 forward passes over the training set for each of 450 updates
an epoch, which for VGG-11 and ResNet-56 takes a GPU; authors does as the paper's code
does where that differs from its text.
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
    check_flags,
    flags_given,
)
from experiments.harness.values import (
    Count,
    Epochs,
    NotNegative,
    Positive,
    Whole,
)
from experiments.walk_with_sgd.angles import fig4
from experiments.walk_with_sgd.claims import claims
from experiments.walk_with_sgd.curvature import fig3
from experiments.walk_with_sgd.identity import eq3
from experiments.walk_with_sgd.lab import Lab, plan_of
from experiments.walk_with_sgd.noise import fig5
from experiments.walk_with_sgd.presets import DATASETS, PRESETS, Training
from experiments.walk_with_sgd.quadratic import fig28
from experiments.walk_with_sgd.rates import fig6
from experiments.walk_with_sgd.sources import SOURCES
from experiments.walk_with_sgd.tables import fig8, sec6, table1, table2
from experiments.walk_with_sgd.trajectories import fig1, fig2
from lrscape import console
from lrscape.errors import InputError
from lrscape.models import fields_of
from lrscape.models.layers import INITS

# Flags that take several values.
_SEVERAL = ("epochs", "batch_sizes", "rates", "noise_shares", "peaks")

# In the order in which `all` makes them.
ITEMS: dict[str, Callable[[Lab], Result]] = {
    "fig1": fig1,
    "fig2": fig2,
    "table1": table1,
    "fig8": fig8,
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(PaperArguments):
    """Flags; None means "from the preset".

    Attributes:
        preset: quick, paper or authors.
        models: any of lrscape.models, or package.module:factory, called with
            num_classes=; default: mlp, vgg11 and resnet56, with the preset quick mlp
            alone for what takes long.
        epochs: those that are walked over, counted from 1, by tables and figures.
        updates: how many of each epoch; 0: all of them.
        trained: epochs of figures 3 and 6.
        seeds: networks that differ by their seed alone.
        examples: size of the sample that losses are measured on; 0: all of them.
        rate: of training and of descent, instead of the paper's 0.1 (and 0.3 of
            ResNet-56 in table2 and fig3); half of it is table2's smaller one.
        batch_size: examples an update; default: 100.
        weight_decay: of an L2 term on all parameters; default: 1e-4.
        init: how weights are drawn: fan_out (as the paper's code: He's by the fan-out
            for convolutions, PyTorch's default for dense layers; the default) or fan_in
            (He's by the fan-in everywhere).
        batch_sizes: of fig4.
        rates: of fig4.
        noise_shares: of the largest variance of the gradient at the start, which are
            the noises of fig5.
        peaks: largest rates that fig6 tries first, of each schedule.
        dataset: instead of each network's own: mnist, cifar10, digits or
            tiny_imagenet.
    """

    models: tuple[str, ...] | None = None
    epochs: tuple[Epochs, ...] | None = None
    updates: Whole | None = None
    trained: Epochs | None = None
    rate: Positive | None = None
    batch_size: Count | None = None
    weight_decay: NotNegative | None = None
    init: str | None = None
    batch_sizes: tuple[Count, ...] | None = None
    rates: tuple[Positive, ...] | None = None
    noise_shares: tuple[Positive, ...] | None = None
    peaks: tuple[Positive, ...] | None = None


def lab_of(arguments: Arguments) -> Lab:
    """What was asked for, with the preset's values.

    Raises:
        InputError: an unknown name, or a number that cannot work.
    """
    least = {"updates": 0, "examples": 0, "seeds": 1, "trained": 1}
    check_flags(arguments, ITEMS, PRESETS, least, init=INITS)
    if arguments.models is not None and not arguments.models:
        raise InputError(f"models: name at least one of {', '.join(DATASETS)}")
    for model in arguments.models or ():
        stands_in("models", model)
        if arguments.init and "weight_init" not in fields_of(model):
            raise InputError(
                f"init={arguments.init!r}: models={model!r} draws its weights in one "
                "way only; leave it out"
            )
    for field in _SEVERAL:
        if getattr(arguments, field) == ():
            raise InputError(f"{field}: name at least one")
    if arguments.examples == 1:
        raise InputError(
            "examples=1: losses are means with standard errors, and curvatures are "
            "compared over examples; take two or more, or 0 for all"
        )
    plans = {}
    for model in dict.fromkeys([*PRESETS[arguments.preset], *(arguments.models or ())]):
        plan, changes = plan_of(arguments.preset, model), _changes(arguments)
        if arguments.updates is not None:
            changes["updates"] = arguments.updates or None
        if arguments.examples is not None:
            changes["sample"] = dataclasses.replace(
                plan.sample, examples=arguments.examples or None
            )
        plans[model] = dataclasses.replace(plan, **changes)
    root = arguments.root("walk_with_sgd")
    lab = Lab(
        arguments.preset, arguments.models or (), plans, root, arguments.data_dir,
        arguments.dataset, arguments.rate,
    )  # fmt: skip
    for model in arguments.models or DATASETS:
        dataset = lab.dataset_of(model)
        most, _ = lab.sizes_of(dataset)
        if arguments.examples is not None and arguments.examples > most:
            raise InputError(
                f"examples={arguments.examples}: dataset={dataset!r} has {most} to "
                "train on; 0 takes them all"
            )
    return lab


def _changes(arguments: Arguments) -> dict[str, Any]:
    """What flags change of every network's plan."""
    found = flags_given(
        arguments, "seeds", "trained", "batch_size", "weight_decay", "batch_sizes",
        "rates", "peaks",
    )  # fmt: skip
    if arguments.epochs is not None:
        found["epochs"] = tuple(sorted(set(arguments.epochs)))
        found |= {"drawn": (), "counted": ()}
    if arguments.noise_shares is not None:
        found["shares"] = tuple(sorted(set(arguments.noise_shares), reverse=True))
    if arguments.init is not None:
        found["weight_init"] = arguments.init
    return found


def datasets_of(lab: Lab, item: str) -> dict[str, str]:
    """An item's own data sets, each with the one that is taken for it."""
    return lab.datasets(item)


def about(lab: Lab, item: str) -> dict[str, Any]:
    """An item's settings, as JSON holds them."""
    return {"plans": {model: lab.about(model) for model in lab.models_of(item)}}


def plans_of(lab: Lab) -> dict[str, Any]:
    """What holds the settings, by name."""
    training = Training(
        datasets={model: lab.dataset_of(model) for model in DATASETS},
        rate=lab.rates("vgg11")[0],
        rate_table2=lab.rates("resnet56", "table2")[0],
        rate_fig3=lab.rates("resnet56", "fig3")[0],
    )
    return {**lab.plans, "training": training}


PAPER = Paper(
    "walk_with_sgd", __doc__, Arguments, ITEMS, lab_of, datasets_of, about,
    plans_of=plans_of, sources=SOURCES,
)  # fmt: skip
main = PAPER.main

if __name__ == "__main__":
    console.run(main)
