"""Begins and ends a command, whatever becomes of its output."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import NoReturn

# What a shell says of a process that a broken pipe ended: 128 + SIGPIPE.
BROKEN_PIPE = 141
_FAILED = 1


class OutputError(SystemExit):
    """Standard output cannot be written any more; ends the process with a status.

    No `Exception`, so that nothing takes it for a disk that is full.
    """


class _Output(io.TextIOWrapper):
    """Standard output, a line at a time, which raises `OutputError` where it fails."""

    status = 0

    def write(self, text: str) -> int:
        """Writes a text."""
        try:
            return super().write(text)
        except OSError as error:
            self._lose(error)

    def flush(self) -> None:
        """Writes what is held back."""
        try:
            super().flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> NoReturn:
        # What is held back, and what is printed while the process ends, goes nowhere.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        if error.errno == errno.EPIPE:
            self.status = BROKEN_PIPE
        else:
            self.status = _FAILED
            print(
                f"error: standard output cannot be written: {error.strerror}",
                file=sys.stderr,
            )
        raise OutputError(self.status) from None


def run(main: Callable[[], int | None]) -> NoReturn:
    """Runs a command's ``main`` as this process's own, and ends it.

    Lines are printed at once, into a file too. A reader that goes away (``| head``)
    ends the command without a word, with status 141 as it would `cat`; output that
    cannot be written (a full disk) ends it with a message and status 1.

    Args:
        main: gives the exit status; None is 0.
    """
    output = None
    if isinstance(sys.stdout, io.TextIOWrapper):
        before = sys.stdout
        output = _Output(
            before.detach(),
            encoding=before.encoding,
            errors="backslashreplace",  # in a locale that lacks a letter
            line_buffering=True,
        )
        sys.stdout = sys.__stdout__ = output  # type: ignore[misc]
    try:
        status = main()
    finally:
        if output is not None:
            output.flush()
    # Where a thread met the error, which ended that thread alone.
    sys.exit(status or (output.status if output is not None else 0))
