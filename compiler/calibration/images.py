"""A folder of photos as samples: decoded by Pillow, resized, cut and scaled as the user says.

Pixels are 8 bits a channel; 16-bit ones keep their upper half, transparency is dropped, and a
photo is turned the way its EXIF orientation says, as OpenCV's imread does.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.calibration.fitting import scale, shown
from infc.calibration.npy import damaged
from infc.calibration.sources import Listing
from infc.diagnostics import fail
from infc.preprocessing import EXAMPLE, Preprocess
from infc.signature import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as Picture

    from infc.calibration.sources import Row

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".webp"})
FORMATS = ("JPEG", "PNG", "BMP", "PPM", "WEBP")
"""Pillow's other decoders start programs, or are less looked after."""
MAX_PIXELS = 1 << 26


@dataclass(frozen=True, slots=True)
class Layout:
    """What becomes of the channels: `color` as in `Preprocess`, `first` for CHW, `flat` for HW."""

    color: str
    first: bool
    flat: bool


class ImageFolder:
    """Photos for a model with one input, (N, C, H, W), (N, H, W, C) or without N or C.

    Raises:
        InfcError: E110 without a spec, E403 for an input that is no picture, E405 for a model with
            several inputs, E501 without Pillow.
    """

    kind = "images"
    text = False

    def __init__(
        self, listing: Listing, inputs: Sequence[TensorSpec], spec: Preprocess | None
    ) -> None:
        if len(inputs) != 1:
            names = ", ".join(f"`{i.name}`" for i in inputs)
            raise fail(
                "E405",
                f"photos feed one input, and the model has {len(inputs)}: {names}",
                where=listing.name,
                help="make `.npz` files of them, with an array for each input",
            )
        if spec is None:
            raise fail(
                "E110",
                "nothing says how photos become the model's input",
                where=listing.name,
                help=f"add `--preprocess {EXAMPLE}`, with the model's own numbers; "
                "`--preprocess color=rgb` takes pixels as they are",
            )
        if find_spec("PIL") is None:
            raise fail(
                "E501",
                "reading photos takes Pillow",
                help=f"`{sys.executable} -m pip install 'pillow>=11'`",
            )
        (self._input,) = inputs
        self._spec = spec
        self._listing = listing
        self._layout = layout_of(self._input, spec)
        self.count = len(listing.files)
        shape = tuple(d if isinstance(d, int) else 1 for d in self._input.shape or ())
        rank = 2 if self._layout.flat else 3
        self.shapes = {self._input.name: shape[-rank:]}

    def rows(self, indices: Iterable[int]) -> Iterator[Row]:
        """Decode one at a time."""
        for index in indices:
            where = self._listing.where(index)
            array = load(self._listing.path(index), where, self._spec, self._layout)
            yield where, {self._input.name: array}

    def digest(self, digest: Any, indices: Iterable[int]) -> bool:
        """The files, and the decoder: versions of Pillow differ in rounding."""
        try:
            digest.update(version("pillow").encode())
        except PackageNotFoundError:
            return False
        self._listing.digest(digest, indices)
        return True


def layout_of(spec: TensorSpec, preprocess: Preprocess) -> Layout:
    """How a photo is laid out for the input `spec`: as the user says, else as its shape says.

    Raises:
        InfcError: E403 where the input is no picture, or the spec is for another.
    """
    shape, asked = spec.shape or (), preprocess.layout
    if len(shape) not in (3, 4) or (asked is not None and len(asked) != len(shape)):
        why = f", which has {len(asked)} dimensions" if asked else ""
        raise fail(
            "E403",
            f"photos do not fit `{spec.name}`, which takes {shown(shape)}, as `layout={asked}`{why}"
            if asked
            else f"`{spec.name}` takes {shown(shape)}, which is no picture",
            help="a picture has three dimensions, or four with the batch",
        )
    color = preprocess.color or ("gray" if 1 in (shape[-3], shape[-1]) else "rgb")
    channels = 1 if color == "gray" else 3
    if asked is not None:
        return Layout(color, asked.endswith("chw"), False)
    if len(shape) == 3 and channels == 1 and channels not in (shape[0], shape[-1]):
        return Layout(color, True, True)
    return Layout(color, not (shape[-1] == channels and shape[-3] != channels), False)


def load(path: Path, where: str, spec: Preprocess, layout: Layout) -> np.ndarray[Any, Any]:
    """A photo as (C, H, W), (H, W, C) or (H, W): uint8, or float32 where the spec scales.

    Raises:
        InfcError: E402 where it cannot be decoded, E403 where it is smaller than the crop.
    """
    import numpy as np
    from PIL import Image, ImageOps, WebPImagePlugin

    assert WebPImagePlugin  # importing it adds WEBP to the formats that are always there
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as opened:
                upright = ImageOps.exif_transpose(opened)
                picture = _eight_bits(upright).convert("L" if layout.color == "gray" else "RGB")
    except Exception as error:  # decoders meet hostile bytes with errors of many types
        raise damaged(where, f"{type(error).__name__}: {str(error)[:120]}") from error
    picture = _sized(picture, spec, where)
    array = np.asarray(picture)
    if layout.flat:
        return scale(array, spec, where)
    array = array.reshape(*array.shape[:2], -1)
    if layout.color == "bgr":
        array = array[:, :, ::-1]
    if layout.first:
        array = array.transpose(2, 0, 1)
    known = replace(spec, layout="chw" if layout.first else "hwc")
    return np.ascontiguousarray(scale(array, known, where))


def _eight_bits(picture: Picture) -> Picture:
    """Pillow clips 16-bit samples to 255 instead of scaling them."""
    import numpy as np
    from PIL import Image

    if not picture.mode.startswith("I"):
        return picture
    return Image.fromarray((np.asarray(picture).astype(np.uint32) >> 8).clip(0, 255).astype("u1"))


def _sized(picture: Picture, spec: Preprocess, where: str) -> Picture:
    """Resized and cut: the width comes first in Pillow."""
    width, height = picture.size
    if isinstance(spec.resize, int):
        short = min(width, height)
        to = (spec.resize * width // short, spec.resize * height // short)
        picture = _resized(picture, to, spec.filter, where)
    elif spec.resize is not None:
        to = (spec.resize[1], spec.resize[0])
        picture = _fitted(picture, to, spec, where)
    if spec.crop is None:
        return picture
    (width, height), (tall, wide) = picture.size, spec.crop
    if width < wide or height < tall:
        raise fail(
            "E403",
            f"the photo is {height}x{width}, smaller than `crop={tall}x{wide}`",
            where=where,
            help="resize it first: `resize=` goes before `crop=`",
        )
    return _cut(picture, wide, tall)


def _fitted(picture: Picture, to: tuple[int, int], spec: Preprocess, where: str) -> Picture:
    from PIL import Image

    if spec.fit == "stretch":
        return _resized(picture, to, spec.filter, where)
    ratios = [want / have for want, have in zip(to, picture.size, strict=True)]
    ratio = min(ratios) if spec.fit == "letterbox" else max(ratios)
    inner = (max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio)))
    picture = _resized(picture, inner, spec.filter, where)
    if spec.fit == "cover":
        return _cut(picture, *to)
    grey = (spec.pad,) * len(picture.getbands())
    canvas = Image.new(picture.mode, to, grey if len(grey) > 1 else spec.pad)
    canvas.paste(picture, ((to[0] - inner[0]) // 2, (to[1] - inner[1]) // 2))
    return canvas


def _cut(picture: Picture, width: int, height: int) -> Picture:
    left, top = round((picture.width - width) / 2), round((picture.height - height) / 2)
    return picture.crop((left, top, left + width, top + height))


def _resized(picture: Picture, to: tuple[int, int], name: str, where: str) -> Picture:
    import numpy as np
    from PIL import Image

    if to[0] * to[1] > MAX_PIXELS:
        raise fail(
            "E403",
            f"the photo would become {to[1]}x{to[0]}, above {MAX_PIXELS} pixels",
            where=where,
        )
    if name == "opencv-linear":
        across = _between(np.asarray(picture).swapaxes(0, 1), to[0]).swapaxes(0, 1)
        return Image.fromarray(np.rint(_between(across, to[1])).astype(np.uint8))
    return picture.resize(to, Image.Resampling[name.upper()])


def _between(array: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """The first axis at `size` places, each from its two neighbours; float32.

    Place i lies at (i + 0.5) * step - 0.5, and the outermost pixels go on beyond the edge. Pillow's
    own transform of that kind cuts fractions off, which makes photos half a level darker.
    """
    import numpy as np

    at = (np.arange(size) + 0.5) * len(array) / size - 0.5
    low = np.floor(at).astype(int)
    part = (at - low).astype(np.float32).reshape(-1, *[1] * (array.ndim - 1))
    below, above = (array[(low + i).clip(0, len(array) - 1)].astype(np.float32) for i in (0, 1))
    between: np.ndarray[Any, Any] = below + (above - below) * part
    return between
