"""Paper 4's claims on made-up data: each verdict comes out in every way."""

import numpy as np
import pytest

from experiments.asymmetric_valleys import judgements
from experiments.harness.statistics import judge

YES, NO, MIXED = np.array([1.0, 1.1, 1.2]), np.array([-1.0, -1.1, -1.2]), [-1.0, 0.5, 1]
ZERO, ERRORS = np.zeros(3), np.full(3, 0.01)


def verdicts(claims):
    return [judged.verdict for judged in judge(claims)]


FIVE = np.zeros(5)


def wide(low, high):
    return ((low + high) / 2, low, high)


POSITIVE, NEGATIVE, AROUND = wide(0.1, 0.2), wide(-0.2, -0.1), wide(-0.1, 0.1)
ROUNDS = [POSITIVE] * 3

CASES = {
    "4.1": (
        lambda found, share: judgements.directions(found, share, FIVE, share),
        ([1.0] * 5, np.full(5, 0.9)), ([0.0] * 5, np.full(5, -0.5)),
        ([1.0, 1, 1, 1, 0], np.array([0.5, -0.1, 0.2, -0.3, 0.1])),
    ),
    "4.2": (
        lambda shares: judgements.shift(shares, 1 - shares, count=21),
        (np.array([0.8, 0.9, 1.0]),), (np.array([0.1, 0.2, 0.0]),),
        (np.array([0.3, 0.9, 0.4]),),
    ),
    "4.3": (
        lambda shares: judgements.neighbors({0.1: shares}),
        ([1.0] * 3,), ([0.5] * 3,), ([1.0, 0.9, 1.0],),
    ),
    "4.6": (
        lambda bumps, train, test: [
            judgements.averaging(bumps, ERRORS, train, test, rule="")
        ],
        (NO, YES, NO), (NO, YES, YES), (NO, YES, MIXED),
    ),
    "4.7": (
        lambda shares: judgements.sides(shares, {"u": shares}, seeds=3),
        ([0.9, 1.0, 0.8],), ([0.1, 0.0, 0.2],), ([0.2, 0.9, 0.6],),
    ),
    "4.7 settling": (
        lambda change: [judgements.settling(change)],
        ([0.01, 0.02, 0.03],), ([0.3, 0.29, 0.31],), ([0.01, 0.3, 0.02],),
    ),
    "4.8": (
        lambda bumps, train, test: judgements.batches(
            bumps, ERRORS, train, test, (train, test)
        )[:1],
        (NO, NO, YES), (YES, NO, YES), (NO, MIXED, YES),
    ),
    "4.9": (
        lambda bumps, rises: judgements.widths(
            bumps, ERRORS, {"global": rises}, ends=""
        ),
        (NO, NO), (YES, YES), (NO, MIXED),
    ),
    "4.10": (
        lambda log_c, ranks: judgements.norms(
            {"norms": log_c, "others": ZERO, "as_many": ZERO},
            {"others": ranks, "as_many": ranks}, 51,
        ),
        (YES, np.array([0.9, 0.88, 0.92])), (NO, np.array([0.1, 0.12, 0.08])),
        (MIXED, np.array([0.1, 0.9, 0.6])),
    ),
    "4.11": (
        lambda norm, gain: judgements.averages(YES, norm, ZERO, 5, (gain, ZERO)),
        (np.full(3, 0.5), YES), (NO, NO), ([-0.5, 0.9, 0.9], MIXED),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_every_verdict_comes_out(name):
    make, *given = CASES[name]
    for expected, values in zip(
        ("supported", "contradicted", "undecided"), given, strict=True
    ):
        assert set(verdicts(make(*values))) == {expected}, expected


def test_a_single_draw_below_the_bound_contradicts_theorem_1():
    gains = np.linspace(1.0, 2.0, 1000)
    assert verdicts(judgements.theorem_1(gains, 0.9 * gains)) == ["supported"]
    short = gains.copy()
    short[7] *= 0.8
    assert verdicts(judgements.theorem_1(short, 0.9 * gains)) == ["contradicted"]


def test_theorem_2_needs_every_round():
    def verdict(*arguments):
        return verdicts(judgements.theorem_2(*arguments))

    assert verdict(ROUNDS, POSITIVE, AROUND) == ["supported"]
    assert verdict([POSITIVE, NEGATIVE, POSITIVE], POSITIVE, AROUND) == ["contradicted"]
    assert verdict(ROUNDS, NEGATIVE, AROUND) == ["contradicted"]
    # An interval that holds zero tells nothing.
    assert verdict(ROUNDS, AROUND, AROUND) == ["undecided"]
    assert verdict(ROUNDS, POSITIVE, POSITIVE) == ["contradicted"]


def test_a_bump_within_its_error_is_none():
    def verdict(bumps):
        return verdicts(
            [judgements.averaging(bumps, np.full(3, 0.1), YES, NO, rule="")]
        )

    assert verdict([0.1, 0.11, 0.09]) == ["supported"]
    assert verdict([0.5, 0.52, 0.48]) == ["contradicted"]


def test_too_little_gives_no_verdict():
    few = [
        judgements.shift(np.ones(3), ZERO, count=15),
        judgements.norms(
            dict.fromkeys(("norms", "others", "as_many"), ZERO),
            dict.fromkeys(("others", "as_many"), ZERO), 49,
        ),
        judgements.sides([1.0, 1.0], {"u": [1.0, 1.0]}, seeds=3),
        judgements.sides(YES, {"u": YES}, seeds=3, missing="no minimisers"),
        judgements.directions([1.0] * 3, YES, ZERO, YES, missing="no minimisers"),
        judgements.neighbors({0.1: np.ones(3)}, missing="no minimisers"),
    ]  # fmt: skip
    for claims in few:
        assert set(verdicts(claims)) == {"not measured"}
    draws = judgements.averages(YES, ZERO, NO, 4, (YES, ZERO))
    assert verdicts(draws) == ["not measured", "supported"]
    some = judgements.shift([1.0, np.nan, 1.0, np.nan], np.zeros(4), count=20)
    assert set(verdicts(some)) == {"too few seeds"}
    alone = judgements.neighbors({0.1: [1.0, 1.0]})
    assert verdicts(alone) == ["too few seeds"]


def test_infinite_c_is_said_and_ranks_remain():
    infinite = np.array([np.inf, 1.0, np.inf])
    claims = judgements.norms(
        {"norms": infinite, "others": ZERO, "as_many": infinite},
        {"others": np.full(3, 0.9), "as_many": np.full(3, 0.9)},
        60,
    )
    assert verdicts(claims) == ["not finite", "supported"] * 2
    assert "inf 1 inf" in str(claims[0].conditions[0])
    assert "nan 0 nan" in str(claims[2].conditions[0])
