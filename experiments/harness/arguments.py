"""The command line of training: flags, presets, and the run that they describe."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from experiments.harness.flags import Arguments, CommonArguments
from experiments.harness.parsing import parse as parse_flags
from lrscape import schedules
from lrscape.errors import InputError, unknown_name
from lrscape.run_fields import RunFields
from lrscape.runs import STREAM_FIELDS, RunConfig

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
Flags = TypeVar("Flags", bound=CommonArguments)


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

    Exits with status 2 on a flag or a value that cannot be read. `check_values` says
    which of those that can be read are out of bounds.
    """
    lines = [docstring.strip(), "", "Presets (every flag changes one value of them):"]
    for name, preset in presets.items():
        values = {**preset.fields, **preset.model_options}
        shown = "  ".join(f"{k}={_shown(v)}" for k, v in values.items())
        lines += ["", f"{name}: {preset.about}", shown]
    return parse_flags(flags, module, "\n".join(lines), arguments)


def _shown(value: Any) -> str:
    if isinstance(value, tuple | list):
        return " ".join(map(str, value)) or "none"
    return str(value)
