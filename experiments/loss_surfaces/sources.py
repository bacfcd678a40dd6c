"""Where each setting of paper 2's preset `paper` comes from."""

from __future__ import annotations

from typing import Any

from experiments.harness.sources import Source, ours
from experiments.loss_surfaces.lab import Lab


def plans_of(lab: Lab) -> dict[str, Any]:
    """The dataclasses that hold the settings, by name."""
    return dict(lab.plans)


# The code whose networks the paper took.
_TORCH = Source("-", "cifar.torch, which Sec. 3.4 names")
_BUDGET = ours("a budget; the text gives no number")

# By a plan's name and a field, or by a field of all plans that have none of their own.
SOURCES: dict[str, Source] = {
    "nin.model": Source("NIN with batch norm", "Sec. 3.1 and Sec. 3.4"),
    "vgg.model": Source("VGG with batch norm", "Sec. 3.1 and Sec. 3.4"),
    "mlp.model": ours("quick's dense network at the paper's settings"),
    "options": Source("batch norm and dropout", "Sec. 3.4; the rest: cifar.torch"),
    "mlp.options": ours("the widths of Xing et al. (2018): 784-500-350-10"),
    "plain": ours("none: as with batch norm"),
    "nin.plain": ours(
        "no last ReLU, weights by their inputs: else its loss stayed at guessing's"
    ),
    "dataset": Source("CIFAR-10", "Sec. 3.1"),
    "mlp.dataset": ours("MNIST, small enough for a dense network"),
    "examples": ours("all; the text names no part"),
    "validation": ours("none held out: rates are chosen on training errors"),
    "test": ours("all; the text names no part"),
    "batch_size": Source("128", "Sec. 3.4"),
    "epochs": Source("200", "Sec. 3.4"),
    "seeds": ours("a budget; the text does not give how many", "several: Sec. 4.2"),
    "panel_seeds": _BUDGET,
    "optimizers": Source("five, RK2 and ADAM&RK2", "Sec. 3.2"),
    "rates": Source(
        "SGD 0.2 0.1 0.05 0.01, adaptive 0.002 0.001 0.0005 0.0001, Adadelta 1",
        "Sec. 3.4 and A.2.3; SGDM's taken to be SGD's",
    ),
    "augment": _TORCH,
    "mlp.augment": ours("none: mirrored digits are others"),
    "decay": ours("cifar.torch's, for one question alone: do distances fall by it?"),
    "scan_steps": ours("speed alone: what the device does best"),
    "mlp.scan_steps": ours("speed alone"),
    "checkpoint_every": ours("disk and speed alone"),
    "sample": _BUDGET,
    "surface_sample": _BUDGET,
    "functional": Source("a validation set, here all test examples", "Sec. 4.1"),
    "batch": ours("by which batch norm normalises; the text does not say how it did"),
    "points": ours("smooth curves; the text gives no number"),
    "grid": ours("smooth surfaces; the text gives no number"),
    "curvature": ours("a budget; the text's evidence is a line beyond: Sec. 3.3"),
}
