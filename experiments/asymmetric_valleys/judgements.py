"""The criteria of paper 4's claims: what was measured in, what has to hold out.

Values are one a seed unless said otherwise, so that intervals are clustered by seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.harness.statistics import Claim, Condition, above, below, differs

Interval = tuple[float, float, float]

# Directions that 4.2 asks for, and directions of each kind of 4.10.
SHIFTS, NORM_DRAWS = 20, 50
# Sets of others that 4.11 asks for; changes of a curve that has settled, of 4.7.
OTHER_DRAWS, SETTLED = 5, 0.1


def directions(
    found: Any, uniform: Any, signed: Any, apart: Any, *, missing: str = ""
) -> list[Claim]:
    """Claim 4.1, and whether it is of more than one direction.

    Args:
        found: whether a run has a (0, 1) direction of c > 2, for all runs.
        uniform: its share of (0, 1) draws that have.
        signed: the share of the same draws with signs drawn anew.
        apart: the share of the same without their part along ones.
        missing: why the solutions are no minimisers; empty where they are.
    """
    uniform, signed, apart = (np.asarray(x, float) for x in (uniform, signed, apart))
    return [
        Claim(
            "4.1", "every solution has asymmetric directions, by (0, 1) draws",
            [
                above("runs in which one is found", found, _all_but_one(found)),
                above("share of (0, 1) minus (-1, 1) draws", uniform - signed),
            ],
            missing=missing,
        ),
        Claim(
            "4.1 (added)", "and they are not merely the direction of ones",
            [above("share without the part along ones, minus (-1, 1)", apart - signed)],
            missing=missing, apart=True,
        ),
    ]  # fmt: skip


def shift(
    asymmetric: Any, symmetric: Any, *, count: int, missing: str = ""
) -> list[Claim]:
    """Claim 4.2.

    Args:
        asymmetric: the share of asymmetric directions along which some shift halves the
            gap; NaN of a network that has none, which is left out.
        symmetric: of symmetric ones.
        count: asymmetric directions, of all seeds.
        missing: why the solutions are no minimisers; empty where they are.
    """
    asymmetric = np.asarray(asymmetric, float)
    if not missing and count < SHIFTS:
        missing = f"{count} asymmetric directions; it needs {SHIFTS}"
    known = np.isfinite(asymmetric)
    control = (asymmetric - np.asarray(symmetric, float))[known]
    asymmetric = asymmetric[known]
    return [
        Claim(
            "4.2", "a shift makes test and training curves match",
            [above("share of directions with gaps below half", asymmetric, 0.5)],
            missing=missing,
        ),
        Claim(
            "4.2 (control)", "and more so along asymmetric directions",
            [above("share minus that of symmetric directions", control)],
            missing=missing, apart=True,
        ),
    ]  # fmt: skip


def neighbors(shares: Mapping[float, Any], *, missing: str = "") -> list[Claim]:
    """Claim 4.3.

    Args:
        shares: radius, as a share of ||w|| -> the share of neighbours with c > 1.
        missing: why there is no asymmetry that they could keep; empty where there is.
    """
    return [
        Claim(
            "4.3", f"points moved by {radius:g} ||w|| keep the asymmetry",
            [above("share with c > 1", values, 0.95)], missing=missing,
        )
        for radius, values in shares.items()
    ]  # fmt: skip


def theorem_1(gains: Any, bounds: Any) -> list[Claim]:
    """Claim 4.4: gains and bounds of admissible draws, one a draw."""
    gains, bounds = np.asarray(gains, float), np.asarray(bounds, float)
    short = np.max((bounds - gains) / np.abs(bounds))
    return [
        Claim(
            "4.4", f"the gain is at least the bound in all {len(gains)} draws",
            [below("largest (bound - gain) / bound", [short], 1e-9)], least=1,
        )
    ]  # fmt: skip


def theorem_2(
    rounds: Sequence[Interval], calm: Interval, symmetric: Interval
) -> list[Claim]:
    """Claim 4.5, each argument a mean with its 99 % interval over runs.

    Args:
        rounds: of each round on the asymmetric function, and of all its iterates.
        calm: of all iterates without oscillation.
        symmetric: of all iterates on the sharp symmetric function.
    """

    def low(name: str, found: Interval) -> Condition:
        text = f"{found[0]:.3g}, 99 % {found[1]:.3g} to {found[2]:.3g}"
        # An interval that holds zero is neither for nor against.
        return Condition(name, [max(found[1], min(found[2], 0.0))], text)

    *numbered, everything = rounds
    conditions = [low(f"round {k + 1}", found) for k, found in enumerate(numbered)]
    contained = min(-symmetric[1], symmetric[2])
    text = f"99 % {symmetric[1]:.3g} to {symmetric[2]:.3g} contains 0"
    return [
        Claim(
            "4.5", "averages lie on the flat side, round by round and without rounds",
            [
                *conditions, low("all iterates", everything),
                low("without oscillation", calm),
                Condition("symmetric, sharp: all iterates", [contained], text),
            ],
            least=1,
        )
    ]  # fmt: skip


def _bumps(name: str, bumps: Any, errors: Any) -> Condition:
    """That there is none, within two standard errors."""
    bumps, errors = np.asarray(bumps, float), np.asarray(errors, float)
    return below(f"{name}, less two standard errors (nats)", bumps - 2 * errors)


def averaging(bumps: Any, errors: Any, train: Any, test: Any, *, rule: str) -> Claim:
    """Claim 4.6.

    Args:
        bumps: of the training loss between SWA and SGD after it.
        errors: their standard errors.
        train: SWA's training loss minus SGD's.
        test: its test loss minus SGD's.
        rule: how SGD's epoch was chosen.
    """
    return Claim(
        "4.6", f"no bump to SGD after SWA, which trains lower and tests higher; {rule}",
        [
            _bumps("bump", bumps, errors),
            above("training loss, SWA - SGD", train),
            below("test loss, SWA - SGD", test),
        ],
    )  # fmt: skip


def sides(
    shares: Any, alike: Mapping[str, Any], seeds: int, *, missing: str = ""
) -> list[Claim]:
    """Claim 4.7, its first part.

    Args:
        shares: of each seed that has asymmetric directions among the independent ones,
            the share on whose flat side SWA lies.
        alike: kind of directions that are nearly one a seed -> the same of these, of
            which no more counts than on which side most of them have it.
        seeds: how many there are.
        missing: why the solutions are no minimisers; empty where they are.
    """

    def short(values: Any) -> str:
        if missing or len(values) == seeds:
            return missing
        return f"{len(values)} of {seeds} seeds have asymmetric directions"

    claims = [
        Claim(
            "4.7", "SWA lies on the flat side of independent directions",
            [above("share of asymmetric directions", shares, 0.5)],
            missing=short(shares),
        )
    ]  # fmt: skip
    for kind, values in alike.items():
        sides = (np.asarray(values, float) > 0.5).astype(float)
        claims.append(
            Claim(
                "4.7 (one a seed)", f"SWA lies on the flat side of directions {kind}",
                [above("share of seeds", sides, 0.5)], missing=short(values),
                apart=True,
            )
        )  # fmt: skip
    return claims


def settling(change: Any) -> Claim:
    """Claim 4.7, its second part: projected curves' relative change, half-way."""
    return Claim(
        "4.7 (epochs)", "projected surfaces settle before the rate falls",
        [below("relative change up to half of the epochs", change, SETTLED)],
    )  # fmt: skip


def batches(
    bumps: Any, errors: Any, train: Any, test: Any, control: tuple[Any, Any]
) -> list[Claim]:
    """Claim 4.8.

    Args:
        bumps: of the training loss between the large and the small batch.
        errors: their standard errors.
        train: training accuracy of the small batch minus the large one's, in points.
        test: test accuracy likewise.
        control: both minus those of the large batch, gone on with for as many updates.
    """
    return [
        Claim(
            "4.8", "a small batch stays in the basin, trains worse and tests better",
            [
                _bumps("bump", bumps, errors),
                below("training accuracy, small - large (points)", train),
                above("test accuracy", test),
            ],
        ),
        Claim(
            "4.8 (control)", "and so beside the large batch for as many updates",
            [
                below("training accuracy, small - large again (points)", control[0]),
                above("test accuracy", control[1]),
            ],
            apart=True,
        ),
    ]  # fmt: skip


def widths(
    bumps: Any, errors: Any, differences: Mapping[str, Any], *, ends: str
) -> list[Claim]:
    """Claim 4.9, for each scale of random directions.

    Args:
        bumps: of the line between both ends.
        errors: their standard errors.
        differences: scale -> the mean rise at the end that the paper finds sharper,
            less that at the other.
        ends: their names.
    """
    return [
        Claim(
            "4.9", f"{ends}: widths differ without a bump between ({scale})",
            [
                differs("mean rise, first - second (nats)", values),
                _bumps("bump", bumps, errors),
            ],
        )
        for scale, values in differences.items()
    ]  # fmt: skip


def norms(
    log_c: Mapping[str, Any],
    superior: Mapping[str, Any],
    draws: int,
    *,
    missing: str = "",
) -> list[Claim]:
    """Claim 4.10, beside all others and beside as many others.

    Args:
        log_c: of ``'norms'``, ``'others'`` and ``'as_many'``: the logarithm of the
            median c of each seed.
        superior: of the latter two: the share of pairs in which batch norm's direction
            has the larger c, which infinite ones do not hinder.
        draws: directions of each kind, over all seeds.
        missing: why the solutions are no minimisers; empty where they are.
    """
    if not missing and draws < NORM_DRAWS:
        missing = f"{draws} directions; it needs {NORM_DRAWS}"
    claims = []
    for kind, what in {"others": "all others", "as_many": "as many others"}.items():
        sentence = f"batch norm's directions are more asymmetric than {what}"
        with np.errstate(invalid="ignore"):  # a difference of infinite ones is NaN
            difference = np.asarray(log_c["norms"]) - np.asarray(log_c[kind])
        if np.isfinite(difference).all():
            condition = above("log of the median c, difference", difference)
        else:
            text = " ".join(f"{value:.3g}" for value in difference)
            condition = Condition("log of the median c, difference", difference, text)
        ranks = above("share of pairs with the larger c", superior[kind], 0.5)
        claims += [
            Claim("4.10", sentence, [condition], missing=missing),
            Claim("4.10 (ranks)", sentence, [ranks], missing=missing),
        ]
    return claims


def averages(
    everything: Any, norm: Any, others: Any, draws: int, gains: tuple[Any, Any]
) -> list[Claim]:
    """Claim 4.11.

    Args:
        everything: test accuracy with all weights averaged, in points.
        norm: with batch norm alone.
        others: with as many others, the mean over draws.
        draws: how many of these.
        gains: of averaging, in the networks with and without batch norm.
    """
    everything, norm, others = (
        np.asarray(x, float) for x in (everything, norm, others)
    )
    missing = "" if draws >= OTHER_DRAWS else f"{draws} draws; it needs {OTHER_DRAWS}"
    gain = np.asarray(gains[0], float) - np.asarray(gains[1], float)
    return [
        Claim(
            "4.11", "averaging batch norm alone beats as many others, and loses to all",
            [
                above("test accuracy, all - batch norm (points)", everything - norm),
                above("batch norm - others", norm - others),
            ],
            missing=missing,
        ),
        Claim(
            "4.11", "networks with batch norm gain more by averaging",
            [above("gain with - without (points)", gain)],
        ),
    ]  # fmt: skip


def _all_but_one(found: Any) -> float:
    """A limit that the mean of so many truths exceeds only where all are true."""
    return 1 - 0.5 / max(1, len(found))
