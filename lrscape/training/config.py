"""What `fit` has to be told besides the model, the data and the transformation."""

from __future__ import annotations

import dataclasses
import math

from lrscape.data import NORMALIZATIONS, Dataset, StreamedDataset
from lrscape.data.augment import check_names
from lrscape.errors import InputError, unknown_name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """How to train.

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

    Raises:
        InputError: a value that cannot work, before anything is compiled.
    """

    epochs: int
    batch_size: int = 128
    seed: int = 0
    augment: tuple[str, ...] = ()
    normalize: str = "standardize"
    sync_batch_norm: bool = True
    log_every: int | None = None
    num_devices: int | None = None
    scan_steps: int | None = None

    def __post_init__(self) -> None:
        optional = ("log_every", "num_devices", "scan_steps")
        for field in ("epochs", "batch_size", *optional):
            value = getattr(self, field)
            if value is None and field in optional:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{field}={value!r} must be a whole number, 1 or more")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise InputError(f"seed={self.seed!r} must be a whole number")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed={self.seed!r} must lie between 0 and 2**32 - 1")
        if self.normalize not in NORMALIZATIONS:
            raise unknown_name("normalize", self.normalize, NORMALIZATIONS)
        check_names(self.augment, self.normalize)

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

    def total_steps(self, data: Dataset | StreamedDataset) -> int:
        """Updates in the whole run."""
        return self.epochs * self.steps_per_epoch(data)


def pad_to_multiple(count: int, divisor: int) -> int:
    """The smallest multiple of `divisor` that is not below `count`.

    Example:
        >>> pad_to_multiple(10, 4)
        12
    """
    return math.ceil(count / divisor) * divisor
