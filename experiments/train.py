"""Trains one network into a run directory; `digits`, `mnist` and `cifar` share it.

Joins the parts in plain sight: `fit` passes through the states of a run, and between
two updates this file measures, logs, keeps snapshots and saves checkpoints.

Exit statuses: 0 finished, 1 training failed, 2 bad input, 128 + N stopped by signal N
with everything saved.
"""

from __future__ import annotations

import dataclasses
import datetime
import io
import signal
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import xarray as xr

from experiments.arguments import Preset, TrainingArguments, parse
from experiments.kinds import IMAGES, Kind
from experiments.loop import Loop, StorageError
from experiments.signals import noted_signals
from lrscape import figures
from lrscape.data import StreamedDataset
from lrscape.environment import describe, differences
from lrscape.errors import InputError
from lrscape.processes import (
    connect,
    is_first,
    quiet_unless_first,
    wait_for_all,
)
from lrscape.records import Onlooker, Records, best
from lrscape.run_fields import RunFields
from lrscape.runs import open_run, peak_step
from lrscape.training import NonFiniteLossError, TrainState
from lrscape.training.checkpoint import Checkpoints, CorruptCheckpointError
from lrscape.training.devices import choose_devices, replicate
from lrscape.training.feed import position

# What a run may be resumed with another value of, at the price of bit-for-bit equality.
CHANGEABLE = ("data_dir", "num_devices", "threads")

# Of what is neither a loss nor an error.
UNITS = {
    "perplexity": "1",
    "seconds": "s",
    "seconds_waited": "s",
    "learning_rate": "1",
    "gradient_norm": "1",
    "epoch": "epoch",
}


def main(
    experiment: str,
    docstring: str,
    presets: Mapping[str, Preset],
    argv: list[str] | None = None,
    kind: Kind = IMAGES,
) -> int:
    """Runs an experiment from its command line.

    Args:
        experiment: its name.
        docstring: of its file, shown by ``--help``.
        presets: its presets by name.
        argv: the command line; None is the process's own.
        kind: of data.

    Returns:
        The exit status.
    """
    # A line at a time, into a log file too.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    module = f"experiments.{experiment}"
    arguments = parse(module, docstring, presets, argv, kind.flags)
    try:
        connect(arguments.coordinator, arguments.num_processes, arguments.process_id)
        quiet_unless_first()
        return train(experiment, presets, arguments, kind)
    except (InputError, CorruptCheckpointError) as error:
        return _say(error, 2, arguments.debug)
    except (NonFiniteLossError, StorageError) as error:
        return _say(error, 1, arguments.debug)
    except KeyboardInterrupt:
        # During training it is noted, see `noted_signals`.
        print("\ninterrupted; what was saved is whole", file=sys.stderr)
        return 128 + signal.SIGINT


def _say(error: Exception, status: int, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    print(f"error: {error}", file=sys.stderr)
    return status


def train(
    experiment: str,
    presets: Mapping[str, Preset],
    arguments: TrainingArguments,
    kind: Kind = IMAGES,
) -> int:
    """Starts a run or goes on with one; returns the exit status."""
    config, records, is_new = _open(experiment, presets, arguments, kind)
    if records.summary() is not None:
        print(f"{records.path} is finished: there is nothing to resume")
        return 0
    print(f"reading {config.dataset}")
    data = config.load_data()
    steps_per_epoch = config.steps_per_epoch(data)
    total_steps = config.total_steps(data)
    devices = choose_devices(config.num_devices, config.batch_size)
    model = config.make_model(data.num_classes)
    schedule = config.make_schedule(total_steps, steps_per_epoch)
    tx = config.make_optimizer(schedule)
    evaluate = kind.evaluate(model, data, config)
    kind.prepare(data, config)

    # All that can be wrong with the input has been looked at: now there is a run.
    wait_for_all("before the run is made")
    with records.lock():
        if is_new and is_first():
            environment = describe(devices)
            Records.create(
                records.path,
                {**config.to_dict(), "given": arguments.given(), **environment},
            )
            print(f"run directory: {records.path}")
        wait_for_all("the run is made")
        with Checkpoints(records.path / "checkpoints") as checkpoints:
            state = replicate(kind.initial_state(model, data, tx, config), devices)
            state, seconds = _restore(
                records, checkpoints, state, devices, data, config.batch_size
            )
            loop = Loop(
                records=records,
                checkpoints=checkpoints,
                config=config,
                evaluate=evaluate,
                kind=kind,
                parts=kind.parts(data),
                data=data,
                steps_per_epoch=steps_per_epoch,
                total_steps=total_steps,
                snapshot_steps=_snapshot_steps(
                    config, steps_per_epoch, total_steps, schedule
                ),
                step=int(state.step),
                seconds=seconds,
            )
            with noted_signals() as signals, loop:
                if loop.step == 0:
                    loop.keep(0, state)
                    loop.save(0, state)
                stride = kind.stride(config, devices)
                states = kind.fit(
                    model,
                    data,
                    tx,
                    config,
                    yield_every=stride,
                    yield_at=loop.is_due,
                    donate=True,
                    state=state,
                )
                for state in states:
                    # Reading state.step would wait for the device at every update.
                    step = loop.step + 1 if stride == 1 else int(state.step)
                    loop.after_update(step, state)
                    stop = signals.asked()
                    if stop and step < total_steps:
                        loop.save(step, state)
                        loop.close()
                        print(
                            f"stopped by {stop.name} at step {step}; saved. Go on "
                            f"with --resume --run-dir={records.path}"
                        )
                        return 128 + stop
                parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
                if is_first():
                    _finish(loop, parameters)
                loop.close()
                wait_for_all("the run is finished")
    return 0


def _restore(
    records: Records,
    checkpoints: Checkpoints,
    state: TrainState,
    devices: list[jax.Device],
    data: Any,
    batch_size: int,
) -> tuple[TrainState, float]:
    """The last good state and the seconds it took, or the initial one and none.

    Raises:
        InputError: a stream that would not go on at the example that comes next.
    """
    restored = checkpoints.restore(state)
    if restored is None:
        if records.metrics_length():
            records.truncate_metrics(0)
        return state, 0.0
    state, notes, problems = restored
    for problem in problems:
        print(f"warning: {problem}; fell back to an older checkpoint")
    if isinstance(data, StreamedDataset):
        before = notes.get("stream")
        now = position(data, state.key, int(state.step), batch_size)
        if before != now:
            raise InputError(
                f"dataset={data.name!r} is not what {records.path} was trained on: the "
                f"next example was {before}, and would be {now}; bring the data back "
                "as it was, or start another run"
            )
    records.truncate_metrics(notes["metrics_bytes"])
    for difference in differences(records.config(), devices):
        print(
            f"warning: {difference}: the run goes on, but not bit for bit as it would "
            "have"
        )
    print(f"resuming {records.path} at step {int(state.step)}")
    return state, notes["seconds"]


def _finish(loop: Loop, parameters: int) -> None:
    """Writes curves, results and summary, and says where they lie."""
    loop.close()
    records = loop.records
    metrics = records.metrics()
    kind, part = loop.kind, loop.parts[0]
    best_by = f"{part}_{kind.best_by}"
    least = best(metrics, best_by)
    assert least is not None  # the last step of a run is always measured
    last = metrics[-1]
    run = open_run(records.path).config
    title = f"{run.model} on {run.dataset}, {run.schedule} rate"
    found = kind.baseline(loop.data)
    beaten = [(name.split("_")[0], value) for name, value in found.items()]
    curves = figures.learning_curves(
        metrics, title=title, baseline=beaten[0] if beaten else None
    )
    records.save_figure("learning_curves", curves)
    records.save_result("learning_curves", _as_dataset(metrics), run.to_dict())
    # The summary says that the run is finished, so it comes last.
    speed = loop.per_second
    summary = {
        "last": last,
        "best": least,
        "best_by": best_by,
        "steps": loop.total_steps,
        "epochs": loop.total_steps / loop.steps_per_epoch,
        "parameters": parameters,
        **found,
        "seconds": round(loop.seconds, 3),
        f"{kind.unit}_per_second": speed and round(speed, 1),
        **loop.pipeline,
    }
    records.write_summary(summary)
    fast = f", {speed:,.0f} {kind.unit}/s" if speed else ""
    if read := loop.pipeline:
        fast += (
            f" (its stream read up to {read['pipeline_images_per_second']:,.0f} "
            f"beside it; waited for it {read['seconds_waited']:.1f} s at most)"
        )
    print(
        f"{kind.outcome(summary, part)}; {loop.seconds:.0f} s{fast}\n"
        f"everything lies in {records.path}: curves in "
        f"{records.path / 'figures' / 'learning_curves.png'}"
    )


def _as_dataset(metrics: list[dict[str, Any]]) -> xr.Dataset:
    """The metrics as one labelled array for each, along `step`."""
    names = [name for name in metrics[-1] if name != "step"]
    variables = {}
    for name in names:
        what = "perplexity" if name.endswith("perplexity") else name
        unit = UNITS.get(what, "nat" if name.endswith("loss") else "fraction")
        values = np.array([line.get(name, np.nan) for line in metrics])
        variables[name] = ("step", values, {"units": unit})
    steps = np.array([line["step"] for line in metrics])
    return xr.Dataset(variables, {"step": ("step", steps, {"units": "update"})})


def _snapshot_steps(
    config: RunFields, steps_per_epoch: int, total_steps: int, schedule: optax.Schedule
) -> dict[int, list[str]]:
    """The names of the snapshots that are due at each step."""
    due: dict[int, list[str]] = {}
    peak = peak_step(schedule, total_steps)
    named = {"initial": 0, "peak": peak, "final": total_steps}
    named.update({f"epoch_{e}": e * steps_per_epoch for e in config.snapshot_epochs})
    for name, step in named.items():
        due.setdefault(step, []).append(name)
    return due


def _open(
    experiment: str,
    presets: Mapping[str, Preset],
    arguments: TrainingArguments,
    kind: Kind,
) -> tuple[Any, Records, bool]:
    """The run that the command line asks for, and whether it is a new one."""
    if arguments.run_dir is None:
        if arguments.resume:
            raise InputError("--resume needs --run-dir, the run to go on with")
        if jax.process_count() > 1:
            raise InputError(
                f"run_dir=None: {jax.process_count()} processes need --run-dir, a "
                "directory that all of them see"
            )
        now = datetime.datetime.now()
        run_dir = Path("runs") / f"{experiment}-{now:%Y%m%d-%H%M%S}"
    else:
        run_dir = arguments.run_dir
    records = (Records if is_first() else Onlooker)(run_dir)
    given = arguments.given()
    config: Any
    if not records.exists() or not arguments.resume:
        config = kind.resolve(
            experiment, presets, arguments.preset or "quick", given, arguments.data_dir
        )
        records.check_free()
        if arguments.resume:
            print(f"{run_dir} holds no run to resume: starting one")
        return config, records, True
    stored = records.config()
    config = open_run(run_dir).config
    if config.experiment != experiment:
        raise InputError(
            f"run_dir={str(run_dir)!r} is a run of experiments.{config.experiment}; "
            f"resume it with python -m experiments.{config.experiment}"
        )
    if arguments.data_dir is not None:
        config = dataclasses.replace(config, data_dir=str(arguments.data_dir))
    if not given and arguments.preset is None:
        return config, records, False
    # The stored fields are what counts; flags that are given again must agree.
    asked = kind.resolve(
        experiment,
        presets,
        arguments.preset or config.preset,
        {**stored.get("given", {}), **given},
        arguments.data_dir,
    )
    before, after = config.to_dict(), asked.to_dict()
    for field, value in after.items():
        if value != before[field] and field not in CHANGEABLE:
            raise InputError(
                f"{field}={value!r} differs from {before[field]!r}, with which "
                f"{str(run_dir)!r} was started; leave it out to go on, or start "
                "another run"
            )
    machine = {
        name: after[name] for name in ("num_devices", "threads") if name in after
    }
    return dataclasses.replace(config, **machine), records, False
