"""Surveys the loss landscape of finished runs.

    python -m experiments.survey runs/a --probe=line --from=initial --to=final

Measures around the snapshots of runs and writes results, figures and a summary into the
first run's directory. A line, a surface or a distance that is stopped goes on where it
was when the same command is given again. The preset quick takes a few minutes on two
CPU cores for a network the size of `small`; seconds for digits.

Probes: line (between two snapshots), plane (along two random directions), path (the
plane nearest to the run's own path), barycentric (between three points: RUN RUN [RUN]),
bilinear (four: RUN RUN [RUN RUN]), walk (between consecutive updates of one epoch),
flatness (to moved weights and inputs), distance (between networks as functions),
curvature (eigenvalues, trace and density of the Hessian), sharpness (the dominant
eigenvalue at every snapshot, beside 2 / learning rate).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments.harness.memory import keep_freed_memory
from experiments.harness.parsing import parse
from experiments.harness.values import (
    Checked,
    Count,
    DataDirectory,
    Epochs,
    Grid,
    NotNegative,
    Points,
    Positive,
    Seed,
    Whole,
    check_values,
    whole,
)
from experiments.probes import PROBES, Found, Settings, Survey
from lrscape import console
from lrscape.environment import describe
from lrscape.errors import InputError, unknown_name
from lrscape.landscape.direction import NORMALIZATIONS
from lrscape.landscape.model_objective import NORMS
from lrscape.processes import connect, is_first, quiet_unless_first, wait_for_all
from lrscape.records import NAME
from lrscape.runs import TextRun, open_run
from lrscape.training.checkpoint import CorruptCheckpointError

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {"points": 25, "grid": 11, "examples": 1000, "directions": 3, "steps": 40,
              "eigenpairs": 5, "matvecs": 20},
    "full": {"points": 101, "grid": 51, "examples": None, "directions": 10,
             "steps": None, "eigenpairs": 20, "matvecs": 100},
}  # fmt: skip
# These look at every snapshot of a run.
WHOLE_RUNS = ("path", "sharpness")
# How many runs a probe of several is of. All others are of one.
RUNS = {"line": (1, 2), "distance": (1, 2), "barycentric": (2, 3), "bilinear": (2, 4)}
# These measure between two snapshots; these two from the corners of a surface.
BETWEEN = ("line", "distance", "flatness")
MEETING = ("barycentric", "bilinear")
PRECISIONS = ("single", "double")

# These take images in, or train on them again.
OF_IMAGES = ("walk", "flatness", "distance")

# Interpolated weights fit neither end's running averages.
NORM = {
    "walk": "train",
    "distance": "interpolate",
    "curvature": "train",
    "sharpness": "train",
}
DEFAULT_NORM = "recalibrate"


Directions = Annotated[
    int, Checked(whole(1, 100_000, "each is a pass over the sample, or several"))
]
Eigenpairs = Annotated[
    int, Checked(whole(1, 1000, "each is kept as a vector as large as the network"))
]
Products = Annotated[
    int, Checked(whole(1, 10_000, "each is kept as a vector as large as the network"))
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Flags of a survey; None means "from the preset".

    Attributes:
        runs: run directories.
        probe: line, plane, path, barycentric, bilinear, walk, flatness, distance,
            curvature or sharpness.
        from_: the snapshot to start from: of the first run.
        to: the snapshot that it leads to: of the last run.
        preset: quick or full.
        points: points along a line.
        grid: points along each side of a surface.
        examples: size of the fixed sample; 0: all of them.
        batch_size: examples a batch; by train norm a setting of the loss itself.
        norm: batch norm by train, eval (the averages of --to), recalibrate or
            interpolate; default: recalibrate, for walk and curvature train.
        part: train, test or validation.
        l2: adds half of it times the squared norm of the weights to the loss.
        normalize: of a plane's random directions: filter, layer, global or none.
        extent: how far a plane reaches to each side.
        directions: random directions of flatness; random vectors of curvature's trace
            and density.
        scale: how far flatness moves the weights.
        epoch: of walk: which one, counted from 1. The run is trained again up to it.
        steps: of walk: how many updates of the epoch; 0: all of them.
        second_sample: of walk: measure on a second sample too, that shares no example.
        eigenpairs: of curvature: how many of the largest eigenvalues.
        matvecs: of curvature: products for each random vector of the density.
        precision: of curvature and sharpness: single or double.
        seed: of the sample and of random directions.
        name: of results and figures; default: from the probe and its snapshots.
        data_dir: the TFDS data directory, if it has moved since.
        coordinator: of several processes: HOST:PORT where the first one listens, or
            auto, as the cluster says.
        num_processes: how many there are, unless --coordinator=auto.
        process_id: which one this is, from 0, unless --coordinator=auto.
        debug: show a traceback with an error.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    probe: str
    from_: Annotated[str, tyro.conf.arg(name="from")] = "initial"
    to: str = "final"
    preset: str = "quick"
    points: Points | None = None
    grid: Grid | None = None
    examples: Whole | None = None
    batch_size: Count = 250
    norm: str | None = None
    part: str = "train"
    l2: NotNegative = 0.0
    normalize: str = "filter"
    extent: Positive = 1.0
    directions: Directions | None = None
    scale: Positive = 5.0
    epoch: Epochs = 1
    steps: Whole | None = None
    second_sample: bool = False
    eigenpairs: Eigenpairs | None = None
    matvecs: Products | None = None
    precision: str = "single"
    seed: Seed = 0
    name: str | None = None
    data_dir: DataDirectory | None = None
    coordinator: str | None = None
    num_processes: Count | None = None
    process_id: Whole | None = None
    debug: bool = False


def resolve(arguments: Arguments) -> Settings:
    """What was asked for, with the preset's values.

    Raises:
        InputError: an unknown name, or a number that cannot work.
    """
    if arguments.probe not in PROBES:
        raise unknown_name("probe", arguments.probe, PROBES)
    if arguments.preset not in PRESETS:
        raise unknown_name("preset", arguments.preset, PRESETS)
    norm = arguments.norm or NORM.get(arguments.probe, DEFAULT_NORM)
    if norm not in NORMS:
        raise unknown_name("norm", norm, NORMS)
    if arguments.probe == "distance" and norm != "interpolate":
        raise InputError(
            f"norm={norm!r}: probe='distance' takes each network with its own "
            "averages, and interpolates them between"
        )
    if arguments.name is not None and not NAME.fullmatch(arguments.name):
        raise InputError(
            f"name={arguments.name!r} may hold letters, digits, '_', '-' and '.'"
        )
    if arguments.normalize != "none" and arguments.normalize not in NORMALIZATIONS:
        known = [name for name in NORMALIZATIONS if name] + ["none"]
        raise unknown_name("normalize", arguments.normalize, known)
    if arguments.precision not in PRECISIONS:
        raise unknown_name("precision", arguments.precision, PRECISIONS)
    values = dict(PRESETS[arguments.preset])
    values.update(
        {k: getattr(arguments, k) for k in values if getattr(arguments, k) is not None}
    )
    for field in ("examples", "steps"):
        values[field] = values[field] or None
    if values["examples"] == 1:
        raise InputError(
            "examples=1: losses are means with standard errors; take two or more, or 0 "
            "for all"
        )
    # Of calls that bypass the command line, too.
    check_values(arguments)
    return Settings(
        probe=arguments.probe,
        start=arguments.from_,
        end=arguments.to,
        norm=norm,
        normalize=None if arguments.normalize == "none" else arguments.normalize,
        **{
            name: getattr(arguments, name)
            for name in (
                "batch_size", "part", "l2", "extent", "scale", "epoch",
                "second_sample", "precision", "seed",
            )
        },
        **values,
    )  # fmt: skip


def survey(arguments: Arguments) -> Found:
    """Surveys, and writes what was found.

    Returns:
        What the probe found.

    Raises:
        InputError: runs that cannot be opened or do not fit one another, or settings
            that cannot work.
    """
    settings = resolve(arguments)
    if not arguments.runs:
        raise InputError("runs: name at least one run directory")
    _check_number(arguments)
    runs = [open_run(path) for path in arguments.runs]
    if arguments.data_dir is not None:
        for run in runs:
            run.config = dataclasses.replace(
                run.config, data_dir=str(arguments.data_dir)
            )
    check_ends(settings, arguments.runs)
    # Before data is read.
    if settings.probe in OF_IMAGES:
        for run in runs:
            if isinstance(run, TextRun):
                raise InputError(
                    f"probe={settings.probe!r} is of images, and {str(run.path)!r} is "
                    "a run on a text; choose line, plane, path, barycentric, bilinear, "
                    "curvature or sharpness, or python -m experiments.language line "
                    "for distances between networks as functions"
                )
    for name in {settings.start, settings.end}:
        for run in runs:
            # Their names alone: what is in them is read when it is measured.
            if name not in list(run.snapshots) and settings.probe not in WHOLE_RUNS:
                raise InputError(
                    f"{str(run.path)!r} has no snapshot {name!r}; it has "
                    f"{', '.join(run.snapshots) or 'none'}"
                )
    records = runs[0].records
    records.check_links()
    name = arguments.name or _name(settings, runs)
    asked = {
        **dataclasses.asdict(settings),
        "runs": [str(run.path) for run in runs],
    }
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    store = records.path / "results" / f".{name}-{digest[:12]}.store"
    if store.exists():
        print(f"going on with {name}")
    found = PROBES[settings.probe](Survey(runs, settings, store))
    import jax

    about = {**asked, **describe(jax.local_devices())}
    if not is_first():
        return found
    written = [records.save_result(name, found.dataset, about)]
    for suffix, figure in found.figures.items():
        written.append(records.save_figure(name + suffix, figure))
    for suffix, page in found.pages.items():
        written.append(records.save_page(name + suffix, page))
    written.append(
        records.save_result_summary(name, {**found.summary, "settings": about})
    )
    store.unlink(missing_ok=True)
    for key, value in found.summary.items():
        print(f"{key:<34} {_shown(value)}")
    print("written:", *written, sep="\n  ")
    return found


def _check_number(arguments: Arguments) -> None:
    """Raises InputError for more runs than a probe looks at, before they are opened."""
    counts, count = RUNS.get(arguments.probe, (1,)), len(arguments.runs)
    if count not in counts:
        words = {1: "one", 2: "two", 3: "three", 4: "four"}
        wanted = " or ".join(words[n] for n in counts)
        raise InputError(
            f"probe={arguments.probe!r} needs {wanted} "
            f"{'run' if counts == (1,) else 'runs'}, not {count}"
            + (": survey them one by one" if counts == (1,) else "")
        )


def check_ends(settings: Settings, runs: Sequence[Path]) -> None:
    """Raises InputError for a line, or a distance, from a snapshot to itself."""
    same = settings.start == settings.end
    if settings.probe in BETWEEN and same and len({*map(Path.resolve, runs)}) == 1:
        raise InputError(
            f"from={settings.start!r} and to={settings.end!r} are one snapshot, and "
            f"probe={settings.probe!r} measures between two; name another, or two runs"
        )
    if settings.probe in MEETING and same and len(runs) == 2:
        raise InputError(
            f"from={settings.start!r} and to={settings.end!r} are one snapshot of each "
            f"run, and probe={settings.probe!r} needs as many points as corners; name "
            "another, or more runs"
        )


def _name(settings: Settings, runs: list) -> str:
    if settings.probe == "walk":
        return f"walk-epoch_{settings.epoch}"
    if settings.probe in WHOLE_RUNS:
        return settings.probe
    ends = [settings.start, settings.end]
    if settings.probe in ("plane", "curvature"):
        ends = [settings.end]
    others = Survey(runs, settings, Path()).names[1:]
    return "-".join([settings.probe, *ends, *others])


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{k}: {_shown(v)}" for k, v in value.items())
    if isinstance(value, list):
        return " ".join(map(_shown, value))
    return str(value)


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    if argv is None:  # in a process of its own
        keep_freed_memory()
    lines = [__doc__.strip(), "", "Presets:"]
    for preset, values in PRESETS.items():
        shown = "  ".join(f"{k}={'all' if v is None else v}" for k, v in values.items())
        lines.append(f"{preset}: {shown}")
    arguments = parse(Arguments, "experiments.survey", "\n".join(lines), argv)
    try:
        check_values(arguments)
        connect(arguments.coordinator, arguments.num_processes, arguments.process_id)
        quiet_unless_first()
        survey(arguments)
        wait_for_all("surveyed")
    except (InputError, CorruptCheckpointError) as error:
        if arguments.debug:
            traceback.print_exception(error)
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if arguments.debug:
            traceback.print_exception(error)
        print(
            f"error: {error}; make room, then give the same command again to go on "
            "with what is measured",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(
            "\nstopped; give the same command again to go on with what is measured",
            file=sys.stderr,
        )
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    console.run(main)
