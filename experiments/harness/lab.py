"""What the papers' laboratories share: data sets, networks opened once, tuning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from experiments.harness.network import Network, Row
from experiments.harness.stand_ins import dataset_or_stand_in
from lrscape.errors import unknown_name

Opened = TypeVar("Opened", bound=Network)

# Training and test examples.
SIZES = {
    "digits": (1_437, 360),
    "mnist": (60_000, 10_000),
    "cifar10": (50_000, 10_000),
    "cifar100": (50_000, 10_000),
}
# Of digits so many are trained on at the most: the others choose rates.
DIGITS = 1_280


def sizes_of(
    dataset: str, examples: int | None, validation: int, test: int | None
) -> dict[str, Any]:
    """A run's fields that say how much of a data set it takes, no more than there is.

    Args:
        dataset: its name.
        examples: trained on; None is all.
        validation: held out of those left over to choose by; 0 where all are trained
            on.
        test: test examples; None is all.

    Example:
        >>> sizes_of('digits', None, 1000, 500)
        {'examples': 1280, 'validation': 157, 'test_examples': None}
    """
    if dataset == "digits":
        examples = min(examples or DIGITS, DIGITS)
    if dataset in SIZES:
        most, tests = SIZES[dataset]
        if examples is not None:
            validation = min(validation, most - examples)
            examples = examples if examples < most else None
        test = test if test is not None and test < tests else None
    return {
        "examples": examples,
        "validation": validation if examples is not None else 0,
        "test_examples": test,
    }


class Laboratory:
    """What was asked for of a paper, and where its networks are kept.

    Attributes:
        preset: the name of the paper's preset.
        root: the directory that all commands of a preset share.
        data_dir: the TFDS data directory, or None.
        dataset: replaces each network's own data set, or None.
        networks: those that were opened, by name.
        DATASETS: the data sets that networks may be trained on.
        STAND_INS: what stands in for a data set that is not prepared, in this order;
            then digits.
    """

    preset: str
    root: Path
    data_dir: Path | None
    dataset: str | None
    networks: dict[str, Any]
    DATASETS: ClassVar[Iterable[str]] = ()
    STAND_INS: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def taken_for(self, own: str) -> str:
        """The data set that is taken where a network's own is `own`.

        With the preset quick, where none was asked for, another stands in for one that
        is not prepared.

        Raises:
            InputError: an unknown data set, or one that is not in the directory that
                was named.
        """
        wanted = self.dataset or own
        if wanted not in self.DATASETS:
            raise unknown_name("dataset", wanted, self.DATASETS)
        if self.dataset or self.preset != "quick":
            return wanted  # reading it says what is missing
        others = self.STAND_INS.get(wanted, ())
        return dataset_or_stand_in(wanted, self.data_dir, others)

    @property
    def data_path(self) -> str | None:
        """Where data lie, as a run's settings hold it."""
        return str(self.data_dir) if self.data_dir else None

    def opened(self, name: str, make: Callable[[Path], Opened]) -> Opened:
        """A network, opened once, in the directory of its name."""
        name = name.replace(":", "_")  # of package.module:factory
        if name not in self.networks:
            self.networks[name] = make(self.root / name)
        return self.networks[name]


def errors_of(last: Row, otherwise: str = "test") -> tuple[float, float]:
    """By what candidates are compared: errors after the last epoch, then the loss.

    Args:
        last: the last row of a history; one that failed is the worst.
        otherwise: the part that is looked at where no validation examples are held out.
    """
    part = "validation" if "validation_error" in last else otherwise
    error, loss = (last.get(f"{part}_{name}") for name in ("error", "loss"))
    worst = float("inf")
    return worst if error is None else error, worst if loss is None else loss
