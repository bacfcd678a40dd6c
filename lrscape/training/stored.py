"""Looks at what Orbax stored before it is loaded: its files, shapes and data types.

TensorStore makes room for whatever shape is declared, and ends the process where there
is too little memory. The declared shapes are therefore read first, from the very
metadata that TensorStore goes by.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tensorstore as ts

from lrscape.errors import InputError
from lrscape.reading import MIB, Reader, parse_json

# Arrays may have so many bytes for each byte that is stored of them, since zeros (as of
# an optimizer before its first update) take hardly any; or so many bytes altogether.
GROWTH = 64
FLOOR = 64 * MIB
LEAVES = 10_000
_METADATA_BYTES = 4 * MIB
_ARRAY_BYTES = 64 << 10  # of one array's metadata
# Of Zarr 3 and of Zarr 2: where an array's metadata lies, and its chunks' shape.
_NAMES = ("zarr.json", ".zarray")
# Files of JSON, and folders of such files, that Orbax reads.
_TOLD = ("_CHECKPOINT_METADATA", "_METADATA", "_sharding", "array_metadatas")
# What Orbax calls the arrays of a tree, and what is empty in it.
_ARRAYS = ("jax.Array", "np.ndarray", "scalar")
_EMPTY = ("None", "Dict", "List", "Tuple", "NamedTuple")
_CODECS = {"sharding_indexed", "bytes", "zstd", "crc32c", "transpose", "gzip", "blosc"}


class Declared(NamedTuple):
    """An array as its metadata declares it."""

    shape: tuple[int, ...]
    dtype: str
    size: int


def leaves_of(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    """The shape and data type of each leaf of a tree, by its path in Orbax's words.

    Example:
        >>> leaves_of({'params': {'bias': np.zeros(3, np.float32)}})
        {'params.bias': ((3,), 'float32')}
    """
    return {
        ".".join(map(_word, path)): (np.shape(leaf), str(np.dtype(leaf.dtype)))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _word(key: Any) -> str:
    for name in ("key", "idx", "name"):
        if hasattr(key, name):
            return str(getattr(key, name))
    return str(key)


def check_stored(
    folder: Path,
    root: Path,
    expected: Mapping[str, tuple[tuple[int, ...], str]] | None = None,
) -> None:
    """Checks what is declared in a folder that Orbax wrote.

    Args:
        folder: a snapshot or a checkpoint.
        root: the run directory that it is in, or the folder itself.
        expected: what the run's model implies, as `leaves_of` gives it; None: nothing
            is known of it.

    Raises:
        FileNotFoundError: there is no such folder.
        InputError: links or special files; another format than is written; arrays that
            are not what is expected, or far larger than what is stored of them.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not there")
    reader = Reader(root)
    stored = 0
    for file, status in reader.files_below(folder):
        if file.name in _NAMES:
            raise InputError(f"{folder} is refused: it is stored in another format")
        if file.name in _TOLD or file.parent.name in _TOLD:
            reader.json(file, most=_METADATA_BYTES)
        # A file with holes stores less than its size.
        held = getattr(status, "st_blocks", None)
        stored += status.st_size if held is None else min(status.st_size, 512 * held)
    items = [
        place
        for place in (folder, *reader.entries(folder))
        if (place / "_METADATA").exists()
    ]
    if len(items) != 1 or not (items[0] / "manifest.ocdbt").is_file():
        raise InputError(
            f"{folder} is refused: it is not stored as lrscape stores trees of arrays"
        )
    declared = _declared(items[0], reader)
    if expected is not None:
        _compare(folder, declared, expected)
    size = sum(array.size for array in declared.values())
    if size > (most := max(FLOOR, GROWTH * stored)):
        largest = max(declared, key=lambda name: declared[name].size)
        raise InputError(
            f"{folder} is refused: it declares arrays of {size:,} bytes (the largest, "
            f"{largest}, of shape {declared[largest].shape}), and {stored:,} bytes are "
            f"stored: no more than {most:,} can be in them"
        )


def _declared(item: Path, reader: Reader) -> dict[str, Declared]:
    """What TensorStore will be told of each array, by the array's name."""
    told = reader.json(item / "_METADATA", most=_METADATA_BYTES)
    names = list(_names(told, item))
    # No URL, in which some letters would mean something else.
    base = {"driver": "file", "path": f"{item.absolute()}/"}
    try:
        store = ts.KvStore.open({"driver": "ocdbt", "base": base}).result()
    except ValueError as error:
        raise InputError(f"{item} is damaged: {error}") from error
    found = {}
    for name in names:
        for kind in _NAMES:
            try:
                value = store.read(f"{name}/{kind}").result().value
            except ValueError as error:
                raise InputError(f"{item} is damaged: {error}") from error
            if value:
                break
        else:
            raise InputError(f"{item} is damaged: nothing is stored of {name}")
        if len(value) > _ARRAY_BYTES:
            raise InputError(
                f"{item} is refused: what it says of {name} has {len(value):,} bytes"
            )
        found[name] = _array(parse_json(value, f"{item}: {name}"), f"{item}: {name}")
    return found


def _names(told: Any, item: Path) -> Iterable[str]:
    try:
        if told["use_ocdbt"] is not True:
            raise KeyError("use_ocdbt")
        tree = told["tree_metadata"]
        if len(tree) > LEAVES:
            raise InputError(
                f"{item} is refused: it holds {len(tree):,} arrays, more than "
                f"{LEAVES:,}"
            )
        for leaf in tree.values():
            kind = leaf["value_metadata"]["value_type"]
            if kind in _EMPTY:
                continue
            if kind not in _ARRAYS:
                raise KeyError(kind)
            yield ".".join(str(key["key"]) for key in leaf["key_metadata"])
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{item} is refused: its _METADATA is not what lrscape stores ({error})"
        ) from error


def _array(told: Any, where: str) -> Declared:
    """An array as Zarr's metadata declare it."""
    try:
        if told["zarr_format"] == 3:
            grid = told["chunk_grid"]
            chunks = [grid["configuration"]["chunk_shape"]]
            chunks += _inner_chunks(told["codecs"], where)
            named = str(told["data_type"])
        else:
            chunks, named = [told["chunks"]], str(told["dtype"])
            if told.get("filters"):
                raise InputError(f"{where} is refused: its values are filtered")
        shape = tuple(told["shape"])
        lengths = [*shape, *(n for chunk in chunks for n in chunk)]
        if any(type(n) is not int or n < 0 for n in lengths):
            raise TypeError("a length that is no whole number")
        dtype = jax.numpy.dtype(named)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{where} is refused: its metadata are not what lrscape stores ({error})"
        ) from error
    for chunk in chunks:
        fits = len(chunk) == len(shape)
        if not fits or any(
            piece > max(1, n) for piece, n in zip(chunk, shape, strict=True)
        ):
            raise InputError(
                f"{where} is refused: an array of shape {shape} in pieces of shape "
                f"{tuple(chunk)}"
            )
    return Declared(shape, str(dtype), math.prod(shape) * dtype.itemsize)


def _inner_chunks(codecs: Any, where: str) -> list[list[int]]:
    found = []
    for codec in codecs:
        if codec["name"] not in _CODECS:
            raise InputError(f"{where} is refused: it is packed by {codec['name']!r}")
        if codec["name"] == "sharding_indexed":
            inner = codec["configuration"]
            found.append(inner["chunk_shape"])
            found += _inner_chunks(inner["codecs"], where)
    return found


def _compare(
    folder: Path,
    declared: Mapping[str, Declared],
    expected: Mapping[str, tuple[tuple[int, ...], str]],
) -> None:
    for name in sorted(declared.keys() | expected):
        found = declared[name][:2] if name in declared else None
        if found != (wanted := expected.get(name)):
            told = " of type ".join(map(str, found)) if found else "nothing"
            asked = " of type ".join(map(str, wanted)) if wanted else "nothing"
            raise InputError(
                f"{folder} is not of the run's model: {name} has the shape {told}, "
                f"and the model implies {asked}"
            )
