"""Where each setting of a preset comes from: text, code, a cited paper, or us."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple


class Source(NamedTuple):
    """Where a setting comes from.

    Attributes:
        paper: the value that the paper gives, in words; ``'-'`` where it gives none.
        where: the section or caption of the text, ``the authors' code``, the cited
            paper, or ``ours`` with the reason.
    """

    paper: str
    where: str


def ours(reason: str, paper: str = "-") -> Source:
    """A setting that neither text nor code gives, or that differs from them."""
    return Source(paper, f"ours: {reason}")


def code(paper: str = "-") -> Source:
    """A setting of the authors' code, about which the text is silent."""
    return Source(paper, "the authors' code")


def settings_table(
    plans: Mapping[str, Any], sources: Mapping[str, Source]
) -> list[dict[str, str]]:
    """The settings of a preset, a row each.

    Args:
        plans: dataclasses by name.
        sources: by ``'NAME.FIELD'``, or by ``'FIELD'`` for all that have none of their
            own.

    Returns:
        Rows with the setting, the paper's value, the preset's, and its source.

    Example:
        >>> @dataclasses.dataclass
        ... class Plan:
        ...     batch_size: int = 100
        >>> settings_table({'mlp': Plan()}, {'batch_size': Source('100', 'Sec. 3')})
        [{'setting': 'mlp.batch_size', 'paper': '100', 'preset': '100', \
'source': 'Sec. 3'}]
    """
    rows = []
    for name, plan in plans.items():
        for field in dataclasses.fields(plan):
            setting = f"{name}.{field.name}"
            source = sources.get(setting) or sources.get(field.name)
            if source is None:
                raise KeyError(f"{setting} has no source")
            value = getattr(plan, field.name)
            rows.append(
                {
                    "setting": setting,
                    "paper": source.paper,
                    "preset": _shown(value),
                    "source": source.where,
                }
            )
    return rows


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_shown(v)}" for k, v in value.items()) or "-"
    if isinstance(value, tuple | list):
        return " ".join(map(_shown, value)) or "-"
    return str(value)
