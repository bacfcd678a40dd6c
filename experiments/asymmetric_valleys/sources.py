"""Where each setting of paper 4's presets comes from.

Of the copy of the text that was followed, the formulas are lost, and most numbers with
them: those of Definition 1 in every figure, of neighbours and of epochs.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from experiments.asymmetric_valleys.lab import Lab
from experiments.harness.sources import Source, code, ours

# Sec. 6.1 leaves SWA's settings to the paper that has introduced it.
_SWA = code("as Izmailov et al. (2018)")
_ALL = Source("-", "the authors' code: all")
_LOST = "the number is lost in our copy of the text"
_FINE = "so fine that curves are smooth"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choices:
    """What a preset decides besides; see `presets.Settings`."""

    models: tuple[str, ...]
    authors_rule: bool
    augmented: bool


def plans_of(lab: Lab) -> dict[str, Any]:
    """The dataclasses of what was asked for, as `SOURCES` calls them."""
    settings = lab.settings
    return {
        "plan": settings.plan,
        "survey": settings.survey,
        "theory": settings.theory,
        "choices": Choices(
            models=lab.models or settings.models,
            authors_rule=settings.authors_rule,
            augmented=settings.augmented,
        ),
    }


SOURCES: dict[str, Source] = {
    # How networks are trained.
    "plan.examples": _ALL,
    "plan.test": _ALL,
    "plan.seeds": Source("5", "Sec. 3.2"),
    "plan.augment": code(),
    "plan.batch_size": Source("128", "Sec. 6.2"),
    "plan.small_batch": Source("32", "Sec. 6.2"),
    "plan.rate": _SWA,
    "plan.momentum": _SWA,
    "plan.weight_decay": _SWA,
    "plan.sgd_epochs": Source("200", "Sec. 6.2"),
    "plan.sgd_last": code(),
    "plan.swa_epochs": _SWA,
    "plan.swa_from": _SWA,
    "plan.swa_rate": _SWA,
    "plan.after_epochs": code(),
    "plan.after_rate": code("small"),
    "plan.after_every": ours("the authors' code looks at each; a fifth of the space"),
    "plan.small_epochs": Source("80", "Sec. 6.2"),
    "plan.small_rate": ours("Sec. 6.2 gives none"),
    "plan.eight_rate": ours("Sec. 7 gives none; half of the others' first"),
    "plan.draws": ours("one alone may be lucky", "one random selection"),
    "plan.measured_every": ours("the authors' command does each; a fifth of the time"),
    "plan.calibration": _ALL,
    # How the ground is looked at.
    "survey.examples": ours("of both sets; the authors' code takes all"),
    "survey.sloped": ours("as many as for losses"),
    "survey.batch_size": ours("fewer calls; the authors' code: 128"),
    "survey.r": ours(_LOST),
    "survey.zeta": ours("lost in our copy of the text; a tenth of r"),
    "survey.zetas": ours("what is judged by one should not hang on it"),
    "survey.c": ours(_LOST),
    "survey.minimum": ours(
        "how near to 0 the slope has to be", "all solutions count, Sec. 6"
    ),
    "survey.slopes": ours("close enough to miss no change of slope"),
    "survey.curve": ours(_FINE),
    "survey.tries": ours("enough for a share", "random ones, Sec. 3.2"),
    "survey.shifted": ours("one direction alone may be lucky", "one, Sec. 4.2"),
    "survey.shift_points": ours(_FINE),
    "survey.radii": ours("Sec. 4.2 gives none; three, a factor of three apart"),
    "survey.neighbors": ours(_LOST),
    "survey.line": ours("steps of a twentieth; the authors' code: 201, of a fortieth"),
    "survey.ends": ours("one way beyond either end; the authors' code: -2 to 3"),
    "survey.sides": ours("enough for a share", "many, Sec. 6.1"),
    "survey.widths": ours("no number is given", "many, Sec. 6.3"),
    "survey.width": ours("no distances are given; filters: up to their own norm"),
    "survey.width_points": ours(_FINE),
    "survey.norms": ours("one direction alone may be lucky", "one of each, Sec. 7"),
    "survey.epochs": ours(_LOST),
    # How much of the theorems is tried.
    "theory.runs": ours("narrow intervals", "an expectation, Theorem 2"),
    "theory.rounds": ours("some, each on its own", "any round, Theorem 2"),
    "theory.landscapes": ours("narrow intervals", "any, Theorem 1"),
    "theory.toys": code(),
    "theory.fresh": ours("the authors' code has no fresh ones"),
    # What else a preset decides.
    "choices.models": Source(
        "ResNet-110, ResNet-164, DenseNet-100; 8 layers in Fig. 14",
        "Sec. 3.2 and 7: each's own",
    ),
    "choices.authors_rule": ours(
        "the least training loss; the authors' code forces what is to be shown",
        "no rule, Sec. 6.1",
    ),
    "choices.augmented": ours(
        "images as they are; the authors' code takes augmented ones"
    ),
}
