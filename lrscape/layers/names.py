"""Reads the roles of leaves off their names and the arrays beside them.

Names tell kernel from bias, and Flax's layout (outputs last) from that of Equinox and
PyTorch (outputs first). How many axes count outputs, and how many count stacked layers,
no name tells: the bias of the same layer does, whose shape is stacked + outputs; where
there is none, other arrays of the same block do, such as the scale of a norm layer,
which has one axis where nothing is stacked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from lrscape.layers.leaf import Leaf

Shape = tuple[int, ...]

_I = re.IGNORECASE
_KERNEL = re.compile(r"kernel", _I)  # Flax: outputs last
_WEIGHT = re.compile(r"(.*_)?weight(_.*)?|original1", _I)  # outputs first
_SCALE = re.compile(r"scale|gamma|original0", _I)
_BIAS = re.compile(r"(.*_)?bias(_.*)?|beta|offset", _I)
_LORA = re.compile(r"lora_[ab]", _I)
_EMBEDDING = re.compile(r"(.*_)?embed(ding)?s?|cls|(cls|mask)_token|.*_emb", _I)
_STATISTIC = re.compile(
    r"running_(mean|var)|num_batches_tracked|mean|var|negative_slope"
)
_PART_OF_LEAF = ("value", "raw_value")  # of NNX variables and Linen's boxes

_EMBEDDINGS = re.compile(
    r"(.*_)?(embed(ding|der)?s?|embed_tokens|emb|wte|wpe)(_?\d+)?", _I
)
_NORMS = re.compile(r".*norm.*|(.*_)?(bn|ln|gn)(_?\d+|_[a-z])?", _I)
_LIFTED = r"(Scan|Vmap|Checkpoint|Remat)*"
_DENSE = re.compile(rf"{_LIFTED}Dense_\d+")
_CONV = re.compile(r".*conv.*", _I)
_TRANSPOSED = re.compile(r".*(conv.*transpose|transposed?_?conv|deconv).*", _I)
_ATTENTION_IN = re.compile(r"query|key|value|[qkv](_?proj)?|qkv(_?proj)?", _I)
_ATTENTION_OUT = re.compile(r"out|o|(out|o)_?proj", _I)
_LIFTED_SCOPE = re.compile(r"(Scan|Vmap)[A-Z].*|scan_.*|scanned_.*")
_HAIKU = re.compile(r"(.*_)?(linear|conv\d_d(_transpose)?)(_\d+)?")

UNKNOWN = "nothing identifies it"


class _Array(NamedTuple):
    path: str
    module: tuple[str, ...]
    name: str
    shape: Shape
    kind: str  # kernel (outputs last), weight (first), bias, scale ...


def parts_of(path: str) -> tuple[str, ...]:
    """A path's parts: of trees, PyTorch's dotted keys, boxed and unboxed leaves.

    Example:
        >>> parts_of('params/Dense_0/kernel/value'), parts_of('layer1.0.conv1.weight')
        (('Dense_0', 'kernel'), ('layer1', '0', 'conv1', 'weight'))
    """
    parts = tuple(re.split(r"[/.]", path))
    if len(parts) > 1 and parts[0] == "params":
        parts = parts[1:]
    if len(parts) > 1 and parts[-1] in _PART_OF_LEAF:
        parts = parts[:-1]
    return parts


def read(
    paths: list[str], shapes: list[Shape], stacks: dict[int, tuple[int, ...]]
) -> list[Leaf]:
    """The role of each leaf, as far as names and shapes tell.

    Args:
        paths: the path of each leaf.
        shapes: the shape of each.
        stacks: of leaves whose axes carry names (partitioned ones): their stacked axes.

    Returns:
        As many leaves; ``'unknown'`` where nothing tells.
    """
    return _Reader(paths, shapes, stacks).leaves()


class _Reader:
    def __init__(self, paths, shapes, stacks):
        self.stacks = stacks
        self.modules: dict[tuple[str, ...], list[str]] = {}
        parts = [parts_of(path) for path in paths]
        for p in parts:
            self.modules.setdefault(p[:-1], []).append(p[-1])
        self.arrays = [
            _Array(path, p[:-1], p[-1], tuple(shape), self._kind(p, tuple(shape)))
            for path, p, shape in zip(paths, parts, shapes, strict=True)
        ]
        self.of_module: dict[tuple[str, ...], list[_Array]] = {}
        # The shapes below every module, and how many axes are stacked there by those
        # leaves that tell.
        self.below: dict[tuple[str, ...], list[Shape]] = {}
        self.depths: dict[tuple[str, ...], set[int]] = {}
        for array in self.arrays:
            self.of_module.setdefault(array.module, []).append(array)
        self.arrays = [self._checked_scale(array) for array in self.arrays]
        self.of_module = {}
        for array in self.arrays:
            self.of_module.setdefault(array.module, []).append(array)
        for array in self.arrays:
            depth = self._depth(array)
            for n in range(len(array.module) + 1):
                prefix = array.module[:n]
                self.below.setdefault(prefix, []).append(array.shape)
                if depth is not None:
                    self.depths.setdefault(prefix, set()).add(depth)

    def leaves(self) -> list[Leaf]:
        found = [self._leaf(i, array) for i, array in enumerate(self.arrays)]
        # A bias has the stacked axes of the kernel beside it.
        stacked = {
            array.module: leaf.stacked
            for array, leaf in zip(self.arrays, found, strict=True)
            if leaf.role == "kernel"
        }
        for i, (array, leaf) in enumerate(zip(self.arrays, found, strict=True)):
            if leaf.role == "bias" and array.module in stacked:
                axes = tuple(a for a in stacked[array.module] if a < len(array.shape))
                found[i] = _vector(array, "bias", axes, leaf.source)
        return found

    # What a name says.

    def _kind(self, parts: tuple[str, ...], shape: Shape) -> str:
        name = parts[-1]
        parent = parts[-2] if len(parts) > 1 else ""
        if _KERNEL.fullmatch(name):
            return "kernel"
        if _STATISTIC.fullmatch(name):
            return "other"
        if name in ("w", "b") and any(map(_HAIKU.fullmatch, parts[:-1])):
            return "kernel" if name == "w" else "bias"
        if _BIAS.fullmatch(name):
            return "bias"
        if _SCALE.fullmatch(name):
            return "scale"
        if _LORA.fullmatch(name):
            return "lora"
        if _EMBEDDING.fullmatch(name):
            return "embedding"
        if _WEIGHT.fullmatch(name):
            if _EMBEDDINGS.fullmatch(parent) and len(shape) > 1:
                return "embedding"
            if len(shape) < 2 or _NORMS.fullmatch(parent):
                return "scale"
            return "weight"
        return "unknown" if len(shape) > 1 else "other"

    def _checked_scale(self, array: _Array) -> _Array:
        """A weight whose bias has its very shape scales what it is multiplied with."""
        if array.kind == "weight":
            bias = self._bias(array)
            if bias is not None and bias == array.shape:
                return array._replace(kind="scale")
        return array

    def _bias(self, array: _Array) -> Shape | None:
        """The shape of the bias beside a kernel."""
        wanted = array.name.replace("weight", "bias").replace("kernel", "bias")
        shapes = {
            other.name: other.shape
            for other in self.of_module[array.module]
            if other.kind == "bias"
        }
        for name in (wanted, "bias", "b"):
            if name in shapes:
                return shapes[name]
        return None

    # How many axes are stacked.

    def _depth(self, array: _Array) -> int | None:
        """How many axes are stacked, where the leaf and its bias alone tell."""
        ndim = len(array.shape)
        if array.module and array.module[-1] in ("kernel", "weight"):
            return None  # the scale of a weight-normalised kernel
        if array.kind == "scale":
            return max(ndim - 1, 0) if ndim else None
        if array.kind in ("embedding", "lora"):
            return ndim - 2 if array.name in ("embedding", "lora_a", "lora_b") else None
        if array.kind in ("kernel", "weight"):
            if ndim == 2:
                return 0
            readings = list(self._readings(array))
            if len(readings) == 1:
                return readings[0][0]
            if array.module and _DENSE.fullmatch(array.module[-1]):
                return ndim - 2
        return None

    def _around(self, module: tuple[str, ...]) -> tuple[int, ...] | None:
        """The stacked axes of a module, as the arrays around it tell.

        Of the blocks that hold it, nearest first, the last that is stacked alike.
        """
        found: tuple[int, ...] | None = None
        for n in range(len(module), -1, -1):
            depths = self.depths.get(module[:n])
            if not depths:
                continue
            axes = None
            if len(depths) == 1:
                axes = _common_axes(next(iter(depths)), self.below[module[:n]])
            if axes is None or (found is not None and len(axes) != len(found)):
                break
            found = axes
        return found

    def _readings(self, array: _Array) -> Iterator[tuple[int, tuple[int, ...]]]:
        """(stacked leading axes, output axes) that a kernel and its bias allow."""
        bias, shape = self._bias(array), array.shape
        if bias is None:
            return
        for depth in range(len(shape) - 1):
            if len(bias) <= depth or bias[:depth] != shape[:depth]:
                continue
            outputs = self._outputs(array, shape[depth:], bias[depth:])
            if outputs is not None:
                yield depth, tuple(depth + axis for axis in outputs)

    # The axes of one layer.

    def _outputs(self, array: _Array, shape: Shape, bias: Shape | None):
        """The output axes of a kernel without stacked ones; None where none fits."""
        if array.kind == "weight":
            return _outputs_first(array, shape, bias)
        return _outputs_last(array, shape, bias)

    def _leaf(self, i: int, array: _Array) -> Leaf:
        kind, shape = array.kind, array.shape
        around = self.stacks.get(i)
        if around is None:
            around = self._around(array.module)
        if kind == "bias" or kind == "scale":
            stacked = around or ()
            if len(stacked) >= len(shape):
                stacked = ()
            return _vector(array, kind, stacked, "names")
        if kind == "other":
            known = _STATISTIC.fullmatch(array.name)
            source = "names" if known else "fewer than two axes"
            return _vector(array, kind, (), source)
        if kind == "unknown":
            return Leaf(array.path, shape, "unknown", source=UNKNOWN)
        if kind == "embedding":
            # A row is a unit, however many axes count rows and layers.
            stacked = around if around and len(shape) - len(around) >= 2 else ()
            rows = tuple(a for a in range(len(shape) - 1) if a not in stacked)
            return Leaf(
                array.path, shape, kind, rows, (len(shape) - 1,) if shape else (),
                stacked,
            )  # fmt: skip
        if kind == "lora":
            last = len(shape) - 1
            if last < 1:
                return Leaf(array.path, shape, "unknown", source=UNKNOWN)
            return _kernel(array, tuple(range(last - 1)), (last,), "names")
        return self._kernel_leaf(array, around, i in self.stacks)

    def _kernel_leaf(self, array: _Array, around, is_named: bool) -> Leaf:
        shape = array.shape
        readings = list(self._readings(array))
        if len(readings) == 1 and not is_named:
            depth, outputs = readings[0]
            if around is None or around == tuple(range(depth)) or not readings[0][0]:
                return _kernel(
                    array, tuple(range(depth)), outputs, "the bias beside it"
                )
        if around is not None:
            bias = self._bias(array)
            kept = [a for a in range(len(shape)) if a not in around]
            if bias is not None:
                bias = tuple(n for a, n in enumerate(bias) if a not in around)
            one = tuple(shape[a] for a in kept)
            found = self._outputs(array, one, bias)
            if found is not None:
                source = "arrays around it" if around else "names"
                return _kernel(array, around, tuple(kept[a] for a in found), source)
        if len(readings) == 1:
            depth, outputs = readings[0]
            return _kernel(array, tuple(range(depth)), outputs, "the bias beside it")
        for depth in self._likely_depths(array):
            if readings:
                chosen = [outputs for n, outputs in readings if n == depth]
                found = chosen[0] if chosen else None
            elif self._bias(array) is None:
                found = self._outputs(array, shape[depth:], None)
                found = found and tuple(depth + axis for axis in found)
            else:
                found = None
            if found:
                return _kernel(array, tuple(range(depth)), found, "names")
        why = "its bias fits it in no way" if self._bias(array) else UNKNOWN
        if readings:
            why = " or ".join(
                _kernel(array, tuple(range(depth)), outputs, "").pattern
                for depth, outputs in readings
            )
        elif self._bias(array) is None:
            why = "no array beside it tells stacked layers from other axes"
        return Leaf(array.path, shape, "unknown", source=why)

    def _likely_depths(self, array: _Array) -> list[int]:
        """How many axes are stacked, by the name of the layer alone."""
        name = array.module[-1] if array.module else ""
        ndim = len(array.shape)
        if ndim == 2:
            return [0]
        if _DENSE.fullmatch(name):
            return [ndim - 2]
        if any(map(_LIFTED_SCOPE.fullmatch, array.module)):
            return [1]
        if array.kind == "kernel" and (
            _ATTENTION_IN.fullmatch(name) or self._is_attention_out(array)
        ):
            return [ndim - 3]
        window = array.shape[:-2] if array.kind == "kernel" else array.shape[2:]
        if len(set(window)) == 1 and (ndim > 3 or _CONV.fullmatch(name)):
            return [0]
        return []

    def _is_attention_out(self, array: _Array) -> bool:
        if not array.module or not _ATTENTION_OUT.fullmatch(array.module[-1]):
            return False
        beside = array.module[:-1]
        return any(
            module[:-1] == beside and module and _ATTENTION_IN.fullmatch(module[-1])
            for module in self.modules
        )


def _common_axes(depth: int, shapes: list[Shape]) -> tuple[int, ...] | None:
    """The axes, so many of them, over which all arrays may be stacked."""
    if len({shape[:depth] for shape in shapes}) == 1:
        return tuple(range(depth))
    # `nn.scan(..., variable_axes={'params': 1})`, as in MaxText.
    if depth == 1 and len({shape[1:2] or None for shape in shapes}) == 1:
        return (1,) if len(shapes[0]) > 1 else None
    return None


def _outputs_last(array: _Array, shape: Shape, bias: Shape | None):
    """Flax: ``(..., in, out)``; attention ``(in, heads, head_dim)``."""
    ndim, name = len(shape), array.module[-1] if array.module else ""
    if ndim < 2:
        return None
    if array.name == "w" and any(map(_TRANSPOSED.fullmatch, array.module)):
        return (ndim - 2,)  # Haiku
    if bias is not None:
        count = len(bias)
        if 0 < count < ndim and shape[-count:] == bias:
            return tuple(range(ndim - count, ndim))
        if count == 1 and ndim > 2 and shape[-2] == bias[0]:
            return (ndim - 2,)  # a transposed convolution's, with transpose_kernel
        return None
    if ndim == 3 and _ATTENTION_IN.fullmatch(name):
        return (1, 2)
    if ndim == 3 and not (_CONV.fullmatch(name) or _ATTENTION_OUT.fullmatch(name)):
        return None
    return (ndim - 1,)


def _outputs_first(array: _Array, shape: Shape, bias: Shape | None):
    """Equinox, PyTorch: ``(out, in, ...)``; PyTorch's transposed ``(in, out, ...)``."""
    ndim = len(shape)
    if ndim < 2:
        return None
    is_transposed = ndim > 2 and any(map(_TRANSPOSED.fullmatch, array.module))
    if bias is None:
        if is_transposed:
            return (1,) if "." in array.path else None
        return (0,)
    # Equinox's biases of convolutions have an axis of length 1 for each of the window.
    has_window = ndim > 2 and bias[1:] == (1,) * (ndim - 2)
    if has_window:
        bias = bias[:1]
    if len(bias) != 1:
        return None
    fits = [axis for axis in (0, 1)[: 1 if ndim == 2 else 2] if shape[axis] == bias[0]]
    if len(fits) == 2 and is_transposed and not has_window:
        return (1,)
    return (fits[0],) if fits else None


def _kernel(array: _Array, stacked, outputs, source: str) -> Leaf:
    inputs = [a for a in range(len(array.shape)) if a not in (*stacked, *outputs)]
    if not inputs:
        return Leaf(array.path, array.shape, "unknown", source="it has no input axis")
    if array.kind == "weight":
        # The window of a convolution before its channels, as in Flax's layout.
        inputs = [*inputs[1:], inputs[0]]
    return Leaf(
        array.path, array.shape, "kernel", tuple(outputs), tuple(inputs),
        tuple(stacked), source,
    )  # fmt: skip


def _vector(array: _Array, role: str, stacked, source: str) -> Leaf:
    rest = tuple(a for a in range(len(array.shape)) if a not in stacked)
    return Leaf(array.path, array.shape, role, rest, (), tuple(stacked), source)
