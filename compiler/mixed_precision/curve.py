"""The budget as pictures for `report.html`: what each layer costs, and what keeping some gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 96.0, 40.0
"""Of a picture, in its own units."""
LEAST = 0.6
"""The height of a bar that would be none."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A column of a picture; `style` is a class of the page's."""

    x: float
    y: float
    width: float
    height: float
    style: str
    title: str


@dataclass(frozen=True, slots=True)
class Curve:
    """A picture of bars; `limit` is where the budget's line is, None for none."""

    name: str
    caption: str
    bars: tuple[Bar, ...]
    limit: float | None


def curves(budget: Mapping[str, Any]) -> list[Curve]:
    """The pictures of a manifest's `quantization.budget`."""
    out = [_sensitivity(budget)] if budget["layers"] else []
    if "min_sqnr_db" in budget:
        limit = float(budget["min_sqnr_db"])
        out.append(_search(budget, "sqnr_db", "SQNR", limit, " dB"))
    if "max_drop" in budget:
        limit = float(budget["float"]["metric"]) - float(budget["max_drop"])
        out.append(_search(budget, "metric", budget["metric"].rpartition(":")[2], limit, ""))
    return out


def _sensitivity(budget: Mapping[str, Any]) -> Curve:
    """A bar for each layer, the most harmful first: SQNR with that layer alone in INT8."""
    rows = budget["layers"]
    known = [max(row["sqnr_db"], 0.0) for row in rows if row.get("sqnr_db") is not None]
    top = max(known, default=1.0) or 1.0
    heights = [
        1.0 if row.get("sqnr_db") is None else max(row["sqnr_db"], 0.0) / top for row in rows
    ]
    bars = _bars(
        [(i, h) for i, h in enumerate(heights)],
        len(rows),
        ["after" if row["kept"] else "before" for row in rows],
        [f"{row['name']}: {_db(row.get('sqnr_db'))}" for row in rows],
    )
    least = min(known, default=top)
    caption = f"each layer alone in INT8, the most harmful first: {least:.1f} to {top:.1f} dB"
    return Curve("sensitivity", caption, bars, None)


def _search(budget: Mapping[str, Any], key: str, name: str, limit: float, unit: str) -> Curve:
    """A bar for each number of layers that was tried in float, and the line of the budget."""
    points = [(row["kept"], row.get(key)) for row in budget["curve"]]
    known = [value for _, value in points if value is not None]
    low, high = min([*known, limit]), max([*known, limit])
    low -= 0.1 * ((high - low) or 1.0)
    span = (high - low) * 1.05
    heights = [(k, 1.0 if v is None else (v - low) / span) for k, v in points]
    texts = [f"{k} in float: {'exact' if v is None else f'{v:.4g}{unit}'}" for k, v in points]
    met = ["after" if v is None or v >= limit else "before" for _, v in points]
    count = max(k for k, _ in points) + 1
    caption = f"{name} with the first layers in float; the line is the budget, {limit:.4g}{unit}"
    line = HEIGHT * (1 - (limit - low) / span)
    return Curve(name, caption, _bars(heights, count, met, texts), round(line, 2))


def _bars(
    heights: Sequence[tuple[int, float]], count: int, styles: Sequence[str], titles: Sequence[str]
) -> tuple[Bar, ...]:
    """`heights` are (column, part of the height); there are `count` columns."""
    step = WIDTH / max(count, 8)
    return tuple(
        Bar(
            round(column * step, 2),
            round(HEIGHT - max(HEIGHT * part, LEAST), 2),
            round(step * 0.8, 2),
            round(max(HEIGHT * part, LEAST), 2),
            style,
            title,
        )
        for (column, part), style, title in zip(heights, styles, titles, strict=True)
    )


def _db(value: float | None) -> str:
    return "exact" if value is None else f"{value:.1f} dB"
