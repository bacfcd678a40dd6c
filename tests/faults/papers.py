"""Every paper's command killed at any moment, and given again."""

import importlib
import json
import signal
from pathlib import Path
from unittest import mock

from experiments.harness.commands import module_of
from lrscape.reading import read_json
from tests.faults.suite import SAME, check
from tests.processes import without_times

# Columns of measured times, and seconds that a command may take.
TIMES, SECONDS = {"s/epoch"}, 400
# Paper -> its item, the flags, and the module whose small plan it follows.
COMMANDS = {
    "walk_with_sgd": (
        "table1",
        ("--models", "mlp", "--epochs", "1", "--updates=4", "--seeds=2",
         "--examples=120"),
        None,
    ),
    "nonmonotonic": ("table3", ("--rows", "resnet110_cifar10"), "test_nonmonotonic"),
    "loss_surfaces": ("table1", ("--model=mlp",), "test_loss_surfaces"),
    "asymmetric_valleys": ("table1", ("--seeds=1",), "test_valley_networks"),
    "lipschitz_rate": ("mnist", ("--seeds=1",), "test_lipschitz_rate"),
}  # fmt: skip


def make(paper, run_dir):
    """Makes a paper's item in a process of its own; returns the exit status."""
    import jax

    item, flags, tests = COMMANDS[paper]
    command = module_of(paper)
    flags = [item, "--dataset=digits", *flags, f"--run-dir={run_dir}"]
    with jax.numpy_dtype_promotion("standard"), mock.patch.dict(*plans(tests)):
        return command.main(flags)


def plans(tests):
    """A table of presets, and what the tests of a paper put into it."""
    if tests is None:
        return {}, {}
    module = importlib.import_module(f"tests.{tests}")
    if tests == "test_lipschitz_rate":
        return module.PRESETS["quick"], module.PLANS
    if tests == "test_loss_surfaces":
        quick = {**module.PRESETS["quick"], "mlp": module.TINY}
        return module.PRESETS, {"quick": quick}
    return module.PRESETS, {"quick": module.SETTINGS}


def rows_of(run_dir, item):
    """The rows of what was made."""
    found = read_json(Path(run_dir) / "results" / f"{item}.json")
    rows = [
        {name: value for name, value in row.items() if name not in TIMES}
        for row in without_times(found["rows"])
    ]
    return json.dumps(rows, sort_keys=True)


def kill_paper(suite, where, moves, number):
    """As a file of its networks, results or figures is written."""
    paper = list(COMMANDS)[number % len(COMMANDS)]
    item, reference = COMMANDS[paper][0], suite.root / f"reference-{paper}"
    counter = suite.root / f"changes-{paper}"
    with suite.lock:
        if not reference.exists():
            armed = [("count_changes", f"{reference}/", str(counter))]
            suite.must("paper", paper, reference, armed=armed, seconds=SECONDS)
    run_dir = where / "run"
    at = moves.randint(1, int(counter.read_text()))
    armed = [("kill_at_change", f"{run_dir}/", at)]
    status, text = suite.child("paper", paper, run_dir, armed=armed, seconds=SECONDS)
    check(status == -signal.SIGKILL, f"status {status}", text)
    run_dir.mkdir(exist_ok=True)
    suite.must("paper", paper, run_dir, seconds=SECONDS)
    check(rows_of(run_dir, item) == rows_of(reference, item), "another result")
    suite.look(run_dir)
    return SAME
