"""What the five papers claim, and what holds: a table of verdicts.

    python -m experiments.claims 1.1 5.3 --preset=quick

Measures the claims that are named, all where none is, by the criterion of each; trains
what is missing, into the directories that the papers' own commands use. What is
measured is kept, every seed's value of it, and the same command goes on from there.
Papers are measured at once, each by a process (--workers); what fails keeps nothing
else from being measured. Writes the verdicts as results/claims.json, and claims.html,
one page to look at; `python -m experiments.report` shows them too.

Verdicts: supported, contradicted, undecided (the seeds do not suffice, or a part of the
claim does not), too few seeds, not finite, not measured (and why).
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import tyro

from experiments.claims.measure import (
    Part,
    chosen_models,
    claims_in,
    datasets_of,
    measured,
    of_other_models,
    parts_of,
)
from experiments.claims.registry import CLAIMS
from experiments.claims.table import judged_papers, page, printed, rows_of, written
from experiments.claims.workers import default_workers, fitting, measure_all, said
from experiments.harness.filing import check_own
from experiments.harness.paper import as_text, command_line
from experiments.harness.stand_ins import check_prepared, say
from experiments.harness.values import DataDirectory, Directory, Threads
from experiments.harness.verdicts import INTERVALS
from lrscape import console
from lrscape.checks import shown
from lrscape.environment import describe
from lrscape.errors import InputError, unknown_name
from lrscape.records import Records
from lrscape.training import NonFiniteLossError

PRESETS = ("quick", "paper")
# What keeps a claim from being measured and is no fault of the program.
FORESEEN = (InputError, NonFiniteLossError)
_SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Flags.

    Attributes:
        claims: such as 1.1 3.5, or a paper's number for all of its; default: all.
        preset: quick or paper.
        models: paper 3's networks, of mlp, vgg11, resnet56; default: mlp by the preset
            quick, all by paper.
        list: name the claims, say what they take, and measure nothing.
        budget: such as 30m or 2h: what is not expected to fit is left out, the dearest
            first; what claims take is known of the preset quick, on a core a worker,
            and by paper none is begun after that time.
        again: measure anew what is kept; networks, and what was kept with them, stay.
        workers: processes that measure parts of different papers at once, with their
            own share of the cores each; default: one for each CPU core, and one in all
            where there is an accelerator.
        run_dir: where verdicts are kept; default: runs/claims-PRESET.
        data_dir: the TFDS data directory; default: TFDS_DATA_DIR, or else
            ~/tensorflow_datasets.
        debug: show a traceback with an error.
    """

    claims: tyro.conf.Positional[tuple[str, ...]] = ()
    preset: str = "quick"
    models: tuple[str, ...] = ()
    list: bool = False
    budget: str | None = None
    again: bool = False
    workers: Threads | None = None
    run_dir: Directory | None = None
    data_dir: DataDirectory | None = None
    debug: bool = False


def names_of(asked: tuple[str, ...]) -> list[str]:
    """The claims that were asked for, in the papers' order.

    Raises:
        InputError: a claim or a paper that is not there.

    Example:
        >>> names_of(('5.3', '5.1'))
        ['5.1', '5.3']
        >>> len(names_of(('5',))), len(names_of(()))
        (8, 53)
    """
    wanted = set()
    for one in asked:
        chosen = [name for name in CLAIMS if one in (name, name.split(".")[0])]
        if not chosen:
            raise unknown_name("claims", one, CLAIMS)
        wanted.update(chosen)
    return [name for name in CLAIMS if name in wanted or not asked]


def seconds_of(budget: str | None) -> float:
    """A time such as 30m, in seconds; without one there is no limit.

    Raises:
        InputError: anything else.

    Example:
        >>> seconds_of('90s'), seconds_of('2h'), seconds_of(None)
        (90.0, 7200.0, inf)
    """
    if budget is None:
        return float("inf")
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget)
    if not found:
        raise InputError(
            f"budget={shown(budget)} must be a time such as 90s, 30m or 2h"
        )
    if (seconds := float(found[1]) * _SECONDS[found[2]]) == float("inf"):
        raise InputError(f"budget={shown(budget)} has no end; leave it out")
    return seconds


def run(arguments: Arguments) -> None:
    """Measures, judges and writes the table."""
    if arguments.preset not in PRESETS:
        raise unknown_name("preset", arguments.preset, PRESETS)
    wanted, budget = names_of(arguments.claims), seconds_of(arguments.budget)
    models = chosen_models(arguments.preset, arguments.data_dir, arguments.models)
    parts = parts_of(wanted, models)
    if arguments.list:
        print(as_text(_listed(wanted, parts)))
        return
    root = arguments.run_dir or Path("runs") / f"claims-{arguments.preset}"
    _check_data(parts, arguments)
    about = {"claims": arguments.preset}
    check_own(root, about)
    records = Records(root)
    records.check_made_with(about)
    notes = [INTERVALS]
    with records.lock(), _ended_as_by_ctrl_c():
        records.make_with(about)
        kept = Records(root / "parts")
        # Judged together, whichever command measured them.
        found = _kept(parts_of(CLAIMS, models), kept, arguments.preset)
        missing = [part for part in parts if part not in found or arguments.again]
        errors: list[Exception] = []
        try:
            _measure(missing, found, notes, errors, kept, arguments, budget)
        finally:
            if found:
                _write(records, found, wanted, arguments, notes)
    # What is wrong with what was asked for is said above; all else is wrong here.
    unforeseen = [one for one in errors if not isinstance(one, FORESEEN)]
    if unforeseen or (errors and not any(part in found for part in parts)):
        raise [*unforeseen, *errors][0]


def _check_data(parts: list[Part], arguments: Arguments) -> None:
    """Says what stands in for which data set of the papers.

    Raises:
        InputError: a directory of data that lacks a set, where one was named. In the
            usual place one that is missing keeps its own claims from being measured.
    """
    for paper in sorted({part.paper for part in parts}):
        used = datasets_of(paper, arguments.preset, arguments.data_dir, parts)
        if arguments.data_dir is not None:
            check_prepared(used.values(), arguments.data_dir)
        say(used, arguments.data_dir)


@contextlib.contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """SIGTERM ends what is measured, and writes what was, as Ctrl-C does."""

    def end(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _kept(parts: list[Part], records: Records, preset: str) -> dict[Part, Any]:
    """What there is of parts, of other networks where not of those."""
    found = {}
    for part in parts:
        for one in [part, *of_other_models(part, records)]:
            try:
                kept = measured(one, records, preset)
            except InputError as error:
                print(f"warning: {error}; measured again where it is asked for")
                continue
            if kept is not None:
                found[one] = kept
                break
    return found


def _measure(
    parts: list[Part],
    found: dict[Part, Any],
    notes: list[str],
    errors: list[Exception],
    records: Records,
    arguments: Arguments,
    budget: float,
) -> None:
    """Measures parts as long as they fit into the time, the cheapest first."""
    workers = arguments.workers or default_workers()
    ends = time.monotonic() + budget
    known = arguments.preset == "quick"
    while chosen := (
        fitting(parts, ends - time.monotonic(), workers) if known else parts
    ):
        begun = set()
        for part, outcome in measure_all(
            chosen, records, arguments.preset, arguments.data_dir, workers, ends
        ):
            begun.add(part)
            if isinstance(outcome, Exception):
                errors.append(outcome)
                names = ", ".join(part.claims)
                why = str(outcome)
                if not isinstance(outcome, FORESEEN):
                    why = f"{type(outcome).__name__}: {why}"
                again = " again" if part in found else ""
                notes.append(f"{names}: not measured{again}: {why}")
                print(notes[-1], flush=True)
            else:
                for other in [one for one in found if one.claims == part.claims]:
                    del found[other]
                found[part] = outcome
                print(f"measured {said(part)}: {outcome['seconds']:.0f} s", flush=True)
        parts = [part for part in parts if part not in begun]
        if not begun:
            break
    left = max(ends - time.monotonic(), 0) / 60
    notes += [
        f"{', '.join(part.claims)}: left out, "
        + (f"expected to take {part.minutes:g} minutes where " if known else "")
        + f"{left:.0f} minutes were left"
        for part in parts
    ]


def _listed(wanted: list[str], parts: list[Part]) -> list[dict[str, Any]]:
    minutes = {name: part.minutes for part in parts for name in part.claims}
    return [
        {
            "claim": name,
            "minutes, quick": f"{minutes[name]:g}",
            "paper": CLAIMS[name].paper,
            "says": CLAIMS[name].says,
        }
        for name in wanted
    ]


def _write(
    records: Records,
    found: dict[Part, dict[str, Any]],
    wanted: list[str],
    arguments: Arguments,
    notes: list[str],
) -> None:
    by_paper: dict[str, list] = {}
    for part, kept in found.items():
        by_paper.setdefault(part.paper, []).extend(claims_in(kept))
    made_by = {name: kept for part, kept in found.items() for name in part.claims}
    named = [name for name in CLAIMS if name in made_by or name in wanted]
    rows = rows_of(judged_papers(by_paper), made_by, arguments.preset, named)
    for paper in sorted(by_paper):
        scales = (k.get("scale") for part, k in found.items() if part.paper == paper)
        notes += [f"paper {paper}: {one}" for one in dict.fromkeys(scales) if one]
    commits = {str(kept.get("commit")) for kept in found.values()}
    if len(commits) > 1:
        notes.append(
            f"measured by {len(commits)} versions of the source; each claim's is in "
            "claims.json"
        )
    print(as_text(printed([row for row in rows if row["claim"] in wanted])))
    for note in notes:
        print(note)
    about = {row["claim"]: row for row in rows}
    settings = {"preset": arguments.preset, **describe(jax.local_devices())}
    result = {
        "rows": written(rows), "notes": notes, "about": about, "settings": settings
    }  # fmt: skip
    made = [
        records.save_result_summary("claims", result),
        records.save_text("claims.html", page(rows, notes)),
    ]
    print("written:", *made, sep="\n  ")


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    return command_line("claims", Arguments, __doc__ or "", run, argv)


if __name__ == "__main__":
    console.run(main)
