"""What was measured says so of paper 1's claims, each with its criterion."""

from __future__ import annotations

import dataclasses

import numpy as np
import xarray as xr
from scipy import stats

from experiments.paper import Result
from experiments.peaks import bounds, curves, lines, scatter, sweeps, tables
from experiments.peaks.settings import Lab
from experiments.statistics import Claim, Condition, judge, mean_and_interval

# A share of the epochs is the initial phase.
INITIAL = 0.1
# Relative residual of Lemma 1, and what rounding may add to its bound.
EXACT = 1e-12
# Step networks that the paper says one Gaussian network is worth, at the least.
ENOUGH = 4
# Times the limit of stability, of a descent that failed.
UNSTABLE = 2.0
# What stands for "more than there are" ensembles.
NEVER = max(tables.SIZES) + 1


def above(name: str, values, limit: float = 0.0) -> Condition:
    """That a quantity is larger than a limit."""
    values = np.asarray(values, float)
    return Condition(name, values - limit, f"{mean_and_interval(values)} > {limit:g}")


def below(name: str, values, limit: float = 0.0) -> Condition:
    """That a quantity is smaller than a limit."""
    values = np.asarray(values, float)
    return Condition(name, limit - values, f"{mean_and_interval(values)} < {limit:g}")


def theory(lab: Lab) -> list[Claim]:
    """Claims 1.1 and 1.2."""
    found = bounds.draws_of(lab.settings.draws)
    small = {
        name: [bounds.curvature_of(lab, n)[-1]["largest"] for n in networks]
        for name, networks in lines.compared(lab).items()
    }
    descents = []
    for network in lab.all_of("descent", lab.rule("descent", "gaussian")):
        ratios = bounds.stability_of(bounds.curvature_of(lab, network))
        third = ratios[-max(1, len(ratios) // 3) :]
        descents.append(UNSTABLE if network.failed() else np.median(third))
    return [
        Claim(
            "1.1", "moved inputs of a dense layer are moved weights, within the bound",
            [
                below("largest residual", [found["residual"].max()], EXACT),
                below("largest ||dW|| / bound", [found["ratio"].max()], 1 + EXACT),
            ],
            least=1,
        ),
        Claim(
            "1.2", "a large rate bears only curvature below 2 / rate, so its run ends "
            "flatter",
            [
                below("gradient descent, median of the last third", descents, 1.1),
                below("SGD's largest eigenvalue, Gaussian minus step",
                      np.subtract(small["gaussian"], small["step"])),
            ],
        ),
    ]  # fmt: skip


def _areas(lab: Lab, kind: str) -> Condition:
    scales, found = lines.curves_of(lab, kind)
    areas = {name: lines.excess(scales, losses) for name, losses in found.items()}
    difference = areas["gaussian"] - areas["step"]
    return below(f"{lines.KINDS[kind]}: mean rise minus step's", difference)


def flatness(lab: Lab) -> list[Claim]:
    """Claims 1.3 to 1.5."""
    shares = [
        above(f"{kind}, {scale}: share",
              scatter.shares_above(scatter.losses_of(lab, kind, scale)), 0.5)
        for scale in scatter.SCALES for kind in scatter.KINDS
    ]  # fmt: skip
    return [
        Claim(
            "1.3", "towards the peak's weights the Gaussian's loss rises less",
            [_areas(lab, "line"), _areas(lab, "relative")], least=5,
        ),
        Claim(
            "1.4", "it is more robust to input noise and towards validation images",
            [_areas(lab, "noise"), _areas(lab, "neighbors")], least=5,
        ),
        Claim(
            "1.5", "its loss is lower under perturbed weights", shares, least=5,
        ),
    ]  # fmt: skip


def accuracy(lab: Lab) -> list[Claim]:
    """Claim 1.6."""
    claims = []
    for task in ("small", "large"):
        found = curves.histories_of(lab, task)
        (tuned,) = (name for name in found if name.startswith("step, tuned"))
        errors = {name: curves.errors_of(one) for name, one in found.items()}
        for i, which in enumerate(("best", "last")):
            claims.append(
                Claim(
                    "1.6", f"{task}: the Gaussian lowers the error, {which} epoch",
                    [
                        above(f"{against} minus Gaussian (points)",
                              errors[against][i] - errors["gaussian"][i])
                        for against in ("step", tuned)
                    ],
                    least=5,
                )
            )  # fmt: skip
    return claims


def gradients(lab: Lab) -> list[Claim]:
    """Claim 1.7."""
    networks = lab.all_of("small", lab.rule("small", "gaussian"))
    early, falls, segment, way = [], [], [], []
    for network in networks:
        history = network.history()
        norms = np.array([row.get("gradient_norm", np.nan) for row in history])
        rates = np.array([row.get("rate", np.nan) for row in history])
        top, peak = int(np.nanargmax(norms)), int(np.nanargmax(rates))
        early.append(top / (len(history) - 1))
        if peak - top >= 2:
            between = norms[top : peak + 1]
            falls.append(stats.spearmanr(np.arange(len(between)), between).statistic)
        found = bounds.slopes_of(lab, network)
        segment.append(max(found["segment"]) / found["bound"])
        way.append(max(found["trajectory"]) / found["bound"])
    missing = ""
    if len(falls) < len(networks):
        missing = (
            "in some seeds fewer than three epochs lie between the largest gradient "
            "and the peak of the rate"
        )
    return [
        Claim(
            "1.7", "the gradient is largest in the first tenth",
            [below("epoch of the largest, share", early, INITIAL)],
        ),
        Claim(
            "1.7", "and then falls until the rate peaks",
            [below("rank correlation with the epoch", falls or [np.nan])],
            missing=missing,
        ),
        Claim(
            "1.7", "the largest gradient on the segment is above its lower bound",
            [above("over the bound", segment, 1)],
        ),
        Claim(
            "1.7", "and so is that on the way",
            [above("over the bound", way, 1)],
        ),
    ]  # fmt: skip


def sweeping(lab: Lab) -> list[Claim]:
    """Claims 1.8, 1.9 and 1.12."""
    shapes = sweeps.shapes_of(lab)

    def difference(one: str, other: str) -> np.ndarray:
        totals = lab.settings.sweep.totals
        return np.concatenate([shapes[one][t] - shapes[other][t] for t in totals])

    grid, baselines = sweeps.grid_of(lab), sweeps.baselines_of(lab)
    worst = max(
        (found for by in grid.values() for found in by.values()), key=np.mean
    )  # fmt: skip
    tuned = min(baselines.values(), key=np.mean)
    published = baselines[lab.plans["small"].start]
    starts = sweeps.starts_of(lab)
    rates = list(starts)
    best = min(rates, key=lambda rate: starts[rate].mean())
    return [
        Claim(
            "1.8", "the Gaussian is slightly better than the Laplacian",
            [below("error minus the Laplacian's (points)",
                   difference("gaussian, continuous", "laplacian, continuous"))],
        ),
        Claim(
            "1.8", "rates that change at epochs alone work as well",
            [below("error minus the continuous one's (points)",
                   difference("gaussian, discrete", "gaussian, continuous"), 1.0)],
        ),
        Claim(
            "1.9", "the worst peak and length still beat the step rule's own rate",
            [above("step minus worst (points)", published - worst)],
        ),
        Claim(
            "1.9", "and its tuned one",
            [above("tuned step minus worst (points)", tuned - worst)],
        ),
        Claim(
            "1.12", "a start that is too small, or none that is slow, hurts (best: "
            f"{best:g} of {' '.join(f'{r:g}' for r in rates)})",
            [
                above(f"{rate:g} minus the best (points)", starts[rate] - starts[best])
                for rate in (rates[0], rates[-1])
            ],
        ),
    ]  # fmt: skip


def ensembles(lab: Lab) -> list[Claim]:
    """Claim 1.10."""
    found = tables.ensembles_of(lab)
    sizes = []
    for error in found["gaussian"][1]:
        enough = [k for k, errors in found["step"].items() if errors.mean() <= error]
        sizes.append(min(enough, default=NEVER))
    return [
        Claim(
            "1.10", "one Gaussian network is worth five by the step rule",
            [above("step networks for one Gaussian", sizes, ENOUGH - 0.5)], least=10,
        )
    ]  # fmt: skip


PARTS = (theory, flatness, accuracy, gradients, sweeping, ensembles)


def claims(lab: Lab) -> Result:
    """Claims 1.1 to 1.10 and 1.12, each with its criterion, over seeds."""
    found = [claim for part in PARTS for claim in part(lab)]
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
    plans = {name: dataclasses.asdict(plan) for name, plan in lab.plans.items()}
    small = plans["small"]
    notes = [
        (
            f"{small['model']} on {lab.dataset_of('small')}, {small['epochs']} epochs "
            f"of {small['examples'] or 'all'} examples; dropout off in all probes, no "
            "batch norm; the training sample of each figure; last epoch unless said"
        ),
        (
            "intervals: 95 %, bootstrap over seeds, which with five and fewer are too "
            "narrow; p: one-sided, after Holm's correction over the claims of the paper"
        ),
        (
            f"claim 1.2's descent has to stay below 1.1, one that failed counts as "
            f"{UNSTABLE:g}; claim 1.10 counts more than "
            f"{max(tables.SIZES)} networks as {NEVER}; claim 1.11 is table 3's and 4's"
        ),
    ]
    variables = {
        "supported": ("claim", [row["verdict"] == "supported" for row in rows])
    }
    names = ("claim", [row["claim"] for row in rows])
    return Result(rows, xr.Dataset(variables, {"claim": names}), {}, notes)
