"""The worker of `infc finish` on this machine: build and verify, as `./finish` does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infc.device.device_error import DeviceError
from infc.device.producing import Order, produce
from infc.workers.protocol import report


def _produce(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The `result` of `infc.device.producing.produce`, or the `trouble` that keeps it from it."""
    bundle = Path(payload["bundle"])
    order = Order(
        bundle,
        json.loads((bundle / "manifest.json").read_text(encoding="utf-8")),
        Path(payload["workshop"]),
        payload["module"],
        payload["verify"],
    )

    def log(line: str) -> None:
        print(line, flush=True)  # noqa: T201
        report(line=line)

    try:
        return {"result": produce(order, log)}
    except DeviceError as error:
        return {"trouble": error.to_json()}
    except OSError as error:
        message = f"{error.filename}: {error.strerror}"
        return {"trouble": DeviceError("disk", message).to_json()}


ACTIONS = {"produce": _produce}
