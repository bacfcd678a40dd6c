"""What the papers' laboratories share: how much there is of each data set."""

from __future__ import annotations

from typing import Any

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
