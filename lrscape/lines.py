"""Files of lines of JSON that grow: each line ends with a checksum of its own.

A line that was cut short by a kill is left out; one that was changed on disk is an
error. A file whose lines have no checksums, from before there were any, is read as it
is.
"""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any

from lrscape.errors import InputError
from lrscape.reading import MIB, Reader, parse_json

# Of a file of lines: how many there may be where settings imply no number, how long
# each may be, and all together.
LINES = 1_000_000
LINE_BYTES = 64 << 10
LINES_BYTES = 1024 * MIB
# A line of 400 bytes becomes a text, a match and an object of 1,500 bytes together.
LINE_GROWTH = 8
_LINE = re.compile(r'(\{.*), "crc": "([0-9a-f]{8})"\}', re.DOTALL)
_WAY_OUT = "bring it back from a copy"


def with_checksum(value: dict[str, Any]) -> str:
    r"""One line of JSON, its end included, with its checksum.

    Example:
        >>> with_checksum({'step': 1})
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
    """Reads a line that `with_checksum` made, or one without a checksum.

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
    """Reads every line of a file; half a line at its end is left out.

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
    except InputError:
        raise
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
    any_checked = any(matches)
    found = []
    for number, (line, match) in enumerate(zip(lines, matches, strict=True), 1):
        if any_checked and not (match and _holds(match)):
            raise InputError(f"{file} was changed on disk, line {number}; {_WAY_OUT}")
        value = parse_json(line, f"{file}, line {number},")
        if not isinstance(value, dict):
            raise InputError(f"{file} is damaged: line {number} is no object")
        value.pop("crc", None)
        found.append(value)
    return found
