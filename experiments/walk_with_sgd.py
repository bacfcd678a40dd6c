"""Paper 3, "A Walk with SGD": its tables and figures, measured beside its numbers.

    python -m experiments.walk_with_sgd table1 --preset=quick

Items: fig1 (the ground under full-batch gradient descent), fig2 (under SGD), table1
(barriers crossed in an epoch), table2 (height above the valley's floor), all.

Trains each network once, into one directory a preset, and walks over the epochs that
were asked for; what is there is used again, and what was stopped goes on. MLP on MNIST,
VGG-11 and ResNet-56 on CIFAR-10, digits where these are not prepared. The preset quick
walks over a part of an epoch, on a part of the examples; paper over whole epochs on all
examples: 11 forward passes over the training set for each of 450 updates an epoch,
which for VGG-11 and ResNet-56 takes a GPU.
"""

from __future__ import annotations

import dataclasses
import io
import signal
import sys
import time
import traceback
from pathlib import Path

import jax
import tyro

from experiments.walking.settings import DATASETS, PRESETS, Lab
from experiments.walking.tables import ITEMS, Result
from lrscape.environment import describe
from lrscape.errors import InputError, unknown_name
from lrscape.records import Records
from lrscape.training import NonFiniteLossError
from lrscape.training.checkpoint import CorruptCheckpointError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Flags; None means "from the preset".

    Attributes:
        item: fig1, fig2, table1, table2, or all.
        preset: quick or paper.
        models: of mlp, vgg11, resnet56.
        epochs: those that are walked over, counted from 1.
        updates: how many of each epoch; 0: all of them.
        seeds: networks that differ by their seed alone.
        examples: size of the sample that losses are measured on; 0: all of them.
        dataset: instead of each network's own: mnist, cifar10 or digits.
        run_dir: where networks and results are kept; default:
            runs/walk_with_sgd-PRESET.
        data_dir: the TFDS data directory; default: TFDS_DATA_DIR, or else
            ~/tensorflow_datasets.
        debug: show a traceback with an error.
    """

    item: tyro.conf.Positional[str]
    preset: str = "quick"
    models: tuple[str, ...] = ("mlp", "vgg11", "resnet56")
    epochs: tuple[int, ...] | None = None
    updates: int | None = None
    seeds: int | None = None
    examples: int | None = None
    dataset: str | None = None
    run_dir: Path | None = None
    data_dir: Path | None = None
    debug: bool = False


def lab_of(arguments: Arguments) -> Lab:
    """What was asked for, with the preset's values.

    Raises:
        InputError: an unknown name, or a number that cannot work.
    """
    if arguments.item != "all" and arguments.item not in ITEMS:
        raise unknown_name("item", arguments.item, [*ITEMS, "all"])
    if arguments.preset not in PRESETS:
        raise unknown_name("preset", arguments.preset, PRESETS)
    if not arguments.models:
        raise InputError(f"models: name at least one of {', '.join(DATASETS)}")
    for model in arguments.models:
        if model not in DATASETS:
            raise unknown_name("models", model, DATASETS)
    least = {"updates": 0, "examples": 0, "seeds": 1}
    for field, lowest in least.items():
        value = getattr(arguments, field)
        if value is not None and value < lowest:
            raise InputError(f"{field}={value} must be {lowest} or more")
    if arguments.epochs is not None and not (
        arguments.epochs and all(epoch >= 1 for epoch in arguments.epochs)
    ):
        raise InputError(f"epochs={arguments.epochs} must be whole numbers from 1 on")
    plans = {}
    for model, plan in PRESETS[arguments.preset].items():
        changes: dict = {}
        if arguments.epochs is not None:
            changes["epochs"] = tuple(sorted(set(arguments.epochs)))
        if arguments.updates is not None:
            changes["updates"] = arguments.updates or None
        if arguments.seeds is not None:
            changes["seeds"] = arguments.seeds
        if arguments.examples is not None:
            changes["sample"] = dataclasses.replace(
                plan.sample, examples=arguments.examples or None
            )
        plans[model] = dataclasses.replace(plan, **changes)
    root = arguments.run_dir or Path("runs") / f"walk_with_sgd-{arguments.preset}"
    return Lab(
        arguments.preset, arguments.models, plans, root, arguments.data_dir,
        arguments.dataset,
    )  # fmt: skip


def run(arguments: Arguments) -> None:
    """Makes the items that were asked for, prints and saves them."""
    lab = lab_of(arguments)
    for item in ITEMS if arguments.item == "all" else [arguments.item]:
        started = time.monotonic()
        function = ITEMS[item]
        found = function(lab)
        seconds = time.monotonic() - started
        print(f"\n{item}: {(function.__doc__ or '').splitlines()[0]}")
        print(_as_text(found.rows))
        for note in found.notes:
            print(note)
        _save(lab, item, found, seconds)


def _save(lab: Lab, item: str, found: Result, seconds: float) -> None:
    records = Records(lab.root)
    about = {
        "preset": lab.preset,
        "plans": {model: lab.about(model) for model in lab.models},
        "seconds": round(seconds, 1),
        **describe(jax.local_devices()),
    }
    written = [records.save_result(item, found.dataset, about)]
    for name, figure in found.figures.items():
        written.append(records.save_figure(f"{item}-{name}", figure))
    summary = {"rows": found.rows, "notes": found.notes, "settings": about}
    written.append(records.save_result_summary(item, summary))
    print(f"{seconds:.0f} s; written:", *written, sep="\n  ")


def _as_text(rows: list[dict]) -> str:
    """Rows as columns, aligned.

    Example:
        >>> print(_as_text([{'a': 1, 'bc': 'x'}]))
        a  bc
        1  x
    """
    cells = [list(rows[0]), *([str(v) for v in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    arguments = tyro.cli(
        Arguments,
        prog="python -m experiments.walk_with_sgd",
        description=__doc__.strip(),
        args=argv,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    try:
        run(arguments)
    except (InputError, CorruptCheckpointError) as error:
        if arguments.debug:
            traceback.print_exception(error)
        print(f"error: {error}", file=sys.stderr)
        return 2
    except NonFiniteLossError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\nstopped; give the same command again to go on with what is measured",
            file=sys.stderr,
        )
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
