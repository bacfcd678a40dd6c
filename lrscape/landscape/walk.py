"""The walk: the ground between consecutive iterates, while they are being made."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from lrscape import checks
from lrscape.errors import InputError
from lrscape.landscape import tree
from lrscape.landscape.points import PointLosses, mean_and_error
from lrscape.landscape.protocol import as_objective, settings_of
from lrscape.landscape.segment import (
    alphas_of,
    barrier_height,
    crosses_barrier,
    has_floor,
    height,
    valley_floor,
)
from lrscape.landscape.subspace import line

if TYPE_CHECKING:
    import xarray as xr


class Walk:
    """Records the ground between consecutive iterates while they are being made.

    A segment's end is the next one's beginning and is measured once: a step costs
    ``num_points + 1`` forward passes over the sample. Two consecutive points are kept,
    and the last move.

    Example:
        >>> walk = Walk(lambda w: jnp.sum(w ** 2), windows=[(0, 3)], num_points=1)
        >>> w = jnp.array([1.0, 1.0])
        >>> for step in range(4):
        ...     walk.record(step, w)
        ...     w = -0.5 * w
        >>> print(walk.to_dataset()['height'].values)
        [1.125     0.28125   0.0703125]
    """

    def __init__(
        self,
        objective: Any,
        *,
        windows: Iterable[Sequence[int]],
        num_points: int = 10,
        second: Any = None,
        reference: Any = None,
        chunk_size: int | None = 1,
        devices: Sequence[jax.Device] | None = None,
    ):
        """Gets ready; nothing is compiled yet.

        Args:
            objective: measured along each segment.
            windows: pairs of steps (first, last): the segments from `first` to
                `last` are recorded.
            num_points: points strictly between two iterates.
            second: an objective over another fixed sample, measured at the same
                points: a barrier that is not there too was noise of the sample.
            reference: the point that distances are measured from; None is the first
                one recorded.
            chunk_size: points computed side by side on each device; None measures
                what is fastest.
            devices: what a segment's points are shared among; None is all local ones.

        Raises:
            InputError: windows that are empty or overlap, or no interior points.
        """
        checks.count("num_points", num_points)
        self._windows = _checked_windows(windows)
        if chunk_size is not None:
            chunk_size = checks.count("chunk_size", chunk_size)
        devices = checks.devices("devices", devices)
        if reference is not None:
            tree.check_point("reference", reference)
        self._objectives = {"loss": as_objective(objective)}
        if second is not None:
            self._objectives["second_loss"] = as_objective(second)
        self._num_points, self._chunk_size = num_points, chunk_size
        self._devices, self._reference = devices, reference
        self._engines: dict[str, PointLosses] = {}
        self._point: Any = None
        self._step: int | None = None
        self._last: int | None = None
        self._end: dict[str, np.ndarray] = {}
        self._move: Any = None
        self._gradient: Any = None
        self._rows: list[dict[str, Any]] = []
        self._cosine_of: str | None = None

    def wants(self, step: int) -> bool:
        """Whether the point after so many updates is to be recorded.

        To be handed to `lrscape.training.fit` as ``yield_at``.
        """
        return any(first <= step <= last for first, last in self._windows)

    def record(
        self, step: int | jax.Array, point: Any, *, gradient: Any = None
    ) -> None:
        """Takes in an iterate; outside the windows it does nothing.

        Args:
            step: updates made before it.
            point: the iterate.
            gradient: the gradient of the update that led here; zeros where none did.
                Consecutive ones give the cosine; without them it is that of consecutive
                moves, which is the same for plain gradient descent.

        Raises:
            InputError: a point of another structure than the one before, gradients
                at some steps and none at others, or a step that does not come later.
        """
        step = checks.whole("step", step)
        if self._last is not None and step <= self._last:
            raise InputError(
                f"step={step} was recorded after step {self._last}; record iterates in "
                "their order, each once"
            )
        if not self.wants(step):
            self._point = self._step = None
            self._move = self._gradient = None
            return
        tree.check_point("point", point)
        if gradient is not None:
            tree.check_alike({"point": point, "gradient": gradient})
        if self._reference is None:
            self._reference = _copy(point)
        elif self._step is None:
            tree.check_alike({"point": point, "reference": self._reference})
        follows = self._step is not None and step == self._step + 1
        within = any(first < step <= last for first, last in self._windows)
        if follows and within:
            self._segment(step, point, gradient)
        else:
            self._move, self._end = None, {}
            self._gradient = None if gradient is None else _copy(gradient)
        # A copy: what the caller hands over may be changed in place, or donated.
        self._point, self._step = _copy(point), step
        self._last = step

    def _segment(self, step: int, point: Any, gradient: Any) -> None:
        tree.check_alike({"the point before": self._point, "point": point})
        segment = line(self._point, point)
        alphas = alphas_of(self._num_points)
        row: dict[str, Any] = {"step": self._step}
        for name, objective in self._objectives.items():
            todo = alphas[1:] if name in self._end else alphas
            losses = self._losses(name, objective, segment, todo)
            if name in self._end:
                losses = np.concatenate([self._end[name][None], losses])
            self._end[name] = losses[-1]
            row[name] = mean_and_error(losses, objective.weights)[0]
            row[f"{name}_barrier_error"] = _barrier_error(losses, objective.weights)
        move, distance, moved = _step_facts(self._point, point, self._reference)
        row["distance"], row["step_length"] = float(distance), float(moved)
        row["cosine"] = self._cosine(move, gradient)
        self._move = move
        self._gradient = None if gradient is None else _copy(gradient)
        self._rows.append(row)

    def _cosine(self, move: Any, gradient: Any) -> float:
        kind = "moves" if gradient is None else "gradients"
        if self._cosine_of not in (None, kind):
            raise InputError(
                "gradient: given at some steps and not at others; the cosine so far "
                f"is that of {self._cosine_of}"
            )
        self._cosine_of = kind
        before = self._move if gradient is None else self._gradient
        now = move if gradient is None else gradient
        return np.nan if before is None else float(_cosine(before, now))

    def _losses(self, name, objective, segment, alphas) -> np.ndarray:
        if name not in self._engines:
            engine = PointLosses(objective, segment, devices=self._devices)
            self._engines[name] = engine
            if self._chunk_size is None:
                self._chunk_size = engine.choose_chunk(alphas)
        engine = self._engines[name]
        engine.use(segment)
        found = np.zeros((len(alphas), objective.num_batches))
        for indices, losses in engine.run(
            alphas, np.arange(len(alphas)), self._chunk_size or 1
        ):
            found[indices] = losses["loss"]
        return found

    def to_dataset(self) -> xr.Dataset:
        """Returns the records as labelled arrays.

        Returns:
            Over ``step``, the update that a segment belongs to, and ``alpha``: ``loss``
            (and ``second_loss``). Over ``step``: ``barrier_height``,
            ``crosses_barrier``, ``barrier_error`` (the standard error of the barrier's
            height that the sample's batches imply), ``has_floor``, ``floor``,
            ``height``, ``cosine`` (of this update and the one before), ``distance``
            (from the reference to the segment's end) and ``step_length``.

        Raises:
            InputError: nothing was recorded.
        """
        import xarray as xr

        if not self._rows:
            raise InputError(
                f"the walk holds no segment: record consecutive steps of "
                f"windows={self._windows}"
            )
        rows = self._rows
        variables: dict[str, Any] = {}
        for name in self._objectives:
            losses = np.stack([row[name] for row in rows])
            prefix = name.removesuffix("loss")
            unit = {"units": "nat"}
            variables[name] = (("step", "alpha"), losses, unit)
            for measured, function in (
                ("barrier_height", barrier_height),
                ("crosses_barrier", crosses_barrier),
                ("has_floor", has_floor),
                ("floor", valley_floor),
                ("height", height),
            ):
                boolean = measured in ("crosses_barrier", "has_floor")
                variables[prefix + measured] = (
                    "step",
                    np.asarray(_on_host(function, losses)),
                    {"units": "1"} if boolean else unit,
                )
            errors = np.array([row[f"{name}_barrier_error"] for row in rows])
            variables[f"{prefix}barrier_error"] = ("step", errors, unit)
        for name in ("cosine", "distance", "step_length"):
            values = np.array([row[name] for row in rows])
            variables[name] = ("step", values, {"units": "1"})
        variables["cosine"][2]["of"] = str(self._cosine_of)
        steps = np.array([row["step"] for row in rows])
        coordinates = {
            "step": ("step", steps, {"units": "update"}),
            "alpha": ("alpha", alphas_of(self._num_points), {"units": "1"}),
        }
        return xr.Dataset(variables, coordinates)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the measurement, as JSON holds them."""
        names = {"loss": "objective", "second_loss": "second_objective"}
        settings = {
            names[name]: settings_of(objective)
            for name, objective in self._objectives.items()
        }
        return {"windows": self._windows, "num_points": self._num_points, **settings}


def _checked_windows(given: Any) -> list[tuple[int, int]]:
    windows = []
    for pair in checks.sequence("windows", given):
        ends = checks.sequence("windows", pair)
        if len(ends) != 2:
            raise InputError(
                f"windows: {checks.shown(pair)} must be a pair of steps, (first, last)"
            )
        first, last = (checks.whole("windows", step) for step in ends)
        windows.append((first, last))
    windows = sorted(windows)
    if not windows:
        raise InputError("windows: a walk needs at least one (first, last) of steps")
    for first, last in windows:
        if not first < last:
            raise InputError(
                f"windows: ({first}, {last}) holds no segment; it needs first < last"
            )
    for (_, last), (first, _) in itertools.pairwise(windows):
        if first < last:
            raise InputError(f"windows={windows} overlap; join them")
    return windows


def _on_host(function: Any, losses: np.ndarray) -> Any:
    """A function of losses in double precision, which they were added up in."""
    with jax.enable_x64(True):
        return np.asarray(function(losses))


def _barrier_error(losses: np.ndarray, weights: np.ndarray) -> float:
    """The standard error of the barrier's height, batch by batch.

    The highest interior point and the higher end see the same examples, so that most
    of what a sample adds to their losses is common to both.
    """
    mean = losses @ weights
    if not np.isfinite(mean).all():
        return np.nan
    top = 1 + int(np.argmax(mean[1:-1]))
    end = 0 if mean[0] >= mean[-1] else len(mean) - 1
    return float(mean_and_error(losses[top] - losses[end], weights)[1])


def _copy(point: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.copy(tree.own(leaf)), point)


@jax.jit
def _step_facts(point, next_point, reference):
    move = tree.subtract(next_point, point)
    return move, tree.norm(tree.subtract(next_point, reference)), tree.norm(move)


_cosine = jax.jit(tree.cosine)
