"""Flax Linen modules, one family a file, called as ``model(x, train=...)``.

`create` makes one by its name. Every model sows its penultimate features (the input
of its last layer, before any dropout) as ``penultimate`` in the collection
``intermediates``: (n, features), or maps where that layer is a convolution. A model
with batch norm has the field ``axis_name``, which training over several devices sets to
synchronise the statistics. One with auxiliary classifiers sows their logits in training
as ``auxiliary``, and its field ``auxiliary_weight`` is the weight of their losses.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from lrscape import checks
from lrscape.errors import InputError
from lrscape.models import densenet, nin, resnet, wrn
from lrscape.models.alexnet import AlexNet as AlexNet
from lrscape.models.bn_inception import BNInception as BNInception
from lrscape.models.densenet import DenseNet as DenseNet
from lrscape.models.fields import check_fields, check_together
from lrscape.models.googlenet import GoogLeNet as GoogLeNet
from lrscape.models.lstm import LSTM as LSTM
from lrscape.models.nin import NIN as NIN
from lrscape.models.plain import CNN as CNN
from lrscape.models.plain import MLP as MLP
from lrscape.models.plain import AllCNN as AllCNN
from lrscape.models.plain import MnistCNN as MnistCNN
from lrscape.models.plain import Small as Small
from lrscape.models.resnet import PreActResNet as PreActResNet
from lrscape.models.resnet import ResNet as ResNet
from lrscape.models.vgg import VGG as VGG
from lrscape.models.vgg import DropoutVGG as DropoutVGG
from lrscape.models.wrn import WideResNet as WideResNet

_FACTORIES: dict[str, Callable[..., nn.Module]] = {
    "mlp": MLP,
    "cnn": CNN,
    "mnist_cnn": MnistCNN,
    "small": Small,
    "large": AllCNN,
    **nin.FACTORIES,
    **resnet.FACTORIES,
    "vgg11": VGG,
    "vgg": DropoutVGG,
    **densenet.FACTORIES,
    "lstm": LSTM,
    **wrn.FACTORIES,
    "alexnet": AlexNet,
    "googlenet": GoogLeNet,
    "bn_inception": BNInception,
}

NAMES: tuple[str, ...] = tuple(_FACTORIES)


def create(name: str, *, num_classes: int, **kwargs: Any) -> nn.Module:
    """Makes a model by its name.

    Args:
        name: one of `NAMES`.
        num_classes: the number of outputs.
        **kwargs: the model's own fields.

    Returns:
        The Linen module; ``model.init(key, x, train=False)`` gives its variables.

    Raises:
        InputError: an unknown name, a field that the model does not have, or a value
            that no network can have.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model = create('mlp', num_classes=10, features=(32,))
        >>> variables = model.init(jax.random.key(0), jnp.ones((1, 64)), train=False)
        >>> jnp.asarray(model.apply(variables, jnp.ones((5, 64)), train=False)).shape
        (5, 10)
    """
    checks.one_of("model", name, NAMES)
    factory = _FACTORIES[name]
    fields = [
        field
        for field in inspect.signature(factory).parameters
        if field not in ("parent", "name", "num_classes")
    ]
    for field, value in kwargs.items():
        if field not in fields:
            raise InputError(
                f"{field}={value!r} is not a field of model={name!r}, which has "
                f"{', '.join(fields)}"
            )
    check_fields(factory, {"num_classes": num_classes, **kwargs})
    model = factory(num_classes=num_classes, **kwargs)
    check_together(model)
    return model


__all__ = [
    "CNN",
    "LSTM",
    "MLP",
    "NAMES",
    "NIN",
    "VGG",
    "AlexNet",
    "AllCNN",
    "BNInception",
    "DenseNet",
    "DropoutVGG",
    "GoogLeNet",
    "MnistCNN",
    "PreActResNet",
    "ResNet",
    "Small",
    "WideResNet",
    "create",
]
