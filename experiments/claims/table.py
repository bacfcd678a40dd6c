"""The table of verdicts, and one page of it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.claims.registry import CLAIMS, EXPERIMENTS
from experiments.harness.statistics import Claim, Judged, judge

VERDICTS = ("supported", "contradicted", "undecided")


def overall(verdicts: Sequence[str]) -> str:
    """The verdict on a claim of several parts.

    Contradicted where one is, supported where all are, undecided where some are not.

    Example:
        >>> overall(['supported', 'contradicted']), overall(['supported'])
        ('contradicted', 'supported')
        >>> overall(['supported', 'undecided']), overall(['not measured'])
        ('undecided', 'not measured')
        >>> overall(['supported', 'too few seeds'])
        'undecided'
    """
    if "contradicted" in verdicts:
        return "contradicted"
    if len(set(verdicts)) == 1:
        return verdicts[0]
    return "undecided"


def judged_papers(
    found: Mapping[str, Sequence[Claim]],
) -> list[tuple[str, Claim, Judged]]:
    """Judges claims, corrected within each paper.

    Args:
        found: the number of a paper -> its claims that were measured.

    Returns:
        The name of the claim in the registry, the part of it, and the verdict.
    """
    return [
        (claim.name.split()[0], claim, verdict)
        for paper in sorted(found)
        for claim, verdict in zip(found[paper], judge(found[paper]), strict=True)
    ]


def rows_of(
    judged: Sequence[tuple[str, Claim, Judged]],
    about: Mapping[str, Mapping[str, Any]],
    preset: str,
    wanted: Sequence[str],
) -> list[dict[str, Any]]:
    """A row a claim.

    Args:
        judged: see `judged_papers`.
        about: name of a claim -> the part that measured it, see `measure.measure`.
        preset: that was followed.
        wanted: names of claims.
    """
    rows = []
    for name in wanted:
        made = about.get(name, {})
        chosen = made.get("models", ())
        flags = " ".join([f"--preset={preset}", *(["--models"] if chosen else []),
                          *chosen])  # fmt: skip
        experiment = EXPERIMENTS[name[0]]
        entry = CLAIMS[name]
        parts = [(claim, verdict) for of, claim, verdict in judged if of == name]
        # Controls and additions stand beside what the paper claims.
        verdicts = [verdict.verdict for claim, verdict in parts if not claim.apart]
        seeds = [len(c.values) for claim, _ in parts for c in claim.conditions]
        rows.append(
            {
                "claim": name,
                "says": entry.says,
                "where": entry.where,
                "criterion": entry.criterion,
                "paper": entry.paper,
                "verdict": overall(verdicts) if verdicts else "not measured",
                "seeds": _range(seeds),
                "parts": [
                    {
                        "says": claim.sentence + (", apart" if claim.apart else ""),
                        "verdict": verdict.verdict,
                        "p": verdict.p_value if verdict.p_value >= 0 else None,
                        "measured": "; ".join(
                            filter(None, [*map(str, claim.conditions), claim.missing])
                        ),
                    }
                    for claim, verdict in parts
                ],
                "preset": preset,
                "device": made.get("device", "-"),
                "cores": made.get("cores", "-"),
                "commit": made.get("commit", "-"),
                "seconds": made.get("seconds"),
                "command": f"python -m experiments.claims {name} {flags}",
                "figures": f"python -m experiments.{experiment} all {flags}",
            }
        )
    return rows


def _cores(count: Any) -> str:
    return f"{count} core{'' if count == 1 else 's'}"


def _range(numbers: Sequence[int]) -> str:
    if not numbers:
        return "-"
    low, high = min(numbers), max(numbers)
    return f"{low} to {high}" if low < high else str(low)


def written(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows as ``claims.json`` has them first: what a table shows.

    Example:
        >>> rows = rows_of([], {}, "quick", ["5.3"])
        >>> written(rows)[0]["verdict"], written(rows)[0]["measured"]
        ('not measured', '-')
    """
    return [
        {
            "claim": row["claim"],
            "says": row["says"],
            "paper": row["paper"],
            "measured": " / ".join(
                f"{part['says']}: {part['verdict']}: {part['measured'] or '-'}"
                for part in row["parts"]
            ) or "-",
            "seeds": row["seeds"],
            "verdict": row["verdict"],
            "scale": f"{row['preset']}, {row['device']}, {_cores(row['cores'])}",
            "command": row["command"],
        }
        for row in rows
    ]  # fmt: skip


def printed(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows as they are printed, short."""
    return [
        {
            "claim": row["claim"],
            "verdict": row["verdict"],
            "seeds": row["seeds"],
            "paper": row["paper"],
            "says": row["says"],
        }
        for row in rows
    ]


def page(rows: Sequence[Mapping[str, Any]], notes: Sequence[str]) -> str:
    """One page that needs no net: every claim, what was measured, and the verdict."""
    shown = html.escape
    counts = {
        verdict: sum(row["verdict"] == verdict for row in rows)
        for verdict in dict.fromkeys([*VERDICTS, *(row["verdict"] for row in rows)])
    }
    cells = []
    for row in rows:
        parts = "".join(
            f"<li>{shown(part['says'])}: <b>{shown(part['verdict'])}</b>"
            + (f", p {part['p']:.2g}" if part["p"] is not None else "")
            + f"<br><small>{shown(part['measured'] or '-')}</small></li>"
            for part in row["parts"]
        )
        cells.append(
            f"<tr class='{shown(row['verdict'].split()[0])}'>"
            f"<td>{shown(row['claim'])}</td>"
            f"<td>{shown(row['says'])}<br><small>{shown(row['where'])}; paper: "
            f"{shown(row['paper'])}</small></td>"
            f"<td><b>{shown(row['verdict'])}</b><br><small>{shown(row['seeds'])} "
            f"value{'' if row['seeds'] == '1' else 's'}</small></td>"
            f"<td><ul>{parts}</ul>"
            f"<small>judged by: {shown(row['criterion'])}<br>"
            f"<code>{shown(row['command'])}</code>, {shown(str(row['device']))}, "
            f"{shown(_cores(row['cores']))}; figures: "
            f"<code>{shown(row['figures'])}</code></small></td></tr>"
        )
    summary = ", ".join(f"{count} {shown(name)}" for name, count in counts.items())
    said = "".join(f"<p>{shown(note)}</p>" for note in notes)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Claims</title><style>{_STYLE}</style></head><body>
<h1>What the papers say, and what holds</h1><p>{len(rows)} claims: {summary}.</p>
<table><thead><tr><th></th><th>claim</th><th>verdict</th><th>measured</th></tr></thead>
<tbody>{"".join(cells)}</tbody></table>{said}</body></html>
"""


_STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
td, th { padding: .5rem; vertical-align: top; text-align: left;
  border-top: 1px solid #8884; }
ul { margin: 0; padding-left: 1.1rem; } small { opacity: .75; }
td:last-child { overflow-wrap: anywhere; }
td:nth-child(1), td:nth-child(3) { white-space: nowrap; }
.supported td:nth-child(3) { color: light-dark(#14692e, #7ad394); }
.contradicted td:nth-child(3) { color: light-dark(#a3231f, #ff9a94); }
@media (max-width: 45rem) {
  td, th { display: block; border: 0; padding: .2rem 0; } thead { display: none; }
  tr { display: block; border-top: 1px solid #8884; padding: .6rem 0; }
}
"""
