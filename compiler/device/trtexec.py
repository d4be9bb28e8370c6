"""trtexec, where Python lacks the module that comes with TensorRT: it builds, and proves nothing.

Source: samples/trtexec of TensorRT 10.3 and 11.1; it says its version in the first line of whatever
it is asked for: `&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec ...`.
"""

from __future__ import annotations

import re
import shlex
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import processes
from .device_error import DeviceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .processes import Log

PLACES = ("/usr/src/tensorrt/bin/trtexec", "/opt/tensorrt/bin/trtexec")
"""Where JetPack and NVIDIA's containers have it."""
HELP_S = 60.0


def find() -> str | None:
    """The program, None where there is none."""
    there = [place for place in PLACES if Path(place).is_file()]
    return shutil.which("trtexec") or (there[0] if there else None)


def version_of(program: str) -> str:
    """The release that `program` is of.

    Raises:
        DeviceError: machine, where it does not say.
    """
    lines: list[str] = []
    processes.run([program, "--help"], lines.append, HELP_S)
    match = re.search(r"\[TensorRT v(\d+)\]", "\n".join(lines))
    if match is None:
        raise DeviceError("machine", f"{program} does not say which release it is")
    number = int(match[1])
    # Two digits each for minor and patch from 10 on, one and two before.
    major = number // 10000 if number >= 100000 else number // 1000
    minor = number // 100 % (100 if number >= 100000 else 10)
    return f"{major}.{minor}.{number % 100}"


def command_of(program: str, line: str, places: Mapping[str, str]) -> list[str]:
    """The words of the manifest's `line`, with `places` for the options that name files."""
    words = [program]
    for word in shlex.split(line)[1:]:
        option, equals, _ = word.partition("=")
        words.append(f"{option}={places[option]}" if equals and option in places else word)
    return words


def build(
    program: str,
    line: str,
    places: Mapping[str, str],
    log: Log,
    timeout_s: float | None,
) -> dict[str, Any]:
    """Build the engine that `places` names; the facts are the builder's, as far as they are known.

    Raises:
        DeviceError: refused, time, crashed.
    """
    engine = Path(places["--saveEngine"])
    lines: list[str] = []

    def keep(text: str) -> None:
        lines.append(text)
        del lines[: -processes.TAIL_LINES]
        log(text)

    started = time.monotonic()
    status = processes.run(command_of(program, line, places), keep, timeout_s)
    tail = "\n".join(["the last lines of its log:", *lines])
    if status is None:
        message = f"building the engine took more than {timeout_s:g} s"
        raise DeviceError("time", message, details=tail)
    if status != 0 or not engine.is_file():
        raise DeviceError("refused", f"trtexec left with status {status}", details=tail)
    seconds = round(time.monotonic() - started, 3)
    return {"seconds": seconds, "bytes": engine.stat().st_size, "timing_cache": False}
