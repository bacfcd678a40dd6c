"""Draws the loss on the straight line between what several optimizers found.

    python -m experiments.language line

Trains a network on a text by each of several methods, from the same initial weights and
in the same order, and measures the loss on the line between every two solutions, on
windows of the training and of the test text; how far apart the solutions are as
functions (the root of the mean squared distance between probabilities); and how often
their likeliest next tokens differ. A control is the same optimizer in another order.

Im, Tao and Branson, An empirical analysis of deep network loss surfaces (2016), Sec.
4.1. What was trained is kept and not trained again; what was stopped goes on.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments.harness import filing
from experiments.harness.arguments import Preset
from experiments.harness.paper import Result, as_text, command_line, compiled_once, save
from experiments.harness.train import train
from experiments.harness.values import (
    DataDirectory,
    Directory,
    Epochs,
    NameOrPath,
    Points,
    Seed,
    Whole,
)
from experiments.language.kind import TEXTS, TextArguments, Width
from lrscape import landscape
from lrscape.environment import describe
from lrscape.errors import InputError, unknown_name
from lrscape.figures.style import COLORS, hatch_spans, tidy
from lrscape.records import Records
from lrscape.runs import TextRun, open_run


class Method(NamedTuple):
    """A way down, by flags of `experiments.language`.

    Attributes:
        rates: preset -> the largest rate.
        flags: what else makes it.
    """

    rates: Mapping[str, float]
    flags: Mapping[str, Any]


def _rates(quick: float, paper: float) -> dict[str, float]:
    return {"quick": quick, "paper": paper}


SGD: dict[str, Any] = {"optimizer": "sgd"}
ADAM: dict[str, Any] = {"optimizer": "adam"}
# The paper's, its rates doubled before Runge-Kutta; of its ranges those that are used
# at 200 epochs. The presets' shorter runs need larger ones.
METHODS = {
    "sgd": Method(_rates(2.0, 0.2), SGD),
    "momentum": Method(_rates(0.3, 0.1), {**SGD, "momentum": 0.9}),
    "sgdm": Method(_rates(2.0, 0.2), {"optimizer": "sgdm"}),
    "rmsprop": Method(_rates(0.003, 0.001), {"optimizer": "rmsprop"}),
    "adadelta": Method(_rates(1.0, 1.0), {"optimizer": "adadelta"}),
    "adam": Method(_rates(0.01, 0.001), ADAM),
    "rk2": Method(_rates(4.0, 0.4), {**SGD, "runge_kutta": "heun"}),
    "adam_rk2": Method(_rates(0.02, 0.002), {**ADAM, "runge_kutta": "heun"}),
}
# Appended to a method's name: the same in another order.
OTHER_ORDER = "_reordered"

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        "methods": ("momentum", "adam", "rmsprop", "rk2", "adam_reordered"),
        "points": 25,
        "windows": 200,
        "epochs": 1,
        "train_tokens": 400_000,
        "test_tokens": None,
    },
    "paper": {
        "methods": (
            "sgd", "sgdm", "rmsprop", "adadelta", "adam", "rk2", "adam_rk2",
            "sgd_reordered",
        ),
        "points": 51,
        "windows": None,
        "epochs": None,
        "train_tokens": None,
        "test_tokens": None,
    },
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class LineArguments:
    """Flags of `line`; None means "from the preset".

    Attributes:
        preset: quick (a few minutes on two CPU cores) or paper.
        run_dir: where everything goes; default: runs/language-line-PRESET.
        data_dir: see --help of experiments.language; likewise dataset and level.
        methods: two or more of sgd, momentum, sgdm, rmsprop, adadelta, adam, rk2 and
            adam_rk2, each also with _reordered at its end: in another order of the
            text.
        seed: of the initial weights, dropout and the sample.
        points: points along a line.
        windows: of the training and of the test text that losses are measured on; 0:
            all.
        epochs: passes over the text by each method.
        train_tokens: how much of the training text to train on; 0: all of it.
        test_tokens: how much of the test text is used; 0: all of it.
        features: the width of a layer.
        debug: show a traceback with an error.
    """

    preset: str = "quick"
    run_dir: Directory | None = None
    data_dir: DataDirectory | None = None
    dataset: NameOrPath | None = None
    level: str | None = None
    methods: tuple[str, ...] | None = None
    seed: Seed = 0
    points: Points | None = None
    windows: Whole | None = None
    epochs: Epochs | None = None
    train_tokens: Whole | None = None
    test_tokens: Whole | None = None
    features: Width | None = None
    debug: bool = False


def main(presets: Mapping[str, Preset], argv: list[str] | None = None) -> int:
    """Runs ``line`` from its command line; returns the exit status."""

    def make(given: LineArguments) -> None:
        run(presets, given)

    return command_line("language line", LineArguments, __doc__ or "", make, argv)


def run(presets: Mapping[str, Preset], arguments: LineArguments) -> Result:
    """Trains, measures, prints and saves.

    Raises:
        InputError: a name or number that cannot work, before anything is trained.
        SystemExit: training was stopped by a signal.
    """
    settings = _settings(arguments)
    root = arguments.run_dir or Path("runs") / f"language-line-{arguments.preset}"
    whose = {"paper": "language line", "preset": arguments.preset}
    filing.check_own(root, whose)
    _check_windows(presets, arguments, settings)
    records = filing.own(root, whose)
    with compiled_once():
        runs = {
            method: _trained(presets, arguments, settings, method, root)
            for method in settings["methods"]
        }
        found = between(
            runs, points=settings["points"], windows=settings["windows"],
            seed=arguments.seed,
        )  # fmt: skip
    print(as_text(found.rows))
    for note in found.notes:
        print(note)
    about = {**settings, "preset": arguments.preset, "seed": arguments.seed}
    about |= {"runs": [str(one.path) for one in runs.values()]}
    differs = filing.differences(arguments, {})
    if arguments.dataset is not None:
        differs["dataset"] = [arguments.dataset]
    about |= {"differs": differs, **describe(jax.local_devices())}
    written = save(records, filing.place(records, "line", differs), found, about)
    print("written:", *written, sep="\n  ")
    return found


def _settings(arguments: LineArguments) -> dict[str, Any]:
    if arguments.preset not in PRESETS:
        raise unknown_name("preset", arguments.preset, PRESETS)
    values = dict(PRESETS[arguments.preset])
    for field in values:
        if (given := getattr(arguments, field)) is not None:
            values[field] = given
    for field in ("windows", "train_tokens", "test_tokens"):
        values[field] = values[field] or None
    for method in values["methods"]:
        if method.removesuffix(OTHER_ORDER) not in METHODS:
            raise unknown_name("methods", method, METHODS)
    if len(set(values["methods"])) < max(2, len(values["methods"])):
        raise InputError(
            f"methods={' '.join(values['methods'])}: name two or more, each once"
        )
    least = {"points": 3, "windows": 2, "epochs": 1, "train_tokens": 2}
    for field, lowest in least.items():
        if values[field] is not None and values[field] < lowest:
            raise InputError(f"{field}={values[field]} must be {lowest} or more")
    return values


def _check_windows(
    presets: Mapping[str, Preset], arguments: LineArguments, settings: Mapping[str, Any]
) -> None:
    """Raises InputError for more windows than the text has."""
    flags = _flags(presets, arguments, settings, settings["methods"][0])
    config = TEXTS.resolve(
        "language", presets, arguments.preset, flags.given(), arguments.data_dir
    )
    text = config.load_data()
    windows = settings["windows"] or 0
    for part in PARTS:
        count = (len(getattr(text, part)) - 1) // config.window
        if windows > count:
            raise InputError(
                f"windows={windows}: the {part} text has {count} of {config.window} "
                "tokens; give fewer, or 0 for all"
            )


def _flags(
    presets: Mapping[str, Preset],
    arguments: LineArguments,
    settings: Mapping[str, Any],
    method: str,
) -> TextArguments:
    """A method's run, but for where it lies."""
    kind = METHODS[method.removesuffix(OTHER_ORDER)]
    fields = {
        "dataset": arguments.dataset, "level": arguments.level,
        "features": arguments.features, "epochs": settings["epochs"],
        "train_tokens": settings["train_tokens"],
        "test_tokens": settings["test_tokens"],
    }  # fmt: skip
    if method.endswith(OTHER_ORDER):
        fields["offset"] = presets[arguments.preset].fields["window"] // 2
    return TextArguments(
        preset=arguments.preset,
        data_dir=arguments.data_dir,
        seed=arguments.seed,
        peak_lr=kind.rates[arguments.preset],
        **{k: v for k, v in fields.items() if v is not None},
        **kind.flags,
    )


def _trained(
    presets: Mapping[str, Preset],
    arguments: LineArguments,
    settings: Mapping[str, Any],
    method: str,
    root: Path,
) -> TextRun:
    """A method's finished run, trained unless it is there."""
    run_dir = root / "networks" / method
    flags = dataclasses.replace(
        _flags(presets, arguments, settings, method),
        run_dir=run_dir,
        resume=Records(run_dir).exists(),
    )
    print(f"{method}:")
    if status := train("language", presets, flags, TEXTS):
        # A signal, and everything is saved; what was asked for is not there.
        print("give the same command again to go on", file=sys.stderr)
        raise SystemExit(status)
    opened = open_run(run_dir)
    assert isinstance(opened, TextRun)
    return opened


def between(
    runs: Mapping[str, TextRun], *, points: int, windows: int | None, seed: int
) -> Result:
    """Measures the lines between the final weights of every two runs.

    Args:
        runs: finished ones by name, of one text and one network.
        points: along each line, both ends included.
        windows: how many windows of each part losses are measured on; None is all.
        seed: of their choice.

    Returns:
        A row a pair: barriers (the highest loss between two ends minus the higher of
        them, in nats), functional distance and disagreement on the test windows, and
        the distance between the weights; and as labelled arrays the losses on the
        lines, ``loss(pair, part, alpha)``.
    """
    first = next(iter(runs.values()))
    # The order may differ; the sample is the first one's.
    samples = {part: first.sample(part, windows, seed=seed) for part in PARTS}
    objectives = {
        part: landscape.text_objective(first.model, sample, batch_size=100)
        for part, sample in samples.items()
    }
    ends = {name: run.snapshots["final"].params for name, run in runs.items()}
    alphas = np.linspace(0, 1, points)
    pairs = list(itertools.combinations(runs, 2))
    rows, losses, errors = [], [], []
    for one, other in pairs:
        line = landscape.line(ends[one], ends[other])
        measured = [
            landscape.measure_surface(objectives[part], line, alphas) for part in PARTS
        ]
        losses.append([surface.losses for surface in measured])
        errors.append([surface.standard_errors for surface in measured])
        rows.append(
            {"pair": f"{one} - {other}", "control": _is_control(one, other)}
            | _numbers(first.model, ends[one], ends[other], samples["test"][0])
            | {
                f"{part}_barrier": float(landscape.barrier_height(surface.losses))
                for part, surface in zip(PARTS, measured, strict=True)
            }
        )
    dataset = _as_dataset(runs, pairs, alphas, np.array(losses), np.array(errors), rows)
    return Result(_shown(rows), dataset, _drawn(dataset, first), _notes(rows, dataset))


PARTS = ("train", "test")


def _is_control(one: str, other: str) -> bool:
    return one.removesuffix(OTHER_ORDER) == other.removesuffix(OTHER_ORDER)


def _numbers(model: Any, a: Any, b: Any, inputs: jax.Array) -> dict[str, float]:
    """How far apart two points are, as functions and as weights."""

    def logits(params: Any, tokens: jax.Array) -> jax.Array:
        found = model.apply({"params": params}, tokens, train=False)
        return found.reshape(-1, found.shape[-1])  # one row a token

    return {
        "functional_distance": float(
            landscape.functional_distance(
                logits, a, b, inputs, softmax=True, batch_size=100
            )
        ),
        "disagreement": float(
            landscape.disagreement(logits, a, b, inputs, batch_size=100)
        ),
        "parameter_distance": float(landscape.parameter_distance(a, b)),
    }


def _as_dataset(
    runs: Mapping[str, TextRun],
    pairs: list[tuple[str, str]],
    alphas: np.ndarray,
    losses: np.ndarray,
    errors: np.ndarray,
    rows: list[dict[str, Any]],
) -> xr.Dataset:
    last = [(run.records.summary() or {})["last"] for run in runs.values()]
    along = ("pair", "part", "alpha")
    units = {
        "train_barrier": "nat", "test_barrier": "nat", "functional_distance": "1",
        "disagreement": "fraction", "parameter_distance": "1",
    }  # fmt: skip
    variables: dict[str, Any] = {
        "loss": (along, losses, {"units": "nat"}),
        "loss_standard_error": (along, errors, {"units": "nat"}),
        "is_control": ("pair", [row["control"] for row in rows]),
        "test_perplexity": (
            "run", [line["test_perplexity"] for line in last], {"units": "1"}
        ),
        "train_perplexity": (
            "run", [line["train_perplexity"] for line in last], {"units": "1"}
        ),
    }  # fmt: skip
    for name, unit in units.items():
        variables[name] = ("pair", [row[name] for row in rows], {"units": unit})
    baseline = (next(iter(runs.values())).records.summary() or {})["unigram_perplexity"]
    return xr.Dataset(
        variables,
        {
            "pair": ("pair", [f"{a} - {b}" for a, b in pairs]),
            "part": ("part", list(PARTS)),
            "alpha": ("alpha", alphas, {"units": "1"}),
            "run": ("run", list(runs)),
        },
        {"unigram_perplexity": baseline},
    )


def _drawn(dataset: xr.Dataset, run: TextRun) -> dict[str, Figure]:
    """Below the diagonal the lines of each pair, above it how far apart they are."""
    names = [str(name) for name in dataset["run"].values]
    last = len(names) - 1
    figure = Figure(figsize=(2.3 * last + 1, 2.1 * last + 1), layout="constrained")
    grid = figure.subplots(last, last, squeeze=False, sharex=True)
    for axes in grid.flat:
        axes.set_axis_off()
    for (a, one), (b, other) in itertools.combinations(enumerate(names), 2):
        pair = dataset.sel(pair=f"{one} - {other}")
        axes = grid[b - 1, a]
        axes.set_axis_on()
        for part in PARTS:
            axes.plot(
                dataset["alpha"], pair["loss"].sel(part=part), color=COLORS[part],
                label=part,
            )  # fmt: skip
            missing = ~np.isfinite(pair["loss"].sel(part=part).values)
            hatch_spans(axes, dataset["alpha"].values, missing)
        axes.set_title(f"{one} to {other}", fontsize=8)
        tidy(axes)
        if a == 0:
            axes.set_ylabel("loss (nats)")
        if b == last:
            axes.set_xlabel("alpha")
        if b - 1 > a:  # its mirror image
            text = (
                f"{one}, {other}:\nfunctional distance\n"
                f"{float(pair['functional_distance']):.3f}\ndisagreement "
                f"{100 * float(pair['disagreement']):.1f} %"
            )
            grid[a, b - 1].text(0.5, 0.5, text, ha="center", va="center", fontsize=8)
    grid[0, 0].legend(frameon=False, fontsize=8)
    figure.suptitle(f"{run.config.model} on {run.config.dataset}, between solutions")
    return {"": figure}


def _shown(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "line between": row["pair"] + (" (control)" if row["control"] else ""),
            "train barrier, nats": f"{row['train_barrier']:.4f}",
            "test barrier, nats": f"{row['test_barrier']:.4f}",
            "functional distance": f"{row['functional_distance']:.4f}",
            "disagreement, %": f"{100 * row['disagreement']:.1f}",
            "weight distance": f"{row['parameter_distance']:.2f}",
        }
        for row in rows
    ]


def _notes(rows: list[dict[str, Any]], dataset: xr.Dataset) -> list[str]:
    scores = ", ".join(
        f"{name} {value:.2f}"
        for name, value in zip(
            dataset["run"].values, dataset["test_perplexity"].values, strict=True
        )
    )
    notes = [
        f"test perplexity: {scores}; unigram {dataset.attrs['unigram_perplexity']:.2f}"
    ]
    # Two optimizers by the same order: one thing differs.
    others = [
        row["train_barrier"]
        for row in rows
        if not row["control"] and OTHER_ORDER not in row["pair"]
    ]
    controls = [row["train_barrier"] for row in rows if row["control"]]
    if others:
        above = sum(barrier > 0 for barrier in others)
        notes.append(f"{above} of {len(others)} pairs of optimizers have a barrier")
    if others and controls:
        higher = sum(barrier > max(controls) for barrier in others)
        notes.append(
            f"{higher} of {len(others)} are higher than the highest of {len(controls)} "
            "controls, the same optimizer in another order: one seed decides nothing"
        )
    return notes
