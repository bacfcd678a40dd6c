"""What values flags take: every number has bounds, and every path is looked at.

A flag's type says them, `Count` rather than int, and `check_values` applies them to the
flags that were given, before anything is compiled or written.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import tyro

from lrscape import checks
from lrscape.errors import InputError

# More makes no file name, and no name that is known here.
LONGEST_TEXT = 255


@dataclasses.dataclass(frozen=True)
class Checked:
    """Marks a flag's type, as metadata of `Annotated`.

    Attributes:
        by: given the flag's name and its value, raises `InputError` where it will not
            do; see `lrscape.checks`.
    """

    by: Callable[[str, Any], Any]


def whole(
    least: int = 0, most: int = checks.LARGEST_COUNT, why: str = ""
) -> Callable[[str, Any], int]:
    """A check of whole numbers.

    Args:
        least: the smallest.
        most: the largest.
        why: no more, for the message.
    """

    def check(name: str, value: Any) -> int:
        if why and isinstance(value, int) and value > most:
            raise InputError(
                f"{name}={checks.shown(value)} is more than {most:,}: {why}"
            )
        return checks.whole(name, value, least=least, most=most)

    return check


def _signed(
    check: Callable[[str, Any], float],
) -> Callable[[str, Any], float]:
    """A check of numbers that are used in single precision."""
    return lambda name, value: checks.single(name, check(name, value))


def _share(name: str, value: Any) -> float:
    """A share of what is held out twice."""
    if not 0 < checks.number(name, value) < 0.5:
        raise InputError(
            f"{name}={value!r} must lie between 0 and 0.5: as much again is held out"
        )
    return value


def text(longest: int = LONGEST_TEXT) -> Callable[[str, Any], str]:
    """A check of texts, which are shown in messages and on pages."""

    def check(name: str, value: str) -> str:
        if len(value) > longest:
            raise InputError(
                f"{name}={checks.shown(value)} has {len(value):,} characters; "
                f"{longest:,} are the most"
            )
        if not value.isprintable():
            raise InputError(
                f"{name}={checks.shown(value)} has characters that cannot be shown"
            )
        return value

    return check


def _present(name: str, value: Any) -> Path:
    return checks.directory(name, value, must_exist=True)


Whole = Annotated[int, Checked(whole())]
Count = Annotated[int, Checked(whole(1))]
Seed = Annotated[int, Checked(whole(0, checks.LARGEST_SEED))]
# Each is a network that is trained, and a directory.
Networks = Annotated[
    int, Checked(whole(1, 10_000, "each is a network that is trained, and a directory"))
]
Epochs = Annotated[
    int,
    Checked(whole(1, 1_000_000, "updates are counted in 32 bits; train for fewer")),
]
Threads = Annotated[
    int, Checked(whole(1, 1024, "each is a thread or a process of this machine"))
]
# Along a line; each is a pass over the sample.
Points = Annotated[
    int, Checked(whole(3, 100_000, "each is a pass over the whole sample"))
]
# Along a side of a surface.
Grid = Annotated[
    int,
    Checked(
        whole(2, 2000, "a surface has the square of it in points, and each of those is "
              "a pass over the whole sample")
    ),
]  # fmt: skip
Positive = Annotated[float, Checked(_signed(checks.positive))]
NotNegative = Annotated[float, Checked(_signed(checks.not_negative))]
# Which of them may be 0 is the schedule's own to say.
Rate = Annotated[float, Checked(checks.single)]
Fraction = Annotated[float, Checked(_signed(checks.fraction))]
Share = Annotated[float, Checked(_share)]
# Where something is kept: a directory, or a path at which one can be made.
Directory = Annotated[Path, Checked(checks.directory)]
# Where data lies: a directory that is there.
DataDirectory = Annotated[Path, Checked(_present)]
AnyPath = Annotated[Path, Checked(checks.path)]
PathToWrite = Annotated[Path, Checked(checks.path_to_write)]
# A name, or the path of a file.
NameOrPath = Annotated[str, Checked(checks.path)]

_UNMARKED: dict[Any, Callable[[str, Any], Any]] = {str: text(), Path: checks.path}


@dataclasses.dataclass(frozen=True)
class Flag:
    """A field of a command line's dataclass.

    Attributes:
        field: its name there.
        kind: bool, int, float, str or Path.
        names: of the flag, ``--name`` first and then its aliases; none of a positional
            argument.
        several: whether it takes more than one value.
        optional: whether it may be None.
        check: of a value; None where any will do.
    """

    field: str
    kind: type
    names: tuple[str, ...]
    several: bool
    optional: bool
    check: Callable[[str, Any], Any] | None

    @property
    def shown(self) -> str:
        """What messages call it."""
        return self.names[0][2:].replace("-", "_") if self.names else self.field


def flags_of(arguments: type) -> Iterator[Flag]:
    """The flags that a command line's dataclass describes.

    Example:
        >>> from experiments.harness.flags import RunFlags
        >>> next(f for f in flags_of(RunFlags) if f.field == 'run_dir').names
        ('--run-dir',)
    """
    for field, hint in get_type_hints(arguments, include_extras=True).items():
        if field.isupper():  # of the class
            continue
        metadata = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        kind, several, optional, check = _unwrapped(hint)
        names: tuple[str, ...] = (f"--{field.replace('_', '-')}",)
        for one in metadata:
            named = getattr(one, "name", None)
            if one is tyro.conf.Positional:
                names = ()
            elif isinstance(named, str):
                names = (f"--{named}",)
            names += tuple(getattr(one, "aliases", None) or ())
        yield Flag(field, kind, names, several, optional, check or _UNMARKED.get(kind))


def _unwrapped(hint: Any) -> tuple[type, bool, bool, Callable[[str, Any], Any] | None]:
    """A type's innermost part, whether it is of several or optional, and its check."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        kind, several, optional, check = _unwrapped(parts[0])
        marks = [one.by for one in parts[1:] if isinstance(one, Checked)]
        return kind, several, optional, (marks[0] if marks else check)
    if origin in (types.UnionType, Union):
        (inner,) = [part for part in parts if part is not type(None)]
        kind, several, _, check = _unwrapped(inner)
        return kind, several, True, check
    if origin is tuple:
        kind, _, _, check = _unwrapped(parts[0])
        return kind, True, False, check
    return hint, False, False, None


def check_values(arguments: Any) -> None:
    """Checks the values of all flags that were given.

    Args:
        arguments: an instance of a command line's dataclass.

    Raises:
        InputError: a value that is out of bounds, with the flag's name and the bounds.

    Example:
        >>> from experiments.harness.flags import RunFlags
        >>> check_values(RunFlags(seeds=-1))
        Traceback (most recent call last):
        lrscape.errors.InputError: seeds=-1 must be a whole number, from 1 to 10000
    """
    for flag in flags_of(type(arguments)):
        value = getattr(arguments, flag.field)
        if value is None or flag.check is None:
            continue
        for one in value if flag.several else (value,):
            flag.check(flag.shown, one)
