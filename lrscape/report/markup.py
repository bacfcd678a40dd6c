"""HTML from values, every string of a run escaped."""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

# Letters from which on a cell is given a width to be read in.
LONG = 40
# Of a table; a browser is slow with more.
CELLS = 50_000


def text(value: Any) -> str:
    """A value as HTML that shows it letter by letter.

    Example:
        >>> text('<script>'), text(0.123456789), text(None)
        ('&lt;script&gt;', '0.12346', '-')
    """
    return html.escape(plain(value), quote=True)


def plain(value: Any) -> str:
    """A value in words: numbers to five digits, what is not finite by its name."""
    if value is None:
        return "-"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, float):
        return f"{value:.5g}" if math.isfinite(value) else str(value)
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 100_000 else str(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {plain(v)}" for k, v in value.items()) or "-"
    if isinstance(value, Sequence):
        return " ".join(map(plain, value)) or "-"
    return str(value)


def script_json(value: str | Any) -> str:
    r"""JSON that may stand inside a ``<script>``: nothing in it can close that.

    Args:
        value: to be written; a string is JSON already.

    Example:
        >>> script_json({'a': '</script>'})
        '{"a": "\\u003c/script\\u003e"}'
    """
    written = value if isinstance(value, str) else json.dumps(value)
    for letter in "<>&\u2028\u2029":
        written = written.replace(letter, f"\\u{ord(letter):04x}")
    return written


def table(rows: Sequence[Mapping[str, Any]], *, caption: str = "") -> str:
    """Rows as a table that scrolls by itself where it is too wide.

    Columns whose name speaks of the paper are marked as the paper's; verdicts are
    coloured.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if len(rows) * len(columns) > CELLS:
        kept = CELLS // len(columns)
        note = (
            f"<p>{len(rows):,} rows of {len(columns):,} columns are too many for a "
            f"page; the first {kept:,} follow.</p>"
        )
        return note + (table(rows[:kept], caption=caption) if kept else "")
    if "verdict" in columns:  # beside what it judges, on a phone too
        columns.remove("verdict")
        columns.insert(1, "verdict")
    if not columns:
        return "<p>Nothing was measured.</p>"
    paper = {name for name in columns if "paper" in str(name).lower()}

    def cell(name: str, value: Any) -> str:
        kind = "paper" if name in paper else ""
        if name == "verdict":
            kind = "verdict " + _verdict(value)
        elif _is_numeric(value):
            kind += " number"
        elif len(plain(value)) > LONG:
            kind += " long"
        kind = kind.strip()
        return f"<td{_class(kind)}>{text(value)}"

    head = "".join(
        f'<th scope="col"{_class("paper" if name in paper else "")}>{text(name)}'
        for name in columns
    )
    body = "\n".join(
        "<tr>" + "".join(cell(name, row.get(name)) for name in columns) for row in rows
    )
    title = f"<caption>{text(caption)}</caption>" if caption else ""
    return (
        f'<div class="wide" tabindex="0"><table>{title}<thead><tr>{head}'
        f"<tbody>{body}</table></div>"
    )


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def _verdict(value: Any) -> str:
    known = {"supported": "good", "contradicted": "bad"}
    return known.get(str(value), "open")


def _is_numeric(value: Any) -> bool:
    if isinstance(value, bool) or value is None:
        return False
    if isinstance(value, int | float):
        return True
    first = str(value).lstrip("+-").split(" ")[0].rstrip("%")
    return first.replace(".", "", 1).replace("e-", "", 1).isdigit()


def pairs(values: Mapping[str, Any]) -> str:
    """Names and values, one pair a line."""
    items = "".join(
        f"<div><dt>{text(str(name).replace('_', ' '))}<dd>{text(value)}</div>"
        for name, value in values.items()
    )
    return f"<dl>{items}</dl>"


def picture(content: bytes, alt: str, kind: str = "") -> str:
    """A PNG within the page."""
    data = base64.b64encode(content).decode("ascii")
    return f'<img{_class(kind)} alt="{text(alt)}" src="data:image/png;base64,{data}">'


def details(summary: str, content: str) -> str:
    """A part of the page that is folded away until it is asked for."""
    return f"<details><summary>{text(summary)}</summary>{content}</details>"


def items(sentences: Sequence[str], kind: str = "") -> str:
    """Sentences as a list."""
    return (
        f"<ul{_class(kind)}>" + "".join(f"<li>{text(s)}" for s in sentences) + "</ul>"
    )
