"""Loss and error over whole parts of a data set, exact for a ragged last batch."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn

from lrscape import checks
from lrscape.data import Dataset, StreamedDataset
from lrscape.errors import InputError
from lrscape.training.config import Config, pad_to_multiple
from lrscape.training.devices import (
    choose_devices,
    device_count,
    replicate,
)
from lrscape.training.feed import Resident, Streamed, make_feed
from lrscape.training.labels import check_images, check_labels
from lrscape.training.mapping import map_over_devices
from lrscape.training.state import TrainState, variables_of
from lrscape.training.step import batches_of, make_evaluation_step


def make_evaluate(
    model: nn.Module,
    data: Dataset | StreamedDataset,
    config: Config,
    *,
    batch_size: int = 500,
    top5: bool = False,
) -> Callable[..., dict[str, float]]:
    """Makes a function that measures a state on a part of the data.

    The model runs in inference mode, on images that are normalised and not augmented.
    A part goes to the devices when it is first measured, and stays there; one that is
    streamed is read anew each time.

    Args:
        model: the model that is trained.
        data: its data.
        config: how it is trained; devices and normalisation are taken from it.
        batch_size: examples a call; it changes the result by rounding only.
        top5: whether to count labels that are not among the five largest logits.

    Returns:
        ``evaluate(state, part='test')`` -> ``{'loss': ..., 'error': ...}``: the mean
        cross-entropy in nats and the fraction of wrong labels, each example counted
        once, and with `top5` ``'top5_error'``; part is ``'train'``, ``'validation'`` or
        ``'test'``.

    Raises:
        InputError: `top5` of five classes or fewer.

    Example:
        >>> import optax
        >>> from lrscape import data, models
        >>> from lrscape.training import Config, initial_state
        >>> digits = data.load('digits')
        >>> model = models.create('mlp', num_classes=10, features=(32,))
        >>> state = initial_state(model, digits, optax.sgd(0.1), seed=0)
        >>> measured = make_evaluate(model, digits, Config(epochs=1))(state)
        >>> round(measured['error'] * len(digits.test)) <= 360
        True
    """
    check_images(data)
    Config.check(config)
    if checks.flag("top5", top5) and data.num_classes <= 5:
        raise InputError(
            f"top5=True says nothing of {data.num_classes} classes; leave it out"
        )
    check_labels(model, data, "train", "validation", "test")
    checks.count("batch_size", batch_size)
    devices = choose_devices(config.num_devices, config.batch_size)
    step = map_over_devices(
        make_evaluation_step(model, top5=top5), devices, config.mapping
    )
    batch_size = pad_to_multiple(batch_size, device_count(devices))
    feeds: dict[str, Resident | Streamed] = {}

    def evaluate(state: TrainState, part: str = "test") -> dict[str, float]:
        variables = variables_of(state)
        checks.one_of("part", part, ("train", "validation", "test"))
        if getattr(data, part, None) is None:
            raise InputError(f"part={part!r}: dataset={data.name!r} has none")
        count = len(getattr(data, part))
        if part not in feeds:
            feeds[part] = make_feed(data, part, config.normalize, devices)
        variables = replicate(variables, devices)
        indices = batches_of(count, batch_size)
        sums = []
        for batch in feeds[part].batches(indices.__getitem__, range(len(indices))):
            sums.append(step(variables, feeds[part].dataset, batch)[0])
            if (
                device_count(devices) > 1
            ):  # see `fit`: one program in flight on virtual devices
                sums[-1]["loss"].block_until_ready()
            elif len(sums) > 1:  # so that batches that are streamed do not pile up
                sums[-2]["loss"].block_until_ready()
        # Added up in double precision on the host.
        return {name: sum(float(s[name]) for s in sums) / count for name in sums[0]}

    return evaluate
