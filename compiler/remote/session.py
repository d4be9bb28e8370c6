"""One connection to the other machine: frames out, frames in, and what its end means."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import select
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from infc.bundle import sha256_of
from infc.diagnostics import InfcError, fail
from infc.remote import openssh
from infc.remote.address import Address
from infc.remote.far_side import CHUNK, PART, read_frame

CLOSE_S = 5.0
GREETING_BYTES = 1 << 16
"""What a login shell may say before the program does."""


class LostError(Exception):
    """The connection is gone; it may be made again. The message is ssh's."""


class FarError(Exception):
    """The other machine says why something cannot be done; `kind` is `infc.device`'s."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        super().__init__(str(document["message"]))
        self.kind = str(document["kind"])
        self.help = str(document.get("help", ""))
        self.details = str(document.get("details", ""))
        self.free_bytes = int(document.get("free", 0))


class Session:
    """A connection; `timeout_s` is for each answer."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = openssh.start(address, self._errors)
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        self._answers: queue.Queue[tuple[dict[str, Any], bytes] | None] = queue.Queue(64)
        self._closed = False
        try:
            self._greet()
        except BaseException:
            self.close()
            raise

    def _greet(self) -> None:
        """Send the program, and wait until it speaks.

        Raises:
            InfcError: E512, E514 where it never does.
            LostError: the connection was cut.
        """
        marker = f"infc-{secrets.token_hex(16)}"
        program = openssh.far_program() + f"\nmain({marker!r})\n".encode()
        reader = threading.Thread(target=self._read, args=(marker.encode(),), daemon=True)
        reader.start()
        try:
            self._write(f"{len(program)}\n".encode() + program)
            greeting = self._next()
        except LostError as lost:
            refused = openssh.refusal(self.address, self._process.poll(), self._said())
            if refused is not None:
                raise refused from lost
            raise
        assert greeting is not None

    def _read(self, marker: bytes) -> None:
        """Put every frame into the queue, and None at the end."""
        stream = self._process.stdout
        assert stream is not None
        try:
            if _skip_to(stream, marker):
                self._answers.put(({"greeting": True}, b""))
                while not self._closed:
                    frame = read_frame(stream)
                    if frame is None:
                        break
                    self._answers.put(frame)
        except (OSError, ValueError, struct.error):
            pass  # cut in the middle of a frame
        self._answers.put(None)

    def _write(self, data: bytes) -> None:
        """Write all of `data`; a machine that takes nothing any more is not waited for for ever.

        Raises:
            LostError: the connection is gone.
            InfcError: E503.
        """
        assert self._process.stdin is not None
        stream, left = self._process.stdin.fileno(), memoryview(data)
        while left:
            if not select.select([], [stream], [], self._timeout_s)[1]:
                raise self._silent(self._timeout_s)
            try:
                left = left[os.write(stream, left[:CHUNK]) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise self._lost() from error

    def _silent(self, seconds: float) -> InfcError:
        return fail(
            "E503",
            f"`{self.address}` has said nothing for {seconds:g} s",
            help="raise the limit with `--timeout SECONDS`",
        )

    def _send(self, header: Mapping[str, Any], payload: bytes = b"") -> None:
        text = json.dumps({**header, "bytes": len(payload)}).encode()
        self._write(struct.pack(">I", len(text)) + text + payload)

    def _next(self, timeout_s: float | None = None) -> tuple[dict[str, Any], bytes]:
        """The next frame.

        Raises:
            LostError: there is none any more.
            InfcError: E503 where none comes.
        """
        seconds = timeout_s or self._timeout_s
        try:
            frame = self._answers.get(timeout=seconds)
        except queue.Empty:
            raise self._silent(seconds) from None
        if frame is None:
            self._answers.put(None)
            raise self._lost()
        return frame

    def _answer(self) -> tuple[dict[str, Any], bytes]:
        header, payload = self._next()
        if "error" in header:
            raise FarError(header["error"])
        return header, payload

    def _lost(self) -> LostError:
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        return LostError(self._said().strip() or "ssh says nothing about it")

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read(1 << 16).decode("utf-8", "replace")

    def open(self, key: str, token: str, files: Mapping[str, tuple[int, str]]) -> dict[str, Any]:
        """Take the folder of `key`: how much of each of `files` (bytes, SHA-256) is `there`."""
        rows = {name: list(row) for name, row in files.items()}
        self._send({"do": "open", "key": key, "token": token, "files": rows})
        return self._answer()[0]

    def put(
        self, name: str, file: Path, sha256: str, offset: int, sent: Callable[[int], None]
    ) -> None:
        """Send a file from `offset` on; `sent` is called with the bytes of each chunk."""
        length = file.stat().st_size - offset
        request = {"do": "put", "path": name, "offset": offset, "length": length}
        self._send({**request, "sha256": sha256})
        with file.open("rb") as stream:
            stream.seek(offset)
            while length > 0:
                block = stream.read(min(CHUNK, length))
                if not block:
                    raise OSError(f"{file} has become shorter")
                self._send({"do": "chunk"}, block)
                length -= len(block)
                sent(len(block))
                if not self._answers.empty():
                    break  # an error: there is no answer before the end otherwise
        self._answer()

    def produce(self, module: str | None, verify: bool, log: Callable[[str], None]) -> Any:
        """Build and verify there; `log` gets every line."""
        self._send(
            {"do": "produce", "module": module, "verify": verify, "timeout_s": self._timeout_s}
        )
        while True:
            header, _ = self._next(3 * self._timeout_s + 60)
            if "log" in header:
                log(str(header["log"]))
            elif "error" in header:
                raise FarError(header["error"])
            elif _is_whole(header.get("result")):
                return header["result"]
            else:
                raise FarError({"kind": "crashed", "message": "the answer makes no sense"})

    def get(self, name: str, file: Path) -> bool:
        """Fetch a file, going on where an earlier connection broke; False where it is missing."""
        part = file.with_name(file.name + PART)
        offset = part.stat().st_size if part.exists() else 0
        self._send({"do": "get", "path": name, "offset": offset})
        header, _ = self._answer()
        if header.get("missing"):
            return False
        with part.open("ab") as stream:
            while stream.tell() <= header["size"]:
                chunk, payload = self._answer()
                if "chunk" not in chunk:
                    break
                stream.write(payload)
        if part.stat().st_size != header["size"] or sha256_of(part) != header["sha256"]:
            part.unlink()
            if offset:
                return self.get(name, file)  # the beginning was of another one
            raise FarError({"kind": "damaged", "message": f"{name} arrived damaged"})
        part.replace(file)
        return True

    def remove(self) -> None:
        """Remove the folder there."""
        self._send({"do": "remove"})
        self._answer()

    def close(self) -> None:
        """End the connection; what runs there ends with it."""
        self._closed = True
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        deadline = time.monotonic() + CLOSE_S
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                self._answers.get(timeout=0.05)  # the reader may wait for room
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._errors.close()


def _is_whole(result: Any) -> bool:
    """Whether `result` has what the bundle is completed with; the schema has the rest."""
    if not isinstance(result, dict):
        return False
    maps = ("facts", "library")
    keys = {"key", "facts", "library", "gpu", "verdict", "reason", "comparison", "latency"}
    return keys <= set(result) and all(isinstance(result[name], dict) for name in maps)


def _skip_to(stream: IO[bytes], marker: bytes) -> bool:
    """Read up to the end of the line that is `marker`; False where the stream ends before."""
    for _ in range(GREETING_BYTES):
        line = stream.readline(GREETING_BYTES)
        if line.rstrip(b"\n").endswith(marker):
            return True
        if not line:
            return False
    return False
