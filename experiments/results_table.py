"""The pages of results, made from the files in experiments/results.

    python -m experiments.results_table            # prints them
    python -m experiments.results_table --write    # writes them

``README.md`` there gets a table of trained networks (`config.json` and `summary.json`
of a run) and the verdicts of `python -m experiments.claims`, from the same
`claims.json` that its report shows: what each paper says, its number, and the verdict
at either scale. ``claims.md`` says what was measured for each, and by which command.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.claims.registry import CLAIMS, EXPERIMENTS
from lrscape import console
from lrscape.parser import Parser
from lrscape.reading import Reader, read_json
from lrscape.records import write_aside

ROOT = Path(__file__).parent / "results"
README = ROOT / "README.md"
DETAILS = ROOT / "claims.md"
BEGIN = "<!-- made by python -m experiments.results_table --write -->"
END = "<!-- until here -->"

# Each part of what was measured has its verdict.
_VERDICT = re.compile(
    ": (supported|contradicted|undecided|not measured|too few|not finite)"
)
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
    """Networks and verdicts that lie in a directory, as Markdown."""
    parts = [_networks(root), *_verdicts(root)]
    return "\n\n".join(part for part in parts if part)


def details_page(root: Path = ROOT) -> str:
    """The page that lists the measurements for each claim, as Markdown."""
    parts = ["# What was measured for each claim, with 95 % intervals"]
    for paper, claims, found in _by_paper(root):
        parts.append(f"## {paper}")
        parts += [_details(claim, found) for claim in claims]
    return "\n\n".join(part for part in parts if part) + "\n"


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
                "device": _device(config),
                "settings": f"[config.json]({folder.name}/config.json)",
            }
        )
    return _markdown(rows)


def _measured(last: dict[str, float]) -> str:
    if "test_perplexity" in last:
        return f"perplexity {last['test_perplexity']:.2f}"
    return f"error {100 * last['test_error']:.2f} %"


Verdicts = dict[str, dict[str, dict[str, Any]]]


def _found(root: Path) -> Verdicts:
    """The rows of claims at each scale, by their numbers."""
    found = {}
    for preset in PRESETS:
        file = root / f"claims-{preset}" / "results" / "claims.json"
        if file.exists():
            found[preset] = {row["claim"]: row for row in _read(file)["rows"]}
    return found


def _by_paper(root: Path) -> Iterator[tuple[str, list[str], Verdicts]]:
    """Each paper of which a claim was measured: heading, claims and their rows."""
    found = _found(root)
    for number, name in EXPERIMENTS.items():
        claims = [claim for claim in CLAIMS if claim.split(".")[0] == number]
        if any(claim in rows for rows in found.values() for claim in claims):
            yield (
                f"{PAPERS[name]} (`python -m experiments.{name}`)", claims, found,
            )  # fmt: skip


def _verdicts(root: Path) -> list[str]:
    """The verdicts at each scale, side by side."""
    found = _found(root)
    if not found:
        return []
    parts = ["**Claims of the five papers**: " + "; ".join(map(_told, found.items()))]
    for paper, claims, rows in _by_paper(root):
        lines = [_verdict(claim, rows) for claim in claims]
        parts += [f"**{paper}**", "\n".join(lines)]
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
        f"[claims.json](claims-{preset}/results/claims.json))"
    )


def _verdict(claim: str, found: Verdicts) -> str:
    """A claim in a line: what it says, the paper's number, verdicts and seeds."""
    entry, told = CLAIMS[claim], []
    for preset, rows in found.items():
        row = rows.get(claim)
        if row is not None:
            seeds = "" if row["seeds"] == "-" else f" ({row['seeds']})"
            told.append(f"by {preset}: {row['verdict']}{seeds}")
    number = "" if entry.paper == "-" else f" Paper: {entry.paper}."
    verdicts = "; ".join(told) or "not measured"
    return f"- **{claim}** {entry.says}.{number} {verdicts[0].upper()}{verdicts[1:]}."


def _details(claim: str, found: Verdicts) -> str:
    """The measurements for a claim, a line for each of its parts."""
    parts = []
    for rows in found.values():
        row = rows.get(claim)
        if row is None or row["measured"] == "-":
            continue
        lines = [f"By `{row['command']}`:", ""]
        lines += [f"- {part}" for part in _parts(row["measured"])]
        parts.append("\n".join(lines))
    if not parts:
        return ""
    return "\n\n".join([f"### {claim}: {CLAIMS[claim].says}", *parts])


def _parts(measured: str) -> list[str]:
    """The parts that a slash divides, where it is no ratio's."""
    parts: list[str] = []
    for piece in measured.split(" / "):
        if parts and not (_VERDICT.search(parts[-1]) and _VERDICT.search(piece)):
            parts[-1] += f" / {piece}"
        else:
            parts.append(piece)
    return parts


def _device(settings: dict[str, Any]) -> str:
    cores = f"{settings['cores']} cores of " if settings["device"] == "cpu" else ""
    return f"{cores}{settings['device']}, {settings['machine']}"


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
    parser.add_argument("--write", action="store_true", help="change the pages")
    if not parser.parse_args(argv).write:
        print(results_table(), details_page(), sep="\n\n")
        return 0
    text = inserted(README.read_text("utf-8"), results_table())
    for file, content in ((README, text), (DETAILS, details_page())):
        with write_aside(file) as aside:
            aside.write_text(content, "utf-8")
    return 0


if __name__ == "__main__":
    console.run(main)
