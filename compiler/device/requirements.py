"""What a machine has to have for an engine: the library, its release, a GPU that fits."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from . import processes, trtexec
from .device_error import DeviceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .processes import Log
    from .producing import Order


def look_around(order: Order, log: Log) -> dict[str, Any]:
    """The library's `version` and the first `gpu`, which are what the bundle asks for.

    Raises:
        DeviceError: machine.
    """
    asked = {"builder": order.file("builder"), "module": order.module}
    try:
        found = processes.call("probe", asked, order.workshop, log, order.timeout_s)
    except DeviceError as error:
        if error.kind != "machine":
            raise
        program = None if order.is_stand_in else trtexec.find()
        if program is None:
            help = "install it with TensorRT; trtexec will do where that is not to be had"
            message = f"Python's module `{order.module}` cannot be imported here: {error.message}"
            raise DeviceError("machine", message, help, error.details) from error
        log(f"there is no Python module `{order.module}`: {program} builds")
        seen = processes.call("gpu", asked, order.workshop, log, order.timeout_s)
        found = {**seen, "version": trtexec.version_of(program), "trtexec": program}
    if not order.is_stand_in:
        require_release(order, found["version"])
        require_gpu(order, found["gpu"])
    return found


def require_release(order: Order, version: str) -> None:
    """Hold the library's version to the release that the bundle is for.

    Raises:
        DeviceError: machine.
    """
    wanted = order.how["requires"]["release"]
    have, need = _numbers(version), _numbers(wanted)
    if need and (have[0] != need[0] or have < need):
        raise DeviceError(
            "machine",
            f"{order.module} is {version} here; the bundle is for {wanted} or a later {need[0]}.x",
            "update the library, or compile for the target that has this one",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version)[:2])


def require_gpu(order: Order, gpu: Mapping[str, Any]) -> None:
    """Hold the GPU, as `probe` describes it, to the compute capability that the bundle is for.

    Raises:
        DeviceError: machine.
    """
    if "reason" in gpu:
        raise DeviceError(
            "machine",
            f"there is no GPU to build the engine on: {gpu['reason']}",
            "run this on the device itself; in a container, give it the GPU",
        )
    wanted = order.how["requires"]["compute_capabilities"]
    found = _sm(gpu["compute_capability"])
    if wanted and found not in wanted:
        raise DeviceError(
            "machine",
            f"{gpu['name']} has the compute capability {found}; the bundle is for "
            f"{' or '.join(wanted)}",
            "compile for the target that has this GPU (`infc targets`)",
        )


def _sm(capability: Any) -> str:
    """`sm87` for 8.7, (8, 7), "87" and "sm87"."""
    text = capability if isinstance(capability, str) else ".".join(map(str, capability))
    return "sm" + re.sub(r"\D", "", text)
