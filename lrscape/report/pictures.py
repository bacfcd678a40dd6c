"""Pictures of a run, looked at before they are decoded or put into a page."""

from __future__ import annotations

import io
import struct
from pathlib import Path

from lrscape.errors import InputError
from lrscape.reading import MIB, Reader

# Of one picture: bytes on disk, and what it has of pixels, each of which takes 4 bytes
# once decoded. A figure of 30 x 30 inches has 20 million.
BYTES = 16 * MIB
PIXELS = 25_000_000
# A picture's bytes, in base 64, in a section, in the page, and as they are written.
GROWTH = 7
_BEGINS = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"


def png(file: Path, reader: Reader) -> bytes:
    """The content of a PNG that is whole.

    Args:
        file: its path.
        reader: of the directory that the file is from.

    Raises:
        InputError: it is no PNG, no regular file, or too large to be shown.
        OSError: it is damaged.
    """
    from PIL import Image

    content = reader.content(file, BYTES, weight=GROWTH)
    width, height = size_of(content, file)
    if width * height > PIXELS:
        raise InputError(
            f"{file} has {width:,} x {height:,} pixels, and no more than {PIXELS:,} "
            "are shown"
        )
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        image.load()
    return content


def size_of(content: bytes, file: Path) -> tuple[int, int]:
    """Width and height as the first bytes of a PNG tell them.

    Raises:
        InputError: they are not those of a PNG.
    """
    if not content.startswith(_BEGINS) or len(content) < len(_BEGINS) + 8:
        raise InputError(f"{file} is damaged: it does not begin as a PNG does")
    width, height = struct.unpack(">II", content[len(_BEGINS) : len(_BEGINS) + 8])
    return width, height
