"""What training on one kind of data does otherwise than on another: images here."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import optax

from lrscape.data import Dataset, StreamedDataset
from lrscape.errors import InputError
from lrscape.run_fields import RunFields
from lrscape.runs import RunConfig
from lrscape.training import TrainState, fit, make_evaluate
from lrscape.training.fit import scan_steps
from lrscape.training.state import make_initial_state

if TYPE_CHECKING:  # command lines need more than training does
    from experiments.harness.arguments import Preset
    from experiments.harness.flags import CommonArguments

Evaluate = Callable[..., dict[str, float]]


class Kind(abc.ABC):
    """A kind of data: how it is trained on and measured, and what is said of that.

    Attributes:
        unit: what is counted a second.
        best_by: of what is measured on a part, what the best epoch has least of.
        in_one_program: whether `lrscape.training.fit_seeds` trains several networks.
    """

    unit: str
    best_by: str
    in_one_program: bool

    @property
    @abc.abstractmethod
    def flags(self) -> type[CommonArguments]:
        """The flags of its command line."""

    @abc.abstractmethod
    def resolve(
        self,
        experiment: str,
        presets: Mapping[str, Preset],
        preset: str,
        given: Mapping[str, Any],
        data_dir: Path | None,
    ) -> RunFields:
        """The run that flags describe, see `experiments.harness.arguments.resolve`."""

    @abc.abstractmethod
    def parts(self, data: Any) -> tuple[str, ...]:
        """The parts of the data that are measured after an epoch."""

    @abc.abstractmethod
    def evaluate(self, model: nn.Module, data: Any, config: Any) -> Evaluate:
        """Makes ``evaluate(state, part)``."""

    @abc.abstractmethod
    def make_initial_state(
        self,
        model: nn.Module,
        data: Any,
        tx: optax.GradientTransformation,
        config: Any,
    ) -> Callable[[int], TrainState]:
        """Makes ``seed -> state``, before the first update."""

    @abc.abstractmethod
    def stride(self, config: Any, devices: Sequence[jax.Device]) -> int:
        """Updates between two looks at signals and the progress bar."""

    @property
    @abc.abstractmethod
    def fit(self) -> Callable[..., Any]:
        """The training loop, see `lrscape.training.fit`."""

    @abc.abstractmethod
    def per_update(self, config: Any) -> int:
        """How many of its units an update sees."""

    @abc.abstractmethod
    def prepare(self, data: Any, config: Any) -> None:
        """Looks at what can be wrong with the data, before a run is made."""

    def added(self, line: dict[str, Any]) -> dict[str, Any]:
        """What follows from a logged line's other values."""
        return {}

    def baseline(self, data: Any) -> dict[str, float]:
        """What a model has to beat, for the summary."""
        return {}

    @abc.abstractmethod
    def measured(self, line: Mapping[str, Any], part: str) -> str:
        """What was measured on a part after an epoch, in words."""

    @abc.abstractmethod
    def outcome(self, summary: Mapping[str, Any], part: str) -> str:
        """What a run came to, in words; `part` is what the best epoch is best on."""


class Images(Kind):
    """Labelled images, in memory or streamed."""

    unit = "images"
    best_by = "error"
    in_one_program = True

    @property
    def flags(self) -> type[CommonArguments]:
        """The flags of its command line."""
        from experiments.harness.flags import Arguments

        return Arguments

    def resolve(self, experiment, presets, preset, given, data_dir) -> RunConfig:
        """See `Kind.resolve`."""
        from experiments.harness.arguments import resolve

        return resolve(experiment, presets, preset, given, data_dir)

    def parts(self, data: Dataset | StreamedDataset) -> tuple[str, ...]:
        """See `Kind.parts`."""
        return ("test",) if data.validation is None else ("validation", "test")

    def evaluate(self, model, data, config: RunConfig) -> Evaluate:
        """See `Kind.evaluate`."""
        _check_reads_images(model, config)
        return make_evaluate(
            model, data, config, batch_size=config.eval_batch_size, top5=config.top5
        )

    def make_initial_state(
        self, model, data, tx, config
    ) -> Callable[[int], TrainState]:
        """See `Kind.make_initial_state`."""
        _check_reads_images(model, config)
        return make_initial_state(model, data, tx)

    def stride(self, config: RunConfig, devices: Sequence[jax.Device]) -> int:
        """See `Kind.stride`."""
        return 1 if config.stream else scan_steps(config, devices)

    @property
    def fit(self) -> Callable[..., Any]:
        """See `Kind.fit`."""
        return fit

    def per_update(self, config: RunConfig) -> int:
        """See `Kind.per_update`."""
        return config.batch_size

    def prepare(self, data: Dataset | StreamedDataset, config: RunConfig) -> None:
        """See `Kind.prepare`."""
        if isinstance(data, StreamedDataset):
            data.normalization(config.normalize)  # reads a sample of the images

    def measured(self, line: Mapping[str, Any], part: str) -> str:
        """See `Kind.measured`."""
        said = (
            f"{part} loss {line[part + '_loss']:.4f} "
            f"error {100 * line[part + '_error']:.2f} %"
        )
        if f"{part}_top5_error" in line:
            said += f" (top 5: {100 * line[part + '_top5_error']:.2f} %)"
        return said

    def outcome(self, summary: Mapping[str, Any], part: str) -> str:
        """See `Kind.outcome`."""
        last, best = summary["last"], summary["best"]
        return (
            f"test error {100 * last['test_error']:.2f} % after the last epoch (least "
            f"{part} error {100 * best[part + '_error']:.2f} % after epoch "
            f"{best['epoch']:g})"
        )


IMAGES = Images()


def _check_reads_images(model: Any, config: RunConfig) -> None:
    if hasattr(model, "initial_carry"):
        raise InputError(
            f"model={config.model!r} reads text, and dataset={config.dataset!r} "
            "has images; choose another, or python -m experiments.language"
        )
