"""`ssh://[user@]host[:port]`, checked: what it is made of becomes words of a command."""

from __future__ import annotations

import re
from dataclasses import dataclass

from infc.diagnostics import fail

_FORM = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.\\@-]*)@)?"
    r"(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?\])"
    r"(?::(?P<port>[0-9]{1,5}))?/?"
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where ssh goes; a `user` of "" and a `port` of 0 are left to its configuration."""

    host: str
    user: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse the value of `--remote`.

        Raises:
            InfcError: E110.
        """
        match = _FORM.fullmatch(text)
        port = int(match["port"] or 0) if match else 0
        if match is None or port > 65535:
            raise fail(
                "E110",
                f"`--remote {text}` is not ssh://[USER@]HOST[:PORT]",
                help="for example `--remote ssh://nvidia@orin.local`; a HOST of ~/.ssh/config "
                "will do, too",
            )
        return cls(match["host"].strip("[]"), match["user"] or "", port)

    @property
    def words(self) -> list[str]:
        """As arguments of ssh, the host last."""
        port = ["-p", str(self.port)] if self.port else []
        user = ["-l", self.user] if self.user else []
        return [*port, *user, "--", self.host]

    def __str__(self) -> str:
        """As the user would write it to ssh itself."""
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        return f"{user}{self.host}{port}"
