#!/usr/bin/env python3
"""Write photos as the network takes them: `prepare.py PHOTOS OUT`.

Each photo is scaled to 320x240 RGB, (value - 127) / 128, and written as OUT/<photo>.f32: raw
float32, little-endian, (1, 3, 240, 320). OUT/photos.txt lists them, one a line: name, width and
height of the photo in pixels. Needs Pillow and numpy.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 320, 240


def pixels(photo: Image.Image) -> np.ndarray:
    """The photo as (1, 3, 240, 320), float32."""
    scaled = photo.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    grey = (np.asarray(scaled, dtype=np.float32) - 127.0) / 128.0
    return np.ascontiguousarray(grey.transpose(2, 0, 1)[None], dtype="<f4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, help="folder of .jpg files")
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    index = []
    for path in sorted(arguments.photos.glob("*.jpg")):
        with Image.open(path) as photo:
            (arguments.output / f"{path.stem}.f32").write_bytes(pixels(photo).tobytes())
            index.append(f"{path.stem} {photo.width} {photo.height}\n")
    (arguments.output / "photos.txt").write_text("".join(index))


if __name__ == "__main__":
    main()
