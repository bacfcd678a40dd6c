"""Loss and error over whole parts of a data set, exact for a ragged last batch."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn

from lrscape.data import Dataset
from lrscape.training.config import Config, pad_to_multiple
from lrscape.training.devices import choose_devices, map_over_devices, replicate, split
from lrscape.training.state import TrainState
from lrscape.training.step import DeviceData, batches_of, make_evaluation_step


def make_evaluate(
    model: nn.Module, data: Dataset, config: Config, *, batch_size: int = 500
) -> Callable[..., dict[str, float]]:
    """Makes a function that measures a state on a part of the data.

    The model runs in inference mode, on images that are normalised and not augmented.
    A part goes to the devices when it is first measured, and stays there.

    Args:
        model: the model that is trained.
        data: its data.
        config: how it is trained; devices and normalisation are taken from it.
        batch_size: examples a call; it changes the result by rounding only.

    Returns:
        ``evaluate(state, part='test')`` -> ``{'loss': ..., 'error': ...}``: the mean
        cross-entropy in nats and the fraction of wrong labels, each example counted
        once; part is ``'train'``, ``'validation'`` or ``'test'``.

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
    devices = choose_devices(config.num_devices, config.batch_size)
    step = map_over_devices(make_evaluation_step(model), devices)
    batch_size = pad_to_multiple(batch_size, len(devices))
    on_device: dict[str, DeviceData] = {}

    def evaluate(state: TrainState, part: str = "test") -> dict[str, float]:
        examples = getattr(data, part)
        if part not in on_device:
            placed = DeviceData.of(data, part, config.normalize)
            on_device[part] = replicate(placed, devices)
        variables = replicate(state.variables, devices)
        sums = []
        for indices in batches_of(len(examples), batch_size):
            sums.append(step(variables, on_device[part], split(indices, devices))[0])
            if len(devices) > 1:  # see `fit`: one program in flight on virtual devices
                sums[-1]["loss"].block_until_ready()
        # Added up in double precision on the host.
        return {
            name: sum(float(batch[name]) for batch in sums) / len(examples)
            for name in ("loss", "error")
        }

    return evaluate
