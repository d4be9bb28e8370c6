"""Hold what the firmware printed to the source model: `compare.py MODEL CSV < OUTPUT`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime

TOLERANCE = 1e-5
"""Of the largest logit: float32, added up in another order."""


def printed(lines: list[str]) -> np.ndarray:
    """The logits of each sample, (N, 10) float32, from the bits of their floats."""
    rows = [line.split(" logits ")[1].split() for line in lines if line.startswith("sample ")]
    return np.array([[int(word, 16) for word in row] for row in rows], np.uint32).view(np.float32)


def expected(model: Path, csv: Path, count: int) -> np.ndarray:
    """The same of ONNX Runtime."""
    rows = np.loadtxt(csv, delimiter=",", dtype=np.int64)[:count]
    images = (rows[:, 1:] / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"image": images})[0])


def main() -> None:
    """Compare; the exit status says whether they agree."""
    found = printed(sys.stdin.read().splitlines())
    if not len(found):
        sys.exit("the firmware printed no sample")
    right = expected(Path(sys.argv[1]), Path(sys.argv[2]), len(found))
    worst = float(np.abs(found - right).max() / np.abs(right).max())
    print(f"{len(found)} samples, relative error {worst:.1e} against ONNX Runtime")
    if not worst <= TOLERANCE:
        sys.exit(f"more than {TOLERANCE:g}")


if __name__ == "__main__":
    main()
