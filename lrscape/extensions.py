"""Runs that were made longer than they were begun: their history, and their rates.

A schedule is a shape over the length of its run. Where a run goes on beyond the length
it was begun with, its rates so far may differ from those that the longer run would have
had, and how it goes on is a choice that belongs to its settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from lrscape import checks
from lrscape.errors import InputError, unknown_name

# Ways to go on that may be asked for, and what each does.
WAYS = {
    "hold": "follow the old shape to its end, then hold its last rate",
    "stretch": "from here on take the rates of the shape stretched to the new length",
}
# The rates so far are those of a run that was begun with the new length.
EXACT = "exact"


class Extension(NamedTuple):
    """An extension of a run by more epochs.

    Attributes:
        epochs: its length before.
        step: the seam, the first update whose rate is no longer that of the run as it
            was before.
        how: ``'hold'`` or ``'stretch'``, see `WAYS`; or ``'exact'``: it is the run that
            was begun with the new length.
    """

    epochs: int
    step: int
    how: str

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Extension:
        """The extension that JSON fields describe.

        Raises:
            InputError: a field that is lacking, or a value that cannot be.
        """
        if sorted(fields) != sorted(cls._fields):
            raise InputError(
                f"extended={checks.shown(fields)} must hold epochs, step and how"
            )
        if fields["how"] not in (*WAYS, EXACT):
            raise unknown_name("extended: how", fields["how"], (*WAYS, EXACT))
        return cls(
            checks.whole("extended: epochs", fields["epochs"], least=1),
            checks.whole("extended: step", fields["step"]),
            fields["how"],
        )


def seams(
    fields: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]
) -> list[tuple[Extension, float]]:
    """The epochs at which a run was extended, for its curves.

    Args:
        fields: of its settings on disk, whatever they hold.
        metrics: its logged lines, with ``step`` and ``epoch``.

    Returns:
        Pairs of an `Extension` and the epoch of its seam; what cannot be understood is
        left out.

    Example:
        >>> began = {'epochs': 2, 'step': 10, 'how': 'hold'}
        >>> seams({'extended': [began]}, [{'step': 20, 'epoch': 4.0}])
        [(Extension(epochs=2, step=10, how='hold'), 2.0)]
    """
    found = []
    extended, last = fields.get("extended"), metrics[-1] if metrics else {}
    for one in extended if isinstance(extended, list | tuple) else ():
        try:
            extension = Extension.from_dict(one)
            epoch = extension.step * float(last["epoch"]) / float(last["step"])
        except (InputError, AttributeError, KeyError, TypeError, ZeroDivisionError):
            continue
        found.append((extension, epoch))
    return found


def extended_schedule(
    make: Callable[[int], optax.Schedule],
    extensions: Sequence[Extension],
    total_steps: int,
    steps_per_epoch: int,
) -> optax.Schedule:
    """The rates of a run that was made longer, one or several times.

    Args:
        make: the length of a run, in updates -> its schedule.
        extensions: in order; those that are exact change nothing.
        total_steps: the length of the whole run, in updates.
        steps_per_epoch: the length of an epoch, in updates.

    Returns:
        The schedule: count -> rate.

    Example:
        >>> def triangle(steps):
        ...     return lambda n: 1.0 - abs(2.0 * n / steps - 1.0)
        >>> begun = Extension(epochs=4, step=4, how='hold')
        >>> rate = extended_schedule(triangle, [begun], 8, 1)
        >>> [float(rate(n)) for n in (0, 2, 3, 4, 8)]
        [0.0, 1.0, 0.5, 0.0, 0.0]
        >>> rate = extended_schedule(triangle, [begun._replace(how='stretch')], 8, 1)
        >>> [float(rate(n)) for n in (0, 2, 3, 4, 8)]
        [0.0, 1.0, 0.5, 1.0, 0.0]
    """
    changing = [extension for extension in extensions if extension.how != EXACT]
    lengths = [extension.epochs * steps_per_epoch for extension in changing]
    lengths.append(total_steps)
    schedule = make(lengths[0])
    for extension, before, after in zip(changing, lengths, lengths[1:], strict=False):
        if extension.how == "hold":
            schedule = _held(schedule, before)
        else:
            schedule = _joined(schedule, make(after), extension.step)
    return schedule


def _held(schedule: optax.Schedule, end: int) -> optax.Schedule:
    return lambda count: schedule(jnp.minimum(count, end))


def _joined(before: optax.Schedule, after: optax.Schedule, step: int) -> optax.Schedule:
    return lambda count: jnp.where(count < step, before(count), after(count))
