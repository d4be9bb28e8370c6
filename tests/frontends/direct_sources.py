"""Models for TorchScript's direct path: what a trace keeps, and what it does not."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def seeded(model: nn.Module) -> nn.Module:
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in model.parameters():
            weights.copy_(torch.randn(weights.shape, generator=draw) / 8)
    return model.eval()


class Several(nn.Module):
    """Two inputs, a dict of outputs, sizes taken from the inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 64)
        self.second = nn.Linear(64, 48)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        batch = left.shape[0]
        joined = torch.relu(self.first(left)) + right
        return {"scores": self.second(joined), "flat": joined.reshape(batch, 4, -1).sum(-1)}


def several() -> nn.Module:
    return seeded(Several())


class Sized(nn.Module):
    """A loop over a size: a trace keeps the count of its example."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros_like(x[:, 0])
        for i in range(x.size(1)):
            total = torch.tanh(self.step(total + x[:, i]))
        return total


def sized() -> nn.Module:
    return seeded(Sized())


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(32, 64, batch_first=True)
        self.head = nn.Linear(64, 40)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0])


def recurrent() -> nn.Module:
    return seeded(Recurrent())


def deep() -> nn.Module:
    return seeded(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16)))


class Branch(nn.Module):
    """Control flow that is in the file, as TorchScript."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.lin(x)
        if x.dim() > 2:
            y = y.sum(1)
        return y
