"""The commands of `python -m experiments`: a file or a package each, by its name."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

EXPERIMENTS = Path(__file__).parents[1]


def commands() -> dict[str, Path]:
    """Each command's name and the file that is run, in alphabetical order."""
    files = {file.stem: file for file in EXPERIMENTS.glob("[!_]*.py")}
    packages = {file.parent.name: file for file in EXPERIMENTS.glob("*/__main__.py")}
    return dict(sorted({**files, **packages}.items()))


def module_of(command: str) -> ModuleType:
    """The module that a command runs.

    Args:
        command: such as ``'cifar'``, which is a file, or ``'walk_with_sgd'``, which is
            a package and run by its ``__main__``.

    Raises:
        ModuleNotFoundError: there is no such command.
    """
    name = f"experiments.{command}"
    found = importlib.util.find_spec(name)
    if found is not None and found.submodule_search_locations is not None:
        name += ".__main__"
    return importlib.import_module(name)
