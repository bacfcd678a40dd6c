"""Reads files that someone else may have written, within limits.

A run directory can come from anyone. Every file of it is read through a `Reader`, which
follows no link, opens regular files alone (a named pipe would block, a device would
never end), and takes a limited amount of memory and time. What is refused is an
`InputError` that names the file and the reason.
"""

from __future__ import annotations

import json
import math
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from lrscape import checks, manifest
from lrscape.errors import InputError

MIB = 1 << 20
# Of one file, unless its reader knows better.
JSON_BYTES = 64 * MIB
ARRAYS_BYTES = 1024 * MIB
# Files and folders in one folder.
ENTRIES = 10_000
# Levels of JSON within each other; what lrscape writes has fewer than ten.
DEPTH = 64
# `{}` takes 3 bytes in a list on disk and 72 in memory, an empty name 7 and 232.
JSON_GROWTH = 24
_WHOLE_NUMBERS = range(-(2**63), 2**64)
# A lone surrogate comes out of an escape alone: UTF-8 has none.
_SURROGATE = ("\\ud", "\\uD", "\\Ud", "\\UD")


class Reader:
    """Reads files of one directory within a budget of memory and time.

    Time is that of the thread's own work on a processor, so that a busy machine or a
    slow disk changes nothing in what is read.

    Attributes:
        root: the directory.
        memory: bytes that all that is read may take together; None: any number.
        seconds: of work that reading may take; None: any number.
        taken: bytes so far.
        verify: whether content is compared with the checksums of a run's manifest.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / 'a.json').write_text('{"seed": 0}')
        >>> Reader(folder).json(folder / 'a.json')
        {'seed': 0}
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        memory: int | None = None,
        seconds: float | None = None,
    ):
        self.root = Path(root)
        self.memory, self.seconds = memory, seconds
        self.taken = 0
        self.verify = True
        # By manifest: the version that was read, and what it lists.
        self._listed: dict[Path, tuple[Any, manifest.Listed]] = {}
        self._is_over = deadline(math.inf if seconds is None else seconds)

    def open(self, file: Path) -> int:
        """Opens a regular file of the directory for reading.

        Args:
            file: its path, which begins with `root`.

        Returns:
            A file descriptor, which the caller closes.

        Raises:
            FileNotFoundError: nothing is there.
            InputError: a link, a special file, or a file of no such directory.
            OSError: it cannot be opened.
        """
        self.check_no_link(file)
        _check_regular(file, file.lstat().st_mode)
        # Against an exchange since: neither follow a link nor wait for a pipe's end.
        flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        opened = os.open(file, flags)
        try:
            _check_regular(file, os.fstat(opened).st_mode)
        except BaseException:
            os.close(opened)
            raise
        return opened

    def check_no_link(self, file: Path) -> None:
        """Raises InputError where a part of a path below `root` is a link."""
        try:
            parts = file.relative_to(self.root).parts
        except ValueError:
            parts = ("..",)
        if ".." in parts:
            raise InputError(f"{file} is not in {self.root}")
        place = self.root
        for part in parts:
            place = place / part
            if not place.is_symlink():
                continue
            if not (target := resolved(place)).is_relative_to(resolved(self.root)):
                raise InputError(
                    f"{place} leads out of its run directory, to {target}; put a copy "
                    "in the link's place"
                )
            raise InputError(
                f"{place} is a link, to {target}, and links are not read; put a copy "
                "in the link's place"
            )

    def content(
        self, file: Path, most: int, *, weight: int = 1, because: str = ""
    ) -> bytes:
        """Reads all bytes of a regular file.

        Args:
            file: its path, which begins with `root`.
            most: bytes that it may have.
            weight: bytes of memory that each of them comes to.
            because: why it may have no more, which the error ends with.

        Raises:
            FileNotFoundError: nothing is there.
            ChangedError: its run's manifest lists another checksum.
            InputError: a link or special file; a file that is too large, or takes more
                than is left of the budget.
            OSError: it cannot be read.
        """
        opened = self.open(file)
        with os.fdopen(opened, "rb") as stream:
            size = os.fstat(opened).st_size
            if size > most:
                raise InputError(
                    f"{file} has {size:,} bytes, and no more than {most:,} are read"
                    f"{because}"
                )
            self.take(file, weight * size)
            content = stream.read(size)
        self._check_listed(file, content)
        return content

    def _check_listed(self, file: Path, content: bytes) -> None:
        """Looks the file up in the manifest of its own run, below `root` or there."""
        if not self.verify:
            return
        for folder in file.parents:
            listing = folder / manifest.NAME
            if os.path.lexists(listing):
                status = listing.lstat()
                version = (status.st_mtime_ns, status.st_size, status.st_ino)
                if self._listed.get(listing, (None, {}))[0] != version:
                    self.check_no_link(listing)
                    size = min(status.st_size, manifest.BYTES)
                    self.take(listing, manifest.GROWTH * size)
                    self._listed[listing] = (version, manifest.read(listing))
                listed = self._listed[listing][1]
                manifest.check(listed, listing, file, content)
                return
            if folder == self.root:
                return

    def take(self, file: Path, size: int) -> None:
        """Notes memory as taken.

        Raises:
            InputError: that is more than the budget, or its time is over.
        """
        self.check_time(file)
        if self.memory is not None and self.taken + size > self.memory:
            raise InputError(
                f"{file} would take {_megabytes(size)} of memory, and of the budget of "
                f"{_megabytes(self.memory)} for {self.root} "
                f"{_megabytes(self.memory - self.taken)} are left"
            )
        self.taken += size

    def check_time(self, file: Path) -> None:
        """Raises InputError where the budget of time is used up."""
        if self._is_over():
            raise InputError(
                f"{file} is not read any more: the budget of {self.seconds:g} seconds "
                f"for {self.root} is used up"
            )

    def entries(self, folder: Path) -> list[Path]:
        """Lists a folder, sorted by name; empty where there is none.

        Raises:
            InputError: a link to a folder, or more than `ENTRIES` files and folders.
        """
        self.check_no_link(folder)
        if not folder.is_dir():
            return []
        found = []
        with os.scandir(folder) as entries:
            for entry in entries:
                found.append(folder / entry.name)
                if len(found) > ENTRIES:
                    raise InputError(
                        f"{folder} holds more than {ENTRIES:,} files and folders"
                    )
        self.check_time(folder)
        return sorted(found)

    def files_below(self, folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
        """Lists every file below a folder, with its status.

        Raises:
            InputError: anything that is neither a regular file nor a folder.
        """
        for place in self.entries(folder):
            found = place.lstat()
            if stat.S_ISDIR(found.st_mode):
                yield from self.files_below(place)
            else:
                self.check_no_link(place)
                _check_regular(place, found.st_mode)
                yield place, found

    def json(self, file: Path, *, most: int = JSON_BYTES, finite: bool = False) -> Any:
        """The value in a file of JSON.

        Args:
            file: its path, which begins with `root`.
            most: bytes that it may have.
            finite: refuse NaN and infinities.

        Raises:
            FileNotFoundError: nothing is there.
            InputError: see `content` and `parse_json`.
            OSError: it cannot be read.
        """
        content = self.content(file, most, weight=JSON_GROWTH)
        return parse_json(content, str(file), finite=finite)


def read_json(file: Path, reader: Reader | None = None, *, finite: bool = False) -> Any:
    """The value in a JSON file of a run.

    Versions of lrscape before there were manifests kept a checksum in each object,
    which is checked and left out.

    Args:
        file: its path.
        reader: of the run's directory; None: of the file's folder alone.
        finite: refuse NaN and infinities.

    Raises:
        InputError: it cannot be read, or is not what was written.
    """
    reader = reader or Reader(file.parent)
    try:
        value = reader.json(file, finite=finite)
    except InputError:
        raise
    except OSError as error:
        raise InputError(
            f"{file} is damaged: {error}; bring it back from a copy"
        ) from error
    if isinstance(value, list):
        return [_without_checksum(x, file) for x in value]
    return _without_checksum(value, file)


def _without_checksum(value: Any, file: Path) -> Any:
    if not isinstance(value, dict) or "sha256" not in value:
        return value
    fields = {k: v for k, v in value.items() if k != "sha256"}
    text = json.dumps(fields, sort_keys=True).encode()
    if value["sha256"] != manifest.digest(text):
        raise InputError(
            f"{file} was changed on disk; bring it back from a copy, or remove its "
            "field 'sha256' to have it taken as it is"
        )
    return fields


def parse_json(content: bytes | str, name: str, *, finite: bool = False) -> Any:
    """A value from JSON such as lrscape writes.

    Args:
        content: JSON; bytes are UTF-8.
        name: what messages call it.
        finite: refuse NaN and infinities, which metrics and results may well hold.

    Raises:
        InputError: no JSON, a whole number of more than 64 bits, values nested more
            than 64 deep, a character that is half of one, a name that is there twice.

    Example:
        >>> parse_json('{"a": 1, "a": 2}', 'config.json')
        Traceback (most recent call last):
        lrscape.errors.InputError: config.json is damaged: the name 'a' is there twice
    """
    try:
        text = content.decode() if isinstance(content, bytes) else content
        value = json.loads(
            text,
            parse_int=_whole_number,
            parse_constant=_refused if finite else None,
            object_pairs_hook=_object,
        )
        if text.count("[") + text.count("{") > DEPTH:
            _check_depth(value)
        if any(escape in text for escape in _SURROGATE):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} is damaged: it holds half of a character (a lone surrogate)"
        ) from error
    except (ValueError, RecursionError) as error:
        reason = str(error)
        if isinstance(error, RecursionError):
            reason = f"its values are nested more than {DEPTH} deep"
        raise InputError(f"{name} is damaged: {reason}") from error
    return value


def _whole_number(digits: str) -> int:
    # Converting takes a time that grows with the square of the digits.
    if len(digits) > 20 or (value := int(digits)) not in _WHOLE_NUMBERS:
        raise ValueError(f"a whole number of {len(digits)} digits does not fit 64 bits")
    return value


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no value of a setting")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the name {checks.shown(name)} is there twice")
            seen.add(name)
    return found


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEPTH + 1):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return
    raise ValueError(f"its values are nested more than {DEPTH} deep")


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _check_regular(file: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise InputError(
            f"{file} is {checks.file_type(mode)}, and regular files alone are read"
        )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def resolved(path: Path) -> Path:
    """Resolves a path through all links; links in a circle lead to themselves."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path.absolute()


def deadline(seconds: float) -> Callable[[], bool]:
    """Makes a function that tells whether so many seconds of work are over.

    Work is that of this thread on a processor, as in `Reader`.
    """
    started = time.thread_time()
    return lambda: time.thread_time() - started > seconds
