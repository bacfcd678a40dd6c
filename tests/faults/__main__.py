"""Injects more than a hundred faults of fifteen kinds, and counts what was lost.

    python -m tests.faults [--seed 0] [--only "a full disk"] [--workers 2]

Runs are killed, stopped, and have their disks filled and their files damaged; each goes
on afterwards. What has to come of it: the same numbers bit for bit as if nothing had
happened, or an error that says what is wrong while what was good stays there; and no
half-written file. Ends with status 1 if anything was lost. Six minutes on two CPU
cores.
"""

import argparse
import dataclasses
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
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")
# Of processes that are killed semaphores are left, which the system takes back.
os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker:UserWarning"

from tests.faults.kinds import KINDS  # noqa: E402
from tests.faults.suite import ERROR, SAME, Suite, inject  # noqa: E402


def main(argv=None):
    """Runs the suite; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=[*KINDS], nargs="*", default=[*KINDS])
    parser.add_argument("--most", type=int, help="of a kind: no more than so many")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(argv)
    started = time.monotonic()

    def tell(name, number, outcome):
        if outcome not in (SAME, ERROR):
            seconds = time.monotonic() - started
            print(f"\n{name}, number {number}, after {seconds:.0f} s: {outcome}")

    with tempfile.TemporaryDirectory(prefix="lrscape-faults-") as root:
        suite = Suite(root)
        suite.prepare()
        kinds = {
            name: dataclasses.replace(
                KINDS[name], times=min(KINDS[name].times, options.most or sys.maxsize)
            )
            for name in options.only
        }
        found = inject(suite, kinds, options.seed, options.workers, tell)
    return show(found, options.seed, time.monotonic() - started)


def show(found, seed, seconds):
    """Prints kinds times outcomes; returns the exit status."""
    print(f"\n{'fault':<34}{'injected':>10}{SAME:>13}{ERROR:>13}{'lost':>6}")
    total = Counter()
    for name, outcomes in [*found.items(), ("all", None)]:
        row = total if outcomes is None else Counter(
            x if x in (SAME, ERROR) else "lost" for x in outcomes
        )  # fmt: skip
        total += row if outcomes is not None else Counter()
        print(
            f"{name:<34}{sum(row.values()):>10}{row[SAME]:>13}{row[ERROR]:>13}"
            f"{row['lost']:>6}"
        )
    print(f"seed {seed}, {seconds:.0f} s")
    return 1 if total["lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
