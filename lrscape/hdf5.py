"""Loads labelled arrays from an HDF5 file, which is checked before any is read.

HDF5 can do more than hold arrays: it links to other files and stores arrays in them,
puts arrays together from others, loads filters as programs, and declares shapes beyond
all memory in a file of a kilobyte. Results use none of that: a file that does is
refused.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lrscape.errors import InputError
from lrscape.reading import ARRAYS_BYTES, MIB, Reader

if TYPE_CHECKING:
    import h5py  # type: ignore[import-untyped]
    import xarray as xr

_MAGIC = b"\x89HDF\r\n\x1a\n"
# Variables in a file, and attributes of one.
VARIABLES = 1000
ATTRIBUTES = 1000
# Of texts in one file together: their characters in memory, and how many they are.
TEXT_BYTES = 64 * MIB
TEXTS = 20_000
# Values are decoded to 8 bytes, checked by a copy, and handed on.
COPIES = 3
# By which NetCDF ties dimensions to variables.
_NO_VARIABLE = b"This is a netCDF dimension but not a netCDF variable"
_REFERENCES = ("DIMENSION_LIST", "REFERENCE_LIST")


def check(content: bytes, file: Path) -> int:
    """Checks that a file holds plain arrays that are all stored in itself.

    Args:
        content: of the file.
        file: what messages call it.

    Returns:
        The bytes of memory that its arrays and texts come to, once loaded.

    Raises:
        InputError: it asks for anything else.
        OSError: it is damaged.
    """
    import h5py

    if not content.startswith(_MAGIC):
        raise OSError(f"{file} is damaged: it does not begin as an HDF5 file does")
    try:
        with h5py.File(io.BytesIO(content), "r") as opened:
            return _File(file, len(content)).size_of(opened)
    except (InputError, MemoryError):
        raise
    # Damage comes out of HDF5 as errors of many kinds.
    except Exception as error:
        line = str(error).split("\n")[0]
        raise OSError(f"{file} is damaged: {line}") from error


def load(file: Path, reader: Reader | None = None) -> xr.Dataset:
    """Loads a data set into memory.

    Args:
        file: its path.
        reader: of the directory that the file is from; None: of its folder alone.

    Raises:
        InputError: it is no regular file of the directory, or asks for more than arrays
            that are stored in it (see `check`).
        OSError: it cannot be read, or is not what was written.
    """
    import xarray as xr

    reader = reader or Reader(file.parent)
    try:
        content = reader.content(file, ARRAYS_BYTES)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{file} is not there") from error
    try:
        size = check(content, file)
    except OSError as error:
        raise OSError(f"{error}; bring it back from a copy") from error
    reader.take(file, size)
    try:
        # What was looked at, whatever becomes of the file.
        with xr.open_dataset(io.BytesIO(content), engine="h5netcdf") as opened:
            dataset = opened.load()
    # Damage comes out of HDF5 and h5netcdf as errors of many kinds.
    except Exception as error:
        line = str(error).split("\n")[0]
        raise OSError(
            f"{file} is damaged: {line}; bring it back from a copy"
        ) from error
    # Versions before there were manifests kept a checksum there.
    dataset.attrs.pop("sha256", None)
    return dataset


class _File:
    """What has been found of a file so far."""

    def __init__(self, file: Path, size: int):
        self.file, self.size = file, size
        self.stored = self.memory = self.texts = self.characters = 0

    def refuse(self, name: str, why: str) -> InputError:
        return InputError(
            f"{self.file} is refused: {name!r} {why}, which no result of lrscape has"
        )

    def size_of(self, opened: h5py.File) -> int:
        """The memory that all variables come to."""
        import h5py

        if len(opened) > VARIABLES:
            raise InputError(
                f"{self.file} is refused: it holds {len(opened):,} variables, more "
                f"than {VARIABLES:,}"
            )
        self._attributes(opened, "/")
        for name in opened:
            link = opened.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise self.refuse(name, "is a link to another file")
            if isinstance(link, h5py.SoftLink):
                raise self.refuse(name, "is a soft link")
            # By its class: opening a variable may open others that it is made of.
            if opened.get(name, getclass=True) is not h5py.Dataset:
                raise self.refuse(name, "is a group or a type")
            self._variable(h5py.h5d.open(opened.id, name.encode()), name)
        return self.memory

    def _variable(self, variable: Any, name: str) -> None:
        import h5py

        made = variable.get_create_plist()
        if made.get_layout() == h5py.h5d.VIRTUAL:
            raise self.refuse(name, "is put together from other arrays (virtual)")
        if made.get_external_count():
            raise self.refuse(name, "is stored in another file (external storage)")
        known = {h5py.h5z.FILTER_FLETCHER32}
        for i in range(made.get_nfilters()):
            if (number := made.get_filter(i)[0]) not in known:
                raise self.refuse(name, f"is packed by HDF5's filter {number}")
        self._attributes(h5py.Dataset(variable), name)
        kind, shape = variable.get_type(), variable.shape
        count = _product(shape)
        if made.get_layout() == h5py.h5d.CHUNKED:
            chunk = _product(made.get_chunk()) * kind.get_size()
            if chunk > self.size:
                raise InputError(
                    f"{self.file} is refused: {name!r} is stored in pieces of "
                    f"{chunk:,} bytes, more than the file's {self.size:,}"
                )
        if _is_dimension(variable):  # of which no value is ever read
            return
        self._kind(kind, name)
        self.stored += count * kind.get_size()
        # Told here, before texts are read one by one.
        if self.stored > self.size:
            raise InputError(
                f"{self.file} is refused: {name!r} of shape {shape} brings its arrays "
                f"to {self.stored:,} bytes, more than a file of {self.size:,} bytes "
                "can hold"
            )
        if isinstance(kind, h5py.h5t.TypeStringID):
            self._text(variable, kind, name, count)
        else:
            self.memory += COPIES * count * max(8, kind.get_size())

    def _kind(self, kind: Any, name: str) -> None:
        import h5py

        plain = (h5py.h5t.TypeFloatID, h5py.h5t.TypeIntegerID, h5py.h5t.TypeStringID)
        if not isinstance(kind, plain):
            raise self.refuse(name, f"has values of HDF5's class {kind.get_class()}")

    def _text(self, variable: Any, kind: Any, name: str, count: int) -> None:
        """Adds texts, which may share what they hold and be longer than the file."""
        import h5py

        self.texts += count
        if self.texts > TEXTS:
            raise InputError(
                f"{self.file} is refused: {name!r} brings its texts to more than "
                f"{TEXTS:,}"
            )
        longest = 0 if kind.is_variable_str() else kind.get_size()
        self._room(name, count, longest)
        if kind.is_variable_str() and count:
            array = h5py.Dataset(variable)
            # One by one: together they may be more than there is memory for.
            for place in np.ndindex(*variable.shape):
                longest = max(longest, len(array[place]))
                self._room(name, count, longest)
        self.characters += count * longest
        self.memory += COPIES * 4 * count * longest

    def _room(self, name: str, count: int, longest: int) -> None:
        # NumPy gives every text of an array the room of the longest, 4 bytes a letter.
        size = 4 * (self.characters + count * longest)
        if size > TEXT_BYTES:
            raise InputError(
                f"{self.file} is refused: the texts of {name!r} come to more than "
                f"{TEXT_BYTES:,} bytes"
            )

    def _attributes(self, owner: Any, name: str) -> None:
        import h5py

        count = h5py.h5a.get_num_attrs(owner.id)
        if count > ATTRIBUTES:
            raise self.refuse(name, f"has {count:,} attributes")
        for i in range(count):
            attribute = h5py.h5a.open(owner.id, index=i)
            kind, values = attribute.get_type(), _product(attribute.shape)
            if attribute.name.decode() in _REFERENCES:
                # A reference has 8 bytes, and every variable may refer to each.
                if values > VARIABLES:
                    raise self.refuse(name, f"has {values:,} references")
                continue
            self._kind(kind, f"{name} {attribute.name.decode()}")
            each = kind.get_size()
            if isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str():
                # All of them may be one text, as long as the file.
                each = self.size if values > 1 else 16
            if values * each > max(TEXT_BYTES, self.size):
                raise self.refuse(name, f"has an attribute of {values:,} texts")


def _is_dimension(variable: Any) -> bool:
    """Whether it is a NetCDF dimension without values, whatever its declared length."""
    import h5py

    name = b"NAME"
    if not h5py.h5a.exists(variable, name):
        return False
    attribute = h5py.h5a.open(variable, name)
    if _product(attribute.shape) != 1 or attribute.get_type().get_size() > 1000:
        return False
    told = h5py.Dataset(variable).attrs["NAME"]
    told = told.encode() if isinstance(told, str) else bytes(told)
    return told.startswith(_NO_VARIABLE)


def _product(shape: Any) -> int:
    size = 1
    for length in shape or ():
        size *= int(length)
    return size
