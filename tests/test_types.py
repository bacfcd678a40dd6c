"""What a user's type checker says of the examples in README and docstrings."""

import ast
import builtins
import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lrscape

ROOT = Path(__file__).parents[1]

# What a block of the README takes for granted: the reader's own arrays.
README_NAMES = {
    "params", "gradients", "activations", "initial", "final", "x", "y", "images",
}  # fmt: skip


def modules():
    """Every module of the package but command lines."""
    yield lrscape
    for found in pkgutil.walk_packages(lrscape.__path__, "lrscape."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def unbound(source):
    """The names that code reads and does not itself bind."""
    read, bound = set(), set(dir(builtins))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {a.asname or a.name.partition(".")[0] for a in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
    return read - bound


def readme_examples():
    """Each Python block of the README as a file's name and text."""
    text = (ROOT / "README.md").read_text()
    for n, block in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL)):
        needed = sorted(unbound(block))
        assert set(needed) <= README_NAMES, f"block {n} of README.md: {needed}"
        given = "".join(f"{name}: Any\n" for name in needed)
        yield f"readme_{n}.py", f"from typing import Any\n\n{given}\n{block}"


def docstring_examples():
    """Each docstring's example, with imports of what doctest finds in its module."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    for module in modules():
        for test in finder.find(module, module.__name__):
            block = "".join(example.source for example in test.examples)
            # An example of an error shows what a checker refuses as well.
            if not block or any(example.exc_msg for example in test.examples):
                continue
            imports = "".join(
                f"from {module.__name__} import {name}\n"
                for name in sorted(unbound(block))
            )
            yield f"in_{test.name.replace('.', '_')}.py", imports + block


def complaints(folder, examples):
    """What mypy, as it is installed, says of each example's own lines.

    Args:
        folder: where the examples are written.
        examples: names and texts.
    """
    for name, text in examples:
        (folder / name).write_text(text)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", "--no-error-summary", "."],
        cwd=folder, capture_output=True, text=True,
        env={**os.environ, "MYPYPATH": str(ROOT)},
    )  # fmt: skip
    assert not checked.stderr, checked.stderr
    # Other packages that ship no types are no fault of the example.
    return [
        line
        for line in checked.stdout.splitlines()
        if re.match(r"[a-z]\w*\.py:\d+: error", line)
        and not ("[import-untyped]" in line and 'analyzing "lrscape' not in line)
    ]


def test_the_package_says_that_it_is_typed():
    assert (Path(lrscape.__file__).parent / "py.typed").is_file()


@pytest.mark.slow
def test_a_users_type_checker_accepts_every_example(tmp_path):
    examples = [*readme_examples(), *docstring_examples()]
    assert len(examples) > 100
    assert complaints(tmp_path, examples) == []


@pytest.mark.slow
def test_a_users_type_checker_finds_what_is_wrong(tmp_path):
    """It sees the package's types: a wrong call is an error, and so is a wrong name."""
    text = (
        "import lrscape\nfrom lrscape import schedules, training\n"
        "schedules.gaussian('0.3', 1000)\n"
        "training.Config(epoch=1)\n"
        "lrscape.schedule\n"
    )
    lines = complaints(tmp_path, [("wrong.py", text)])
    assert [line.split(":")[1] for line in lines] == ["3", "4", "5"], lines
