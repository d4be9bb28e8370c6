"""A spoken-command classifier as one writes it in PyTorch: nothing in it knows of infc."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MELS, COMMANDS = 40, 12


class Commands(nn.Module):
    """Log-mel frames, padded to one length, and a mask of those that are there."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv1d(MELS, width, 5, padding=2),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Conv1d(width, width, 5, padding=2, groups=width),
            nn.Conv1d(width, width, 1),
            nn.BatchNorm1d(width),
            nn.ReLU(),
        )
        self.head = nn.Linear(width, COMMANDS)

    def forward(self, frames: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """`frames`: (batch, MELS, length) float32; `mask`: (batch, length), true where spoken."""
        there = mask.unsqueeze(1).to(frames.dtype)
        encoded = self.encoder(frames) * there
        embedding = encoded.sum(2) / there.sum(2).clamp(min=1)
        return {"scores": self.head(embedding).softmax(-1), "embedding": embedding}


def commands() -> tuple[nn.Module, dict[str, Tensor]]:
    """The model, and what it can be called with: infc takes shapes and types from that."""
    return Commands(), {
        "frames": torch.randn(1, MELS, 98),
        "mask": torch.ones(1, 98, dtype=torch.bool),
    }
