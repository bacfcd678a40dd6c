"""Presets of paper 4's experiments."""

from __future__ import annotations

import dataclasses

import numpy as np

from lrscape.errors import InputError
from lrscape.landscape.asymmetry import both_sides

DATASETS = ("cifar10", "cifar100", "digits")
STAND_INS = {"cifar100": ("cifar10",)}

# How a network comes about. ``small`` and ``large`` go on from ``sgd`` with the small
# batch and, for as many updates, with the large one; ``after`` goes on from SWA.
SGD, SWA, AFTER, SMALL, LARGE = "sgd", "swa", "after", "small", "large"
# The 8-layer networks of figure 14.
WITH, WITHOUT = "with_norm", "without_norm"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How networks are trained.

    Attributes:
        examples: trained on; None is all.
        test: test examples; None is all.
        seeds: networks that differ by their seed alone.
        augment: see `lrscape.data.AUGMENTATIONS`.
        batch_size: the large one.
        small_batch: the small one.
        rate: the first.
        momentum: of SGD.
        weight_decay: of an L2 term on all parameters.
        sgd_epochs: of the solution that the large batch finds.
        sgd_last: its last rate, a share of the first.
        swa_epochs: of the run whose weights are averaged.
        swa_from: the epoch after which averaging begins; the rate falls between half
            and 0.9 of what comes before.
        swa_rate: the rate while weights are averaged.
        after_epochs: of SGD from the averaged weights.
        after_rate: its rate.
        after_every: epochs from one that may be chosen to the next.
        small_epochs: with the small batch.
        small_rate: the rate then, with either batch.
        eight_rate: of the 8-layer networks with and without batch norm.
        draws: sets of others, as many as batch norm has parameters, averaged alone.
        measured_every: epochs from one measurement to the next.
        calibration: training examples that statistics are estimated on, for errors;
            None is all.
    """

    examples: int | None = None
    test: int | None = None
    seeds: int
    augment: tuple[str, ...] = ()
    batch_size: int
    small_batch: int
    rate: float
    momentum: float = 0.9
    weight_decay: float = 3e-4
    sgd_epochs: int
    sgd_last: float = 0.01
    swa_epochs: int
    swa_from: int
    swa_rate: float
    after_epochs: int
    after_rate: float
    after_every: int = 1
    small_epochs: int
    small_rate: float
    eight_rate: float
    draws: int = 5
    measured_every: int = 1
    calibration: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Survey:
    """How the ground is looked at.

    Attributes:
        examples: of the training set and of the test set, whose mean losses are taken.
        sloped: of the training set, for slopes, which take longer.
        batch_size: of them; also what batch norm's statistics are estimated by.
        r: Definition 1's outer distance; the paper's are lost.
        zeta: its inner one, by which directions are judged. It is there, as the text
            has it, for the small neighbourhood in which gradients are very small: a
            tenth of r. Much larger ones ask only what is far away. In a symmetric bowl
            whose slopes grow with the distance, c is zeta / r.
        zetas: other inner distances at which c is reported, the smallest of all first;
            what is judged by one is judged by each.
        c: what a direction must exceed to count as asymmetric.
        minimum: what the gradient's norm may be at most, as a share of that at the
            start of training, where a solution counts as a minimiser, which Definition
            2 asks for; ours, since the text takes all of its solutions for minimisers.
        slopes: distances from the smallest zeta to r, evenly spaced, on each side; the
            zetas are looked at besides.
        curve: distances on each side of a curve that is drawn, up to r.
        tries: random directions of each kind, of figure 2.
        shifted: asymmetric directions whose best shift is looked for, of each network;
            and half as many symmetric ones.
        shift_points: points a radius of half of r, which is the largest shift too.
        radii: of orthogonal moves, as shares of ||w||.
        neighbors: moves a radius.
        line: points of a line from -1 to 2 times the way (``authors``: -2 to 3).
        ends: where lines begin and end.
        sides: random directions of figure 9, of each kind.
        widths: random directions of figure 11.
        width: how far they go, and how far filter-normalised ones do.
        width_points: distances of them.
        norms: directions of each kind, of figure 12.
        epochs: of figure 7: so many evenly spaced ones, the last among them.
    """

    examples: int
    sloped: int
    batch_size: int
    r: float
    zeta: float
    zetas: tuple[float, ...]
    c: float = 2.0
    minimum: float = 0.1
    slopes: int
    curve: int
    tries: int
    shifted: int
    shift_points: int
    radii: tuple[float, ...]
    neighbors: int
    line: int
    ends: tuple[float, float] = (-1.0, 2.0)
    sides: int
    widths: int
    width: tuple[float, float]
    width_points: int
    norms: int
    epochs: int

    @property
    def distances(self) -> np.ndarray:
        """Where slopes are taken: the point, and distances on both sides of it."""
        even = np.linspace(min(self.zetas), self.r, self.slopes)
        side = np.unique(np.round([*even, *self.zetas], 9))
        return np.concatenate([-side[::-1], [0.0], side])

    def name_of_distances(self) -> str:
        """What files of slopes at these distances are called by."""
        zetas = "_".join(f"{zeta:g}" for zeta in self.zetas)
        return f"{self.r:g}-{zetas}-{self.slopes}"

    def reaching(self, r: float | None, zeta: float | None) -> Survey:
        """The same with other distances of Definition 1; None leaves one as it is.

        Raises:
            InputError: distances that are none.
        """
        r, zeta = self.r if r is None else r, self.zeta if zeta is None else zeta
        both_sides(r, zeta, self.slopes)
        if not zeta:
            raise InputError(
                "zeta=0.0 must be positive: at the minimum itself the loss has no "
                f"slope, and no direction would be asymmetric; choose it below r={r!r}"
            )
        zetas = tuple(sorted({zeta, *(z for z in self.zetas if z < r)}))
        return dataclasses.replace(self, r=r, zeta=zeta, zetas=zetas)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Theory:
    """How much of the theorems is tried.

    Attributes:
        runs: of SGD on functions of one variable.
        rounds: of oscillation that are looked at.
        landscapes: random ones, of Theorem 1.
        toys: seeds of the toy.
        fresh: its fresh examples of each class.
    """

    runs: int = 10_000
    rounds: int = 5
    landscapes: int = 10_000
    toys: int = 50
    fresh: int = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """A preset.

    Attributes:
        plan: how networks are trained.
        survey: how the ground is looked at.
        theory: how much of the theorems is tried.
        models: those that take the place of the paper's; empty: its own.
        authors_rule: whether SGD after SWA keeps, as the authors' code does, only an
            epoch whose training loss is below and whose test loss is above SWA's.
        augmented: whether statistics along lines are those of augmented images.
    """

    plan: Plan
    survey: Survey
    theory: Theory = Theory()
    models: tuple[str, ...] = ()
    authors_rule: bool = False
    augmented: bool = False


# Seeds: Sec. 3.2. Both batches and their epochs: Sec. 6.2. Rates and epochs of SWA and
# of SGD after it, weight decay, momentum and augmentation: the authors' code. The rate
# with the small batch and that of the 8-layer networks: ours, the text has none. What
# the survey looks at: ours, since the text's numbers are lost.
_PAPER = Settings(
    plan=Plan(
        seeds=5, augment=("crop", "flip"), batch_size=128, small_batch=32, rate=0.1,
        sgd_epochs=200, swa_epochs=225, swa_from=126, swa_rate=0.05, after_epochs=50,
        after_rate=0.001, after_every=5, small_epochs=80, small_rate=0.01,
        eight_rate=0.05, measured_every=5,
    ),
    survey=Survey(
        examples=10_000, sloped=10_000, batch_size=500, r=2.0, zeta=0.2,
        zetas=(0.2, 0.5, 1.0, 1.6), slopes=20, curve=20, tries=20, shifted=20,
        shift_points=20, radii=(0.01, 0.03, 0.1), neighbors=20, line=61,
        sides=50, widths=20, width=(20.0, 1.0), width_points=21, norms=50, epochs=20,
    ),
)  # fmt: skip

PRESETS: dict[str, Settings] = {
    "quick": Settings(
        plan=Plan(
            examples=640, test=1000, seeds=3, batch_size=64, small_batch=16, rate=0.05,
            # Where SGD ends has to be near a minimiser: after 20 epochs it is not.
            sgd_epochs=40, swa_epochs=24, swa_from=12, swa_rate=0.025, after_epochs=4,
            after_rate=0.002, small_epochs=4, small_rate=0.01, eight_rate=0.05,
            measured_every=4, calibration=512,
        ),
        survey=Survey(
            examples=192, sloped=64, batch_size=192, r=2.0, zeta=0.2,
            zetas=(0.2, 0.8, 1.4), slopes=4, curve=5, tries=7, shifted=7,
            shift_points=3, radii=(0.03, 0.1), neighbors=4, line=13,
            sides=5, widths=5, width=(5.0, 0.5), width_points=5, norms=17, epochs=6,
        ),
        models=("resnet8",),
    ),
    "paper": _PAPER,
    "authors": dataclasses.replace(
        _PAPER, authors_rule=True, augmented=True,
        survey=dataclasses.replace(_PAPER.survey, line=201, ends=(-2.0, 3.0)),
    ),
}  # fmt: skip

# These train no networks.
WITHOUT_DATA = ("theorem1", "theorem2", "toy", "fig5", "fig6")

Pair = tuple[str, str]
_TEN: tuple[Pair, ...] = (("preresnet110", "cifar10"),)
_DEEP = ("preresnet110", "preresnet164", "densenet100")
# The networks that the paper's figures are of.
PAPER_PAIRS: dict[str, tuple[Pair, ...]] = {
    "fig2": tuple((m, d) for d in ("cifar10", "cifar100") for m in _DEEP),
    "fig8": (("preresnet110", "cifar100"),),
    "fig9": (("preresnet110", "cifar100"),),
    "fig10": (("preresnet164", "cifar100"),),
    "fig11": (("preresnet164", "cifar100"),),
    "fig14": (("resnet8", "cifar10"),),
    "table1": tuple((m, "cifar100") for m in _DEEP),
    "fig25": (("preresnet110", "cifar10"),),
    "fig26": (("preresnet164", "cifar10"),),
    "fig27": (("densenet100", "cifar10"),),
    "fig28": (("preresnet110", "cifar100"),),
    "fig29": (("preresnet164", "cifar100"),),
    "fig30": (("preresnet110", "cifar10"),),
    "appendix_c": tuple(
        (m, d) for d in ("cifar10", "cifar100") for m in _DEEP if (m, d) not in _TEN
    ),
    "appendix_h": (("preresnet164", "cifar100"),),
    "appendix_i": tuple(
        (m, d) for d in ("cifar10", "cifar100") for m in _DEEP if (m, d) not in _TEN
    ),
}
# Figures of the appendix that are of other networks than one of the text.
APPENDIX = {
    "appendix_c": "fig3", "fig25": "fig8", "fig26": "fig8", "fig27": "fig8",
    "fig28": "fig9", "fig29": "fig9", "fig30": "fig9", "appendix_i": "fig12",
}  # fmt: skip
