"""Building on another machine, over OpenSSH: nothing is there but Python 3 and the library.

    ssh -> look around -> send what is not there -> build, verify -> fetch -> remove

What is sent lies there in a folder named after its content (`~/.cache/infc/remote/KEY`). It is
gone at the end, also after an error and after Ctrl-C. Where the connection breaks it stays: infc
connects again, and sends only the rest; so does the same command later.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infc.bundle import MANIFEST, sha256_of
from infc.device.producing import PLAN, TIMING_CACHE
from infc.diagnostics import InfcError, fail
from infc.formatting import format_bytes
from infc.remote.address import Address
from infc.remote.session import FarError, LostError, Session

__all__ = ["Address", "Errand", "FarError", "produce"]

PAUSES_S = (1.0, 2.0, 4.0)
"""Before each further try to connect, after the connection broke."""
CLEAN_S = 10.0
"""How long the other machine may take to remove what it was sent, after Ctrl-C."""
FULL = "disk"


@dataclass(slots=True)
class Errand:
    """What is built where: a deferred bundle's folder, and the workshop that the engine goes to.

    `tell` gets every line of the log, and of what is done.
    """

    bundle: Path
    manifest: Mapping[str, Any]
    package: Path
    workshop: Path
    address: Address
    module: str | None
    verify: bool
    timeout_s: float
    tell: Callable[[str], None]
    sent: dict[str, int] = field(default_factory=lambda: {"sent": 0, "there": 0})
    token: str = field(default_factory=lambda: secrets.token_hex(8))

    def files(self) -> dict[str, Path]:
        """What the other machine needs, by its name there."""
        how = self.manifest["on_device"]
        wanted = [how["builder"], how["spec"], MANIFEST]
        wanted += [n for n in self.manifest["files"] if n.startswith(how["graph"])]
        if self.verify:
            wanted += [n for n in self.manifest["files"] if n.startswith("reference/")]
        own = {f"finishing/{p.name}": p for p in self.package.glob("*.py")}
        return {**{name: self.bundle / name for name in wanted}, **own}


def produce(errand: Errand) -> dict[str, Any]:
    """Build and verify on the other machine; the engine is `plan` in the workshop.

    The result is that of `infc.device.producing.produce`.

    Raises:
        FarError: what keeps that machine from it.
        InfcError: E501, E503, E512, E513, E514.
    """
    files = errand.files()
    rows = {name: (path.stat().st_size, sha256_of(path)) for name, path in sorted(files.items())}
    key = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:32]
    cache = errand.workshop / TIMING_CACHE
    if cache.is_file():
        files[f".finish/{TIMING_CACHE}"] = cache
        rows[f".finish/{TIMING_CACHE}"] = (cache.stat().st_size, sha256_of(cache))
    try:
        return _persistently(errand, key, files, rows)
    except KeyboardInterrupt:
        with _undisturbed():
            _clean(errand, key)
        raise
    except InfcError as error:
        if error.diagnostics[0].code == "E503":
            _clean(errand, key)
        raise


def _persistently(
    errand: Errand, key: str, files: Mapping[str, Path], rows: Mapping[str, tuple[int, str]]
) -> dict[str, Any]:
    """Try again where the connection breaks."""
    reason = ""
    for pause_s in (*PAUSES_S, None):
        try:
            return _once(errand, key, files, rows)
        except LostError as lost:
            reason = str(lost)
        except InfcError as error:
            # The first time it says why infc may not get in; after that, it did get in.
            if not reason or error.diagnostics[0].code != "E512":
                raise
            reason = "\n".join([error.diagnostics[0].message, *error.diagnostics[0].notes])
        if pause_s is not None:
            errand.tell(f"the connection to {errand.address} was lost; again in {pause_s:g} s")
            time.sleep(pause_s)
    raise fail(
        "E513",
        f"the connection to `{errand.address}` was lost, and cannot be made again",
        notes=(f"ssh said:\n{reason}",),
        help="run `infc finish BUNDLE --remote` when it is back: only what is missing is sent",
    )


def _once(
    errand: Errand, key: str, files: Mapping[str, Path], rows: Mapping[str, tuple[int, str]]
) -> dict[str, Any]:
    """All of it over one connection."""
    errand.tell(f"connecting to {errand.address}")
    session = Session(errand.address, errand.timeout_s)
    try:
        try:
            _send(errand, session, session.open(key, errand.token, rows), files, rows)
            errand.tell(f"building on {errand.address}")
            result = session.produce(errand.module, errand.verify, errand.tell)
            errand.tell("fetching the engine")
            session.get(f".finish/{PLAN}", errand.workshop / PLAN)
        except FarError as error:
            if error.kind != "busy":
                _leave(errand, session)
            raise
        _leave(errand, session)
        return dict(result)
    finally:
        session.close()


def _send(
    errand: Errand,
    session: Session,
    found: Mapping[str, Any],
    files: Mapping[str, Path],
    rows: Mapping[str, tuple[int, str]],
) -> None:
    """Send what is not there; refuse what cannot fit before it is sent."""
    there: Mapping[str, int] = found["there"]
    missing = {n: row for n, row in rows.items() if there.get(n) != row[0]}
    total = sum(size - there.get(n, 0) for n, (size, _) in missing.items())
    errand.sent["there"] = sum(there.values())
    if total > found["free"]:
        room = f"{format_bytes(total)} are to be sent, and there is room for"
        message = f"{found['folder']}: {room} {format_bytes(found['free'])}"
        raise FarError({"kind": FULL, "message": message})
    errand.tell(f"sending {format_bytes(total)} to {errand.address}")

    def sent(count: int) -> None:
        errand.sent["sent"] += count

    for name, (_, sha256) in missing.items():
        offset = there.get(name, 0)
        try:
            session.put(name, files[name], sha256, offset, sent)
        except FarError as error:
            if error.kind != "damaged" or not offset:
                raise
            # What was there is not its beginning.
            session.put(name, files[name], sha256, 0, sent)


def _leave(errand: Errand, session: Session) -> None:
    """Take the timing cache along, which serves the next build, and remove the rest.

    What came before is worth more than a failure of this: it is not raised.
    """
    with contextlib.suppress(FarError, LostError, InfcError, OSError):
        session.get(f".finish/{TIMING_CACHE}", errand.workshop / TIMING_CACHE)
    with contextlib.suppress(FarError, LostError, InfcError):
        session.remove()


def _clean(errand: Errand, key: str) -> None:
    """Remove the folder over a connection of its own: the old one is in the middle of something."""
    with contextlib.suppress(FarError, LostError, InfcError):
        session = Session(errand.address, CLEAN_S)
        try:
            session.open(key, errand.token, {})
            session.remove()
        finally:
            session.close()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep a second Ctrl-C from interrupting the cleaning up, which takes seconds at most."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
