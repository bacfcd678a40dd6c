"""What the suite's processes do: train, survey, measure a surface, read a run.

Each is forked from one that has imported all of this and started no backend.
"""

import dataclasses
import json
import os
import random
import shutil
import sys
from pathlib import Path

import h5netcdf  # noqa: F401
import jax
import jax.numpy as jnp
import matplotlib.pyplot  # noqa: F401
import numpy as np
import sklearn.datasets  # noqa: F401
import xarray  # noqa: F401

import experiments.digits
import experiments.report
import experiments.survey
from experiments.harness import train
from lrscape.errors import InputError
from lrscape.landscape import evaluate, grid_coordinates, plane
from lrscape.records import Records
from lrscape.runs import open_run
from lrscape.training.checkpoint import leaf_hashes
from tests.faults import traps
from tests.processes import without_times

AXIS = np.linspace(-1, 1, 9)


def enter(log, work, arguments, armed):
    """Does one thing with everything printed in a file, and exits with its status."""
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(file, number)
    after = [getattr(traps, name)(*given) for name, *given in armed]
    status = globals()[work](*arguments)
    for call in filter(None, after):
        call()
    sys.stdout.flush()
    sys.exit(status)


def run(experiment, presets, *flags):
    """Trains from a command line; leaves what the run came to beside it."""
    run_dir = next(f for f in flags if f.startswith("--run-dir=")).partition("=")[2]
    # As the process's own command line: what follows is its end.
    sys.argv = [experiment, *flags]
    status = train.main(experiment, "", presets)
    if status == 0:
        Path(f"{run_dir}.found").write_text(json.dumps(found_in(run_dir)))
    return status


def digits(*flags):
    """Trains a small network on digits."""
    preset = experiments.digits.PRESETS["quick"]
    small = dataclasses.replace(preset, model_options={"features": (24, 16)})
    return run("digits", {"quick": small}, *flags)


def paper(name, run_dir):
    """Makes an item of a paper."""
    from tests.faults import papers

    return papers.make(name, run_dir)


def survey(*flags):
    """Surveys a run."""
    return experiments.survey.main(list(flags))


def report(run_dir):
    """Writes the report of a run."""
    return experiments.report.main([run_dir])


def open_snapshot(run_dir):
    """Loads a run's last point, as surveys do."""
    try:
        print(open_run(run_dir).snapshots["final"])
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def found_in(run_dir):
    """Everything that a run came to, wall times aside."""
    run = open_run(run_dir)
    return without_times(
        {
            "snapshots": {
                name: [snapshot.step, leaf_hashes(snapshot.variables)]
                for name, snapshot in run.snapshots.items()
            },
            "metrics": run.records.metrics(),
            "summary": run.records.summary(),
            "config": {
                k: v for k, v in run.config.to_dict().items() if k != "data_dir"
            },
        }
    )


class Bowl:
    """A bowl as an objective of two batches, one of which may be NaN on one side."""

    num_batches = 2
    weights = np.ones(2)

    def __init__(self, hole):
        self.hole = hole

    def batch(self, i):
        return jnp.full(2, 1.0 + i)

    def batch_loss(self, point, batch):
        hole = jnp.where(point[0] > 0.6, jnp.nan, 0.0) if self.hole else 0.0
        return jnp.sum(batch * point**2) + hole


def surface(store, result, hole=False):
    """Measures a surface into a store."""
    u, v = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    try:
        losses = evaluate(
            Bowl(hole), plane(jnp.zeros(2), u, v), grid_coordinates(AXIS, AXIS),
            store=store, devices=jax.local_devices()[:1], chunk_size=5,
        )  # fmt: skip
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    np.save(result, np.asarray(losses))
    return 0


def hole(store, result):
    """Measures a surface that is NaN in places."""
    return surface(store, result, hole=True)


def look_at(run_dir):
    """Leaves what a run came to beside it."""
    Path(f"{run_dir}.found").write_text(json.dumps(found_in(run_dir)))
    return 0


def damage_many(finished, store, result, where, seed, number, report):
    """Damages a finished run's files one at a time; says what came of each."""
    moves, finished = random.Random(seed), Path(finished)
    files = [
        file.relative_to(finished)
        for file in sorted(finished.rglob("*"))
        if file.suffix in (".json", ".jsonl", ".nc")
        and not {"checkpoints", "snapshots"} & set(file.relative_to(finished).parts)
    ]
    sound, outcomes = everything(finished), []
    for attempt in range(int(number)):
        file = [*files, "store"][attempt % (len(files) + 1)]
        way = ("flip", "truncate")[attempt // (len(files) + 1) % 2]
        source = Path(store) if file == "store" else finished / file
        copy = Path(where) / f"damaged-{attempt}"
        content = bytearray(source.read_bytes())
        place = moves.randrange(len(content))
        if way == "flip":
            content[place] ^= 1 << moves.randrange(8)
        else:
            del content[place:]
        if file == "store":
            copy.write_bytes(content)
            status = surface(copy, f"{copy}.npy")
            same = status or np.array_equal(np.load(f"{copy}.npy"), np.load(result))
            outcome = "error" if status else "same" if same else "another surface"
        else:
            shutil.copytree(
                finished, copy, ignore=shutil.ignore_patterns("checkpoints")
            )
            (copy / file).write_bytes(content)
            try:
                outcome = "same" if everything(copy) == sound else "another result"
            except (InputError, OSError) as error:
                outcome = "error" if str(error) else "an error that says nothing"
            except Exception as error:
                outcome = f"{type(error).__name__}: {error}"
            shutil.rmtree(copy)
        outcomes.append((f"{way} at {place} of {file}", outcome))
    Path(report).write_text(json.dumps(outcomes))
    return 0


def everything(run_dir):
    """All that can be read of a run, as text."""
    records, found = Records(run_dir), found_in(run_dir)
    for file in sorted((records.path / "results").iterdir()):
        if file.suffix == ".nc":
            found[file.name] = repr(records.load_result(file.stem).to_dict())
        elif file.suffix == ".json":
            found[file.name] = records.load_result_summary(file.stem)
    return json.dumps(found)
