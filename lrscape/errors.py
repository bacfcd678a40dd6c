"""Errors of input: an exception that names the field, the value and a way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Input that lrscape cannot work with; the message says what would do.

    The command line shows the message alone and exits with status 2. Everything
    else that goes wrong keeps its traceback.
    """


class MissingDatasetError(InputError, FileNotFoundError):
    """A data set that is not prepared; the message says where it was looked for."""

    def __str__(self) -> str:
        # FileNotFoundError would format the arguments as an errno.
        return str(self.args[0])


class ChangedError(InputError, OSError):
    """A file of a run that is not what was written; the message says what to do."""

    def __str__(self) -> str:
        return str(self.args[0])


def unknown_name(field: str, value: object, names: Iterable[str]) -> InputError:
    """An error for a name that is not among `names`, with the nearest one.

    Args:
        field: what the name stands for, as the user typed it (``schedule``).
        value: the name that is unknown.
        names: the names that would do.

    Returns:
        The exception, to be raised by the caller.

    Example:
        >>> print(unknown_name('schedule', 'gausian', ['gaussian', 'step']))
        schedule='gausian' is unknown; did you mean 'gaussian'? Known: gaussian, step.
    """
    known = sorted(names)
    close = difflib.get_close_matches(str(value), known, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return InputError(f"{field}={value!r} is unknown; {hint}Known: {', '.join(known)}.")
