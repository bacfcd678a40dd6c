"""The role of one leaf of a point, and the axes that count its units."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from lrscape import checks
from lrscape.errors import InputError

ROLES = ("kernel", "bias", "scale", "embedding", "other", "unknown")
# Leaves of these roles are weights: they are decayed, and have units with norms.
WEIGHTS = ("kernel", "embedding")


@dataclasses.dataclass(frozen=True)
class Leaf:
    """The role of one array of a point, and its axes.

    A stacked axis counts layers that are held in one array, as `flax.linen.scan` and
    `flax.linen.vmap` hold them. An output axis counts a layer's units. All other axes
    of a kernel are input axes: what a unit's weights lie along.

    Attributes:
        path: where the array lies in the point, as ``'Dense_0/kernel'``.
        shape: the array's shape.
        role: ``'kernel'``, ``'bias'``, ``'scale'`` (of a normalisation layer),
            ``'embedding'`` (a unit is a row, that of one token), ``'other'`` (running
            averages, slopes and other arrays of fewer than two axes that no name
            identifies) or ``'unknown'``.
        outputs: the output axes.
        inputs: the input axes, those of a convolution's window before that of its
            channels, whatever order the array holds them in.
        stacked: the stacked axes.
        source: what told the role: ``'axes='``, ``'model'``, ``'names'``,
            ``'the bias beside it'``, ``'arrays around it'``; of an unknown array, why
            nothing did.
    """

    path: str
    shape: tuple[int, ...]
    role: str
    outputs: tuple[int, ...] = ()
    inputs: tuple[int, ...] = ()
    stacked: tuple[int, ...] = ()
    source: str = "names"

    @property
    def axes(self) -> Axes | None:
        """The same as a user says it; None of what is unknown."""
        if self.role == "unknown":
            return None
        outputs = self.outputs if self.is_weight else ()
        return Axes(outputs, self.stacked, self.role)

    @property
    def is_weight(self) -> bool:
        """Whether it is a kernel or an embedding: neither bias nor norm scale.

        By its name, where that says so and its axes alone are not known.
        """
        named = self.path.rpartition("/")[2] in WEIGHTS and len(self.shape) > 1
        return self.role in WEIGHTS or (self.role == "unknown" and named)

    @property
    def layers(self) -> int:
        """The number of layers that the array holds."""
        return math.prod(self.shape[axis] for axis in self.stacked)

    @property
    def units(self) -> int:
        """The number of units of all its layers together; 0 for a leaf without any."""
        if self.role not in WEIGHTS:
            return 0
        return self.layers * math.prod(self.shape[axis] for axis in self.outputs)

    @property
    def layer_axes(self) -> tuple[int, ...]:
        """The axes of one layer: all but the stacked ones."""
        return tuple(i for i in range(len(self.shape)) if i not in self.stacked)

    @property
    def canonical(self) -> tuple[int, ...]:
        """The axes in the order stacked, input, output: Flax's own, in any layout.

        Axes of length 1 that a bias has beside its units go last.
        """
        known = (*self.stacked, *self.inputs, *self.outputs)
        return (*known, *(i for i in range(len(self.shape)) if i not in known))

    @property
    def pattern(self) -> str:
        """Role and axes in short, as ``'kernel (stacked, in, out)'``."""
        names = {
            **dict.fromkeys(self.stacked, "stacked"),
            **dict.fromkeys(self.outputs, "out"),
            **dict.fromkeys(self.inputs, "in"),
        }
        axes = [names.get(axis, "-") for axis in range(len(self.shape))]
        return f"{self.role} ({', '.join(axes)})"


@dataclasses.dataclass(frozen=True)
class Axes:
    """A user's word on a leaf's role and axes, as `lrscape.layers.roles` takes it.

    Attributes:
        outputs: the axis that counts units, or several; negative ones count from the
            end.
        stacked: the axis that counts layers held in one array, or several.
        role: a name in `ROLES` but ``'unknown'``.
    """

    outputs: int | tuple[int, ...] = ()
    stacked: int | tuple[int, ...] = ()
    role: str = "kernel"

    def __post_init__(self) -> None:
        checks.one_of("role", self.role, ROLES[:-1])
        for field in ("outputs", "stacked"):
            value = getattr(self, field)
            named = value is None or isinstance(value, str | Axes)
            if value != () and (named or not is_spec(value)):
                raise InputError(
                    f"{field}={checks.shown(value)} must be an axis, or several"
                )
        if self.role == "kernel" and self.outputs == ():
            raise InputError(
                "Axes(outputs=()): a kernel has at least one output axis; for the "
                "last one pass Axes(outputs=-1)"
            )


def is_spec(value: Any) -> bool:
    """Whether a value says what one leaf is: an axis, several, a role, `Axes`."""
    if isinstance(value, tuple | list):
        return bool(value) and all(map(_is_axis, value))
    return value is None or _is_axis(value) or isinstance(value, str | Axes)


def _is_axis(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def leaf_of(path: str, shape: tuple[int, ...], spec: Any, source: str) -> Leaf:
    """A leaf from what a user or a model says of it.

    Raises:
        InputError: an axis that the leaf does not have, one that is named twice, or a
            kernel that is left without input axes.
    """
    if isinstance(spec, str):
        if spec == "kernel":
            raise InputError(
                f"axes: {path} is 'kernel'; say which axes count its units instead, "
                "such as -1"
            )
        try:
            spec = Axes(role=spec)
        except InputError as error:
            raise InputError(f"axes: {path}: {error}") from error
    elif not isinstance(spec, Axes):
        spec = Axes(outputs=spec if _is_axis(spec) else tuple(spec))
    ndim = len(shape)

    def whole(axes: Any) -> tuple[int, ...]:
        axes = (axes,) if _is_axis(axes) else tuple(axes)
        for axis in axes:
            if not -ndim <= axis < ndim:
                raise InputError(
                    f"axes: {path} of shape {shape} has no axis {axis}"
                    + (f"; it has 0 to {ndim - 1}" if ndim else "")
                )
        return tuple(axis % ndim for axis in axes)

    outputs, stacked = whole(spec.outputs), whole(spec.stacked)
    named = (*outputs, *stacked)
    if len(set(named)) != len(named):
        raise InputError(
            f"axes: {path} of shape {shape}: an axis is named twice, in "
            f"outputs={spec.outputs} and stacked={spec.stacked}"
        )
    rest = tuple(i for i in range(ndim) if i not in named)
    if spec.role == "embedding" and not outputs:
        # A row is a unit, however many axes count the rows.
        outputs, rest = rest[:-1], rest[-1:]
    if spec.role not in WEIGHTS:
        outputs, rest = rest, ()
    elif spec.role == "kernel" and outputs:
        # A convolution's window lies before its channels and outputs (Flax) or after
        # them (Equinox, PyTorch): here the window goes first.
        after = sum(axis > max(outputs) for axis in rest)
        if after > len(rest) - after:
            rest = (*rest[1:], rest[0])
    return Leaf(path, shape, spec.role, outputs, rest, stacked, source)
