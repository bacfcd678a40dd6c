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

# Of a user's own, for as long as the process lives.
_REGISTERED: dict[str, Callable[..., nn.Module]] = {}


def register(name: str, factory: Callable[..., nn.Module]) -> None:
    """Makes a factory of one's own known to `create`, in this process.

    A directory of results names the model that it is of and is never imported from:
    what opens it has to register that model first.

    Args:
        name: a new one, such as ``'package.module:factory'``.
        factory: called with ``num_classes=`` and the model's other fields.

    Raises:
        InputError: a name of `NAMES`, or something that cannot be called.

    Example:
        >>> register('mine:wide', lambda num_classes: MLP(num_classes, (1000,)))
        >>> create('mine:wide', num_classes=3).features
        (1000,)
    """
    if not isinstance(name, str) or not name:
        raise InputError(
            f"name={checks.shown(name)} must be a text, such as "
            "'package.module:factory'"
        )
    if name in NAMES:
        raise InputError(f"name={name!r} is a model of lrscape's own; choose another")
    if not callable(factory):
        raise InputError(
            f"factory={factory!r} cannot be called with num_classes=; pass a class of "
            "flax.linen.Module, or a function that makes one"
        )
    _REGISTERED[name] = factory


def fields_of(name: str) -> tuple[str, ...]:
    """The fields of a model, besides the number of its outputs.

    Raises:
        InputError: an unknown name.

    Example:
        >>> fields_of('vgg11')
        ('stages', 'dense', 'axis_name', 'weight_init')
    """
    return tuple(
        field
        for field in inspect.signature(_factory(name)).parameters
        if field not in ("parent", "name", "num_classes")
    )


def _factory(name: str) -> Callable[..., nn.Module]:
    if isinstance(name, str) and name in _REGISTERED:
        return _REGISTERED[name]
    checks.one_of("model", name, NAMES)
    return _FACTORIES[name]


def create(name: str, *, num_classes: int, **kwargs: Any) -> nn.Module:
    """Makes a model by its name.

    Args:
        name: one of `NAMES`, or what `register` was told.
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
    factory, fields = _factory(name), fields_of(name)
    for field, value in kwargs.items():
        if field not in fields:
            raise InputError(
                f"{field}={value!r} is not a field of model={name!r}, which has "
                f"{', '.join(fields)}"
            )
    if name in NAMES:
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
    "fields_of",
    "register",
]
