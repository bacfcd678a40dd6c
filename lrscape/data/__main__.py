"""Downloads and prepares a data set: ``python -m lrscape.data prepare NAME``."""

from __future__ import annotations

import sys
from pathlib import Path

from lrscape import checks, console
from lrscape.data.prepare import prepare
from lrscape.data.sources import data_directory, prepared
from lrscape.errors import InputError
from lrscape.parser import Parser


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = Parser(prog="python -m lrscape.data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("prepare", help="download a TFDS data set and write it")
    one.add_argument("name", help="as TFDS spells it: mnist, cifar10, cifar100 ...")
    every = commands.add_parser("list", help="the data sets that are prepared")
    for command in (one, every):
        command.add_argument(
            "--data-dir",
            type=Path,
            help="default: TFDS_DATA_DIR, or else ~/tensorflow_datasets",
        )
    options = parser.parse_args(arguments)
    root = data_directory(options.data_dir)
    if options.data_dir is not None:
        try:
            # It may be new for what is prepared, and holds what is listed.
            there = options.command == "list"
            checks.directory("data_dir", root, must_exist=there)
        except InputError as error:
            parser.error(str(error))
    if options.command == "list":
        print("digits  embedded")
        for name in prepared(root):
            print(f"{name}  in {root}")
        return 0
    try:
        print(f"prepared {options.name} in {prepare(options.name, root)}")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    console.run(main)
