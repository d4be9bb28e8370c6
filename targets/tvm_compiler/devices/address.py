"""`tracker://HOST:PORT/KEY`: a device that a tracker of TVM's has."""

from __future__ import annotations

import re
from dataclasses import dataclass

from infc.diagnostics import fail

PORT = 9190
"""Where TVM's tracker listens where nothing else is said."""
SCHEME = "tracker://"
_FORM = re.compile(
    r"tracker://(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?/(?P<key>[A-Za-z0-9._-]+)"
)


@dataclass(frozen=True, slots=True)
class DeviceAddress:
    """Where the tracker is, and the key that the device was registered under."""

    host: str
    port: int
    key: str

    @classmethod
    def parse(cls, text: str) -> DeviceAddress:
        """Parse the value of `--remote`.

        Raises:
            InfcError: E110.
        """
        match = _FORM.fullmatch(text)
        port = int(match["port"] or PORT) if match else 0
        if match is None or not 0 < port < 65536:
            raise fail(
                "E110",
                f"`--remote {text}` is not tracker://HOST[:PORT]/KEY",
                help="for example `--remote tracker://127.0.0.1:9190/raspberry-pi-4`, the key that "
                "`infc device server` was started with",
            )
        return cls(match["host"].strip("[]"), port, match["key"])

    def __str__(self) -> str:
        """As the user writes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{SCHEME}{host}:{self.port}/{self.key}"
