"""Sections of a page: words, numbers and tables about runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lrscape.extensions import EXACT, seams
from lrscape.report.markup import details, pairs, table, text
from lrscape.report.reading import RunOnDisk

MADE_BY = (
    "versions", "device", "device_count", "cores", "machine", "commit", "command",
)  # fmt: skip
# Settings that say where, not what.
NOT_COMPARED = (*MADE_BY, "given", "data_dir", "data")


def header(runs: Sequence[RunOnDisk]) -> str:
    """The name of a run and its numbers, or how many runs there are."""
    if len(runs) > 1:
        return f"<header><h1>{len(runs)} runs</h1></header>"
    (run,) = runs
    return f"<header><h1>{text(run.name)}</h1>{numbers_of(run)}</header>"


def numbers_of(run: RunOnDisk) -> str:
    """A line about a run, and its few numbers."""
    if run.is_paper:
        count = len(run.networks)
        trained = f", {counted(count, 'network')}" if count else ""
        return (
            f"<p>{counted(len(run.results), 'result')}{trained}. Columns in italics "
            "are the paper's own numbers; all others are measured.</p>"
        )
    config, last = run.config, run.last
    words = [str(config.get(name)) for name in ("model", "dataset") if name in config]
    what = " on ".join(words)
    if "schedule" in config:
        what += f", {config['schedule']} rate"
    numbers: dict[str, str] = {}
    for part in ("test", "validation", "train"):
        if (value := last.get(f"{part}_perplexity")) is not None:
            numbers[f"{part} perplexity"] = f"{value:.2f}"
        elif (value := last.get(f"{part}_error")) is not None:
            numbers[f"{part} error"] = f"{100 * value:.2f} %"
    summary = run.summary or {}
    best = summary.get("best")
    by = str(summary.get("best_by"))
    if isinstance(best, dict) and isinstance(best.get(by), int | float):
        name = f"least {by.replace('_', ' ')}"
        is_share = by.endswith("_error")
        numbers[name] = f"{100 * best[by]:.2f} %" if is_share else f"{best[by]:.2f}"
    if "epoch" in last:
        numbers["epochs"] = f"{last['epoch']:g}"
    for key, name, unit in (
        ("parameters", "parameters", ""),
        ("seconds", "seconds", " s"),
        ("images_per_second", "images a second", ""),
        ("tokens_per_second", "tokens a second", ""),
    ):
        if isinstance(value := summary.get(key), int | float):
            numbers[name] = f"{value:,.0f}{unit}"
    cards = "".join(
        f"<div><dt>{text(k)}<dd>{text(v)}</div>" for k, v in numbers.items()
    )
    said = "".join(f"<p>{text(sentence)}</p>" for sentence in [what, *made_longer(run)])
    return said + (f'<dl class="cards">{cards}</dl>' if numbers else "")


def made_longer(run: RunOnDisk) -> list[str]:
    """A sentence for each time that a run was made longer than it was begun."""
    rates = {
        EXACT: "its rates are those of a run that was begun with the new length",
        "hold": "the rate follows the old shape to that update, then holds its last "
        "value",
        "stretch": "from that update on the rate is that of the shape stretched to the "
        "new length",
    }
    found = [extension for extension, _ in seams(run.config, run.metrics)]
    if not found:
        return []
    lengths = [*[one.epochs for one in found[1:]], run.config.get("epochs")]
    return [
        f"Made longer at update {one.step:,}, from {one.epochs} to {length} epochs: "
        f"{rates[one.how]}."
        for one, length in zip(found, lengths, strict=True)
    ]


def counted(count: int, name: str) -> str:
    """So many of something."""
    return f"{count} {name}{'' if count == 1 else 's'}"


def settings(config: dict[str, Any]) -> str:
    """The settings of a run, folded away."""
    if not config:
        return ""
    chosen = {k: v for k, v in config.items() if k not in (*MADE_BY, "given")}
    made = {k: config[k] for k in MADE_BY if k in config}
    return details("Settings", pairs(chosen) + pairs(made))


def side_by_side(runs: Sequence[RunOnDisk]) -> str:
    """Runs as rows: what they differ in, and what came of it."""
    trained = [run for run in runs if not run.is_paper]
    if len(trained) < 2:
        return ""
    fields = dict.fromkeys(name for run in trained for name in run.config)
    differing = [
        name
        for name in fields
        if name not in NOT_COMPARED
        and len({json.dumps(run.config.get(name)) for run in trained}) > 1
    ]
    rows = []
    for run in trained:
        differs = {n.replace("_", " "): run.config.get(n) for n in differing}
        numbers = row_of(run)
        rows.append({"run": numbers.pop("run"), **differs, **numbers})
    return f'<section id="runs"><h2>Side by side</h2>{table(rows)}</section>'


def row_of(run: RunOnDisk) -> dict[str, Any]:
    """A run in a few numbers; errors in per cent."""
    last, summary = run.last, run.summary or {}
    state = "finished" if run.finished else "not finished"
    if run.diverged is not None:
        state = f"not finite from update {run.diverged:g}"
    row: dict[str, Any] = {"run": run.name, "state": state, "epoch": last.get("epoch")}
    for part in ("test", "validation", "train"):
        if isinstance(value := last.get(f"{part}_error"), float):
            row[f"{part} error (%)"] = f"{100 * value:.2f}"
    row["last rate"] = last.get("learning_rate")
    if "seconds" in summary:
        row["seconds"] = summary["seconds"]
    return row


def arrays(dataset: Any) -> list[dict[str, Any]]:
    """The arrays of a result, each with its range."""
    rows = []
    for name, array in dataset.data_vars.items():
        row = {
            "array": str(name),
            "over": " x ".join(f"{d} {n}" for d, n in array.sizes.items()),
            "unit": array.attrs.get("units", "-"),
        }
        if array.dtype.kind in "fiu" and array.size:
            finite = array.where(abs(array) < float("inf"))
            row |= {"least": float(finite.min()), "largest": float(finite.max())}
        rows.append(row)
    return rows
