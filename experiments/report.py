"""Writes finished runs as one HTML page that opens from disk and needs no network.

    python -m experiments.report runs/a
    python -m experiments.report runs/a runs/b --out=compared.html

The page holds settings, curves, every result with its figures (surfaces can be turned),
several runs side by side, a paper's tables with its own numbers beside the measured
ones, and warnings: values that are not finite, barriers within sampling noise, runs
that stopped early, files that are damaged. Takes the run directories of training, of
`experiments.survey` and of the papers' experiments. Seconds; 5 MB where it holds a
figure to turn or to point at.

Exit statuses: 0 written, 2 not a run, or a file that cannot be written.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tyro

from experiments.harness.paper import command_line
from experiments.harness.values import Positive
from lrscape import checks, console
from lrscape.errors import InputError
from lrscape.report import write_report
from lrscape.report.reading import SECONDS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Flags of a report.

    Attributes:
        runs: run directories, separated by spaces.
        out: the file; default: report.html in the first run directory.
        seconds: of a processor's work that reading each run may take, and again drawing
            it; what a stranger's directory holds beyond that is named and left out.
        debug: show a traceback with an error.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    out: Path | None = None
    seconds: Positive = SECONDS
    debug: bool = False


def run(arguments: Arguments) -> None:
    """Writes the page and says where it lies.

    Raises:
        InputError: no runs, or a path that is none.
    """
    if not arguments.runs:
        raise InputError("runs: name at least one run directory")
    file, warnings = write_report(
        arguments.runs, arguments.out, seconds=arguments.seconds
    )
    for warning in warnings:
        print(f"warning: {checks.printable(warning)}")
    print(f"written: {file} ({file.stat().st_size / 1e6:.1f} MB)")


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    return command_line("report", Arguments, __doc__, run, argv)


if __name__ == "__main__":
    console.run(main)
