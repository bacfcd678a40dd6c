"""Losses at many points of a subspace: in chunks, over devices, resumable."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from lrscape import checks
from lrscape.errors import InputError
from lrscape.landscape.points import PointLosses, mean_and_error
from lrscape.landscape.programs import once_a_shape
from lrscape.landscape.protocol import (
    as_objective,
    checked_loss,
    is_compilable,
    is_traceable,
    settings_of,
)
from lrscape.landscape.store import Store, identity_of
from lrscape.processes import from_first, is_first

if TYPE_CHECKING:
    import xarray as xr

ERROR = "_standard_error"  # ends the name of a metric's standard error


@dataclasses.dataclass(frozen=True, eq=False)
class Surface:
    """Losses at points of a subspace, with standard errors and settings.

    Attributes:
        coordinates: as they were given.
        losses: the mean loss at each point, in the shape of the grid of coordinates; a
            dict of such arrays where the objective's loss is one. What is not finite
            stays so.
        standard_errors: likewise, the standard error of each mean that the spread of
            the sample's batches implies; NaN for a sample of one batch.
        num_non_finite: points whose loss is not finite.
        chunk_size: points computed side by side on each device.
        num_devices: devices that the points were shared among.
        num_measured: points measured by this call; the others were in the store.
        seconds: wall time of this call.
        settings: the objective's settings.
    """

    coordinates: np.ndarray
    losses: Any
    standard_errors: Any
    num_non_finite: int
    chunk_size: int
    num_devices: int
    num_measured: int
    seconds: float
    settings: dict[str, Any]

    def to_dataset(
        self, axes: dict[str, Any], *, units: dict[str, str] | None = None
    ) -> xr.Dataset:
        """The losses as labelled arrays.

        Args:
            axes: the name of each axis of the grid, in order, and its values.
            units: of coordinates and losses, by name; ``'loss'`` is in nats if nothing
                else is said.

        Returns:
            ``loss``, ``loss_standard_error`` and so on over the named axes; what else
            is known of the surface is among its attributes.

        Raises:
            InputError: axes that are not as many and as long as the grid's, or whose
                values are not those that were measured at.
        """
        import xarray as xr

        axes = self._checked(axes)
        if units is not None:
            checks.instance("units", units, Mapping, way_out="a unit for each name")
        units = {"loss": "nat", "error": "fraction", **(units or {})}
        losses, errors = self.losses, self.standard_errors
        if not isinstance(losses, dict):
            losses, errors = {"loss": losses}, {"loss": errors}
        variables = {}
        for name, values in losses.items():
            unit = {"units": units.get(name, "1")}
            variables[name] = (tuple(axes), values, unit)
            variables[f"{name}_standard_error"] = (tuple(axes), errors[name], unit)
        coordinates = {
            name: (name, np.asarray(values), {"units": units.get(name, "1")})
            for name, values in axes.items()
        }
        about = {
            "num_non_finite": self.num_non_finite,
            "chunk_size": self.chunk_size,
            "num_devices": self.num_devices,
            "seconds": self.seconds,
        }
        return xr.Dataset(variables, coordinates, about)

    def _checked(self, axes: Any) -> dict[str, Any]:
        """Axes whose values are the coordinates along them."""
        if not isinstance(axes, Mapping):
            raise InputError(
                f"axes={checks.shown(axes)} must be a mapping of names to values"
            )
        losses = self.losses
        values = next(iter(losses.values())) if isinstance(losses, dict) else losses
        shape = np.shape(values)
        lengths = tuple(len(np.atleast_1d(given)) for given in axes.values())
        if lengths != shape:
            raise InputError(
                f"axes: {', '.join(map(str, axes))} have lengths {lengths}, and the "
                f"grid has shape {shape}"
            )
        # Coordinates of a grid have a number for each axis; of another shape of points
        # an axis counts them, and any labels will do.
        grid = np.asarray(self.coordinates, np.float64)
        grid = grid[..., None] if grid.shape == shape else grid
        if grid.shape != (*shape, len(shape)):
            return dict(axes)
        for number, (name, given) in enumerate(axes.items()):
            try:
                along = np.asarray(given, np.float64)
            except (TypeError, ValueError) as error:
                raise InputError(
                    f"axes: {name}={checks.shown(given)} must be numbers"
                ) from error
            ones = [1] * len(shape)
            ones[number] = len(along)
            measured = grid[..., number]
            if not np.allclose(measured, along.reshape(ones), rtol=1e-6, atol=1e-12):
                raise InputError(
                    f"axes: {name} has the values {checks.shown(along.tolist())}, and "
                    f"losses were measured at "
                    f"{checks.shown(np.unique(measured).tolist())}; name other numbers "
                    "by assign_coords on the result"
                )
        return dict(axes)


def evaluate(
    objective: Any,
    subspace: Any,
    coordinates: Any,
    *,
    chunk_size: int | None = None,
    store: str | os.PathLike[str] | None = None,
    progress: bool = False,
    devices: Sequence[jax.Device] | None = None,
) -> Any:
    """Evaluates an objective at points of a subspace.

    Args:
        objective: an objective, or a function of a point.
        subspace: ``coordinates -> point``: `line`, `plane` and so on, or a function.
        coordinates: of shape (...) for a subspace of one coordinate, (..., n) for one
            of n; `grid_coordinates` makes them.
        chunk_size: points computed side by side on each device. None measures what is
            fastest, where there is enough to do; it changes results by rounding alone.
        store: a file that keeps every point as it is done: a call that was killed goes
            on where it was. Of several processes the first one writes it.
        progress: whether to show a bar with the time left.
        devices: what the points are shared among; None is all local devices.

    Returns:
        The mean losses as float64, in the shape of the grid (...); a dict of arrays
        where the objective's loss is a dict. What is not finite stays so.

    Raises:
        InputError: coordinates of the wrong shape, a loss that is no scalar, a chunk
            that is no positive number, or a store of another surface.

    Example:
        >>> from lrscape.landscape import line
        >>> print(evaluate(jnp.sum, line(jnp.zeros(2), jnp.ones(2)), [0.0, 0.5, 2.0]))
        [0. 1. 4.]
    """
    return measure_surface(
        objective,
        subspace,
        coordinates,
        chunk_size=chunk_size,
        store=store,
        progress=progress,
        devices=devices,
    ).losses


def measure_surface(
    objective: Any,
    subspace: Any,
    coordinates: Any,
    *,
    chunk_size: int | None = None,
    store: str | os.PathLike[str] | None = None,
    progress: bool = False,
    devices: Sequence[jax.Device] | None = None,
) -> Surface:
    """Evaluates an objective at points of a subspace, with standard errors.

    Args:
        objective: an objective, or a function of a point.
        subspace: ``coordinates -> point``: `line`, `plane` and so on, or a function.
        coordinates: of shape (...) for a subspace of one coordinate, (..., n) for one
            of n.
        chunk_size: points computed side by side on each device; None chooses.
        store: a file that keeps every point as it is done, so that a call that was
            killed goes on where it was.
        progress: whether to show a bar with the time left.
        devices: what the points are shared among; None is all local devices.

    Returns:
        The losses, their standard errors over the batches, and the settings.

    Raises:
        InputError: coordinates of the wrong shape, a loss that is no scalar, a chunk
            that is no positive number, or a store of another surface.

    Example:
        >>> from lrscape.landscape import line, mean_objective
        >>> objective = mean_objective(
        ...     lambda w, x: jnp.mean(w * x), jnp.array([1.0, 2.0, 3.0]), batch_size=1)
        >>> surface = measure_surface(
        ...     objective, line(jnp.zeros([]), jnp.ones([])), [0.0, 1.0])
        >>> print(surface.losses, surface.standard_errors.round(3))
        [0. 2.] [0.    0.577]
    """
    started = time.monotonic()
    objective = as_objective(objective)
    if chunk_size is not None:
        chunk_size = checks.count("chunk_size", chunk_size)
    checks.flag("progress", progress)
    devices = checks.devices("devices", devices)
    if store is not None:
        store = checks.path("store", store)
    coordinates, grid_shape, flat = _flat(subspace, coordinates)
    names, is_dict = _loss_names(objective, subspace, flat[0])
    taken = [n for n in names if n.endswith(ERROR) and n.removesuffix(ERROR) in names]
    if taken:
        raise InputError(
            f"the objective's metric {taken[0]!r} would take the place of the standard "
            f"error of {taken[0].removesuffix('_standard_error')!r}; call it otherwise"
        )
    engine = PointLosses(objective, subspace, devices=devices)
    value_names = [f"{n}{suffix}" for n in names for suffix in ("", "_standard_error")]
    values = np.zeros((len(flat), len(value_names)))
    done = np.zeros(len(flat), bool)
    with contextlib.ExitStack() as stack:
        keep = None
        if store is not None and is_first():
            identity = identity_of(objective, subspace, coordinates, flat[0])
            # Noted where the store is begun; one that is there already has its own.
            if chunk_size is None and not Path(store).exists():
                chunk_size = engine.choose_chunk(flat, alone=True)
            notes = {"chunk_size": chunk_size and int(chunk_size)}
            keep = stack.enter_context(
                Store(store, identity, len(flat), value_names, notes)
            )
            chunk_size = chunk_size or keep.notes["chunk_size"]
            done, values = keep.done.copy(), keep.values.copy()
        if store is not None:
            # The first of several processes keeps the store; all go on from it.
            done, values = from_first(done), from_first(values)
            chunk_size = int(from_first(np.array(chunk_size or 0))) or None
        todo = np.flatnonzero(~done)
        chunk = chunk_size or engine.choose_chunk(flat)
        progress = progress and is_first()
        bar = stack.enter_context(_bar(progress, len(flat), len(flat) - len(todo)))
        for indices, losses in engine.run(flat, todo, chunk):
            columns = [
                column
                for name in names
                for column in mean_and_error(losses[name], objective.weights)
            ]
            values[indices] = np.stack(columns, axis=1)
            if keep is not None:
                keep.add(indices, values[indices])
            bar.update(len(indices))

    def shaped(offset: int) -> Any:
        arrays = {
            name: values[:, 2 * i + offset].reshape(grid_shape)
            for i, name in enumerate(names)
        }
        return arrays if is_dict else arrays["loss"]

    return Surface(
        coordinates=coordinates,
        losses=shaped(0),
        standard_errors=shaped(1),
        num_non_finite=int((~np.isfinite(values[:, ::2])).any(axis=1).sum()),
        chunk_size=int(chunk),
        num_devices=len(engine.devices),
        num_measured=len(todo),
        seconds=time.monotonic() - started,
        settings=settings_of(objective),
    )


# Input and output.


def _flat(subspace: Any, coordinates: Any) -> tuple[np.ndarray, tuple, np.ndarray]:
    """Coordinates as an array, the shape of their grid, and as rows."""
    array = checks.numbers("coordinates", coordinates)
    array = np.asarray(jnp.asarray(array, jnp.result_type(float)))
    count = getattr(subspace, "num_coordinates", None)
    if count is None:
        count = _num_coordinates(subspace, array)
    shape: tuple[int, ...]
    flat: np.ndarray
    if count == 1:
        shape, flat = array.shape, array.reshape(-1)
    elif array.ndim and array.shape[-1] == count:
        shape, flat = array.shape[:-1], array.reshape(-1, count)
    else:
        kind = getattr(subspace, "kind", "subspace")
        raise InputError(
            f"coordinates have shape {array.shape}; for a {kind} of {count} "
            f"coordinates the last axis must be {count}; "
            "lrscape.landscape.grid_coordinates makes a grid of them"
        )
    if not len(flat):
        raise InputError(f"coordinates of shape {array.shape} hold no point")
    return array, shape, flat


def _num_coordinates(subspace: Any, array: np.ndarray) -> int:
    """What a function takes: one number, or as many as the last axis has."""
    if not callable(subspace):
        raise InputError(
            f"subspace={subspace!r} must be a function of coordinates, or made by "
            "line, plane ..."
        )
    try:
        jax.eval_shape(subspace, jax.ShapeDtypeStruct((), array.dtype))
    except Exception:
        if not array.ndim:
            raise
        jax.eval_shape(subspace, jax.ShapeDtypeStruct(array.shape[-1:], array.dtype))
        return array.shape[-1]
    return 1


def _loss_names(objective: Any, subspace: Any, one: Any) -> tuple[list[str], bool]:
    """The names of a loss, and whether it is a dict; before anything is compiled."""
    if not is_traceable(objective):
        point = jax.tree.map(jnp.asarray, subspace(one))
        found = checked_loss(objective.batch_loss(point, objective.batch(0)))
        names = _names(found)
    elif is_compilable(objective) and not jax.tree_util.all_leaves([subspace]):
        names = _traced_names(objective, subspace, one)
    else:
        names = _names(
            jax.eval_shape(
                lambda c, b: _first_loss(objective, subspace, c, b),
                *(one, objective.batch(0)),
            )
        )
    return (["loss"], False) if names is None else (list(names), True)


@once_a_shape
def _traced_names(objective: Any, subspace: Any, one: Any) -> tuple[str, ...] | None:
    batch = jax.eval_shape(lambda o: o.batch(0), objective)
    # A function of its own: JAX keeps what it traced for as long as the function is.
    loss = jax.eval_shape(
        lambda *arguments: _first_loss(*arguments), objective, subspace, one, batch
    )
    return _names(loss)


def _first_loss(objective: Any, subspace: Any, one: Any, batch: Any) -> Any:
    return checked_loss(objective.batch_loss(subspace(one), batch))


def _names(loss: Any) -> tuple[str, ...] | None:
    """The names of a loss that is a dict, its own first; None for a scalar."""
    if not isinstance(loss, dict):
        return None
    return ("loss", *(name for name in loss if name != "loss"))


def _bar(progress: bool, total: int, done: int) -> Any:
    from tqdm import tqdm

    return tqdm(
        total=total, initial=done, disable=not progress, unit="point",
        dynamic_ncols=True,
    )  # fmt: skip
