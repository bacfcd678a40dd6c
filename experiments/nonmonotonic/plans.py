"""How paper 1's networks are trained and looked at: the fields of a preset."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How a task's networks are trained.

    Attributes:
        model: see `lrscape.models.create`.
        dataset: its own, see `DATASETS`.
        model_options: the model's own fields.
        examples: trained on; None is all.
        validation: of those left over, how many choose the tuned rate.
        test: test examples; None is all.
        batch_size: examples an update.
        epochs: passes over the training examples.
        seeds: networks that differ by their seed alone.
        start: the rate the nonmonotonic rules and the baselines start at.
        peak: the largest rate of the nonmonotonic rules, and full-batch descent's.
        rule: the one that is compared with the baselines.
        variance: of the Gaussian, see `Rule`; None: its start says how slow it is.
        rates: starts of the step rule that its tuned one is chosen from.
        milestones: of the step rule, fractions of the run.
        momentum: of SGD.
        weight_decay: of an L2 term on weights.
        dense_decay: of dense layers' weights instead; None is the same.
        bias_rate: how many times the rate biases take.
        augment: see `lrscape.data.AUGMENTATIONS`.
        normalize: see `lrscape.data.NORMALIZATIONS`.
        gradient_examples: of the full gradient after each epoch.
        looked_at: epochs whose weights are kept, beside the first and the last.
        keeps_peak: whether the weights at the peak and on the way there are kept.
        image_size: the side of a view, of data that is streamed; None: it is held in
            memory.
        crop: of data that is streamed, see `lrscape.data.open_stream`; None is its
            default.
        top5: whether labels beyond the five largest logits are counted too.
    """

    model: str
    dataset: str = "cifar10"
    model_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    examples: int | None = None
    validation: int = 0
    test: int | None = None
    batch_size: int = 128
    epochs: int
    seeds: int
    start: float
    peak: float
    rule: str = "gaussian"
    variance: float | None = None
    rates: tuple[float, ...] = ()
    milestones: tuple[float, ...]
    momentum: float = 0.9
    weight_decay: float = 0.0
    dense_decay: float | None = None
    bias_rate: float = 1.0
    augment: tuple[str, ...] = ()
    normalize: str = "standardize"
    gradient_examples: int = 0
    looked_at: tuple[int, ...] = ()
    keeps_peak: bool = True
    image_size: int | None = None
    crop: str | None = None
    top5: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Survey:
    """How the ground is looked at.

    Attributes:
        examples: training examples that losses are measured on.
        points: of each curve.
        directions: random ones a network.
        noise: the longest perturbation of an input, in units of normalised pixels.
        weights: the length of a raw perturbation of the weights.
        relative: of one that is normalised filter by filter.
        fooling: examples sets that fool, a direction each.
        curvature: examples of the Hessian.
    """

    examples: int
    points: int
    directions: int
    noise: float
    weights: float
    relative: float
    fooling: int
    curvature: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """Many short runs of the small model.

    Attributes:
        examples: trained on; None is the plan's.
        seeds: of each cell.
        totals: epochs, of figures 6 and 7; the paper's longest are table 1's 360.
        starts: rates at the start, of the slow start.
        peaks: largest rates, of figure 7; step's rates are tuned over them too.
        epochs: of the slow start.
        random: settings of figure 7 that are drawn.
    """

    examples: int | None
    seeds: int
    totals: tuple[int, ...]
    starts: tuple[float, ...]
    peaks: tuple[float, ...]
    epochs: int
    random: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """A preset.

    Attributes:
        plans: by task: small, large, nin (on MNIST), descent (the small model, by
            full-batch gradient descent), and those of tables 3 and 4.
        survey: how the ground is looked at.
        sweep: the short runs.
        ensemble: networks by each rule that ensembles are drawn from.
        draws: of Lemma 1.
    """

    plans: dict[str, Plan]
    survey: Survey
    sweep: Sweep
    ensemble: int
    draws: int
