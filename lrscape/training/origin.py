"""The settings that a state was made with, so that it is gone on from with the same.

A state holds arrays alone, and stays so on disk: a run directory keeps the settings in
its ``config.json``, which resuming compares. For states that are handed over within a
process they are remembered here, by the state's own array of steps, for as long as that
lives. What an `average_weights` took so far is read off its state, wherever it is from.
"""

from __future__ import annotations

import weakref
from typing import Any

import jax
import numpy as np
import optax

from lrscape.errors import InputError
from lrscape.transforms.averaging import averages_in, recorded_averages

_settings: dict[int, dict[str, Any]] = {}


def remember(state: Any, settings: dict[str, Any]) -> None:
    """Notes what a state was made with, until its array of steps is gone."""
    key = id(state.step)
    if key not in _settings:
        weakref.finalize(state.step, _settings.pop, key, None).atexit = False
    _settings[key] = settings


def settings_of(
    tx: optax.GradientTransformation, params: Any, **settings: Any
) -> dict[str, Any]:
    """The settings that must stay: those given, and each average's start and every."""
    with recorded_averages() as averages:
        # A function of its own: traces of `tx.init` itself are cached and not run.
        jax.eval_shape(lambda like: tx.init(like), params)
    return {**settings, "average_weights": tuple(averages)}


def check_same(state: Any, settings: dict[str, Any]) -> None:
    """Raises InputError where a state was made with other settings.

    Args:
        state: the state to go on from.
        settings: from `settings_of`.
    """
    before = _settings.get(id(state.step), settings)
    for name, value in settings.items():
        if before.get(name, value) != value:
            if name == "average_weights":
                was, now = _said(before[name]), _said(value)
            else:
                was, now = f"{name}={before[name]}", f"{name}={value}"
            raise InputError(
                f"state was made with {was}, and would go on with {now}; go on with "
                "the same, or start anew"
            )
    found = sorted(
        (int(one.start), int(one.count), int(one.num_averaged))
        for one in map(_first, averages_in(state.opt_state))
    )
    expected = sorted(settings["average_weights"])
    for (start, count, taken), (new_start, every) in zip(found, expected, strict=False):
        if start != (new_start or every) or taken != _due(new_start, every, count):
            raise InputError(
                f"state averages from update {start} on and took {taken} weights in "
                f"{count} updates, which {_said(((new_start, every),))} would not have "
                "taken; go on with the same, or start anew"
            )


def _first(state: Any) -> Any:
    """Of several networks' stacked states, the first; counts are the same in all."""
    return state._replace(
        start=np.ravel(state.start)[0],
        count=np.ravel(state.count)[0],
        num_averaged=np.ravel(state.num_averaged)[0],
    )


def _due(start: int, every: int, count: int) -> int:
    """How many weights are averaged after `count` updates."""
    first = start or every
    return 0 if count < first else (count - first) // every + 1


def _said(averages: Any) -> str:
    said = [f"average_weights({start}, every={every})" for start, every in averages]
    return " and ".join(said) or "no average_weights"
