"""The table of a paper's claims, each with its verdict: what `claims` shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from experiments.harness.paper import Result
from experiments.harness.statistics import Claim, judge

INTERVALS = (
    "intervals: 95 %, Student's t over seeds; "
    "p: the larger one-sided p of bootstrap and t test, after Holm's correction over "
    "the claims of the paper, which has to be 0.025 at the most: beside an interval "
    "without zero a claim is undecided where p is larger; in k of n: the seeds that "
    "are as the claim has it"
)


def verdicts(found: Sequence[Claim], notes: Sequence[str]) -> Result:
    """Judges a paper's claims together.

    Args:
        found: all of them.
        notes: what has to be said beside the table and `INTERVALS`.

    Returns:
        A row a claim, and which of them are supported.
    """
    rows = []
    for claim, judged in zip(found, judge(found), strict=True):
        p = f"{judged.p_value:.2g}" if np.isfinite(judged.p_value) else "-"
        measured = "; ".join(map(str, claim.conditions))
        rows.append(
            {
                "claim": claim.name,
                "sentence": claim.sentence,
                "verdict": judged.verdict,
                "p": p,
                "measured": "; ".join(filter(None, [measured, claim.missing])) or "-",
            }
        )
    variables = {
        "supported": ("claim", [row["verdict"] == "supported" for row in rows])
    }
    names = ("claim", [row["claim"] for row in rows])
    dataset = xr.Dataset(variables, {"claim": names})
    return Result(rows, dataset, {}, [INTERVALS, *notes])
