"""Labels and a model's outputs, compared before anything is compiled."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lrscape import checks
from lrscape.data import Dataset, StreamedDataset, Text
from lrscape.errors import InputError


def check_images(data: Any) -> None:
    """Raises InputError for what is no set of labelled images."""
    way_out = "lrscape.data.load('digits'), say"
    checks.instance("data", data, (Dataset, StreamedDataset), way_out=way_out)


def check_text(text: Any) -> None:
    """Raises InputError for what is no text."""
    way_out = "lrscape.data.load_text('tiny_shakespeare', level='words'), say"
    checks.instance("text", text, Text, way_out=way_out)


def check_model(model: Any) -> None:
    """Raises InputError for what is no Linen model, nor called like one."""
    if isinstance(model, type) or not hasattr(model, "apply"):
        checks.linen_module("model", model)


def check_labels(
    model: nn.Module, data: Dataset | StreamedDataset | Text, *parts: str
) -> Any:
    """Raises InputError for labels that a model has no output for.

    Such a label would be an index out of bounds, which JAX clips or turns into NaN.

    Args:
        model: called as ``model(x, train=...)``.
        data: what is trained or measured on. Of a stream the number of classes is
            compared, below which it keeps its labels.
        *parts: names of parts, each of which may be missing.

    Returns:
        The shapes of the model's variables; None where it is no module.
    """
    if hasattr(model, "apply") and not hasattr(model, "init_with_output"):
        return None  # no module, but something to measure that is called like one
    outputs, variables = _traced(model, data)
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
    return variables


def check_params(variables: Any, params: Any, *, stacked: bool) -> None:
    """Raises InputError for the parameters of another model.

    Args:
        variables: the shapes of the model's variables; None where they are not known.
        params: of a state.
        stacked: whether they are those of several networks, along a leading axis.
    """
    if variables is None:
        return
    expected = _shapes(variables.get("params", {}))
    found = _shapes(params, drop=stacked)
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            has, wanted = (shapes.get(name, "none") for shapes in (found, expected))
            raise InputError(
                f"state.params is not of this model: of {name} it has {has}, and the "
                f"model {wanted}; make the state with the model that is trained"
            )


def _shapes(tree: Any, *, drop: bool = False) -> dict[str, tuple[int, ...]]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (
            tuple(jnp.shape(leaf)[drop:])
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def num_outputs(model: Any, data: Dataset | StreamedDataset | Text) -> int:
    """The number of a model's outputs for an example, without computing anything.

    Raises:
        InputError: no Linen model, or one whose outputs are not an array.
    """
    return _traced(model, data)[0]


def _traced(model: Any, data: Dataset | StreamedDataset | Text) -> tuple[int, Any]:
    """A model's number of outputs and the shapes of its variables.

    Raises:
        InputError: no Linen model, or one whose outputs are not an array.
    """
    checks.linen_module("model", model)
    if isinstance(data, Text):
        example = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    else:
        example = jax.ShapeDtypeStruct((1, *data.image_shape), jnp.float32)
    outputs, variables = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, train=False), example
    )
    if not isinstance(outputs, jax.ShapeDtypeStruct) or not outputs.shape:
        raise InputError(
            f"model={type(model).__name__} gives {type(outputs).__name__} and not an "
            "array of logits; wrap it in a module that returns the logits alone"
        )
    return outputs.shape[-1], variables
