"""Trains one network into a run directory; `digits`, `mnist` and `cifar` share it.

Joins the parts in plain sight: `fit` passes through the states of a run, and between
two updates this file measures, logs, keeps snapshots and saves checkpoints.

Exit statuses: 0 finished, 1 training failed, 2 bad input, 128 + N stopped by signal N
with everything saved; of several processes the same in all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import io
import os
import re
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from experiments.harness import seeds
from experiments.harness.arguments import Preset, parse
from experiments.harness.extending import Wish, asked_for, extend_run
from experiments.harness.finish import train_to_end
from experiments.harness.flags import CommonArguments
from experiments.harness.kinds import IMAGES, Kind
from experiments.harness.memory import keep_freed_memory
from experiments.harness.paper import compiled_once
from experiments.harness.parents import end_with_launcher
from experiments.harness.tensorboard import check_tensorboard
from experiments.harness.trainer import StorageError
from experiments.harness.training import Training
from experiments.harness.values import check_values
from lrscape.errors import InputError
from lrscape.processes import (
    connect,
    end_all,
    is_alone,
    is_first,
    quiet_unless_first,
    wait_for_all,
)
from lrscape.records import Onlooker, Records
from lrscape.runs import config_of
from lrscape.training import NonFiniteLossError
from lrscape.training.checkpoint import CorruptCheckpointError

# What a run may be resumed with another value of: of all but mapping at the price of
# bit-for-bit equality.
CHANGEABLE = ("data_dir", "mapping", "num_devices", "threads")


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
    if argv is None:  # in a process of its own
        keep_freed_memory()
        end_with_launcher()
    module = f"experiments.{experiment}"
    with _said_once(sys.argv[1:] if argv is None else argv):
        arguments = parse(module, docstring, presets, argv, kind.flags)
    try:
        check_values(arguments)
        connect(arguments.coordinator, arguments.num_processes, arguments.process_id)
        quiet_unless_first()
        return train(experiment, presets, arguments, kind)
    except (InputError, CorruptCheckpointError) as error:
        return _say(error, 2, arguments.debug)
    except NonFiniteLossError as error:
        return _say(error, 1, arguments.debug)
    except StorageError as error:
        if argv is None:
            _leave_within(10.0, 1)
        return _say(error, 1, arguments.debug)
    except KeyboardInterrupt:
        # During training it is noted, see `noted_signals`.
        told = "\ninterrupted; what was saved is whole"
        end_all(128 + signal.SIGINT, lambda: print(told, file=sys.stderr))
        return 128 + signal.SIGINT
    except Exception:
        if not is_alone():  # alone it is Python that shows it
            end_all(1, traceback.print_exc)
        raise


def _said_once(argv: list[str]) -> contextlib.AbstractContextManager[Any]:
    """Keeps all but the first of several processes from showing help and errors."""
    following = any(re.fullmatch(r"--process[-_]id=0*[1-9]\d*", word) for word in argv)
    shown: Any = contextlib.ExitStack()
    if following:
        shown.enter_context(contextlib.redirect_stdout(io.StringIO()))
        shown.enter_context(contextlib.redirect_stderr(io.StringIO()))
    return shown


def _leave_within(seconds: float, status: int) -> None:
    """Ends this process even if a thread that writes a checkpoint never ends.

    Orbax's may wait for ever for a write that a full disk has refused.
    """

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    timer = threading.Timer(seconds, leave)
    timer.daemon = True
    timer.start()


def _say(error: Exception, status: int, debug: bool) -> int:
    def say() -> None:
        if debug:
            traceback.print_exception(error)
        print(f"error: {error}", file=sys.stderr)

    end_all(status, say)
    return status


def train(
    experiment: str,
    presets: Mapping[str, Preset],
    arguments: CommonArguments,
    kind: Kind = IMAGES,
) -> int:
    """Starts a run or goes on with one; returns the exit status."""
    if arguments.tensorboard:
        check_tensorboard()
    config, records, is_new, wish = _open(experiment, presets, arguments, kind)
    wanted = seeds.asked_for(arguments, config, None if is_new else records.config())
    if wish is None and records.summary() is not None:
        print(f"{records.path} is finished: there is nothing to resume")
        return 0
    if wanted is not None:
        with tempfile.TemporaryDirectory() as directory, compiled_once(Path(directory)):
            return seeds.train_seeds(
                config, records, wanted, arguments, kind, is_new, wish
            )
    training = Training.of(config, kind)
    # All that can be wrong with the input has been looked at: now there is a run.
    wait_for_all("before the run is made")
    if wish is not None:
        config = extend_run(training, records, wish)
        training = training.with_config(config)
    return train_to_end(
        training, records.path, [(config, records)], arguments, [is_new]
    )


def _open(
    experiment: str,
    presets: Mapping[str, Preset],
    arguments: CommonArguments,
    kind: Kind,
) -> tuple[Any, Records, bool, Wish | None]:
    """The run of the command line, whether it is new, and how it is made longer."""
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
        records.check_unlocked()
        records.check_free()
        asked_for(arguments, None, {})
        if arguments.resume:
            print(f"{run_dir} holds no run to resume: starting one")
        return config, records, True, None
    records.check_unlocked()
    stored = records.config()
    config = config_of(stored)
    if config.experiment != experiment:
        raise InputError(
            f"run_dir={str(run_dir)!r} is a run of experiments.{config.experiment}; "
            f"resume it with python -m experiments.{config.experiment}"
        )
    if arguments.data_dir is not None:
        config = dataclasses.replace(config, data_dir=str(arguments.data_dir))
    wish = asked_for(arguments, config, stored)
    if not given and arguments.preset is None:
        return config, records, False, wish
    # The stored fields are what counts; flags that are given again must agree.
    asked = kind.resolve(
        experiment,
        presets,
        arguments.preset or config.preset,
        {**stored.get("given", {}), **given},
        arguments.data_dir,
    )
    before, after = config.to_dict(), asked.to_dict()
    differing = {field for field in after if after[field] != before[field]}
    differing -= {*CHANGEABLE, "extended", *(["epochs"] if wish else [])}
    for field, value in after.items():
        if field in differing:
            raise InputError(
                f"{field}={value!r} differs from {before[field]!r}, with which "
                f"{str(run_dir)!r} was started; leave it out to go on, or start "
                "another run"
            )
    machine = {
        name: after[name]
        for name in ("mapping", "num_devices", "threads")
        if name in after
    }
    return dataclasses.replace(config, **machine), records, False, wish
