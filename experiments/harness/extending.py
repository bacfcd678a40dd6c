"""Making a run longer than it was begun: ``--resume --epochs=40`` of one of 20.

Where the rates so far are those of a run that was begun with the new length, going on
is exact: bit for bit that run. Where they are not, how the rate goes on has to be said
(``--extend``). What was done is kept in the run's settings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness.flags import CommonArguments
from experiments.harness.restoring import check_length, newest_whole, no_checkpoint
from experiments.harness.training import Training
from lrscape.errors import InputError, unknown_name
from lrscape.extensions import EXACT, WAYS, Extension
from lrscape.processes import wait_for_all
from lrscape.records import Records
from lrscape.run_fields import RunFields
from lrscape.runs import config_of


@dataclasses.dataclass(frozen=True)
class Wish:
    """A longer run that was asked for.

    Attributes:
        epochs: its length.
        how: of `lrscape.extensions.WAYS`; None: nothing was said.
    """

    epochs: int
    how: str | None


def asked_for(
    arguments: CommonArguments, config: RunFields | None, stored: Mapping[str, Any]
) -> Wish | None:
    """The longer run that the command line asks for, if it does.

    Args:
        arguments: of the command line.
        config: of the run that is gone on with; None: it is a new one.
        stored: its fields on disk.

    Raises:
        InputError: a shorter run, an unknown way to go on, or one where none is needed.
    """
    how, epochs = arguments.extend, arguments.given().get("epochs")
    if how is not None and how not in WAYS:
        raise unknown_name("extend", how, WAYS)
    where = f"run_dir={str(arguments.run_dir)!r}"
    if config is None:
        if how is not None:
            raise InputError(
                f"extend={how!r} makes a run longer, and {where} holds none that is "
                "gone on with: add --resume and --run-dir, or leave it out"
            )
        return None
    if epochs is not None and epochs > config.epochs:
        return Wish(epochs, how)
    if epochs is not None and epochs < config.epochs:
        raise InputError(
            f"epochs={epochs} differs from {config.epochs}, with which {where} was "
            "started: a run can be made longer, not shorter; leave it out to go on, or "
            "start another run"
        )
    # The same command again goes on with what it began.
    last = [one["how"] for one in stored.get("extended", ())][-1:]
    if how is not None and last not in ([how], [EXACT]):
        raise InputError(
            f"extend={how!r} makes a run longer: give --epochs, more than the "
            f"{config.epochs} of {where}, or leave it out"
        )
    return None


def extend_run(training: Training, records: Records, wish: Wish) -> RunFields:
    """Makes a run longer, up to training it; its settings from now on.

    Raises:
        InputError: the rate depends on the length, and how it goes on was not said.
        CorruptCheckpointError: there is nothing whole to go on from.
    """
    with records.lock():
        check_length(records, training.config)
        step = _updates_done(training, records, training.config)
        return _write(training, records, step, wish)


def extend_seeds(
    training: Training, root: Records, runs: Mapping[int, Records], wish: Wish
) -> RunFields:
    """Makes the runs of several seeds longer, see `extend_run`; root is locked.

    All take the same rates: the seam of those that have not come as far lies before
    them.

    Args:
        training: what they train, with what.
        root: the directory of all, whose settings are changed; `agree` changes theirs.
        runs: seed -> its directory, of those that have not turned non-finite.
        wish: what was asked for.
    """
    done = [0]
    for seed, records in runs.items():
        if records.exists():
            with records.lock():
                own = dataclasses.replace(training.config, seed=seed)
                done.append(_updates_done(training, records, own))
    return _write(training, root, max(done), wish)


def agree(root: Records, runs: Sequence[Records]) -> None:
    """Makes the runs of several seeds as long as their root says; root is locked.

    Raises:
        InputError: one that was made longer by itself.
    """
    wanted = root.config()
    history = wanted.get("extended", [])
    for records in runs:
        if not records.exists():
            continue
        stored = records.config()
        found = (stored["epochs"], stored.get("extended", []))
        if found == (wanted["epochs"], history):
            continue
        if not history or found != (history[-1]["epochs"], history[:-1]):
            raise InputError(
                f"run_dir={str(records.path)!r} was made longer by itself, to "
                f"{stored['epochs']} epochs, and no longer goes with the others, of "
                f"{wanted['epochs']}; go on with it alone"
            )
        with records.lock():
            records.replace_config(_longer(stored, wanted["epochs"], history))


def _updates_done(training: Training, records: Records, config: Any) -> int:
    """The updates behind a run's newest checkpoint that is whole."""
    restored = newest_whole(training, records, config)
    if restored is None:
        if records.metrics_length():
            raise no_checkpoint(records)
        return 0
    state, _, problems = restored
    for problem in problems:
        print(f"warning: {problem}; fell back to an older checkpoint")
    return int(state.step)


def _write(training: Training, records: Records, step: int, wish: Wish) -> RunFields:
    stored = records.config()
    extension = _extension(training, records, step, wish)
    history = [*stored.get("extended", []), extension._asdict()]
    fields = _longer(stored, wish.epochs, history)
    # Read by all before the first changes it.
    wait_for_all("before the run is made longer")
    records.replace_config(fields)
    wait_for_all("the run is made longer")
    said = WAYS.get(extension.how, "exactly the run that was begun with the new length")
    print(
        f"{records.path}: from {extension.epochs} to {wish.epochs} epochs at step "
        f"{step}: {said}"
    )
    # With what the command line has changed for this call, such as the devices.
    extended = config_of(fields).extended
    return dataclasses.replace(training.config, epochs=wish.epochs, extended=extended)


def _longer(
    stored: dict[str, Any], epochs: int, history: list[dict[str, Any]]
) -> dict[str, Any]:
    given = {**stored.get("given", {}), "epochs": epochs}
    return {**stored, "epochs": epochs, "given": given, "extended": history}


def _extension(
    training: Training, records: Records, step: int, wish: Wish
) -> Extension:
    """How a run goes on that has so many updates behind it."""
    config, end = training.config, training.total_steps
    longer = training.with_config(dataclasses.replace(config, epochs=wish.epochs))
    exact = _same_rates(training.schedule, longer.schedule, step)
    if exact and wish.how != "hold":
        return Extension(config.epochs, end, EXACT)
    if wish.how is None:
        ways = " or ".join(f"--extend={way} ({does})" for way, does in WAYS.items())
        raise InputError(
            f"epochs={wish.epochs} makes {str(records.path)!r} longer than its "
            f"{config.epochs}, and the rate of schedule={config.schedule!r} depends on "
            f"the length; say how it goes on: {ways}"
        )
    return Extension(config.epochs, end if wish.how == "hold" else step, wish.how)


def _same_rates(one: optax.Schedule, other: optax.Schedule, steps: int) -> bool:
    """Whether two schedules give the same rates for so many updates, bit for bit."""
    counts = jnp.arange(steps)
    return np.array_equal(
        np.broadcast_to(one(counts), steps), np.broadcast_to(other(counts), steps)
    )
