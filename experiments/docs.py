"""Builds the reference of lrscape's public names as a static site, from docstrings.

    python -m experiments.docs --out=site

Needs `pip install 'lrscape[docs]'` (pdoc). Half a minute. Open site/index.html;
formulas are set by MathJax where there is a network, and are TeX where there is none.

Exit statuses: 0 built, 1 pdoc warned (every warning is printed), 2 no pdoc, or a
directory that cannot be written.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import sys
import tempfile
import warnings
from pathlib import Path

from experiments.harness.paper import command_line
from experiments.harness.values import Directory
from lrscape import checks, console
from lrscape.errors import InputError
from lrscape.records import write_aside


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Flags of the reference.

    Attributes:
        out: the directory of the site.
        debug: show a traceback with an error.
    """

    out: Directory = Path("site")
    debug: bool = False


def build(out: Path) -> list[str]:
    """Builds the site.

    Args:
        out: its directory.

    Returns:
        What pdoc warned of.

    Raises:
        InputError: pdoc is not installed, or `out` is a file.
    """
    try:
        import pdoc
    except ImportError as error:
        raise InputError(
            "docs need a package that is not installed: pip install 'lrscape[docs]'"
        ) from error
    if (out.exists() or out.is_symlink()) and not out.is_dir():
        raise InputError(f"out={str(out)!r} is a file; name a directory")
    checks.path_to_write("out", out / "index.html")
    pdoc.render.configure(docformat="google", math=True, show_source=False)
    _name_what_is_public("lrscape")
    with (
        tempfile.TemporaryDirectory() as made,
        warnings.catch_warnings(record=True) as found,
    ):
        warnings.simplefilter("always")
        # Types that exist for checkers alone, ours and Optax's, are shown as written.
        warnings.filterwarnings("ignore", "Error parsing type annotation")
        # And those of packages that are not installed, such as PyTorch.
        warnings.filterwarnings("ignore", "Failed to run TYPE_CHECKING code")
        pdoc.pdoc("lrscape", output_directory=Path(made))
        # pdoc itself writes through links and into devices.
        for file in sorted(Path(made).rglob("*")):
            if file.is_file():
                with write_aside(out / file.relative_to(made)) as aside:
                    aside.write_bytes(file.read_bytes())
    return [str(warning.message) for warning in found]


def _name_what_is_public(package: str) -> None:
    """Lets pdoc see what packages without ``__all__`` take from their files."""
    module = importlib.import_module(package)
    for info in pkgutil.iter_modules(module.__path__):
        if info.name.startswith("_"):
            continue
        part = importlib.import_module(f"{package}.{info.name}")
        if not hasattr(part, "__path__") or hasattr(part, "__all__"):
            continue
        part.__all__ = sorted(  # type: ignore[attr-defined]
            name
            for name, value in vars(part).items()
            if not name.startswith("_")
            and str(getattr(value, "__module__", "")).startswith(part.__name__)
        )


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    found: list[str] = []

    def run(arguments: Arguments) -> None:
        found.extend(build(arguments.out))
        for warning in found:
            print(f"warning: {warning}", file=sys.stderr)
        print(f"written: {arguments.out / 'index.html'}")

    status = command_line("docs", Arguments, __doc__, run, argv)
    return status or int(bool(found))


if __name__ == "__main__":
    console.run(main)
