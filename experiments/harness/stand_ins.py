"""What stands in for a data set that is not prepared, and where nothing may."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lrscape.data import tiny_imagenet
from lrscape.data.sources import EMBEDDED, data_directory, prepared
from lrscape.errors import MissingDatasetError

# A folder of images, which goes by no name.
FOLDER = "folder"


def dataset_or_stand_in(
    wanted: str, data_dir: Path | None, others: Sequence[str] = ()
) -> str:
    """A data set, or where it is not prepared the first of others, then digits.

    Args:
        wanted: the data set.
        data_dir: where it was asked for; None is the usual place. Digits stand in only
            there: who names a directory means what lies in it.
        others: what may stand in for it.

    Raises:
        MissingDatasetError: none of them is in the directory that was named.
    """
    if wanted == EMBEDDED:
        return wanted
    there = set(prepared(data_directory(data_dir)))
    for name in (wanted, *others):
        if name in there:
            return name
    if data_dir is not None:
        raise missing(wanted, data_dir)
    return EMBEDDED


def check_prepared(names: Iterable[str], data_dir: Path | None) -> None:
    """Raises MissingDatasetError for a data set that is not prepared."""
    there = set(prepared(data_directory(data_dir)))
    for name in names:
        if name not in (EMBEDDED, FOLDER, *there):
            raise missing(name, data_dir)


def missing(name: str, data_dir: Path | None) -> MissingDatasetError:
    """The error for a data set that is not prepared, with what to do."""
    root = data_directory(data_dir)
    if name == tiny_imagenet.NAME:
        return MissingDatasetError(
            f"dataset={name!r} is not in {root}. {tiny_imagenet.how_to_get(root)}"
        )
    there = ", ".join(prepared(root)) or "no data set"
    given = "" if data_dir is None else f" --data-dir={data_dir}"
    way_out = "set TFDS_DATA_DIR" if data_dir is None else "leave --data-dir out"
    return MissingDatasetError(
        f"dataset={name!r} is not prepared in {root}, which holds {there}: prepare it "
        f"with `python -m lrscape.data prepare {name}{given}`, name the directory that "
        f"has it, or {way_out}"
    )


def say(used: Mapping[str, str], data_dir: Path | None) -> None:
    """Prints what stands in for what.

    Args:
        used: data sets, each with the one that is taken for it.
        data_dir: where they were looked for.

    Example:
        >>> say({'cifar100': 'digits'}, Path('sets'))
        cifar100 is not prepared in sets: digits stands in for it
    """
    for wanted, taken in used.items():
        if taken != wanted:
            print(
                f"{wanted} is not prepared in {data_directory(data_dir)}: {taken} "
                "stands in for it"
            )
