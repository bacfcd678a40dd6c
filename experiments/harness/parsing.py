"""Reads a command line, for all commands alike.

tyro reads it and makes ``--help``. What tyro says of a misspelt flag depends on its
version and on which other flags are there, and of a number it repeats every digit: both
are looked at here before.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import tyro

from experiments.harness.programs import program
from experiments.harness.values import Flag, flags_of
from lrscape import checks
from lrscape.errors import InputError
from lrscape.parser import unknown_flag

# Of tyro itself; what follows them is tyro's.
_OWN = ("--help", "-h", "--tyro-")

Read = TypeVar("Read")


def parse(
    arguments: type[Read], module: str, about: str, argv: Sequence[str] | None
) -> Read:
    """Reads a command line into a dataclass of its flags.

    Args:
        arguments: the dataclass; with ``GROUPS`` (names and dataclasses) of which it is
            made, ``--help`` shows a box a group.
        module: such as ``experiments.cifar``.
        about: what ``--help`` says before the flags.
        argv: the command line; None is the process's own.

    Returns:
        The flags. Values that can be read may be out of bounds, see
        `experiments.harness.values.check_values`.

    Raises:
        SystemExit: ``--help``, or with status 2 a flag or value that cannot be read.
    """
    _look_at(arguments, argv)
    groups = getattr(arguments, "GROUPS", None)
    read: Any = arguments
    config: tuple[Any, ...] = (tyro.conf.FlagCreatePairsOff,)
    if groups:
        read = dataclasses.make_dataclass("Groups", groups, kw_only=True)
        config += (tyro.conf.OmitArgPrefixes,)
    # Flags alone, no --no-... twins for the switches that are off.
    found = tyro.cli(
        read,
        prog=program(module, argv),
        description=about.strip(),
        args=argv,
        config=config,
    )
    if not groups:
        return found
    fields = {k: v for group in vars(found).values() for k, v in vars(group).items()}
    return arguments(**fields)


def parse_some(
    arguments: type[Read], module: str, about: str, argv: Sequence[str] | None
) -> tuple[Read, list[str]]:
    """Reads the flags that a dataclass has; what is left is for another command.

    Args:
        arguments: a dataclass of flags.
        module: such as ``experiments.cifar``.
        about: what ``--help`` says before the flags.
        argv: the command line; None is the process's own.

    Returns:
        The flags, and the words that are none of them.
    """
    _look_at(arguments, argv, others=True)
    return tyro.cli(
        arguments,
        prog=program(module, argv),
        description=about.strip(),
        args=argv,
        return_unknown_args=True,
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def check_words(words: Sequence[str], *arguments: type) -> None:
    """Checks that flags are known, and that their numbers are numbers.

    Args:
        words: of a command line.
        *arguments: the dataclasses that describe its flags.

    Raises:
        InputError: a flag that is unknown, with the nearest one; a number that is none.
    """
    flags = {
        name: flag for one in arguments for flag in flags_of(one) for name in flag.names
    }
    for word, values in _flags_in(words):
        name = word.partition("=")[0].replace("_", "-")
        if name.startswith(_OWN):
            return
        if name not in flags:
            raise unknown_flag(word, flags)
        flag = flags[name]
        for value in values if flag.several else values[:1]:
            _check_number(flag, value)


def _look_at(
    arguments: type, argv: Sequence[str] | None, *, others: bool = False
) -> None:
    """Ends the process with status 2 where a word is wrong, and says which."""
    words = list(sys.argv[1:] if argv is None else argv)
    if others:
        known = {name for flag in flags_of(arguments) for name in flag.names}
        words = [
            part
            for word, values in _flags_in(words)
            if word.partition("=")[0].replace("_", "-") in known
            for part in [word, *([] if "=" in word else values)]
        ]
    try:
        check_words(words, arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _flags_in(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each word that is a flag, and its values: after = or, without one, after it."""
    for i, word in enumerate(words):
        if not word.startswith("--") and word != "-h":
            continue
        if "=" in word:
            yield word, [word.partition("=")[2]]
            continue
        values = []
        for following in words[i + 1 :]:
            if following.startswith("--"):
                break
            values.append(following)
        yield word, values


def _check_number(flag: Flag, value: str) -> None:
    if flag.kind not in (int, float) or (flag.optional and value == "None"):
        return
    try:
        flag.kind(value)
    except ValueError:
        what = "a whole number" if flag.kind is int else "a number"
        digits = value.removeprefix("-")
        if len(digits) > 4000 and digits.isdigit():  # no integer by Python's own limit
            what += f" of fewer than {len(digits):,} digits"
        raise InputError(f"{flag.shown}={checks.shown(value)} must be {what}") from None
