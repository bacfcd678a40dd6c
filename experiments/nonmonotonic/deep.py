"""Tables 3 and 4: the deep networks on CIFAR and ImageNet, by either rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from experiments.harness.paper import Result, shown
from experiments.harness.statistics import mean_and_interval
from experiments.nonmonotonic.curves import at_chance, errors_of
from experiments.nonmonotonic.lab import Lab

RULES = ("step", "gaussian")


class Row(NamedTuple):
    """A line of a table.

    Attributes:
        task: whose plan it follows.
        method: as the paper calls it.
        step: the paper's baseline, in percent; None: it names none.
        gaussian: the paper's own.
        published: the baseline where it was first published.
    """

    task: str
    method: str
    step: float | None
    gaussian: float
    published: float | None = None


TABLE3 = (
    Row("nin_cifar10", "NIN, CIFAR-10", 8.81, 7.22),
    Row("resnet110_cifar10", "ResNet-110, CIFAR-10", 6.41, 5.34),
    Row("resnet110_cifar100", "ResNet-110, CIFAR-100", 27.815, 25.71),
    Row("densenet100_cifar100", "DenseNet-BC (100, 12), CIFAR-100", 22.47, 22.17,
        published=22.27),
    Row("densenet190_cifar100", "DenseNet-BC (190, 40), CIFAR-100", 17.18, 16.86),
    Row("wrn28_10_cifar100", "WRN-28-10-dropout, CIFAR-100", 18.44, 18.03,
        published=18.85),
)  # fmt: skip
TABLE4 = (
    Row("alexnet", "AlexNet, 90 epochs", 19.81, 19.67),
    Row("alexnet_180", "AlexNet, 180 epochs", None, 19.06),
    Row("alexnet_naive", "AlexNet, naive, 270 epochs", None, 18.89),
    Row("googlenet", "GoogLeNet, 80 epochs", 10.82, 10.39),
    Row("bn_inception", "BN-Inception, 80 epochs", 9.05, 8.68),
)
TABLES = {"table3": TABLE3, "table4": TABLE4}


def errors(lab: Lab, task: str) -> dict[str, dict[str, np.ndarray]]:
    """Rule -> what is measured -> (seeds,) in percent, paired by their seeds.

    ``last`` and ``best`` epoch, and where it is counted ``top5`` after the last.
    """
    found = {}
    for name in RULES:
        histories = [n.history() for n in lab.all_of(task, lab.rule(task, name))]
        best, last = errors_of(histories)
        found[name] = {"last": last, "best": best}
        if lab.plans[task].top5:
            found[name]["top5"] = errors_of(histories, "test_top5_error")[1]
    return found


def chosen(lab: Lab, table: Sequence[Row]) -> list[Row]:
    """The lines that the preset has plans for, and that were asked for."""
    wanted = lab.rows or [row.task for row in table]
    return [row for row in table if row.task in lab.plans and row.task in wanted]


def compare(lab: Lab, table: Sequence[Row], notes: list[str]) -> Result:
    """Measures a table's lines, and says which it leaves out."""
    rows, variables, measured = [], {}, chosen(lab, table)
    for line in measured:
        plan, found = lab.plans[line.task], errors(lab, line.task)
        judged = "top5" if plan.top5 else "last"
        row: dict[str, object] = {
            "network": line.method,
            "measured on": lab.dataset_of(line.task),
        }
        for name in RULES:
            row[f"{name}, %"] = mean_and_interval(found[name][judged])
            paper = line.step if name == "step" else line.gaussian
            row[f"paper, {name}"] = "-" if paper is None else shown(paper)
        difference = found["gaussian"][judged] - found["step"][judged]
        row["difference"] = mean_and_interval(difference)
        row["best epoch: step, gaussian"] = ", ".join(
            mean_and_interval(found[name]["best"]) for name in RULES
        )
        if plan.top5:
            row["top 1: step, gaussian"] = ", ".join(
                mean_and_interval(found[name]["last"]) for name in RULES
            )
        rows.append(row)
        options = "".join(f", {k} {v}" for k, v in plan.model_options.items())
        of_size = f" at {plan.image_size} pixels" if plan.image_size else ""
        chance = at_chance(
            [found[name]["last"] for name in RULES],
            lab.network(line.task, lab.rule(line.task, "step"), 0).data.num_classes,
        )
        published = "" if line.published is None else f"published: {line.published}"
        notes.append(
            f"{line.task}: {plan.model}{options} on {lab.dataset_of(line.task)}"
            f"{of_size}, {lab.size_of(line.task)}, {plan.epochs} epochs, rates "
            f"{plan.start:g} and {plan.peak:g}, the baseline's ten-fold falls after "
            f"{', '.join(f'{share:.0%}' for share in plan.milestones)} of them"
            + "".join(f"; {note}" for note in (published, *chance) if note)
        )
        for name in RULES:
            for what, values in found[name].items():
                variables[f"{line.task}_{name}_{what}"] = (
                    (f"{line.task}_seed",), values, {"units": "percent"},
                )  # fmt: skip
    left_out = [row.task for row in table if row not in measured]
    if left_out:
        notes.append(f"not measured: {', '.join(left_out)}")
    return Result(rows, xr.Dataset(variables), {}, notes)


def table3(lab: Lab) -> Result:
    """Table 3: CIFAR-10 and CIFAR-100, step against Gaussian."""
    return compare(
        lab,
        TABLE3,
        [
            (
                "errors after the last epoch; the baseline falls ten-fold, where WRN's "
                "own rule falls five-fold"
            )
        ],
    )


def table4(lab: Lab) -> Result:
    """Table 4: ImageNet, step against Gaussian."""
    return compare(
        lab,
        TABLE4,
        [
            (
                "top-5 errors after the last epoch, by whose size the paper's are "
                "top-5 too; the baseline takes as many epochs and falls three times, "
                "as Krizhevsky et al. have it, who do not publish when: that is ours"
            ),
            (
                "AlexNet sees mirrored windows of 224 pixels out of 256, its colours "
                "are not changed, and errors are those of the middle window alone, "
                "not of a mean over ten"
            ),
        ],
    )
