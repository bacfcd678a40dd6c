"""The README's results, made from the files in experiments/results.

    python -m experiments.results_table            # prints them
    python -m experiments.results_table --write    # puts them into README.md

A table of trained networks (`config.json` and `summary.json` of a run), and the
verdicts of `python -m experiments.claims`, from the same `claims.json` that its report
shows: what each paper says, its number, and what was measured at either scale.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from pathlib import Path
from typing import Any

from experiments.judging.registry import CLAIMS, EXPERIMENTS
from lrscape import console
from lrscape.parser import Parser
from lrscape.reading import Reader, read_json
from lrscape.records import write_aside

ROOT = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"
BEGIN = "<!-- made by python -m experiments.results_table --write -->"
END = "<!-- until here -->"

# The scales of the claims.
PRESETS = ("quick", "paper")
PAPERS = {
    "nonmonotonic": "Towards Flatter Loss Surface",
    "loss_surfaces": "An Empirical Analysis of Deep Network Loss Surfaces",
    "walk_with_sgd": "A Walk with SGD",
    "asymmetric_valleys": "Asymmetric Valleys",
    "lipschitz_rate": "A novel adaptive learning rate scheduler",
}


def results_table(root: Path = ROOT) -> str:
    """All results that lie in a directory, as Markdown."""
    parts = [_networks(root), *_claims(root)]
    return "\n\n".join(part for part in parts if part)


def _networks(root: Path) -> str:
    rows = []
    for folder in sorted(root.iterdir()):
        files = [folder / name for name in ("config.json", "summary.json")]
        if not all(file.exists() for file in files):
            continue
        config, summary = map(_read, files)
        if "seeds" in config:  # of several seeds; each has a directory of its own
            continue
        rows.append(
            {
                "data": config["dataset"],
                "network": config["model"],
                "rate": config["schedule"],
                "epochs": f"{config['epochs']:g}",
                "seed": f"{config['seed']}",
                "on the test set": _measured(summary["last"]),
                "seconds": f"{summary['seconds']:.0f}",
                "command": f"`{_plain(config['command'])}`",
                "device": _device(config),
            }
        )
    return _markdown(rows)


def _measured(last: dict[str, float]) -> str:
    if "test_perplexity" in last:
        return f"perplexity {last['test_perplexity']:.2f}"
    return f"error {100 * last['test_error']:.2f} %"


def _claims(root: Path) -> list[str]:
    """The verdicts at each scale, side by side, and what was measured."""
    found = {}
    for preset in PRESETS:
        file = root / f"claims-{preset}" / "results" / "claims.json"
        if file.exists():
            found[preset] = {row["claim"]: row for row in _read(file)["rows"]}
    if not found:
        return []
    parts = ["**Claims of the five papers**: " + "; ".join(map(_told, found.items()))]
    for number, name in EXPERIMENTS.items():
        named = [claim for claim in CLAIMS if claim.split(".")[0] == number]
        if not any(claim in rows for rows in found.values() for claim in named):
            continue
        rows = [_verdict(claim, found) for claim in named]
        measured = [_details(claim, found) for claim in named]
        parts += [
            f"**{PAPERS[name]}** (`python -m experiments.{name}`)",
            _markdown(rows),
            "<details><summary>What was measured, with 95 % intervals</summary>\n\n"
            + _markdown([row for rows in measured for row in rows])
            + "\n\n</details>",
        ]
    return parts


def _told(item: tuple[str, dict[str, dict[str, Any]]]) -> str:
    """How many of each verdict, at one scale."""
    preset, rows = item
    measured = [row for row in rows.values() if row["verdict"] != "not measured"]
    counts = Counter(row["verdict"] for row in measured)
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    scales = ", ".join(sorted({row["scale"] for row in measured}))
    return (
        f"at `--preset={preset}` {told}, of {len(measured)} measured ({scales}; "
        f"[claims.json](experiments/results/claims-{preset}/results/claims.json))"
    )


def _verdict(claim: str, found: dict[str, dict[str, Any]]) -> dict[str, str]:
    cells = {}
    for preset, rows in found.items():
        row = rows.get(claim, {"verdict": "-", "seeds": "-"})
        seeds = "" if row["seeds"] == "-" else f" ({row['seeds']})"
        cells[f"verdict by {preset} (seeds)"] = row["verdict"] + seeds
    entry = CLAIMS[claim]
    return {"claim": claim, "says": entry.says, "paper": entry.paper, **cells}


def _details(claim: str, found: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
    return [
        {"claim": claim, "preset": preset, "measured": rows[claim]["measured"],
         "command": f"`{rows[claim]['command']}`"}
        for preset, rows in found.items()
        if claim in rows and rows[claim]["measured"] != "-"
    ]  # fmt: skip


def _device(settings: dict[str, Any]) -> str:
    cores = f"{settings['cores']} cores of " if settings["device"] == "cpu" else ""
    return f"{cores}{settings['device']}, {settings['machine']}"


def _plain(command: str) -> str:
    """A command without the directories of the machine that it ran on."""
    return re.sub(r" --(run-dir|data-dir)[= ]\S+", "", command)


def _markdown(rows: list[dict[str, str]]) -> str:
    if not rows:
        return ""
    names = list(rows[0])
    lines = [names, ["---"] * len(names)]
    lines += [[row[name].replace("|", r"\|") for name in names] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _read(file: Path) -> Any:
    return read_json(file, Reader(ROOT if ROOT in file.parents else file.parent))


def inserted(text: str, table: str) -> str:
    """A text with the table between its two marks.

    Example:
        >>> inserted(f'a{BEGIN}old{END}b', 'new').splitlines()[2]
        'new'
    """
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = Parser(
        prog="python -m experiments.results_table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--write", action="store_true", help="change README.md")
    if not parser.parse_args(argv).write:
        print(results_table())
        return 0
    text = inserted(README.read_text("utf-8"), results_table())
    with write_aside(README) as aside:
        aside.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    console.run(main)
