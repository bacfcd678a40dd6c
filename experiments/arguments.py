"""The command line of training: flags, presets, and the run that they describe."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from lrscape import schedules
from lrscape.errors import InputError, unknown_name
from lrscape.run_fields import RunFields
from lrscape.runs import STREAM_FIELDS, RunConfig


def _aliases(*names: str):
    return tyro.conf.arg(aliases=names)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingArguments:
    """Flags that every training experiment has; None means "from the preset".

    Attributes:
        preset: the settings that all other flags change; default: quick.
        run_dir: where everything about the run goes; default:
            runs/EXPERIMENT-YYYYMMDD-HHMMSS.
        resume: go on from the last checkpoint in --run-dir; flags need not be repeated.
        data_dir: the TFDS data directory; default: TFDS_DATA_DIR, or else
            ~/tensorflow_datasets.
        coordinator: of several processes: HOST:PORT where the first one listens, or
            auto, as the cluster says (Slurm, MPI, Kubernetes, TPU and GPU pods).
        num_processes: how many there are, unless --coordinator=auto.
        process_id: which one this is, from 0, unless --coordinator=auto.
        debug: show a traceback with an error.
        epochs: passes over the training examples.
        schedule: gaussian, laplacian, rational, step, triangular, trapezoid or swa.
        peak_lr: the schedule's largest rate. A preset has one for schedules with a peak
            and a smaller one, its start_lr, for those that start at their largest.
        start_lr: the rate at the first update (gaussian, laplacian, trapezoid).
        end_lr: the rate at the end (gaussian, laplacian, trapezoid).
        variance: sigma squared of a gaussian; instead of end_lr.
        scale: lambda of a laplacian; instead of end_lr.
        decay: of rational: the rate ends at peak_lr / (1 + decay).
        milestones: of step: fractions of the run, separated by spaces.
        factor: of step: what each milestone multiplies the rate by.
        cycle_steps: of triangular: updates in a cycle; default: a quarter of the run.
        base_lr: of triangular: the smallest rate.
        rise: of trapezoid: the length of the rise, as a fraction of the run.
        fall: of trapezoid: the length of the fall, as a fraction of the run.
        swa_lr: of swa: the rate at the end.
        swa_start: of swa: where the rate begins to change, as a fraction of the run.
        swa_end: of swa: where the rate has changed, as a fraction of the run.
        per_epoch: change the rate at epochs only.
        optimizer: sgd, adam, adamw, rmsprop ... as Optax spells them.
        momentum: of sgd and rmsprop.
        nesterov: use Nesterov's momentum.
        weight_decay: L2 term (or the optimizer's own decay).
        decay_all: decay biases and batch norm too.
        num_devices: local devices to use; default: all.
        log_every: updates over which training metrics are averaged; default: an epoch.
        checkpoint_every: updates between checkpoints; default: an epoch.
        snapshot_epochs: epochs after which a snapshot is kept for ever, besides
            initial, peak and final; separated by spaces.
    """

    preset: str | None = None
    run_dir: Path | None = None
    resume: bool = False
    data_dir: Path | None = None
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    debug: bool = False
    epochs: int | None = None
    schedule: str | None = None
    peak_lr: Annotated[
        float | None, _aliases("--peak-value", "--init-lr", "--init-value")
    ] = None
    start_lr: Annotated[float | None, _aliases("--start-value")] = None
    end_lr: Annotated[float | None, _aliases("--end-value")] = None
    variance: float | None = None
    scale: float | None = None
    decay: float | None = None
    milestones: tuple[float, ...] | None = None
    factor: float | None = None
    cycle_steps: int | None = None
    base_lr: Annotated[float | None, _aliases("--base-value")] = None
    rise: float | None = None
    fall: float | None = None
    swa_lr: Annotated[float | None, _aliases("--swa-value")] = None
    swa_start: float | None = None
    swa_end: float | None = None
    per_epoch: bool | None = None
    optimizer: str | None = None
    momentum: float | None = None
    nesterov: bool | None = None
    weight_decay: float | None = None
    decay_all: bool | None = None
    num_devices: int | None = None
    log_every: int | None = None
    checkpoint_every: int | None = None
    snapshot_epochs: tuple[int, ...] | None = None

    def given(self) -> dict[str, Any]:
        """The flags that describe the run and were given, as JSON holds them."""
        about_the_call = (
            "preset", "run_dir", "resume", "data_dir", "debug",
            "coordinator", "num_processes", "process_id",
        )  # fmt: skip
        return {
            field: list(value) if isinstance(value, tuple) else value
            for field, value in vars(self).items()
            if value is not None and field not in about_the_call
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments(TrainingArguments):
    """Flags of training on images; None means "from the preset".

    Attributes:
        dataset: any prepared TFDS set of labelled images; with --stream=True also
            folder, a directory --data-dir of train/CLASS/*.jpeg and val/CLASS/*.jpeg.
        validation: how many training examples to hold out.
        split_seed: which examples are held out or left out; for digits, which are test
            examples.
        examples: how many training examples to keep; default: all.
        test_examples: how many test examples to keep; default: all.
        stream: read images as they are needed, of any size, rather than hold them in
            memory.
        image_size: with --stream: the side of a view, in pixels.
        crop: with --stream: random_resized (a random patch, scaled and mirrored, to
            train on; the middle to measure on) or none (the whole image, scaled).
        min_area: with --stream: the least share of an image that a patch takes.
        threads: with --stream: that read and decode; default: one a core.
        top5: report the labels beyond the five largest logits too.
        model: mlp, cnn, small, large, nin, nin_mnist, nin_bn, vgg, vgg11, resnet20 ...
            resnet110, preresnet20 ... preresnet164, densenet40, densenet100,
            densenet190, wrn28_10, alexnet, googlenet or bn_inception.
        compute_dtype: float32, bfloat16 or float64, of models that offer it: the
            ResNets.
        batch_size: examples an update, over all devices.
        seed: of initial weights, order, augmentation and dropout.
        augment: augmentations in order, of crop, flip, jitter, shift, zoom, rotation;
            none: --augment none.
        normalize: standardize (mean 0, deviation 1 a channel), center (minus the mean
            image, on the pixels' own scale), scale (to 0 ... 1), center_scale (both) or
            whiten (contrast and ZCA, before images are augmented).
        sync_batch_norm: batch norm over all devices together.
        scan_steps: updates in one compiled loop; default: 1 on CPU, 100 elsewhere.
    """

    dataset: str | None = None
    validation: int | None = None
    split_seed: int | None = None
    examples: int | None = None
    test_examples: int | None = None
    stream: bool | None = None
    image_size: int | None = None
    crop: str | None = None
    min_area: float | None = None
    threads: int | None = None
    top5: bool | None = None
    model: str | None = None
    compute_dtype: str | None = None
    batch_size: int | None = None
    seed: int | None = None
    augment: tuple[str, ...] | None = None
    normalize: str | None = None
    sync_batch_norm: bool | None = None
    scan_steps: int | None = None


# A schedule's argument and its flag, where they differ.
_FLAGS = {
    "peak_value": "peak_lr",
    "init_value": "peak_lr",
    "start_value": "start_lr",
    "end_value": "end_lr",
    "base_value": "base_lr",
    "swa_value": "swa_lr",
    "start": "swa_start",
    "end": "swa_end",
}

# Flags that are fields of a model, by their names there.
MODEL_FLAGS = {
    "compute_dtype": "dtype",
    "features": "features",
    "layers": "layers",
    "embedding": "embedding",
    "dropout": "dropout",
    "tie_weights": "tie_weights",
}

# Of these a schedule takes one, so one that is given drops a preset's other.
_ALTERNATIVES = ("end_lr", "variance", "scale")

_SCHEDULE_FLAGS = {
    _FLAGS.get(argument, argument)
    for factory in schedules.FACTORIES.values()
    for argument in inspect.signature(factory).parameters
} - {"total_steps"}

# What a schedule takes when neither a flag nor the preset says.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "rational": {"decay": 9.0},
    "trapezoid": {"rise": 0.25, "fall": 0.5},
    "swa": {"swa_start": 0.5, "swa_end": 0.75},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """Settings under one name.

    Attributes:
        about: what it is for and what it costs, for ``--help``.
        fields: values of flags; ``peak_lr`` and ``start_lr`` are the peak and the start
            of a nonmonotonic schedule, and ``start_lr`` is the first and largest rate
            of a monotonic one.
        model_options: fields of the preset's model.
    """

    about: str
    fields: Mapping[str, Any]
    model_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


Config = TypeVar("Config", bound=RunFields)
Flags = TypeVar("Flags", bound=TrainingArguments)


def resolve(
    experiment: str,
    presets: Mapping[str, Preset],
    preset_name: str,
    given: Mapping[str, Any],
    data_dir: Path | None,
    config_class: type[Config] = RunConfig,  # type: ignore[assignment]
) -> Config:
    """The run that flags describe.

    Args:
        experiment: its name.
        presets: the experiment's presets by name.
        preset_name: the one that is chosen.
        given: the flags that were given, `Arguments.given`.
        data_dir: the TFDS data directory, if given.
        config_class: what the run is described by.

    Returns:
        The configuration, checked.

    Raises:
        InputError: an unknown name, or a value or a combination that cannot work.
    """
    if preset_name not in presets:
        raise unknown_name("preset", preset_name, presets)
    preset = presets[preset_name]
    fields = {**preset.fields, **given}
    if list(fields.get("augment", ())) == ["none"]:
        fields["augment"] = ()
    if given.get("stream") is False:  # nor what else a preset says of streams
        fields = {
            k: v for k, v in fields.items() if k not in STREAM_FIELDS or k in given
        }
    schedule = fields.pop("schedule")
    options = schedule_options(schedule, preset.fields, given)
    fields = {k: v for k, v in fields.items() if k not in _SCHEDULE_FLAGS}
    same_model = fields["model"] == preset.fields["model"]
    model_options = dict(preset.model_options) if same_model else {}
    for flag, field in MODEL_FLAGS.items():
        if (value := fields.pop(flag, None)) is not None:
            model_options[field] = value
    return config_class.from_dict(
        {
            **fields,
            "experiment": experiment,
            "preset": preset_name,
            "data_dir": str(data_dir) if data_dir else None,
            "schedule": schedule,
            "schedule_options": options,
            "model_options": model_options,
        }
    )


def schedule_options(
    schedule: str, preset: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of a schedule, from flags, a preset and the schedule's defaults.

    Raises:
        InputError: an unknown schedule, or a flag that it does not take.
    """
    if schedule not in schedules.FACTORIES:
        raise unknown_name("schedule", schedule, schedules.NAMES)
    arguments = list(inspect.signature(schedules.FACTORIES[schedule]).parameters)
    taken = {_FLAGS.get(a, a): a for a in arguments if a != "total_steps"}
    for flag in given:
        if flag in _SCHEDULE_FLAGS and flag not in taken:
            takes = ", ".join(_as_flag(flag) for flag in taken)
            raise InputError(
                f"{_as_flag(flag)} is not taken by --schedule={schedule}, which takes "
                f"{takes}"
            )
    values = _preset_rates(schedule, arguments, preset, given)
    defaults = _DEFAULTS.get(schedule, {})
    values.update({k: v for k, v in defaults.items() if k not in preset})
    values.update({k: v for k, v in preset.items() if k not in values})
    # A preset that sets the variance means a Gaussian that is not cut at its start.
    if preset.get("variance") is not None and schedule == "gaussian":
        values.pop("start_lr", None)
    # A peak that is changed takes its start along.
    if "peak_lr" in given and "start_lr" not in given and "start_lr" in values:
        values["start_lr"] *= given["peak_lr"] / values["peak_lr"]
    if any(flag in given for flag in _ALTERNATIVES):
        values = {k: v for k, v in values.items() if k not in _ALTERNATIVES}
    values.update(given)
    return {
        argument: values[flag]
        for flag, argument in taken.items()
        if values.get(flag) is not None
    }


def _preset_rates(schedule, arguments, preset, given) -> dict[str, float]:
    """The preset's rates as this schedule uses them."""
    peak, start = preset["peak_lr"], preset["start_lr"]
    largest = given.get("peak_lr")
    if "init_value" in arguments:
        first = start if largest is None else largest
        return {"peak_lr": start, "swa_lr": first / 2}
    rates = {"peak_lr": peak, "start_lr": start}
    if schedule == "triangular":
        rates["base_lr"] = start * (1 if largest is None else largest / peak)
    if schedule == "trapezoid":
        rates["end_lr"] = (peak if largest is None else largest) / 10_000
    return rates


def _as_flag(field: str) -> str:
    return "--" + field.replace("_", "-")


def parse(
    module: str,
    docstring: str,
    presets: Mapping[str, Preset],
    arguments: list[str] | None = None,
    flags: type[Flags] = Arguments,  # type: ignore[assignment]
) -> Flags:
    """Reads the command line; ``--help`` shows the presets' values.

    Exits with status 2 on a flag or a value that cannot be read.
    """
    lines = [docstring.strip(), "", "Presets (every flag changes one value of them):"]
    for name, preset in presets.items():
        values = {**preset.fields, **preset.model_options}
        shown = "  ".join(f"{k}={_shown(v)}" for k, v in values.items())
        lines += ["", f"{name}: {preset.about}", shown]
    return tyro.cli(
        flags,
        prog=f"python -m {module}",
        description="\n".join(lines),
        args=arguments,
        # Flags alone, no --no-... twins for the switches that are off.
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def _shown(value: Any) -> str:
    if isinstance(value, tuple | list):
        return " ".join(map(str, value)) or "none"
    return str(value)
