"""Injects a hundred faults of every kind, with --all three hundred; counts the lost.

    python -m tests.faults [--all] [--seed 0] [--kinds "a full disk"] [--out FILE]

Runs are killed, stopped, and have their disks filled and their files damaged; each goes
on afterwards. What has to come of it: the same numbers bit for bit as if nothing had
happened, or an error that says what is wrong while what was good stays there; and no
half-written file. Ends with status 1 if anything was lost. Six minutes on two CPU
cores, with --all eighteen.

With --out the table is kept as JSON, a kind as soon as it is done: the same command
again goes on with the kinds that are not there.
"""

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

# Before JAX starts, here and in every process.
CACHE = Path(__file__).parents[2] / ".cache" / "faults"
os.environ["XLA_FLAGS"] = ""
os.environ["JAX_PLATFORMS"] = "cpu"
# A run of some updates compiles more than it computes.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")
# Of processes that are killed semaphores are left, which the system takes back.
os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker:UserWarning"

import jax  # noqa: E402

from lrscape import environment  # noqa: E402
from tests.faults.kinds import KINDS  # noqa: E402
from tests.faults.suite import ERROR, SAME, Suite, inject  # noqa: E402


def main(argv=None):
    """Runs the suite; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--all", action="store_true", help="300 faults, not 100")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--kinds", "--only", choices=[*KINDS], nargs="*", metavar="KIND",
        help=f"default: all of {', '.join(KINDS)}",
    )  # fmt: skip
    parser.add_argument("--most", type=int, help="of a kind: no more than so many")
    parser.add_argument("--out", type=Path, help="a file of JSON, which is added to")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(argv)
    started = time.monotonic()
    about = {"seed": options.seed, "all": options.all, "most": options.most}
    rows = kept(options.out, about)
    made = environment.describe(jax.devices())
    # What is named is injected again.
    names = options.kinds or [name for name in KINDS if name not in rows]

    def tell(name, number, outcome):
        if outcome not in (SAME, ERROR):
            seconds = time.monotonic() - started
            print(f"\n{name}, number {number}, after {seconds:.0f} s: {outcome}")

    with tempfile.TemporaryDirectory(prefix="lrscape-faults-") as root:
        suite = Suite(root)
        if names:
            suite.prepare()
        kinds = {
            name: dataclasses.replace(kind, times=times(kind, options))
            for name in names
            for kind in [KINDS[name]]
        }
        for name, outcomes, seconds in inject(
            suite, kinds, options.seed, options.workers, tell
        ):
            rows[name] = row_of(outcomes, seconds)
            if options.out is not None:
                found = {**about, "made": made, "kinds": rows}
                options.out.write_text(json.dumps(found, indent=2) + "\n")
    return show(rows, options.seed, time.monotonic() - started)


def times(kind, options):
    """How often a kind is injected."""
    most = sys.maxsize if options.most is None else options.most
    return min((options.all and kind.all_times) or kind.times, most)


def kept(file, about):
    """The rows of a table that was begun with the same options."""
    if file is None or not file.exists():
        return {}
    found = json.loads(file.read_text())
    if {name: found.get(name) for name in about} != about:
        sys.exit(f"error: {file} holds a table of other options; name another file")
    return found["kinds"]


def row_of(outcomes, seconds):
    """A row of the table; the seconds are of all workers together."""
    count = Counter(x if x in (SAME, ERROR) else "lost" for x in outcomes)
    numbers = {name: count[name] for name in (SAME, ERROR, "lost")}
    return {"injected": len(outcomes), **numbers, "seconds": round(seconds, 1)}


def show(rows, seed, seconds):
    """Prints the table; returns the exit status."""
    columns = ("injected", SAME, ERROR, "lost", "seconds")
    print(f"\n{'fault':<34}" + "".join(f"{name:>13}" for name in columns))
    total = Counter()
    for row in rows.values():
        total.update(row)
    for name, row in [*rows.items(), ("all", total)]:
        print(f"{name:<34}" + "".join(f"{row[column]:>13g}" for column in columns))
    print(f"seed {seed}, {len(rows)} kinds, {seconds:.0f} s")
    return 1 if total["lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
