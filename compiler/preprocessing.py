"""How a calibration file's numbers become a model's input: `KEY=VALUE,KEY=VALUE,...`.

    resize=240x320     height x width; one number: the shorter side, the other in proportion
    fit=letterbox      `stretch` (default), `letterbox` (all of it, padded), `cover` (cut centrally)
    pad=114            the letterbox's grey, 0..255; default 0
    filter=bicubic     `nearest`, `box`, `bilinear` (default), `bicubic`, `lanczos`: Pillow's, which
                       average over all source pixels when shrinking; `opencv-linear` looks at four,
                       as OpenCV's INTER_LINEAR does
    crop=224x224       height x width cut from the centre, after resizing; one number: a square
    color=bgr          `rgb` (default), `bgr`, `gray` (ITU-R 601 luma)
    range=1            pixels count from 0 to this before `mean`; default 255
    mean=127           taken away: one number, or one for each channel: `123.7:116.3:103.5`
    std=58.4           divided by, the same way
    scale=1/128        multiplied by, the same way
    layout=nchw        `nchw`, `nhwc`, `chw`, `hwc`; without it the input's shape says which
    columns=1:43       of a CSV: first (from 0) and one past the last; either may be left out
    label=0            of a CSV: a column that is no input, by its number or by its name

so that with x from 0 to `range`

    y = (x - mean) / std * scale
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from infc.diagnostics import did_you_mean, fail

FITS = ("stretch", "letterbox", "cover")
FILTERS = ("nearest", "box", "bilinear", "bicubic", "lanczos", "opencv-linear")
COLORS = ("rgb", "bgr", "gray")
LAYOUTS = ("nchw", "nhwc", "chw", "hwc")
FOR_IMAGES = ("resize", "fit", "pad", "filter", "crop", "color")
FOR_TABLES = ("columns", "label")
MAX_SIDE = 1 << 16
"""Pixels in one direction: more is no picture."""
EXAMPLE = "resize=240x320,color=rgb,mean=127,scale=1/128,layout=nchw"


@dataclass(frozen=True, slots=True)
class Preprocess:
    """The steps of the module's docstring; what is None or empty is not done.

    `resize` is (height, width) or the shorter side, `crop` (height, width), both in pixels; `mean`,
    `std` and `scale` hold one number or one for each channel.
    """

    resize: tuple[int, int] | int | None = None
    fit: str = "stretch"
    pad: int = 0
    filter: str = "bilinear"
    crop: tuple[int, int] | None = None
    color: str | None = None
    range: float = 255.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    layout: str | None = None
    columns: tuple[int, int | None] | None = None
    label: str | None = None

    @classmethod
    def parse(cls, text: str) -> Preprocess:
        """Parse `KEY=VALUE,KEY=VALUE,...`.

        Raises:
            InfcError: E110, with the part that does not parse or contradicts another.
        """
        values: dict[str, Any] = {}
        for part in text.split(","):
            key, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals or not key or not value:
                raise fail(
                    "E110",
                    f"`{part.strip()}` in `--preprocess {text}` is not KEY=VALUE",
                    help=f"for example `{EXAMPLE}`",
                )
            if key not in _PARSERS:
                hint = did_you_mean(key, _PARSERS) or _CALLED_OTHERWISE.get(key, "")
                raise fail(
                    "E110",
                    f"`--preprocess` knows no `{key}`",
                    help=f"{hint}there are: {', '.join(f'`{k}`' for k in _PARSERS)}",
                )
            if key in values:
                raise fail("E110", f"`{key}=` is given twice in `--preprocess {text}`")
            try:
                values[key] = _PARSERS[key](value)
            except (ValueError, ZeroDivisionError) as error:
                why = error if isinstance(error, _ExplainedError) else "is not a value"
                raise fail(
                    "E110", f"`{key}={value}` in `--preprocess` {why}", help=_MEANING[key]
                ) from error
        spec = cls(**values)
        spec._require_sense(values)
        return spec

    def _require_sense(self, given: dict[str, Any]) -> None:
        """Refuse what would do nothing."""
        if "fit" in given and not isinstance(self.resize, tuple):
            raise fail("E110", f"`fit={self.fit}` needs `resize=HEIGHTxWIDTH`")
        if "pad" in given and self.fit != "letterbox":
            raise fail("E110", "`pad=` needs `fit=letterbox`")
        if "filter" in given and self.resize is None:
            raise fail("E110", f"`filter={self.filter}` needs `resize=`")
        lengths = {n for n in (len(self.mean), len(self.std), len(self.scale)) if n > 1}
        if len(lengths) > 1:
            raise fail(
                "E110",
                "`mean`, `std` and `scale` are for different numbers of channels: "
                + " and ".join(str(n) for n in sorted(lengths)),
            )

    @property
    def scales(self) -> bool:
        """Whether numbers change, beyond the order they come in."""
        return bool(self.mean or self.std or self.scale) or self.range != 255.0

    def given(self) -> tuple[str, ...]:
        """The keys that differ from doing nothing, in order."""
        default = Preprocess()
        return tuple(
            f.name for f in fields(self) if getattr(self, f.name) != getattr(default, f.name)
        )

    def __str__(self) -> str:
        """What `parse` makes this of; the same for specs that do the same."""
        return ",".join(f"{key}={_shown(key, getattr(self, key))}" for key in self.given())


class _ExplainedError(ValueError):
    """A value error whose message goes on after the value."""


def _one_of(*names: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in names:
            raise _ExplainedError(f"is none of {', '.join(names)}")
        return text.lower()

    return parse


def _side(text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) <= MAX_SIDE:
        raise _ExplainedError(f"is not a size in pixels, from 1 to {MAX_SIDE}")
    return int(text)


def _size(text: str) -> tuple[int, int] | int:
    height, x, width = text.lower().partition("x")
    return (_side(height), _side(width)) if x else _side(text)


def _square(text: str) -> tuple[int, int]:
    size = _size(text)
    return size if isinstance(size, tuple) else (size, size)


def _grey(text: str) -> int:
    if not re.fullmatch("[0-9]{1,3}", text) or int(text) > 255:
        raise _ExplainedError("is not a grey from 0 to 255")
    return int(text)


def _number(text: str) -> float:
    above, slash, below = text.partition("/")
    value = float(above) / float(below) if slash else float(text)
    if not math.isfinite(value):
        raise _ExplainedError("is not a finite number")
    return value


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(_number(part) for part in text.split(":"))


def _divisors(text: str) -> tuple[float, ...]:
    values = _numbers(text)
    if 0.0 in values:
        raise _ExplainedError("would make every number the same, or none")
    return values


def _positive(text: str) -> float:
    value = _number(text)
    if value <= 0:
        raise _ExplainedError("is not above 0")
    return value


def _columns(text: str) -> tuple[int, int | None]:
    first, colon, end = (part.strip() for part in text.partition(":"))
    low = int(first) if first else 0
    high = (int(end) if end else None) if colon else low + 1
    if low < 0 or (high is not None and high <= low):
        raise _ExplainedError("names no column")
    return low, high


_PARSERS: dict[str, Callable[[str], Any]] = {
    "resize": _size,
    "fit": _one_of(*FITS),
    "pad": _grey,
    "filter": _one_of(*FILTERS),
    "crop": _square,
    "color": _one_of(*COLORS),
    "range": _positive,
    "mean": _numbers,
    "std": _divisors,
    "scale": _divisors,
    "layout": _one_of(*LAYOUTS),
    "columns": _columns,
    "label": str,
}

_CALLED_OTHERWISE = {
    "keep-aspect": "that is `fit=letterbox` or `fit=cover`; ",
    "letterbox": "that is `fit=letterbox`; ",
    "center-crop": "that is `crop=`; ",
    "interpolation": "that is `filter=`; ",
    "channels": "that is `color=`; ",
    "norm": "that is `mean=` and `std=`; ",
}

_PER_CHANNEL = "one number or fraction, or one for each channel: `123.7:116.3:103.5`"
_MEANING = {
    "resize": "HEIGHTxWIDTH, or one number for the shorter side",
    "fit": "what becomes of the proportions",
    "pad": "the grey around the picture",
    "filter": "how pixels are averaged",
    "crop": "HEIGHTxWIDTH, or one number for a square",
    "color": "the order of the channels",
    "range": "pixels count from 0 to this: 255, or 1",
    "mean": _PER_CHANNEL,
    "std": _PER_CHANNEL,
    "scale": _PER_CHANNEL,
    "layout": "the order of the dimensions",
    "columns": "FIRST:END, counted from 0, END not included; either may be left out",
    "label": "the number of a column, from 0, or its name",
}


def _shown(key: str, value: Any) -> str:
    """The text that `_PARSERS[key]` makes `value` of."""
    if key == "columns":
        return f"{value[0]}:{'' if value[1] is None else value[1]}"
    if key in ("resize", "crop") and isinstance(value, tuple):
        return "x".join(map(str, value))
    if isinstance(value, tuple):
        return ":".join(map(repr, value))
    return str(value)
