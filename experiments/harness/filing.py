"""How directories of results are kept apart, and results within them.

A directory belongs to what made it first: ``config.json`` says so. Within it a result
goes by its item's name. One that was made with other flags, or on other data, goes by
a longer name that says which, so that neither overwrites the other; the short name is
that of the default settings wherever they were made.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lrscape.errors import InputError
from lrscape.records import Records

# Of a paper's command line: what makes no other result.
ABOUT_THE_CALL = ("item", "preset", "run_dir", "data_dir", "debug")
# Names of files hold some 250 characters, and figures' names come behind this one.
_LONGEST = 120


def own(root: Path, about: dict[str, Any]) -> Records:
    """Makes a directory of results, or goes on with one.

    Args:
        root: the directory.
        about: whose it is, such as ``{'paper': 'nonmonotonic', 'preset': 'quick'}``.

    Raises:
        InputError: it holds something else, or cannot be written.
    """
    check_own(root, about)
    records = Records(root)
    if records.exists():
        return records
    if not _made_before(root, about):
        return Records.create(root, about)
    records.replace_config(about)
    return records


def check_own(root: Path, about: dict[str, Any]) -> None:
    """Raises InputError where a directory holds something else; see `own`."""
    records = Records(root)
    if records.exists() and (kept := records.config()) != about:
        raise InputError(
            f"run_dir={str(root)!r} holds {told(kept)}, and not {told(about)}; choose "
            "another directory"
        )


def told(about: Mapping[str, Any]) -> str:
    """Whose a directory is, in words.

    Example:
        >>> told({'paper': 'nonmonotonic', 'preset': 'quick'})
        'experiments.nonmonotonic by preset quick'
    """
    if "paper" in about:
        return f"experiments.{about['paper']} by preset {about.get('preset')}"
    if "claims" in about:
        return f"experiments.claims by preset {about['claims']}"
    if "sweep" in about:
        flags = " ".join(map(str, about.get("flags", ()))) or "no flags"
        return f"a sweep of experiments.{about['sweep']} with {flags}"
    if "experiment" in about:
        return f"a run of experiments.{about['experiment']}"
    return "something else"


def _made_before(root: Path, about: Mapping[str, Any]) -> bool:
    """Whether a directory of a paper's results is from before they were marked."""
    if "paper" not in about or not root.is_dir():
        return False
    networks = [child for child in root.iterdir() if (child / "config.json").is_file()]
    results = list((root / "results").glob("*.json"))
    for file in results:
        settings = _settings(Records(root), file.stem)
        made = re.search(r"experiments\.(\w+)", str(settings.get("command", "")))
        if made and made[1] not in (about["paper"].split()[0], "claims"):
            return False
    return bool(networks or results)


def differences(arguments: Any, used: Mapping[str, str]) -> dict[str, Any]:
    """What distinguishes a result from the one of the default settings.

    Args:
        arguments: of the command line, whose defaults are the fields' own.
        used: data sets that the result is of by default -> those that it is of.

    Returns:
        Flags' names -> values, as JSON holds them.
    """
    found: dict[str, Any] = {}
    for field in dataclasses.fields(arguments):
        value = getattr(arguments, field.name)
        if field.name in (*ABOUT_THE_CALL, "dataset") or value == field.default:
            continue
        found[field.name] = list(value) if isinstance(value, tuple) else value
    others = sorted({taken for wanted, taken in used.items() if taken != wanted})
    return {**found, "dataset": others} if others else found


def named(item: str, differs: Mapping[str, Any]) -> str:
    """The name of a result that is not of the default settings.

    Example:
        >>> named('table3', {'model': 'nin', 'seeds': 2})
        'table3-model_nin-seeds_2'
    """
    parts = [
        "_".join([field, *map(str, value if isinstance(value, list) else [value])])
        for field, value in differs.items()
    ]
    asked = "-".join([item, *parts])
    name = re.sub(r"[^A-Za-z0-9_.\-]", "_", asked)
    if name != asked or len(name) > _LONGEST:
        digest = hashlib.sha256(asked.encode()).hexdigest()[:8]
        name = f"{name[: _LONGEST - 9]}-{digest}"
    return name


def place(records: Records, item: str, differs: Mapping[str, Any]) -> str:
    """The name under which a result is saved; makes room for it.

    The item's own name, unless a result of other settings has it: then that of
    `named`. The default settings take the item's name, and what has it moves.

    Args:
        records: where results are kept.
        item: the table or figure.
        differs: see `differences`; empty for the default settings.
    """
    longer = named(item, differs)
    held = _differences(records, item)
    if held is None:
        there = differs and _differences(records, longer) is not None
        return longer if there else item
    if held == dict(differs):
        return item
    if differs:
        return longer
    _move(records, item, named(item, held))
    return item


def listed(root: Path) -> list[dict[str, Any]]:
    """The results in a directory, a row each, for a table.

    Raises:
        InputError: there are none.
    """
    records = Records(root)
    rows = []
    for name in sorted(_results(root)):
        summary = _summary(records, name)
        if "rows" not in summary:
            continue
        settings = summary.get("settings", {})
        flags = settings.get("differs")
        rows.append(
            {
                "result": name,
                "rows": len(summary["rows"]),
                "made with": "not known" if flags is None else _as_flags(flags),
                "data": ", ".join(_datasets(settings)) or "-",
                "seconds": settings.get("seconds", "-"),
                "figures": sum(1 for _ in _figures(records, name)),
            }
        )
    if not rows:
        raise InputError(f"run_dir={str(root)!r} holds no results")
    return rows


def _as_flags(differs: Mapping[str, Any]) -> str:
    words = []
    for field, value in differs.items():
        flag = "--" + field.replace("_", "-")
        if isinstance(value, list):
            words.append(" ".join([flag, *map(str, value)]))
        else:
            words.append(f"{flag}={value}")
    return " ".join(words) or "the preset's settings"


def _datasets(settings: Any) -> list[str]:
    """Every data set that settings name, at whatever depth."""
    found: set[str] = set()
    waiting = [settings]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if isinstance(one.get("dataset"), str):
                found.add(one["dataset"])
            waiting.extend(v for k, v in one.items() if k != "differs")
    return sorted(found)


def _results(root: Path) -> list[str]:
    files = (root / "results").glob("*.json")
    return [file.stem for file in files if not file.name.startswith(".")]


def _summary(records: Records, name: str) -> dict[str, Any]:
    """What was kept of a result; nothing where it is damaged or missing."""
    try:
        found = records.load_result_summary(name)
    except InputError:
        return {}
    return found if isinstance(found, dict) else {}


def _settings(records: Records, name: str) -> dict[str, Any]:
    found = _summary(records, name).get("settings")
    return found if isinstance(found, dict) else {}


def _differences(records: Records, name: str) -> dict[str, Any] | None:
    """See `differences`; None where there is no such result."""
    if name not in _results(records.path):
        return None
    # From before they were noted: of the default settings, as far as is known.
    return _settings(records, name).get("differs", {})


def _figures(records: Records, name: str) -> Iterator[Path]:
    """A result's figures: by its name, or what follows it and a dash."""
    others = [other for other in _results(records.path) if other.startswith(f"{name}-")]
    for file in sorted((records.path / "figures").glob("*")):
        mine = file.stem == name or file.stem.startswith(f"{name}-")
        if mine and not any(
            file.stem == other or file.stem.startswith(f"{other}-") for other in others
        ):
            yield file


def _move(records: Records, name: str, to: str) -> None:
    """Gives a result, and last of all what says that it is there, another name."""
    for file in list(_figures(records, name)):
        records.rename(file, file.with_name(to + file.name.removeprefix(name)))
    for suffix in (".nc", ".json"):
        file = records.path / "results" / f"{name}{suffix}"
        if file.exists():
            records.rename(file, file.with_name(f"{to}{suffix}"))
