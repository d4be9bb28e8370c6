"""Labels and texts as every verb lays them out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from infc.diagnostics import printable

if TYPE_CHECKING:
    pass


LABEL_WIDTH = 12

TEXT_WIDTH = 96


def labelled(rows: Iterable[tuple[str, str]], indent: str = "  ") -> str:
    """Labels on the left, texts of any number of lines on the right."""
    out = []
    for label, text in rows:
        head, *rest = printable(text).splitlines() or [""]
        label = click.style(label.ljust(LABEL_WIDTH), dim=True)  # noqa: PLW2901
        out.append(f"{indent}{label}{head}".rstrip())
        out.extend(f"{indent}{' ' * LABEL_WIDTH}{line}".rstrip() for line in rest)
    return "\n".join(out)


def paired(pairs: Iterable[tuple[str, Any]]) -> str:
    """Names and values with commas between them: `ai.onnx 17, my 1`."""
    return ", ".join(f"{name} {value}" for name, value in pairs)


def wrapped(parts: Iterable[str]) -> str:
    """`parts` with commas between them, broken into lines between parts only."""
    lines = [""]
    for part in parts:
        if lines[-1] and len(lines[-1]) + 2 + len(part) > TEXT_WIDTH - LABEL_WIDTH:
            lines[-1] += ","
            lines.append("")
        lines[-1] += f", {part}" if lines[-1] else part
    return "\n".join(lines)
