"""Lists the experiments: ``python -m experiments``."""

from __future__ import annotations

import ast

from experiments.harness.commands import commands
from lrscape import console

# What all of them have in common.
COMMON = """
Each says by --help what it takes, and what its presets are. Exit statuses: 0 finished,
1 training, a disk or a run failed, 2 bad input, 128 + N stopped by signal N (130 is
Ctrl-C); what was done is kept, and the same command goes on, in training with --resume.

Completion, here of experiments.cifar in bash (there are zsh and tcsh too):
  alias experiments.cifar='python -m experiments.cifar'
  python -m experiments.cifar --tyro-print-completion bash > cifar.sh; . ./cifar.sh"""


def main() -> None:
    """Prints a line for each command, the first of its file's docstring."""
    for name, file in commands().items():
        docstring = ast.get_docstring(ast.parse(file.read_text("utf-8"))) or ""
        print(f"python -m experiments.{name:<18} {docstring.splitlines()[0]}")
    print(COMMON)


if __name__ == "__main__":
    console.run(main)
