"""The README's results, made from the files in experiments/results.

    python -m experiments.results_table            # prints them
    python -m experiments.results_table --write    # puts them into README.md

A table of trained networks (`config.json` and `summary.json` of a run), and for each
paper the verdicts of its `claims.json`, with the command, device and seeds that made
them.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from lrscape import seals

ROOT = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"
BEGIN = "<!-- made by python -m experiments.results_table --write -->"
END = "<!-- until here -->"

PAPERS = {
    "nonmonotonic": "Towards Flatter Loss Surface",
    "loss_surfaces": "An Empirical Analysis of Deep Network Loss Surfaces",
    "walk_with_sgd": "A Walk with SGD",
    "asymmetric_valleys": "Asymmetric Valleys",
    "lipschitz_rate": "A novel adaptive learning rate scheduler",
}


def results_table(root: Path = ROOT) -> str:
    """All results that lie in a directory, as Markdown."""
    parts = [_networks(root)]
    for name, title in PAPERS.items():
        judged = sorted(root.glob(f"{name}-*/claims.json"))
        parts += [_verdicts(file.parent, title) for file in judged]
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


def _verdicts(folder: Path, title: str) -> str:
    found = _read(folder / "claims.json")
    settings = found["settings"]
    name, preset = folder.name.rsplit("-", 1)
    command = _plain(settings.get("command", f"python -m experiments.{name} claims"))
    plans = settings.get("plans", settings.get("plan", {}))
    seeds = sorted(set(_seeds(plans)))
    shown = "" if not seeds else f", {_range(seeds)} seed{'s' * (seeds[-1] > 1)}"
    counts = Counter(row["verdict"] for row in found["rows"])
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    rows = [
        {
            "claim": row["claim"],
            "says": row.get("sentence", row.get("says", "")),
            "verdict": row["verdict"],
        }
        for row in found["rows"]
    ]
    return (
        f"**{title}**: {told}. `{command}`, preset `{preset}`{shown}, on "
        f"{_device(settings)}; what was measured, with intervals: "
        f"[claims.json](experiments/results/{folder.name}/claims.json)\n\n"
        f"{_markdown(rows)}"
    )


def _seeds(value: Any) -> list[int]:
    """The numbers of seeds anywhere in a plan."""
    if not isinstance(value, dict):
        return []
    own = [value["seeds"]] if isinstance(value.get("seeds"), int) else []
    return own + [seeds for item in value.values() for seeds in _seeds(item)]


def _range(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return str(numbers[0])
    return f"{numbers[0]} to {numbers[-1]}"


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


_read = seals.read


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
    parser = argparse.ArgumentParser(
        prog="python -m experiments.results_table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--write", action="store_true", help="change README.md")
    if not parser.parse_args(argv).write:
        print(results_table())
        return 0
    README.write_text(inserted(README.read_text("utf-8"), results_table()), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
