"""Several seeds of a run: which ones, in what way, and what they come to together."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from experiments.harness.extending import Wish, agree, extend_seeds
from experiments.harness.finish import as_dataset, train_to_end
from experiments.harness.flags import CommonArguments
from experiments.harness.kinds import Kind
from experiments.harness.paper import Result, as_text, save
from experiments.harness.restoring import check_length, failures, note_failures
from experiments.harness.statistics import t_interval
from experiments.harness.training import Training
from lrscape import figures
from lrscape.environment import describe
from lrscape.errors import InputError, unknown_name
from lrscape.records import Records
from lrscape.run_fields import RunFields
from lrscape.training import NonFiniteLossError
from lrscape.training.replicas import check_together, choose_together

# How several seeds may be trained.
REPLICAS = ("auto", "together", "apart")
RESULT = "seeds"
# How the names end of what is averaged over seeds.
MEASURES = ("_loss", "_error", "_perplexity")
NOTE = "after the last epoch; intervals of the mean: 95 %, Student's t over seeds"


def asked_for(
    arguments: CommonArguments, config: RunFields, stored: Mapping[str, Any] | None
) -> list[int] | None:
    """The seeds that are to be trained; None: the run is a single one.

    Args:
        arguments: of the command line.
        config: of the run.
        stored: the settings of a run that is gone on with.

    Raises:
        InputError: a number of seeds that cannot be, flags that contradict what the
            run was started with, or a run of which there can be no seeds.
    """
    count, replicas = arguments.seeds, arguments.replicas
    if replicas is not None and replicas not in REPLICAS:
        raise unknown_name("replicas", replicas, REPLICAS)
    if count is not None and count < 1:
        raise InputError(f"seeds={count} must be 1 or more")
    if stored is not None:
        before = stored.get("seeds")
        if count is not None and (before is None or count != len(before)):
            held = "a single run" if before is None else f"{len(before)} seeds"
            raise InputError(
                f"seeds={count}, but {str(arguments.run_dir)!r} holds {held}; leave it "
                "out to go on, or start another run"
            )
        if before is not None and replicas not in (None, "auto", stored["replicas"]):
            raise InputError(
                f"replicas={replicas!r} differs from {stored['replicas']!r}, with "
                f"which {str(arguments.run_dir)!r} was started; leave it out to go on"
            )
        seeds = before
    else:
        seeds = count and [config.seed + n for n in range(count)]
    if seeds is None:
        if replicas is not None:
            raise InputError(f"replicas={replicas!r} needs --seeds, how many to train")
        return None
    if getattr(config, "stream", False):
        raise InputError(
            f"seeds={len(seeds)} train on data in memory, and stream=True reads it as "
            "it is needed: leave --stream out, or start a run for each --seed"
        )
    if jax.process_count() > 1:
        raise InputError(
            f"seeds={len(seeds)} are trained by one process, and there are "
            f"{jax.process_count()}: start a run for each --seed"
        )
    return seeds


def train_seeds(
    config: Any,
    root: Records,
    wanted: list[int],
    arguments: CommonArguments,
    kind: Kind,
    is_new: bool,
    wish: Wish | None,
) -> int:
    """Trains what is left of several seeds, and gathers them.

    Args:
        config: theirs, all but ``seed``.
        root: the directory that holds theirs.
        wanted: the seeds.
        arguments: of the command line.
        kind: of the data.
        is_new: whether they are to be made.
        wish: how they are made longer.

    Returns:
        The exit status; 1 where a seed turned non-finite.
    """
    configs = {seed: dataclasses.replace(config, seed=seed) for seed in wanted}
    runs = {seed: Records(directory(root.path, seed)) for seed in wanted}
    training = Training.of(config, kind)
    replicas = arguments.replicas or "auto"
    if is_new:
        if not kind.in_one_program:
            if replicas == "together":
                raise InputError(
                    f"replicas='together': {kind.unit} are trained on one seed after "
                    "another; leave it out"
                )
            replicas = "apart"
        if replicas == "together":
            check_together(training.model, training.data)
        if replicas == "auto":
            choice = choose_together(
                training.model, training.data, training.tx, config, wanted
            )
            print(choice.why)
            replicas = "together" if choice.together else "apart"
    with root.lock():
        failed = failures(root)
        if is_new:
            about = {"seeds": wanted, "replicas": replicas, "given": arguments.given()}
            Records.create(
                root.path, {**config.to_dict(), **about, **describe(training.devices)}
            )
            print(f"run directory: {root.path}")
        else:
            check_length(root, config)
            agree(root, list(runs.values()))  # before anything is changed
        if wish is not None:
            going = {seed: runs[seed] for seed in wanted if seed not in failed}
            config = extend_seeds(training, root, going, wish)
            training = training.with_config(config)
            configs = {seed: dataclasses.replace(config, seed=seed) for seed in wanted}
            agree(root, list(runs.values()))
        together = root.config()["replicas"] == "together"
        left = [s for s in wanted if runs[s].summary() is None and s not in failed]
        groups = [[seed] for seed in left]
        if together and left:
            groups = [wanted]
        for group in groups:
            try:
                status = train_to_end(
                    training, root.path, [(configs[s], runs[s]) for s in group],
                    arguments, [not runs[s].exists() for s in group],
                    root if together else None,
                )  # fmt: skip
            except NonFiniteLossError as error:
                names = ", ".join(str(seed) for seed in group)
                print(f"warning: seed {names}: {error}", file=sys.stderr)
                found = dict(zip(group, error.steps, strict=True))
                note_failures(root, {**found, **failures(root)})
            else:
                if status:
                    return status
        failed = failures(root)
        _gather(root, wanted, config, failed)
    return 1 if failed else 0


def directory(root: Path, seed: int) -> Path:
    """Where a seed's run is kept."""
    return root / f"seed_{seed}"


def _gather(
    root: Records, seeds: Sequence[int], config: RunFields, failed: Mapping[int, int]
) -> None:
    """Writes and prints what all seeds come to, once none of them is left to train.

    Args:
        root: the directory that holds theirs.
        seeds: all of them.
        config: theirs, all but ``seed``.
        failed: those that turned non-finite, with their updates; they are in no mean.
    """
    metrics = {seed: Records(directory(root.path, seed)).metrics() for seed in seeds}
    finished = [seed for seed in seeds if seed not in failed]
    found = Result([], side_by_side(metrics, failed))
    last: dict[str, Any] = {}
    if finished:
        last = {
            name: spread([metrics[seed][-1][name] for seed in finished])
            for name in metrics[finished[0]][-1]
            if name.endswith(MEASURES)
        }
        title = (
            f"{config.model} on {config.dataset}, {config.schedule} rate: mean of "
            f"{len(finished)} seeds"
        )
        found.figures[""] = curves([metrics[seed] for seed in finished], title)
    found.rows = [row_of(name, numbers) for name, numbers in last.items()]
    found.notes = [NOTE]
    for seed, step in failed.items():
        found.notes.append(
            f"seed {seed} is in no mean: its loss or gradient was not finite at step "
            f"{step}"
        )
    print(f"\n{len(finished)} of {len(seeds)} seeds")
    print(as_text(found.rows))
    for note in found.notes:
        print(note)
    settings = {**config.to_dict(), "seeds": list(seeds)}
    written = save(root, RESULT, found, settings)
    print("written:", *written, sep="\n  ")
    # It says that there is nothing left to do, so it comes last.
    root.write_summary(
        {
            "last": last,
            "seeds": list(seeds),
            "failed": {str(seed): step for seed, step in failed.items()},
        }
    )


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean, standard deviation and 95 % interval; None where one value has none.

    Example:
        >>> spread([1.0])['standard_deviation'] is None
        True
        >>> spread([1.0, 3.0])['standard_deviation'] == 2 ** 0.5
        True
    """
    interval = t_interval(values)
    several = len(values) > 1
    return {
        "mean": interval.mean,
        "standard_deviation": float(np.std(values, ddof=1)) if several else None,
        "low": interval.low if several else None,
        "high": interval.high if several else None,
    }


def row_of(name: str, numbers: Mapping[str, float | None]) -> dict[str, str]:
    """A metric's row of the table; errors in per cent."""
    unit, scale = (" (nats)", 1) if name.endswith("_loss") else (" (%)", 100)
    if name.endswith("_perplexity"):
        unit, scale = "", 1

    def shown(number: float | None) -> str:
        return "-" if number is None else f"{scale * number:.4g}"

    low, high = shown(numbers["low"]), shown(numbers["high"])
    return {
        "metric": name.replace("_", " ") + unit,
        "mean": shown(numbers["mean"]),
        "standard deviation": shown(numbers["standard_deviation"]),
        "95 % interval": "-" if low == "-" else f"{low} to {high}",
    }


def side_by_side(
    metrics: Mapping[int, list[dict[str, Any]]], failed: Mapping[int, int]
) -> xr.Dataset:
    """The metrics of all seeds as arrays over `seed` and `step`; NaN: not measured."""
    logged = {seed: as_dataset(lines) for seed, lines in metrics.items() if lines}
    seeds = list(metrics)
    dataset = xr.Dataset()
    if logged:
        dataset = xr.concat(
            list(logged.values()), xr.DataArray(list(logged), dims="seed", name="seed"),
            data_vars="all", coords="minimal", compat="override", join="outer",
        ).reindex(seed=seeds)  # fmt: skip
    dataset = dataset.assign_coords(seed=("seed", seeds, {"units": "1"}))
    bad = np.array([failed.get(seed, -1) for seed in seeds])
    return dataset.assign(first_bad_step=("seed", bad, {"units": "update"}))


def curves(runs: Sequence[list[dict[str, Any]]], title: str) -> Figure:
    """Learning curves of the mean, with bands from end to end of its interval."""
    means: list[dict[str, Any]] = []
    lows: list[dict[str, Any]] = []
    highs: list[dict[str, Any]] = []
    for lines in zip(*runs, strict=True):
        kept = {name: lines[0][name] for name in ("step", "epoch", "learning_rate")}
        ends: tuple[dict[str, Any], ...] = (dict(kept), dict(kept), dict(kept))
        for name in lines[0]:
            if name.endswith(MEASURES):
                interval = t_interval([line[name] for line in lines])
                for end, value in zip(ends, interval, strict=True):
                    end[name] = value
        for collected, end in zip((means, lows, highs), ends, strict=True):
            collected.append(end)
    bands = (lows, highs) if len(runs) > 1 else None
    return figures.learning_curves(means, bands=bands, title=title)
