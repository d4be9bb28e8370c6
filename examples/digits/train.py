#!/usr/bin/env python3
"""Train a small CNN on scikit-learn's scanned digits; write digits.onnx and digits.csv beside it.

    image (batch, 1, 8, 8), float32, grey values 0..16 divided by 16
      -> 3 x [Conv 3x3 -> BatchNorm -> ReLU], a max-pool after the first two
      -> global average pool -> Linear
      -> logits (batch, 10), float32

The same machine and the same versions give the same weights: the seed, one thread and torch's
deterministic algorithms are fixed below. BatchNorm is exported as a node of its own, not folded
into the convolution, so that `infc compile` has that left to do. Needs torch, scikit-learn and
onnx: `pip install -e '.[torchscript,dev]'` in the checkout.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

SEED = 20
EPOCHS = 40
BATCH = 32
HELD_OUT = 0.2
SAMPLES = 60
GREY_MAX = 16.0


class ConvBlock(nn.Sequential):
    """3x3 convolution, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )


def network() -> nn.Module:
    return nn.Sequential(
        ConvBlock(1, 16),
        nn.MaxPool2d(2),
        ConvBlock(16, 24),
        nn.MaxPool2d(2),
        ConvBlock(24, 32),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


def split() -> list[np.ndarray]:
    """Grey values to train on and held out, then the labels of both."""
    pixels, labels = load_digits(return_X_y=True)
    parts: list[np.ndarray] = train_test_split(
        pixels, labels, test_size=HELD_OUT, random_state=SEED, stratify=labels
    )
    return parts


def scale(pixels: np.ndarray) -> torch.Tensor:
    """Grey values (N, 64) of 0..16 as images (N, 1, 8, 8) of 0..1, float32."""
    return torch.from_numpy((pixels / GREY_MAX).astype(np.float32).reshape(-1, 1, 8, 8))


def train(pixels: np.ndarray, labels: np.ndarray) -> nn.Module:
    model = network()
    images, classes = scale(pixels), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    steps = EPOCHS * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    shuffle = torch.Generator().manual_seed(SEED)
    model.train()
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images), generator=shuffle).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), classes[rows]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def accuracy(model: nn.Module, pixels: np.ndarray, labels: np.ndarray) -> float:
    with torch.no_grad():
        return float((model(scale(pixels)).argmax(1).numpy() == labels).mean())


def export(model: nn.Module, path: Path) -> None:
    # In eval mode, yet as TrainingMode.PRESERVE: EVAL would fold BatchNorm into Conv.
    torch.onnx.export(
        model,
        (torch.zeros(2, 1, 8, 8),),
        str(path),
        dynamo=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        opset_version=17,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
    )


def write_samples(path: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    """One held-out digit a line: the label, then 64 grey values 0..16, row by row."""
    rows = [",".join(map(str, (y, *x))) for x, y in zip(pixels.astype(int), labels, strict=True)]
    path.write_text("\n".join(rows) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent)
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    train_x, test_x, train_y, test_y = split()
    model = train(train_x, train_y)
    export(model, folder / "digits.onnx")
    write_samples(folder / "digits.csv", test_x[:SAMPLES], test_y[:SAMPLES])
    print(f"trained on  {len(train_y)} digits: accuracy {accuracy(model, train_x, train_y):.4f}")
    print(f"held out    {len(test_y)} digits: accuracy {accuracy(model, test_x, test_y):.4f}")


if __name__ == "__main__":
    main()
