"""What was measured says so of paper 4's claims, each with its criterion."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.asymmetric_valleys import (
    assumptions,
    averages,
    directions,
    judgements,
    lines,
    projections,
    theory,
    widths,
)
from experiments.asymmetric_valleys.lab import Lab
from experiments.asymmetric_valleys.networks import ALL, NORMS, OTHERS
from experiments.asymmetric_valleys.one_dimensional import interval
from experiments.asymmetric_valleys.presets import (
    LARGE,
    SGD,
    SMALL,
    SWA,
    WITH,
    WITHOUT,
    Pair,
)
from experiments.harness.paper import Result
from experiments.harness.statistics import SEEDS, Claim, judge
from experiments.harness.verdicts import verdicts


def asymmetric(lab: Lab) -> list[Claim]:
    """Claims 4.1 to 4.3: directions, shifts, neighbours."""
    limit, claims = lab.survey.c, []
    runs: list[float] = []
    shares: dict[str, list[float]] = {"uniform": [], "signed": [], "apart": []}
    for pair in lab.pairs("fig2"):
        for kind, values in shares.items():
            seeds = directions.draws_of(lab, pair, kind)
            values += [directions.share_above(rows, limit) for rows in seeds]
            if kind == "uniform":
                runs += [float(directions.share_above(r, limit) > 0) for r in seeds]
    claims += judgements.directions(
        runs, shares["uniform"], shares["signed"], shares["apart"],
        missing=no_minima(lab, lab.pairs("fig2")),
    )  # fmt: skip
    for pair in lab.pairs("fig3"):
        claims += judgements.shift(
            assumptions.good_shares(lab, pair, "asymmetric"),
            assumptions.good_shares(lab, pair, "symmetric"),
            count=sum(
                assumptions.asymmetric_count(lab, network)
                for network in lab.all_of(pair, SGD)
            ),
            missing=no_minima(lab, [pair]),
        )
    for pair in lab.pairs("fig4"):
        claims += judgements.neighbors(
            {r: assumptions.kept_shares(lab, pair, r) for r in lab.survey.radii},
            missing=no_minima(lab, [pair]) or assumptions.nothing_to_keep(lab, pair),
        )
    return claims


def no_minima(lab: Lab, pairs: Sequence[Pair]) -> str:
    """Why solutions are no minimisers, which Definition 2 asks for; empty: they are."""
    return "; ".join(filter(None, (directions.no_minimum(lab, pair) for pair in pairs)))


def theorems(lab: Lab) -> list[Claim]:
    """Claims 4.4 and 4.5."""
    amount = lab.settings.theory
    found = theory.gains_of(amount.landscapes)
    means = theory.round_means("asymmetric", amount.runs, amount.rounds)
    rounds = [interval(column[np.isfinite(column)]) for column in means.T]
    whole, calm, symmetric = (
        interval(theory.overall(name, amount.runs))
        for name in ("asymmetric", "asymmetric, smooth", "symmetric, sharp")
    )
    return [
        *judgements.theorem_1(found.gains, found.bounds),
        *judgements.theorem_2([*rounds, whole], calm, symmetric),
    ]


def _bumps(lab: Lab, pair: Pair, kind: str) -> tuple[np.ndarray, np.ndarray]:
    found = [lines.line_of(lab, pair, kind, seed) for seed in lab.seeds]
    bumps, errors = (
        np.array([one[name] for one in found]) for name in ("bump", "bump_error")
    )
    return bumps, errors


def average_and_sgd(lab: Lab) -> list[Claim]:
    """Claims 4.6 and 4.7."""
    claims = []
    for pair in lab.pairs("table1"):
        found = lines.accuracies(lab, pair)
        bumps, errors = _bumps(lab, pair, "swa")
        rule = (
            "chosen by the authors' rule, which forces this"
            if lab.settings.authors_rule
            else "epoch of the least training loss"
        )
        claims.append(
            judgements.averaging(
                bumps, errors,
                found["SWA"]["train_loss"] - found["SGD"]["train_loss"],
                found["SWA"]["test_loss"] - found["SGD"]["test_loss"],
                rule=f"{' on '.join(pair)}, {rule}",
            )
        )  # fmt: skip
    for pair in lab.pairs("fig9"):
        rows = [projections.sides_of(lab, pair, seed) for seed in lab.seeds]
        shares = {
            kind: projections.flat_shares(rows, kind, lab.survey.c)[0]
            for kind in projections.KINDS
        }
        alike = {projections.KINDS[k]: shares[k] for k in projections.ONE_A_SEED}
        claims += judgements.sides(
            shares["signed"], alike, lab.plan.seeds,
            missing=projections.no_minimum(lab, pair),
        )  # fmt: skip
    for pair in lab.pairs("fig7"):
        change = []
        for seed in lab.seeds:
            found = projections.epochs_of(lab, pair, seed)
            # Behind that the rate falls, and whatever it was at comes to rest.
            early = np.array(found["epochs"]) <= lab.plan.sgd_epochs / 2
            changes = projections.changes(np.array(found["losses"])[early])
            change.append(changes[-1] if len(changes) else np.nan)
        claims.append(judgements.settling(change))
    return claims


def batch_sizes(lab: Lab) -> list[Claim]:
    """Claims 4.8 and 4.9."""
    claims = []
    for pair in lab.pairs("fig10"):
        last: dict[str, dict[str, np.ndarray]] = {}
        for kind in (SGD, SMALL, LARGE):
            rows = [lines.last_row(network) for network in lab.all_of(pair, kind)]
            last[kind] = {
                part: np.array([100 * (1 - row[f"{part}_error"]) for row in rows])
                for part in ("train", "test")
            }

        def against(other: str, part: str, last: Any = last) -> np.ndarray:
            return last[SMALL][part] - last[other][part]

        claims += judgements.batches(
            *_bumps(lab, pair, "batch"), against(SGD, "train"), against(SGD, "test"),
            (against(LARGE, "train"), against(LARGE, "test")),
        )  # fmt: skip
    for pair in lab.pairs("fig11"):
        for kind, ends in widths.PAIRS.items():
            differences = {}
            for scale in widths.SCALES:
                found = widths.rises(lab, pair, kind, scale)
                differences[scale] = found[ends[0]] - found[ends[1]]
            claims += judgements.widths(
                *_bumps(lab, pair, kind), differences, ends=" and ".join(ends)
            )
    return claims


def batch_norm(lab: Lab) -> list[Claim]:
    """Claims 4.10 and 4.11."""
    claims = []
    for pair in lab.pairs("fig12"):
        by_kind = directions.norm_draws(lab, pair)
        if not next(iter(by_kind.values())):
            claims.append(
                Claim(
                    "4.10", "batch norm's directions are more asymmetric", [],
                    missing=f"{pair[0]} has no batch norm",
                )
            )  # fmt: skip
            continue
        claims += judgements.norms(
            {kind: directions.log_c(seeds) for kind, seeds in by_kind.items()},
            {
                kind: directions.superiority(by_kind["norms"], by_kind[kind])
                for kind in ("others", "as_many")
            },
            lab.survey.norms * len(by_kind["norms"]),
            missing=no_minima(lab, [pair]),
        )
    gains = averages.gains(lab, lab.pairs("fig14")[0])
    for pair in lab.pairs("fig13"):
        networks = lab.all_of(pair, SWA)
        last = [averages.histories(networks, k)[1][:, -1] for k in (ALL, NORMS, OTHERS)]
        claims += judgements.averages(
            last[0], last[1], last[2], lab.plan.draws, (gains[WITH], gains[WITHOUT])
        )
    return claims


# Claims whose criterion is content with three seeds, or is not about networks.
_OF_THREE = ("4.4", "4.5", "4.6", "4.8", "4.11")


def _of_enough_seeds(part: Callable[[Lab], list[Claim]]):
    """A part whose claims need five seeds by the preset quick, unless they say three.

    Example:
        >>> _of_enough_seeds(asymmetric).__name__
        'asymmetric'
    """

    @functools.wraps(part)
    def judged(lab: Lab) -> list[Claim]:
        return [
            claim
            if claim.name.split()[0] in _OF_THREE
            else claim._replace(least=max(claim.least, SEEDS[lab.preset]))
            for claim in part(lab)
        ]

    return judged


# The theorems name their own distances.
WITHOUT_ZETA = ("4.4", "4.5")
# What measures which claims.
PARTS = {
    _of_enough_seeds(part): names
    for part, names in {
        asymmetric: ("4.1", "4.2", "4.3"),
        theorems: WITHOUT_ZETA,
        average_and_sgd: ("4.6", "4.7"),
        batch_sizes: ("4.8", "4.9"),
        batch_norm: ("4.10", "4.11"),
    }.items()
}


def scale_of(lab: Lab) -> str:
    """What networks are trained on, and how they are looked at."""
    plan, survey = lab.plan, lab.survey
    names = ", ".join(" on ".join(pair) for pair in lab.pairs("fig2"))
    return (
        f"{names}; {plan.examples or 'all'} training examples, {plan.seeds} seeds, "
        f"{plan.sgd_epochs} epochs of SGD and {plan.swa_epochs} with averaging; losses "
        f"over {survey.examples} examples, batch norm's statistics estimated anew; "
        f"slopes over {survey.sloped}"
    )


def hanging(lab: Lab, by_part: dict[Any, list[Claim]]) -> str:
    """Which verdicts are others by another zeta of the survey, in words.

    Args:
        lab: has the survey.
        by_part: the claims of each of `PARTS`, by the survey's own zeta.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for zeta in lab.survey.zetas:
        other = lab.judging_by(zeta)
        every = [
            claim
            for part, claims in by_part.items()
            for claim in (claims if PARTS[part] == WITHOUT_ZETA else part(other))
        ]
        for claim, judged in zip(every, judge(every), strict=True):
            found.setdefault((claim.name, claim.sentence), []).append(judged.verdict)
    by = " / ".join(f"{zeta:g}" for zeta in lab.survey.zetas)
    told = [
        f"{name}, {sentence}: {' / '.join(verdicts)}"
        for (name, sentence), verdicts in found.items()
        if len(set(verdicts)) > 1
    ]
    return (
        f"verdicts are by zeta = {lab.survey.zeta:g}, a choice of ours; by zeta = {by} "
        + (f"these differ: {'; '.join(told)}" if told else "all are the same")
    )


def claims(lab: Lab) -> Result:
    """Claims 4.1 to 4.11, each with its criterion, over seeds."""
    by_part = {part: part(lab) for part in PARTS}
    found = [claim for claims in by_part.values() for claim in claims]
    notes = [
        *lab.notes("fig2"),
        hanging(lab, by_part),
        (
            "c: the better of a direction and its opposite; errors of bumps are paired "
            "by examples"
        ),
    ]
    return verdicts(found, notes)
