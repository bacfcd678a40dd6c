"""A surface on disk while it is being measured: nothing finished is measured twice.

A line of JSON says which surface it is. A record follows for each point that is done:
its index, its values, a checksum. Records are appended as they come, so that a process
that is killed loses none of them; half a record at the end is cut off.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import jax
import numpy as np

from lrscape import checks, file_lock
from lrscape.errors import InputError
from lrscape.landscape.accumulate import batch_losses
from lrscape.landscape.protocol import is_traceable, settings_of
from lrscape.landscape.tree import leaf_names
from lrscape.reading import MIB, parse_json

_HEADER_BYTES = MIB
_KIND = "lrscape surface, version 1"


class Store:
    """Values of the points that are done, in a file.

    Attributes:
        path: the file.
        done: (points,), which of them are done, whatever their values.
        values: (points, values), zero where not done.
        notes: what was noted when the file was begun; does not tell surfaces apart.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        identity: Mapping[str, str],
        num_points: int,
        value_names: list[str],
        notes: Mapping[str, Any],
    ):
        """Opens a file, or begins it.

        Args:
            path: the file; its directory is made if need be.
            identity: what tells this surface from others, part by part.
            num_points: how many points the surface has.
            value_names: what each of a point's values is.
            notes: kept where the file is begun.

        Raises:
            InputError: the file belongs to another surface, is no store, cannot be
                written, or is being written by another process.
        """
        self.path = checks.path("store", path)
        header = {
            "kind": _KIND,
            "identity": dict(identity),
            "num_points": num_points,
            "values": value_names,
            "notes": dict(notes),
        }
        self.done = np.zeros(num_points, bool)
        self.values = np.zeros((num_points, len(value_names)))
        self._record = np.dtype(
            [("index", "<i8"), ("values", "<f8", len(value_names)), ("crc", "<u4")]
        )
        self._file = self._open()
        try:
            self.notes = self._begin_or_read(header)
        except BaseException:
            self._file.close()
            raise

    def _open(self) -> BinaryIO:
        try:
            checks.path_to_write("store", self.path)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("a+b")
        except OSError as error:
            raise InputError(
                f"store={str(self.path)!r} cannot be written: "
                f"{error.strerror or error}; choose another file"
            ) from error
        try:
            if not file_lock.lock(f"store={str(self.path)!r}", file):
                raise InputError(
                    f"store={str(self.path)!r} is being written by another process; "
                    "wait for it, or choose another file"
                )
        except InputError:
            file.close()
            raise
        return file

    def _begin_or_read(self, header: dict[str, Any]) -> dict[str, Any]:
        self._file.seek(0)
        line = self._file.readline(_HEADER_BYTES)
        newline = line.endswith(b"\n")
        line = line.removesuffix(b"\n")
        begun = _begins(line) and len(line) < _HEADER_BYTES
        if not newline and (not line or begun):
            # Nothing there, or killed within the first line.
            self._file.truncate(0)
            header["crc"] = _header_checksum(header)
            self._file.write(json.dumps(header).encode() + b"\n")
            self._file.flush()
            return header["notes"]
        try:
            found = parse_json(line, "its first line")
            is_store = found["kind"] == _KIND
        except (InputError, TypeError, KeyError):
            is_store = False
        if not is_store:
            raise InputError(
                f"store={str(self.path)!r} is no store of a surface; choose another "
                "file"
            )
        if "crc" in found and found.pop("crc") != _header_checksum(found):
            raise InputError(
                f"store={str(self.path)!r} was changed on disk: its first line is not "
                "what was written; remove it to measure anew"
            )
        if not found.keys() >= header.keys():
            raise InputError(
                f"store={str(self.path)!r} is damaged: its first line lacks fields; "
                "remove it to measure anew"
            )
        identity = found["identity"] if isinstance(found["identity"], dict) else {}
        differing = [
            part
            for part, value in header["identity"].items()
            if identity.get(part) != value
        ]
        differing += [k for k in ("num_points", "values") if found[k] != header[k]]
        if differing:
            raise InputError(
                f"store={str(self.path)!r} belongs to another surface: its "
                f"{', '.join(differing)} differ; choose another file, or remove it to "
                "measure anew"
            )
        size = self._record.itemsize
        # Points whose records were damaged are there twice.
        most = 2 * len(self.done) * size + size
        records = self._file.read(most + 1)
        if len(records) > most:
            raise InputError(
                f"store={str(self.path)!r} is damaged: it holds more than twice as "
                f"many records as the surface has points, {len(self.done)}; remove it "
                "to measure anew"
            )
        whole = len(records) // size
        self._file.truncate(len(line) + 1 + whole * size)
        for record in np.frombuffer(records[: whole * size], self._record):
            index = int(record["index"])
            # A damaged record is a point that has not been measured.
            if record["crc"] == _checksum(record) and 0 <= index < len(self.done):
                self.done[index] = True
                self.values[index] = record["values"]
        return found["notes"]

    def add(self, indices: np.ndarray, values: np.ndarray) -> None:
        """Notes points as done: their indices (n,), their values (n, values)."""
        records = np.zeros(len(indices), self._record)
        records["index"], records["values"] = indices, values
        for record in records:
            record["crc"] = _checksum(record)
        # One write: a process that is killed leaves a whole number of records, or a
        # cut one at the end.
        self._file.write(records.tobytes())
        self._file.flush()
        self.done[indices] = True
        self.values[indices] = values

    def close(self) -> None:
        """Closes the file, and lets other processes have it."""
        self._file.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _checksum(record: np.void) -> int:
    index, values = np.int64(record["index"]), np.asarray(record["values"], "<f8")
    return zlib.crc32(values.tobytes(), zlib.crc32(index.tobytes()))


def _header_checksum(header: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(dict(header), sort_keys=True).encode())


def _begins(line: bytes) -> bool:
    start = f'{{"kind": "{_KIND}'.encode()
    return start.startswith(line[: len(start)])


def identity_of(
    objective: Any, subspace: Any, coordinates: np.ndarray, one: Any
) -> dict:
    """The identity of a surface: a hash of each of its parts.

    Args:
        objective: what is measured.
        subspace: where.
        coordinates: of all points.
        one: of a single point.
    """
    if not is_traceable(objective):
        sample: list[Any] = [
            np.asarray(objective.weights)
        ]  # its losses stand for its examples
    elif jax.tree_util.all_leaves([objective]):
        batches = [objective.batch(i) for i in range(objective.num_batches)]
        sample = [np.asarray(objective.weights), batches]
    else:
        sample = [objective]
    way, arrays = _program(subspace, one)
    point = jax.eval_shape(subspace, one)
    if jax.tree_util.all_leaves([subspace]):
        subspace = arrays  # of a function, what it does and has closed over
    constants: list[Any] = []
    if is_traceable(objective):
        loss, constants = _program(objective.batch_loss, point, objective.batch(0))
    else:  # there is no program to read, but what it gives at a point
        loss = _values(objective, jax.tree.map(np.asarray, subspace(one)))
    settings = json.dumps(settings_of(objective), sort_keys=True, default=str)
    return {
        "coordinates": _hash(coordinates),
        "subspace": _hash([subspace], way),
        # Arrays that the loss has closed over count as part of the sample.
        "sample": _hash([sample, constants]),
        "objective": _hash([], settings, loss),
    }


def _values(objective: Any, point: Any) -> str:
    """The losses of all batches at a point, to the last digit."""
    losses = batch_losses(objective, point)
    return repr(jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), losses))


def _program(function: Any, *arguments: Any) -> tuple[str, list[Any]]:
    """What a function computes, as text, and the arrays that it has closed over."""
    closed = jax.make_jaxpr(function)(*arguments)
    # Addresses differ between processes.
    text = re.sub(r"0x[0-9a-f]+", "", str(closed.jaxpr))
    return text, [*closed.consts, *_inner_constants(closed.jaxpr)]


def _inner_constants(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                yield from getattr(inner, "consts", ())
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from _inner_constants(inner)


def _hash(tree: Any, *words: str) -> str:
    digest = hashlib.sha256("\n".join([*words, *leaf_names(tree)]).encode())
    for leaf in jax.tree.leaves(tree):
        if jax.dtypes.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.ascontiguousarray(np.asarray(leaf))
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
