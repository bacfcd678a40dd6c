"""Argument parsing that all commands share: misspelt flags, numbers with bounds."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lrscape.errors import InputError

# `lrscape.checks` imports JAX, which commands that only list things do without, so
# that it is imported where there is a value to check.


def unknown_flag(word: str, known: Iterable[str]) -> InputError:
    """An error for a flag that a command does not take, with the nearest one.

    Args:
        word: as it was typed, with its value or without.
        known: the flags that the command takes.

    Example:
        >>> print(unknown_flag('--epoch=3', ['--epochs', '--seed']))
        --epoch=3 is unknown; did you mean --epochs? --help shows all flags.
    """
    from lrscape import checks

    name = word.partition("=")[0]
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    hint = f"did you mean {close[0]}? " if close else ""
    return InputError(
        f"{checks.shown(word)[1:-1]} is unknown; {hint}--help shows all flags."
    )


class Parser(argparse.ArgumentParser):
    """A parser that takes no abbreviations, and checks every value that it is given.

    Whole numbers are counts: 1 or more, and within 32 bits. Numbers are positive and
    finite. Paths are such as the file system can hold. What is wrong ends the process
    with status 2 and a message that names the flag, its value and a way out.

    Example:
        >>> parser = Parser(prog='bench')
        >>> _ = parser.add_argument('--repeats', type=int, default=3)
        >>> parser.parse_args(['--repeats=5']).repeats
        5
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**{**kwargs, "allow_abbrev": False})

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> argparse.Namespace:
        """Parses arguments as argparse does, and checks their values."""
        found, unknown = self.parse_known_args(args, namespace)
        try:
            for word in unknown:
                raise unknown_flag(word, self._flags())
            for action in self._all_actions():
                _check(action, getattr(found, action.dest, None))
        except InputError as error:
            self.error(str(error))
        return found

    def _all_actions(self) -> list[argparse.Action]:
        """Its own and its commands'."""
        actions = list(self._actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for command in action.choices.values():
                    actions += command._actions
        return actions

    def _flags(self) -> list[str]:
        return [
            flag for action in self._all_actions() for flag in action.option_strings
        ]


def _check(action: argparse.Action, value: Any) -> None:
    """Checks the value, or each of several, of an argument."""
    if isinstance(value, list):
        for one in value:
            _check(action, one)
    elif action.type in (int, float, Path) and value not in (None, action.default):
        from lrscape import checks

        name = action.option_strings[-1] if action.option_strings else action.dest
        take = {int: checks.count, float: checks.positive, Path: checks.path}
        take[action.type](name, value)
