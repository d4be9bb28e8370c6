#!/usr/bin/env python3
"""Print the faces that the source model finds: `reference.py version-RFB-320.onnx PREPARED`.

The model runs as it is, in ONNX Runtime with graph optimisation off; no part of infc is used.
The lines are those of the C++ and the Java program: photo x1 y1 x2 y2 score, the corners in whole
pixels of the photo, best score first.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnxruntime

SCORE_THRESHOLD = 0.7
IOU_THRESHOLD = 0.3


def keep_best(boxes: np.ndarray, scores: np.ndarray) -> list[int]:
    """Greedy non-maximum suppression: indices into `boxes` (K, 4), best score first."""
    order = list(np.argsort(-scores, kind="stable"))
    kept = []
    while order:
        best, rest = order[0], np.array(order[1:], dtype=np.int64)
        kept.append(int(best))
        low = np.maximum(boxes[best, :2], boxes[rest, :2])
        high = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        shared = np.clip(high - low, 0, None).prod(axis=1)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        iou = shared / (area[best] + area[rest] - shared)
        order = list(rest[iou <= IOU_THRESHOLD])
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("prepared", type=Path, help="what prepare.py wrote")
    arguments = parser.parse_args()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Initializers that are also inputs (IR 3) make the runtime warn about each of them.
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(arguments.model), options, providers=["CPUExecutionProvider"]
    )
    for line in (arguments.prepared / "photos.txt").read_text().splitlines():
        photo, width, height = line.split()
        image = np.fromfile(arguments.prepared / f"{photo}.f32", "<f4").reshape(1, 3, 240, 320)
        scores, boxes = session.run(["scores", "boxes"], {"input": image})
        faces = scores[0, :, 1].astype(np.float64)
        found = np.flatnonzero(faces > SCORE_THRESHOLD)
        faces, corners = faces[found], boxes[0, found].astype(np.float64)
        for k in keep_best(corners, faces):
            size = np.array([int(width), int(height)] * 2)
            pixels = np.floor(corners[k] * size + 0.5).astype(int)
            print(photo, *pixels, f"{np.floor(faces[k] * 1000 + 0.5) / 1000:.3f}")


if __name__ == "__main__":
    main()
