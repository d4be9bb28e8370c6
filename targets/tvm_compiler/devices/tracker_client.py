"""A client of TVM's tracker that never waits for ever: which devices it has, and one of them.

TVM's own client has no time limits: it tries to connect for a minute, and waits for a device until
there is one. Source of the protocol: tvm/rpc/tracker.py of apache-tvm 0.27.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

from infc.diagnostics import InfcError, fail
from infc.targets.tvm_compiler.devices.address import DeviceAddress

MAGIC = 0x2F271
SUCCESS, REQUEST, SUMMARY = 0, 4, 6
"""TrackerCode."""
ANSWER_S = 10.0
BUSY_S = 60.0
"""How long a device that others have is waited for."""
MOST_BYTES = 1 << 20


class _Tracker:
    """A connection."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._stream.sendall(struct.pack("<i", MAGIC))
        if self._number() != MAGIC:
            raise OSError("it does not speak a tracker's protocol")

    def ask(self, message: Any) -> Any:
        """Send a message; the answer."""
        data = json.dumps(message).encode()
        self._stream.sendall(struct.pack("<i", len(data)) + data)
        size = self._number()
        if not 0 <= size <= MOST_BYTES:
            raise OSError("it answers with a message of no sane length")
        answer = json.loads(self._read(size))
        if not isinstance(answer, list) or not answer or answer[0] != SUCCESS:
            raise OSError(f"it answers {answer}")
        return answer[1]

    def _number(self) -> int:
        return int(struct.unpack("<i", self._read(4))[0])

    def _read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            some = self._stream.recv(size - len(found))
            if not some:
                raise OSError("it closes the connection")
            found += some
        return found


@contextlib.contextmanager
def _tracker(address: DeviceAddress, limit_s: float) -> Iterator[_Tracker]:
    """Connect.

    Raises:
        InfcError: E516 where that does not work, or an answer does not come.
    """
    place = (address.host, address.port)
    try:
        with socket.create_connection(place, timeout=ANSWER_S) as stream:
            stream.settimeout(limit_s)
            yield _Tracker(stream)
    except (OSError, ValueError, struct.error) as error:
        reason = "it does not answer" if isinstance(error, TimeoutError) else str(error)
        raise fail(
            "E516",
            f"the tracker at {address.host}:{address.port}: {reason}",
            help="start one with `infc device tracker`, or give the address of another",
        ) from error


def devices(address: DeviceAddress) -> int:
    """How many devices the tracker has under the key, those that are busy among them.

    Raises:
        InfcError: E516, no tracker.
    """
    with _tracker(address, ANSWER_S) as tracker:
        return _count(_keys(tracker), address.key)


def request(address: DeviceAddress, busy_s: float = BUSY_S) -> tuple[str, int, str]:
    """Ask for a device; its host, its port, and the words that it expects.

    Raises:
        InfcError: E516: there is no tracker, no such device, or all are busy.
    """
    with _tracker(address, ANSWER_S) as tracker:
        keys = _keys(tracker)
    if not _count(keys, address.key):
        have = ", ".join(f"`{key}`" for key in sorted(set(keys)))
        raise fail(
            "E516",
            f"the tracker at {address.host}:{address.port} has no device `{address.key}`",
            notes=[f"it has {have}" if have else "it has no devices at all"],
            help=f"start the device's server with `--key {address.key}` and this tracker",
        )
    began = time.monotonic()
    try:
        with _tracker(address, busy_s) as tracker:
            host, port, words = tracker.ask([REQUEST, address.key, "infc", 1])
    except InfcError as error:
        if time.monotonic() - began < busy_s:
            raise
        raise fail(
            "E516",
            f"every device `{address.key}` is busy, and was for {busy_s:g} s",
            help="wait, or add another device with that key",
        ) from error
    return str(host), int(port), str(words)


def _keys(tracker: _Tracker) -> list[str]:
    """The key of each device, busy ones among them."""
    rows = tracker.ask([SUMMARY]).get("server_info", [])
    return [str(row.get("key", "")).removeprefix("server:") for row in rows]


def _count(keys: list[str], key: str) -> int:
    return sum(k == key for k in keys)
