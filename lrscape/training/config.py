"""Settings of `fit` and `fit_text` besides model, data and transformation."""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import Any

import numpy as np

from lrscape import checks
from lrscape.data import (
    NORMALIZATIONS,
    Dataset,
    StreamedDataset,
    Text,
    stream_starts,
)
from lrscape.data.augment import check_names
from lrscape.errors import InputError
from lrscape.matmul import PRECISIONS
from lrscape.training.mapping import MAPPINGS


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopConfig(abc.ABC):
    """The settings of training that images and texts share.

    Attributes:
        epochs: passes over the training data.
        batch_size: examples, or streams of a text, an update, over all devices.
        seed: of everything random.
        log_every: updates over which training metrics are averaged; None is an epoch.
        num_devices: local devices to train on; None is all of them.
        scan_steps: updates in one compiled loop, at the most; None is 1 on CPU and more
            on an accelerator.
        mapping: ``'pmap'`` or ``'shard_map'``, the way a step runs on several devices.
        matmul_precision: of an update's matrix products and convolutions in float32,
            one of `lrscape.matmul.PRECISIONS`; None is JAX's own choice on the device,
            such as TF32 on recent GPUs. What is measured is always float32.
    """

    epochs: int
    batch_size: int = 128
    seed: int = 0
    log_every: int | None = None
    num_devices: int | None = None
    scan_steps: int | None = None
    mapping: str = "pmap"
    matmul_precision: str | None = None

    def __post_init__(self) -> None:
        for field in ("epochs", "batch_size"):
            self._set(field, checks.count(field, getattr(self, field)))
        for field in ("log_every", "num_devices", "scan_steps"):
            if (value := getattr(self, field)) is not None:
                self._set(field, checks.count(field, value))
        checks.one_of("mapping", self.mapping, MAPPINGS)
        if self.matmul_precision is not None:
            checks.one_of("matmul_precision", self.matmul_precision, PRECISIONS)
        self._set("seed", checks.seed("seed", self.seed))

    def _set(self, field: str, value: Any) -> None:
        """Keeps a field in the form in which JSON holds it."""
        object.__setattr__(self, field, value)

    @classmethod
    def check(cls, config: Any) -> None:
        """Raises InputError for what is no configuration of this kind."""
        way_out = f"lrscape.training.{cls.__name__}(epochs=...)"
        checks.instance("config", config, cls, way_out=way_out)

    @abc.abstractmethod
    def steps_per_epoch(self, data: Any) -> int:
        """Updates an epoch."""

    def total_steps(self, data: Any) -> int:
        """Updates in the whole run."""
        return self.epochs * self.steps_per_epoch(data)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(LoopConfig):
    """The settings of training on images.

    Attributes:
        epochs: passes over the training examples.
        batch_size: examples an update, over all devices. What is left of an epoch
            after its last whole batch is dropped; every epoch drops others.
        seed: of everything random: initial weights, order, augmentation, dropout.
        augment: augmentations, in order (see `lrscape.data.AUGMENTATIONS`).
        normalize: how pixels are normalised (see `lrscape.data.NORMALIZATIONS`), after
            they are augmented; ``'whiten'`` before, so that a crop is padded with the
            mean.
        sync_batch_norm: whether batch norm sees the global batch; otherwise each
            device normalises by its own share, and running averages are averaged.
        log_every: the number of updates over which training metrics are averaged;
            None is an epoch.
        num_devices: how many local devices to train on; None is all of them.
        scan_steps: updates in one compiled loop, at the most. None is 1 on CPU, where a
            convolution's weight gradient runs many times slower within a compiled loop,
            and 100 on an accelerator, which would wait for the host between updates.
            Of data that is streamed it is 1.
        mapping: how a step runs on several devices: through ``'pmap'`` or through
            ``'shard_map'``, the way that JAX develops further. States and measurements
            are the same to the last bit.
        matmul_precision: of an update's matrix products and convolutions in float32:
            ``'bfloat16'``, ``'tensorfloat32'`` or ``'float32'``; None is JAX's own
            choice on the device. What is measured is always float32.

    Raises:
        InputError: a value that cannot work, before anything is compiled.
    """

    augment: tuple[str, ...] = ()
    normalize: str = "standardize"
    sync_batch_norm: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of("normalize", self.normalize, NORMALIZATIONS)
        check_names(self.augment, self.normalize)
        self._set(
            "sync_batch_norm", checks.flag("sync_batch_norm", self.sync_batch_norm)
        )

    def steps_per_epoch(self, data: Dataset | StreamedDataset) -> int:
        """Updates an epoch: the whole batches in the training examples.

        Raises:
            InputError: a batch larger than the training set.
        """
        if self.batch_size > len(data.train):
            raise InputError(
                f"batch_size={self.batch_size} is larger than the training set of "
                f"dataset={data.name!r}, which has {len(data.train)} examples"
            )
        return len(data.train) // self.batch_size


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig(LoopConfig):
    """The settings of training on a text by truncated backpropagation through time.

    The text is cut into streams, and these into pieces (`lrscape.data.token_streams`):
    an update sees the next piece of every stream.

    Attributes:
        epochs: passes over the training text.
        batch_size: streams an update, over all devices.
        seed: of initial weights and dropout. The order is the text's own.
        window: tokens a piece, through which gradients flow back.
        offset: tokens of the training text that are passed over, so that every piece
            is another one: another order of the same data.
        log_every: as of `Config`; likewise `num_devices`, `mapping` and
            `matmul_precision`.
        scan_steps: updates in one compiled loop, at the most; None is 100, on CPU too,
            where a recurrent network runs in a loop at full speed.

    Raises:
        InputError: a value that cannot work, before anything is compiled.
    """

    batch_size: int = 32
    window: int = 50
    offset: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("window", checks.count("window", self.window))
        self._set("offset", checks.whole("offset", self.offset))

    def starts(self, text: Text) -> np.ndarray:
        """The positions at which pieces of the streams begin, (updates, batch_size).

        Raises:
            InputError: a text that is too short for one piece a stream.
        """
        left = max(0, len(text.train) - self.offset)
        return self.offset + stream_starts(left, self.batch_size, self.window)

    def steps_per_epoch(self, data: Text) -> int:
        """Updates an epoch: the whole pieces of a stream.

        Raises:
            InputError: a text that is too short for one.
        """
        return len(self.starts(data))


def pad_to_multiple(count: int, divisor: int) -> int:
    """The smallest multiple of `divisor` that is not below `count`.

    Example:
        >>> pad_to_multiple(10, 4)
        12
    """
    return math.ceil(count / divisor) * divisor
