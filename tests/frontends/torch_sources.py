"""Modules as users write them: what a test imports as `torch_sources.py:name`."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Cnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.bn(self.conv(x))).mean((2, 3)))


def cnn_with_examples() -> tuple[nn.Module, tuple[Tensor, ...]]:
    return Cnn(), (torch.randn(1, 3, 16, 16),)


instance = nn.Sequential(nn.Linear(4, 3), nn.ReLU())


def compiled() -> nn.Module:
    return torch.compile(Cnn())


def parallel() -> nn.Module:
    return nn.DataParallel(Cnn())


def scripted() -> nn.Module:
    return torch.jit.script(Cnn())


class Nested(nn.Module):
    def forward(self, batch: Any, scale: float = 2.0, mask: Tensor | None = None) -> Any:
        assert mask is None
        y = batch["ids"] * scale + batch["pair"][0]
        return {"y": y, "more": (y + 1, [y * 2, None]), "count": 3}


def nested() -> Any:
    return Nested(), ({"ids": torch.randn(2, 3), "pair": (torch.randn(2, 3), None)},)


def nested_by_keyword() -> Any:
    model, (batch,) = nested()
    return model, {"batch": batch, "scale": 0.5}


def nested_by_both() -> Any:
    model, (batch,) = nested()
    return model, (batch,), {"scale": 0.5}


class Record(NamedTuple):
    first: Tensor
    second: Tensor | None


class NamedTuples(nn.Module):
    def forward(self, x: Tensor, *, flag: bool = True) -> Record:
        return Record(x * 2 if flag else x, x + 1)


@dataclasses.dataclass
class Result:
    logits: Tensor
    loss: Tensor | None = None


class Dataclasses(nn.Module):
    def forward(self, x: Tensor) -> Result:
        return Result(x * 2)


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * 2, x + 1


class Cache:
    """An object of no kind that torch knows."""

    def __init__(self, keys: Tensor) -> None:
        self.keys = keys
        self.length = 3


class Caching(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"y": x * 2, "cache": [Cache(x + 1)]}


class Aliases(nn.Module):
    """An input, a weight and one value twice among the outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = x + self.w
        return {"x": x, "w": self.w, "y": y, "again": y}


class Add(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class Unused(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a * 2


class Variadic(nn.Module):
    def forward(self, *parts: Tensor) -> Tensor:
        return torch.stack(parts).sum(0)


class Positions(nn.Module):
    """At most sixteen tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(10, 4)
        self.places = nn.Parameter(torch.randn(16, 4))

    def forward(self, ids: Tensor) -> Tensor:
        return self.words(ids) + self.places[: ids.shape[1]]


class Pairs(nn.Module):
    """Only for a batch of two."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:1], x[1:].reshape(1, 4)])


class Recurrent(nn.Module):
    """torch.export unrolls it, for one length."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 16, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        states, (last, _) = self.lstm(x)
        return {"states": states, "last": last}


class Sizes(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        return x.argmax(-1), x.shape[0]


class WithoutInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(3))

    def forward(self) -> Tensor:
        return self.w * 2


class Bfloat16(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4).bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def half_with_examples() -> Any:
    return Bfloat16().half(), (torch.ones(2, 4, dtype=torch.float16),)


def orthogonal() -> nn.Module:
    """Its weight is a matrix exponential, which ONNX does not have, of another."""
    return nn.utils.parametrizations.orthogonal(nn.Linear(4, 4))


def quantized() -> Any:
    linear = nn.Sequential(nn.Linear(4, 4))
    return torch.ao.quantization.quantize_dynamic(linear, {nn.Linear}), (torch.ones(2, 4),)


class UpTo(nn.Module):
    """How much of `x` comes out is in a tensor."""

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        return x[:, : int(n.item())]


class Branch(nn.Module):
    """Both branches can be compiled by torch.jit.script."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x * 2
        return -x


class PythonBranch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x * len(f"{x.shape}")
        return -x


class Stateful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return x + self.count


class Scratch(nn.Module):
    """Writes a buffer, but what it answers does not depend on what was in it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.mean.copy_(x.mean().reshape(1))
        return x + self.mean


class Remembering(nn.Module):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + self.calls


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class Raising(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x.new_zeros(1)])


class OnlyTraining(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            raise RuntimeError("only for training")
        return x


class Text(nn.Module):
    def forward(self, x: Tensor) -> str:
        return "scores"


class Opaque(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x, object()


class Complex(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft(x)


class Magnitude(nn.Module):
    """Complex inside only."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft(x).abs()


class Singular(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svd(x)[1]


@torch.library.custom_op("torch_sources::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    return x * 2


class CustomOperator(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return twice(x)


class Nonzero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.nonzero(x > 0)


class OfSize(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size


class Leaving(nn.Module):
    def __init__(self) -> None:
        sys.exit(3)


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return Cnn()


def failing() -> nn.Module:
    raise ValueError("there are no weights here")


def number() -> int:
    return 7


def unseeded() -> nn.Module:
    """Weights from a source that no seed reaches."""
    import secrets

    model = nn.Linear(4, 4)
    nn.init.constant_(model.weight, secrets.randbelow(1000) / 1000)
    return model


def reading_here() -> nn.Module:
    """From a file beside the user, not beside the worker."""
    model = Cnn()
    model.load_state_dict(torch.load("weights.pth", weights_only=True))
    return model


class Mixed(nn.Module):
    """Under autocast as a context and as a decorator, with a region that is kept out of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 2)

    @torch.autocast("cpu", dtype=torch.bfloat16)
    def forward(self, x: Tensor) -> Tensor:
        features = self.conv(x).mean((2, 3))
        with torch.amp.autocast("cpu", enabled=False):
            features = features.float()
        return self.head(features)


class RecurrentAttention(nn.Module):
    """A length that torch.export fixes, and attention that has a fast path of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(x)
        return self.attention(states, states, states, need_weights=False)[0]
