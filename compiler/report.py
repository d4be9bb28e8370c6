"""report.html: what the manifest says, for a person."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any


def render(manifest: Mapping[str, Any], timings: Mapping[str, Any] | None) -> str:
    """One self-contained HTML page; with `timings` it also says how long everything took."""
    body = json.dumps({"manifest": manifest, "timings": timings}, indent=1)
    return f"<!doctype html><title>infc</title><pre>{escape(body)}</pre>\n"
