"""The same ResNet-20 in PyTorch, to be compared with; shortcuts of option A."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm, and a shortcut without parameters."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.stride, self.padding = stride, outputs - inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, inputs, h, w) -> (n, outputs, h / stride, w / stride)."""
        y = functional.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        shortcut = functional.pad(shortcut, (0, 0, 0, 0, 0, self.padding))
        return functional.relu(y + shortcut)


class TorchResNet(nn.Module):
    """As `lrscape.models.ResNet`, (n, channels, height, width) -> (n, num_classes)."""

    def __init__(self, depth: int = 20, num_classes: int = 10):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        blocks, channels = [], 16
        for features in (16, 32, 64):
            for block in range((depth - 2) // 6):
                stride = 2 if features > 16 and block == 0 else 1
                blocks.append(Block(channels, features, stride))
                channels = features
        self.blocks = nn.Sequential(*blocks)
        self.dense = nn.Linear(64, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images to logits."""
        x = self.blocks(functional.relu(self.norm(self.conv(x))))
        return self.dense(x.mean(dim=(2, 3)))


def make_training_step(batch_size: int, learning_rate: float):
    """A function that does one SGD update on random images, and waits for it.

    Channels last, which PyTorch is fastest with.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = TorchResNet().to(device)
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9)
    images = torch.randn(batch_size, 3, 32, 32, device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(10, (batch_size,), device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def load_flax(model: TorchResNet, variables: Any) -> None:
    """Takes over the parameters and statistics of `lrscape.models.ResNet`."""
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    params, stats = variables["params"], variables["batch_stats"]

    def copy(target: torch.Tensor, source: Any) -> None:
        target.data.copy_(torch.tensor(np.asarray(source)))

    for i, conv in enumerate(convs):
        kernel = np.asarray(params[f"Conv_{i}"]["kernel"])
        copy(conv.weight, kernel.transpose(3, 2, 0, 1))
    for i, norm in enumerate(norms):
        copy(norm.weight, params[f"BatchNorm_{i}"]["scale"])
        copy(norm.bias, params[f"BatchNorm_{i}"]["bias"])
        assert norm.running_mean is not None and norm.running_var is not None
        copy(norm.running_mean, stats[f"BatchNorm_{i}"]["mean"])
        copy(norm.running_var, stats[f"BatchNorm_{i}"]["var"])
    copy(model.dense.weight, np.asarray(params["Dense_0"]["kernel"]).T)
    copy(model.dense.bias, params["Dense_0"]["bias"])
