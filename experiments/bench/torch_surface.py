"""Losses along a line in PyTorch: a careful loop, and the package loss-landscapes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from experiments.bench.torch_resnet import TorchResNet, load_flax


def make_mlp(params: Any) -> nn.Module:
    """The multilayer perceptron of the benchmark, without batch norm."""
    layers: list[nn.Module] = [nn.Flatten()]
    names = sorted(params, key=lambda name: int(name.rpartition("_")[2]))
    for name in names:
        kernel, bias = (np.array(params[name][k]) for k in ("kernel", "bias"))
        dense = nn.Linear(*kernel.shape)
        dense.weight.data.copy_(torch.tensor(kernel.T))
        dense.bias.data.copy_(torch.tensor(bias))
        layers += [dense, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def make_model(variables: Any) -> nn.Module:
    """The same network as in JAX, in inference mode."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if "batch_stats" in variables:
        resnet = TorchResNet()
        load_flax(resnet, variables)
        return resnet.to(device).eval()
    return make_mlp(variables["params"]).to(device).eval()


def make_batches(images: Any, labels: Any, *, channels_last: bool) -> list:
    """Batches (batches, size, height, width, channels) as PyTorch has them."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batches = []
    for x, y in zip(np.asarray(images), np.asarray(labels), strict=True):
        image = torch.tensor(x).permute(0, 3, 1, 2).contiguous().to(device)
        if channels_last:
            image = image.to(memory_format=torch.channels_last)
        batches.append((image, torch.tensor(y, dtype=torch.long, device=device)))
    return batches


def careful_line(
    start: Any, end: Any, images: Any, labels: Any, alphas: np.ndarray
) -> Callable[[], list[float]]:
    """Losses at points of a line: channels last, no gradients, weights set in place."""
    a, b, model = make_model(start), make_model(end), make_model(start)
    if "batch_stats" in start:
        networks: list[Any] = [a, b, model]
        for network in networks:
            network.to(memory_format=torch.channels_last)
    batches = make_batches(images, labels, channels_last="batch_stats" in start)
    ends = list(zip(model.parameters(), a.parameters(), b.parameters(), strict=True))

    @torch.inference_mode()
    def losses() -> list[float]:
        found = []
        for alpha in alphas:
            for weight, first, last in ends:
                torch.lerp(first, last, float(alpha), out=weight)
            total = sum(functional.cross_entropy(model(x), y) for x, y in batches)
            found.append(float(total) / len(batches))
        return found

    return losses


def package_line(
    start: Any, end: Any, images: Any, labels: Any, steps: int, *, batched: bool
) -> Callable[[], Any]:
    """Losses by ``loss_landscapes.linear_interpolation``.

    Args:
        start: variables of the network that the line starts from.
        end: those that it leads to.
        images: (batches, size, ...).
        labels: (batches, size).
        steps: points.
        batched: whether a metric of our own walks through the batches; otherwise the
            package's ``Loss`` takes the whole sample at once, as its README shows.
    """
    import loss_landscapes
    from loss_landscapes.metrics import Loss
    from loss_landscapes.metrics.metric import Metric

    a, b = make_model(start), make_model(end)
    batches = make_batches(images, labels, channels_last=False)

    class MeanLoss(Metric):
        def __call__(self, model_wrapper: Any) -> float:
            total = sum(
                functional.cross_entropy(model_wrapper.forward(x), y)
                for x, y in batches
            )
            return float(total) / len(batches)

    metric: Metric = MeanLoss()
    if not batched:
        inputs = torch.cat([x for x, _ in batches])
        targets = torch.cat([y for _, y in batches])
        metric = Loss(functional.cross_entropy, inputs, targets)

    def losses() -> Any:
        # It moves the weights of the model that it is handed.
        return loss_landscapes.linear_interpolation(
            copy.deepcopy(a), b, metric, steps=steps
        )

    return losses
