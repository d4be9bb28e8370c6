"""Quantities and tables as people read them: in the terminal and in `report.html`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def format_bytes(count: int) -> str:
    """`count` bytes in decimal units with three digits: `1.23 MB`."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.5 or unit == "TB":
            break
    digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{digits}f} {unit}"


def format_seconds(seconds: float) -> str:
    """`seconds` as `870 us`, `12.3 ms`, `4.56 s` or `3 min 20 s`."""
    if seconds < 0.9995e-3:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 99.95:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def format_error(value: float | None) -> str:
    """An absolute or relative error; None, as in the manifest, is one that is not finite."""
    if value is None:
        return "not finite"
    return "0" if value == 0 else f"{value:.2g}"


def format_sqnr(value: float | None) -> str:
    """A signal to quantisation noise ratio in dB; None is one without any noise."""
    return "exact" if value is None else f"{value:.1f} dB"


def format_shape(shape: Sequence[int | str | None] | None) -> str:
    """A shape as `--input` writes it, `?` for an unknown dimension or rank."""
    if shape is None:
        return "?"
    return "x".join("?" if d is None else str(d) for d in shape) or "scalar"


def format_affine(row: Mapping[str, Any]) -> str:
    """What the integers of a tensor of the manifest stand for: `(q - 128) * 0.0039`; "" if none."""
    if "scale" not in row:
        return ""
    zero_point = row["zero_point"]
    offset = f"(q {'-' if zero_point >= 0 else '+'} {abs(zero_point)})" if zero_point else "q"
    return f"{offset} * {row['scale']:.9g}"


def count(number: int, noun: str) -> str:
    """`1 node`, `1,234 nodes`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(items: Sequence[str], most: int = 5) -> str:
    """The first `most` items, and how many more there are: `a, b and 7 more`."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def columns(rows: Sequence[Sequence[str]], *, indent: str = "", right: Sequence[int] = ()) -> str:
    """Align `rows` in columns two spaces apart; those in `right` to the right, no trailing space.

    Widths count characters, so the cells must hold no escape sequences.
    """
    if not rows:
        return ""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def format_requirements(requires: Mapping[str, Any]) -> str:
    """What a device has to have that an engine is built on: `on_device.requires` in words."""
    release, capabilities = requires["release"], requires["compute_capabilities"]
    major = release.partition(".")[0]
    library = f"TensorRT {release} or a later {major}.x" if release else "TensorRT"
    return f"{library} and a GPU" + (f" of {' or '.join(capabilities)}" if capabilities else "")
