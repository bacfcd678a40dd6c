"""Lists the experiments: ``python -m experiments``."""

from __future__ import annotations

import ast
from pathlib import Path

# Shared code, not experiments.
PARTS = {
    "__init__", "__main__", "arguments", "arms", "kinds", "loop", "paper",
    "signals", "statistics", "train", "verdicts",
}  # fmt: skip


def main() -> None:
    """Prints a line for each experiment: the first of its file's docstring."""
    for file in sorted(Path(__file__).parent.glob("*.py")):
        if file.stem not in PARTS:
            docstring = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
            print(f"python -m experiments.{file.stem:<18} {docstring.splitlines()[0]}")


if __name__ == "__main__":
    main()
