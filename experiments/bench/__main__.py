"""Every benchmark with one command, within nine minutes on a GPU.

    python -m experiments.bench all --json bench.json

Each runs in a process of its own, for no longer than its share of --minutes; one that
lacks a package is left out with the reason. What is finished is in the file at once and
is not repeated when the same command is given again, unless with --again. Ends with a
table of speeds against PyTorch on the same device, and of the share that training
reaches of the device's measured rate of matrix products.

The benchmarks are shorter here than by themselves: see ``python -m
experiments.bench.NAME --help``. On two CPU cores give --minutes=60.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from experiments.bench.pairs import file_of_figures, installed, write_json
from lrscape import console
from lrscape.errors import InputError
from lrscape.parser import Parser

MINUTES = 9.0
MOST_MINUTES = 7 * 24 * 60


@dataclasses.dataclass(frozen=True)
class Bench:
    """A benchmark as it is run among all.

    Attributes:
        about: what it measures.
        module: in `experiments.bench`.
        flags: of its command line.
        seconds: its share of `MINUTES`.
        needs: packages, apart from JAX's, without which it is left out.
    """

    about: str
    module: str
    flags: tuple[str, ...]
    seconds: float
    needs: tuple[str, ...] = ()


BENCHES = {
    "rate": Bench("matrix products", "rate", ("--repeats=10",), 25),
    "training": Bench(
        "the training loop of ResNet-20", "training",
        ("--repeats=8", "--parts", "training"), 125,
    ),
    "surface": Bench(
        "losses along a line", "surface", ("--repeats=8", "--parts", "surface"), 100
    ),
    "walk": Bench(
        "a step of the walk", "surface", ("--repeats=8", "--parts", "walk"), 65
    ),
    "curvature": Bench(
        "products with the Hessian", "curvature",
        ("--repeats=8", "--parts", "products"), 95,
    ),
    "lipschitz": Bench(
        "the Lipschitz-adaptive rate", "lipschitz", ("--repeats=4",), 60
    ),
    "floor": Bench(
        "the walk beside its matrix products alone", "walk",
        ("--updates=13", "--dataset=digits"), 35, ("sklearn", "tqdm"),
    ),
    "stream": Bench(
        "images that are read as they are needed", "stream",
        ("--repeats=2", "--updates=2"), 30, ("sklearn", "grain"),
    ),
}  # fmt: skip
DONE, SKIPPED, FAILED, STOPPED = "done", "left out", "failed", "stopped"
STATUSES = (DONE, SKIPPED, FAILED, STOPPED)

Found = Mapping[str, Any]
LOOP = "loop, "
TORCH = "PyTorch"


def run(bench: Bench, seconds: float, scratch: Path) -> dict[str, Any]:
    """Runs a benchmark, and ends it when its time is over.

    Returns:
        Its ``status``, ``seconds``, ``command``, the ``figures`` that it wrote, and the
        ``reason`` where it is not done.
    """
    if missing := [name for name in bench.needs if not installed(name)]:
        return {"status": SKIPPED, "reason": f"needs {', '.join(missing)}"}
    flags = list(bench.flags)
    if bench.module == "walk":
        flags.append(f"--run-dir={scratch / 'lab'}")
    file = scratch / "figures.json"
    file.unlink(missing_ok=True)
    command = [sys.executable, "-m", f"experiments.bench.{bench.module}", *flags]
    started = time.monotonic()
    # PyTorch, and processes that are started in turn, need the device's memory too.
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as printed:
        process = subprocess.Popen(
            [*command, f"--json={file}"], env=environment, stdout=printed,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(seconds)
            status, reason = (FAILED, "") if process.returncode else (DONE, "")
        except subprocess.TimeoutExpired:
            status, reason = STOPPED, f"after {seconds:.0f} s; --minutes gives more"
        finally:
            _end(process)
        printed.seek(0)
        text = printed.read()
    print(text, end="" if text.endswith("\n") else "\n")
    if status == FAILED:
        reason = f"exit status {process.returncode}: {_last_line(text)}"
    found: dict[str, Any] = {
        "status": status,
        "seconds": round(time.monotonic() - started, 1),
        "command": shlex.join(["python", *command[1:]]),
    }
    if reason:
        found["reason"] = reason
    # What was measured before it was stopped is there too.
    if (figures := _read(file)) is not None:
        found["figures"] = figures
    return found


def _end(process: subprocess.Popen) -> None:
    """Ends a process and those that it has started."""
    if process.poll() is None:
        os.killpg(process.pid, 9)
        process.wait()


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "nothing was printed"


def _read(file: Path) -> Any:
    from lrscape.reading import Reader  # imports JAX, which a list does without

    try:
        return Reader(file.parent).json(file)
    except (OSError, InputError):
        return None


def speeds(found: Mapping[str, Found]) -> list[dict[str, Any]]:
    """PyTorch's seconds over ours for each thing that both have done.

    Args:
        found: what `run` returned, by benchmark.

    Returns:
        A row each: ``what``, ``seconds``, ``pytorch_seconds`` and ``times``, how many
        times as fast as PyTorch.
    """
    figures = {name: one.get("figures") or {} for name, one in found.items()}
    rows: list[dict[str, Any]] = []

    def add(what: str, table: Mapping[str, Any], ours: Callable[[str], bool]) -> None:
        own = [row["seconds"] for name, row in table.items() if ours(name)]
        peers = [r["seconds"] for name, r in table.items() if name.startswith(TORCH)]
        if own and peers:
            rows.append(
                {
                    "what": what,
                    "seconds": min(own),
                    "pytorch_seconds": min(peers),
                    "times": min(peers) / min(own),
                }
            )

    if trained := figures.get("training", {}).get("training"):
        what = f"training {trained['model']}, {trained['updates_per_call']} updates"
        add(what, trained["table"], lambda name: name.startswith(LOOP))
    for model in ("mlp", "resnet20"):
        measured = figures.get("surface", {}).get(model, {}).get("surface", {})
        add(f"surface, {model}", measured.get("table", {}), "evaluate".__eq__)
        walked = figures.get("walk", {}).get(model, {}).get("walk", {})
        add(f"walk, {model}", walked, "Walk.record".__eq__)
        products = figures.get("curvature", {}).get(model, {}).get("products", {})
        add(
            f"curvature, {model}",
            products.get("inference", {}),
            lambda name: name.startswith("product"),
        )
    return rows


def shares(found: Mapping[str, Found]) -> list[dict[str, Any]]:
    """What training reaches of the measured rate of matrix products.

    Returns:
        A row for each way to train: ``what``, ``flops`` (a second), ``rate`` (that of
        the matrix products) and ``share``.
    """
    rate = (found.get("rate", {}).get("figures") or {}).get("flops", {}).get("float32")
    trained = (found.get("training", {}).get("figures") or {}).get("training", {})
    work = trained.get("flops_per_call")
    if not rate or not work:
        return []
    return [
        {
            "what": name,
            "flops": work / row["seconds"],
            "rate": rate,
            "share": work / row["seconds"] / rate,
        }
        for name, row in trained["table"].items()
        if not name.endswith("again")
    ]


def show(found: Mapping[str, Found]) -> None:
    """Prints what became of each benchmark, and the tables."""
    print("\nbenchmarks")
    for name, one in found.items():
        took = f"{one['seconds']:.0f} s" if "seconds" in one else ""
        print(f"  {name:<12}{one['status']:<10}{took:>7}  {one.get('reason', '')}")
    print("\nspeed against PyTorch on the same device (above 1: lrscape is faster)")
    for row in speeds(found):
        print(
            f"  {row['what']:<38}{1000 * row['seconds']:>10.1f} ms, PyTorch "
            f"{1000 * row['pytorch_seconds']:>10.1f} ms: {row['times']:.2f} times"
        )
    if not speeds(found):
        print("  nothing was measured with both")
    print("\nshare of the measured rate of matrix products, ResNet-20's training")
    for row in shares(found):
        print(
            f"  {row['what']:<38}{row['flops'] / 1e9:>10,.0f} of "
            f"{row['rate'] / 1e9:,.0f} GFLOP/s: {100 * row['share']:.1f} %"
        )
    if not shares(found):
        print("  not measured")


def kept(file: Path) -> dict[str, Any]:
    """What a file of measurements holds, by benchmark; nothing where there is none.

    Raises:
        InputError: it holds something else, or no such file can be written.
    """
    from lrscape import checks  # imports JAX, which a list does without

    if not checks.path_to_write("--json", file).exists():
        return {}
    before = _read(file)
    found = before.get("benches") if isinstance(before, dict) else None
    try:
        if not isinstance(found, dict) or found.keys() - BENCHES.keys():
            raise TypeError
        if not all(one["status"] in STATUSES for one in found.values()):
            raise TypeError
        with contextlib.redirect_stdout(io.StringIO()):
            show(found)
    # Somebody else's file can be of any form.
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as it:
        raise InputError(
            f"--json={str(file)!r} holds something else; choose another file"
        ) from it
    return found


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns 1 where a benchmark failed, else 0."""
    parser = Parser(
        prog="python -m experiments.bench", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("what", choices=["all"], help="runs all of them")
    parser.add_argument(
        "--json", type=file_of_figures, help="a file of what is measured"
    )
    parser.add_argument("--only", choices=[*BENCHES], nargs="*", default=[*BENCHES])
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help="of all together"
    )
    parser.add_argument("--again", action="store_true", help="repeat what is done")
    parser.add_argument("--list", action="store_true", help="list them and end")
    options = parser.parse_args(argv)
    if options.minutes > MOST_MINUTES:
        parser.error(
            f"--minutes={options.minutes} must be {MOST_MINUTES:,} or fewer: a week"
        )
    times = options.minutes / MINUTES
    if options.list:
        for name, bench in BENCHES.items():
            lacks = [need for need in bench.needs if not installed(need)]
            why = f"  (left out: needs {', '.join(lacks)})" if lacks else ""
            print(f"{name:<12}{times * bench.seconds:>5.0f} s  {bench.about}{why}")
        return 0
    if options.json is None:
        parser.error("--json names the file of what is measured; give one")
    try:
        found = kept(options.json)
    except InputError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.only:
            if found.get(name, {}).get("status") == DONE and not options.again:
                print(f"\n== {name}: done before")
                continue
            bench = BENCHES[name]
            print(f"\n== {name}: {bench.about}", flush=True)
            found[name] = run(bench, times * bench.seconds, Path(scratch))
            _write(options.json, found)
    _write(options.json, found)
    show(found)
    print(f"\nfigures are in {options.json}")
    return 1 if any(one["status"] == FAILED for one in found.values()) else 0


def _write(file: Path, found: Mapping[str, Found]) -> None:
    whole = {"benches": found, "speeds": speeds(found), "shares": shares(found)}
    write_json(file, whole)


if __name__ == "__main__":
    console.run(main)
