"""The largest activations that enter the last layer, over the batches of an epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax import lax

from lrscape import checks
from lrscape.activations import activation_norms
from lrscape.data import Dataset, StreamedDataset
from lrscape.errors import InputError
from lrscape.training.config import Config
from lrscape.training.device_data import DeviceData, Passing
from lrscape.training.devices import (
    AXIS,
    choose_devices,
    device_count,
    replicate,
)
from lrscape.training.feed import make_feed
from lrscape.training.labels import check_images, check_model
from lrscape.training.mapping import map_over_devices
from lrscape.training.state import DROPOUT, TrainState, check_state
from lrscape.training.step import batches_of, penultimate, synchronized

MODES = ("train", "inference")


def make_largest_activations(
    model: nn.Module,
    data: Dataset | StreamedDataset,
    config: Config,
    *,
    mode: str = "train",
    num_batches: int | None = None,
) -> Callable[[TrainState], dict[str, float]]:
    r"""Makes a function that measures :math:`K_z` by a pass over training batches.

    It is what an optimizer that was told an ``activation_norm`` is given at the start
    of an epoch, by `lrscape.transforms.hold_norms`. Training hands over the same from
    its own forward pass, for nothing.

    Args:
        model: one that sows ``penultimate``, as those of `lrscape.models` do.
        data: its training examples are gone through in their order, normalised and not
            augmented; what is left after the last whole batch is not.
        config: how it is trained; batch size, devices and normalisation are taken from
            it.
        mode: ``'train'``, batch norm normalising by each batch and dropout on; or
            ``'inference'``, by running averages, which at first are not those of any
            batch.
        num_batches: how many; None is all of them.

    Returns:
        ``measure(state)`` -> ``{'activation_norm': ..., 'activation_max': ...}``: the
        largest Frobenius norm of a batch's activations, and the largest activation.

    Raises:
        InputError: an unknown mode, no batches; when measuring, a model that sows no
            ``penultimate``.

    Example:
        >>> from lrscape import data, models, transforms
        >>> from lrscape.training import Config, initial_state
        >>> digits = data.load('digits')
        >>> model = models.create('mlp', num_classes=10, features=(32,))
        >>> tx = transforms.lipschitz_sgd(
        ...     num_classes=10, batch_size=128, activation_norm=1.0)
        >>> state = initial_state(model, digits, tx, seed=0)
        >>> measure = make_largest_activations(model, digits, Config(epochs=1))
        >>> norm = measure(state)['activation_norm']
        >>> opt_state = transforms.hold_norms(state.opt_state, activation_norm=norm)
        >>> state = state.replace(opt_state=opt_state)

    References:
        Yedida and Saha, `A novel adaptive learning rate scheduler for deep neural
        networks <https://arxiv.org/abs/1902.07399>`_, 2019, Sec. 7.2
    """
    check_model(model)
    check_images(data)
    Config.check(config)
    checks.one_of("mode", mode, MODES)
    if num_batches is not None:
        num_batches = checks.count("num_batches", num_batches)
    devices = choose_devices(config.num_devices, config.batch_size)
    batches = batches_of(len(data.train), config.batch_size)
    batches = batches[: config.steps_per_epoch(data)][:num_batches]
    feed = make_feed(data, "train", config.normalize, devices)

    def step(of_state, dataset: DeviceData | Passing, batch: Any):
        variables, key = of_state
        images, _, indices = dataset.take(batch)
        key = jax.random.fold_in(jax.random.fold_in(key, indices[0]), DROPOUT)
        network = model
        if mode == "train" and "batch_stats" in variables:
            network = synchronized(model, config, device_count(devices))
        _, sown = network.apply(
            variables,
            dataset.normalize(images),
            train=mode == "train",
            mutable=["batch_stats", "intermediates"],
            rngs={"dropout": jax.random.fold_in(key, lax.axis_index(AXIS))},
        )
        features = penultimate(sown.get("intermediates", {}))
        if features is None:
            raise InputError(
                f"model={type(model).__name__} sows no 'penultimate'; call "
                "self.sow('intermediates', 'penultimate', x) before its last layer"
            )
        return activation_norms(features, AXIS), None

    mapped = map_over_devices(step, devices, config.mapping)

    def measure(state: TrainState) -> dict[str, float]:
        check_state(state)
        of_state = replicate((state.variables, state.key), devices)
        largest: dict[str, float] = {}
        for batch in feed.batches(batches.__getitem__, range(len(batches))):
            found, _ = mapped(of_state, feed.dataset, batch)
            for name, value in found.items():
                # Unlike max, it keeps NaN.
                largest[name] = float(np.maximum(largest.get(name, 0.0), value))
        return largest

    return measure
