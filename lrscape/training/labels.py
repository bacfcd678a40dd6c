"""Labels and a model's outputs, compared before anything is compiled."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrscape import checks
from lrscape.data import Dataset, StreamedDataset, Text
from lrscape.errors import InputError


def check_labels(
    model: nn.Module, data: Dataset | StreamedDataset | Text, *parts: str
) -> None:
    """Raises InputError for labels that a model has no output for.

    Such a label would be an index out of bounds, which JAX clips or turns into NaN.

    Args:
        model: called as ``model(x, train=...)``.
        data: what is trained or measured on. Of a stream the number of classes is
            compared, below which it keeps its labels.
        *parts: names of parts, each of which may be missing.
    """
    if hasattr(model, "apply") and not hasattr(model, "init_with_output"):
        return  # no module, but something to measure that is called like one
    outputs = num_outputs(model, data)
    for part in parts:
        examples = getattr(data, part, None)
        if examples is None:
            continue
        if isinstance(data, Text):
            checks.labels(f"text.{part}", examples, outputs)
        elif hasattr(examples, "label"):
            checks.labels(f"data.{part}.label", examples.label, outputs)
        elif data.num_classes > outputs:
            raise InputError(
                f"model={type(model).__name__} has {outputs} outputs, and dataset="
                f"{data.name!r} has num_classes={data.num_classes}; make the model "
                f"with num_classes={data.num_classes}"
            )


def num_outputs(model: Any, data: Dataset | StreamedDataset | Text) -> int:
    """How many outputs a model has for an example, without computing anything.

    Raises:
        InputError: no Linen model, or one whose outputs are not an array.
    """
    checks.linen_module("model", model)
    if isinstance(data, Text):
        example = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    else:
        example = jax.ShapeDtypeStruct((1, *data.image_shape), jnp.float32)
    outputs, _ = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, train=False), example
    )
    if not isinstance(outputs, jax.ShapeDtypeStruct) or not outputs.shape:
        raise InputError(
            f"model={type(model).__name__} gives {type(outputs).__name__} and not an "
            "array of logits; wrap it in a module that returns the logits alone"
        )
    return outputs.shape[-1]
