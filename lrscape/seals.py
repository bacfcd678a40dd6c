"""Checksums in the files of a run, so that what was changed on disk is not believed.

JSON holds its own under the key ``sha256``, a line of metrics under ``crc``, arrays in
an attribute. A file without one, from before there were any, is read as it is.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lrscape import hdf5
from lrscape.errors import InputError
from lrscape.reading import ARRAYS_BYTES, MIB, Reader, parse_json

if TYPE_CHECKING:
    import xarray as xr

KEY = "sha256"
# Of a file of lines: how many there may be where settings imply no number, how long
# each may be, and all together.
LINES = 1_000_000
LINE_BYTES = 64 << 10
LINES_BYTES = 1024 * MIB
# A line of 400 bytes becomes a text, a match and an object of 1,500 bytes together.
LINE_GROWTH = 8
_LINE = re.compile(r'(\{.*), "crc": "([0-9a-f]{8})"\}', re.DOTALL)
_WAY_OUT = "bring it back from a copy"


def sealed(value: Any) -> str:
    """A value as JSON, with a checksum in each object; `read` gives it back.

    Args:
        value: an object, or a list of them.

    Example:
        >>> list(json.loads(sealed({'seed': 0})))
        ['seed', 'sha256']
    """
    # As it will be read: names become strings, tuples lists.
    plain = json.loads(json.dumps(value))
    plain = [_seal(x) for x in plain] if isinstance(plain, list) else _seal(plain)
    return json.dumps(plain, indent=2) + "\n"


def read(file: Path, reader: Reader | None = None, *, finite: bool = False) -> Any:
    """What a file of JSON holds, without its checksums.

    Args:
        file: its path.
        reader: of the directory that the file is from; None: of its folder alone.
        finite: refuse NaN and infinities.

    Raises:
        InputError: it cannot be read, or is not what was written.
    """
    reader = reader or Reader(file.parent)
    try:
        value = reader.json(file, finite=finite)
    except OSError as error:
        raise InputError(f"{file} is damaged: {error}; {_WAY_OUT}") from error
    if not isinstance(value, list):
        return _unsealed(value, file)
    rows = [_unsealed(x, file) for x in value]
    if len({KEY in x for x in value if isinstance(x, dict)}) > 1:
        raise InputError(f"{file} is damaged: a row lacks its checksum; {_WAY_OUT}")
    return rows


def _seal(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    fields = {k: v for k, v in value.items() if k != KEY}
    return {**fields, KEY: _digest(fields)}


def _unsealed(value: Any, file: Path) -> Any:
    if not isinstance(value, dict):
        return value
    if KEY not in value:
        last = next(reversed(value.values()), None)
        if isinstance(last, str) and re.fullmatch("[0-9a-f]{64}", last):
            raise InputError(f"{file} is damaged: its checksum has no name; {_WAY_OUT}")
        return value
    fields = {k: v for k, v in value.items() if k != KEY}
    if value[KEY] != _digest(fields):
        raise InputError(
            f"{file} was changed on disk; {_WAY_OUT}, or remove its field {KEY!r} to "
            "have it taken as it is"
        )
    return fields


def sealed_line(value: dict[str, Any]) -> str:
    r"""One line of JSON, its end included, with its checksum.

    Example:
        >>> sealed_line({'step': 1})
        '{"step": 1, "crc": "3daa833a"}\n'
    """
    body = json.dumps(value)[:-1]
    return f'{body}, "crc": "{_crc(body)}"}}\n'


def _crc(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"


def _holds(match: re.Match[str]) -> bool:
    """Whether the checksum of a line is that of what stands before it."""
    return _crc(match[1]) == match[2]


def begins_plain(file: Path) -> bool:
    """Whether a file of lines has a first one that is whole and has no checksum."""
    descriptor = Reader(file.parent).open(file)
    with open(descriptor, encoding="utf-8", errors="replace") as opened:  # noqa: PTH123
        first = opened.readline(LINE_BYTES)
    return first.endswith("\n") and _LINE.fullmatch(first[:-1]) is None


def read_line(line: str) -> dict[str, Any]:
    """What a line that was `sealed_line` holds; one without a checksum is read too.

    Raises:
        ValueError: it is no object, or not what was written.
    """
    match = _LINE.fullmatch(line)
    if match and not _holds(match):
        raise ValueError("its checksum is of another line")
    value = parse_json(line, "it")
    if not isinstance(value, dict):
        raise ValueError("it is no object")
    value.pop("crc", None)
    return value


def text_of_lines(
    file: Path, reader: Reader | None = None, *, most: int = LINES
) -> str:
    """The text of a file of lines, which are no more and no longer than they may be.

    Args:
        file: its path.
        reader: of the directory that the file is from; None: of its folder alone.
        most: how many lines it may have, each of at most `LINE_BYTES`.

    Raises:
        InputError: a file that is larger, or holds more lines or longer ones.
        OSError: it cannot be read.
    """
    reader = reader or Reader(file.parent)
    content = reader.content(
        file, min(most * LINE_BYTES, LINES_BYTES), weight=LINE_GROWTH,
        because=f": its run's settings imply no more than {most:,} lines",
    )  # fmt: skip
    count = content.count(b"\n")
    if count > most:
        raise InputError(
            f"{file} holds {count:,} lines, and its run's settings imply no more than "
            f"{most:,}"
        )
    if (
        len(content) > LINE_BYTES
        and (longest := max(map(len, content.split(b"\n")))) > LINE_BYTES
    ):
        raise InputError(
            f"{file} holds a line of {longest:,} bytes, and no more than "
            f"{LINE_BYTES:,} are read"
        )
    return content.decode("utf-8", "surrogateescape")


def read_lines(
    file: Path, reader: Reader | None = None, *, most: int = LINES
) -> list[dict[str, Any]]:
    """Every line of a file, without its checksum; half a line at the end is left out.

    Args:
        file: its path.
        reader: of the directory that the file is from; None: of its folder alone.
        most: how many lines it may have.

    Raises:
        InputError: it cannot be read, or a line is not what was written.
    """
    try:
        text = text_of_lines(file, reader, most=most)
        text.encode()  # what is no UTF-8 came through as lone surrogates
    except (OSError, UnicodeEncodeError) as error:
        raise InputError(f"{file} is damaged: {error}; {_WAY_OUT}") from error
    return checked_lines(text, file)


def checked_lines(text: str, file: Path) -> list[dict[str, Any]]:
    """The lines of a file's text, see `read_lines`; `file` is what errors name."""
    *lines, rest = text.split("\n")
    if _LINE.fullmatch(rest):  # lacks its end alone
        lines.append(rest)
    elif _LINE.match(rest):
        raise InputError(f"{file} is damaged: its last line has no end; {_WAY_OUT}")
    matches = [_LINE.fullmatch(line) for line in lines]
    any_sealed = any(matches)
    found = []
    for number, (line, match) in enumerate(zip(lines, matches, strict=True), 1):
        if any_sealed and not (match and _holds(match)):
            raise InputError(f"{file} was changed on disk, line {number}; {_WAY_OUT}")
        value = parse_json(line, f"{file}, line {number},")
        if not isinstance(value, dict):
            raise InputError(f"{file} is damaged: line {number} is no object")
        value.pop("crc", None)
        found.append(value)
    return found


def sealed_dataset(dataset: xr.Dataset) -> xr.Dataset:
    """A data set with a checksum of its variables and attributes among the latter."""
    return dataset.assign_attrs({KEY: _digest_dataset(dataset)})


def load_dataset(file: Path, reader: Reader | None = None) -> xr.Dataset:
    """Loads a data set into memory.

    Args:
        file: its path.
        reader: of the directory that the file is from; None: of its folder alone.

    Raises:
        InputError: it is no regular file of the directory, or asks for more than arrays
            that are stored in it (see `lrscape.hdf5`).
        OSError: it cannot be read, or is not what was written.
    """
    import xarray as xr

    reader = reader or Reader(file.parent)
    try:
        content = reader.content(file, ARRAYS_BYTES)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{file} is not there") from error
    try:
        size = hdf5.check(content, file)
    except OSError as error:
        raise OSError(f"{error}; {_WAY_OUT}") from error
    reader.take(file, size)
    try:
        # What was looked at, whatever becomes of the file.
        with xr.open_dataset(io.BytesIO(content), engine="h5netcdf") as opened:
            dataset = opened.load()
    # Damage comes out of HDF5 and h5netcdf as errors of many kinds.
    except Exception as error:
        line = str(error).split("\n")[0]
        raise OSError(f"{file} is damaged: {line}; {_WAY_OUT}") from error
    expected = dataset.attrs.pop(KEY, None)
    if expected is not None and expected != _digest_dataset(dataset):
        raise OSError(f"{file} was changed on disk; {_WAY_OUT}")
    return dataset


def _digest(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _digest_dataset(dataset: xr.Dataset) -> str:
    digest = hashlib.sha256()
    for name in sorted(dataset.variables, key=str):
        variable = dataset.variables[name]
        array = np.ascontiguousarray(variable.values)
        kind = "text" if array.dtype.kind in "OUT" else array.dtype.str
        digest.update(f"{name} {kind} {variable.dims} {variable.shape}\n".encode())
        text = array.dtype.kind in "OUT"
        words = json.dumps(array.astype(str).tolist()).encode() if text else None
        digest.update(array.tobytes() if words is None else words)
        digest.update(_attributes(variable.attrs))
    digest.update(_attributes(dataset.attrs))
    return digest.hexdigest()


def _attributes(attributes: dict[Any, Any]) -> bytes:
    # As they come back from disk: a list of one as a number, a truth value as 0 or 1.
    plain = {
        str(name): np.atleast_1d(value).astype(float).tolist()
        if np.asarray(value).dtype.kind in "bfiu"
        else np.atleast_1d(value).astype(str).tolist()
        for name, value in attributes.items()
    }
    return json.dumps(plain, sort_keys=True).encode()
