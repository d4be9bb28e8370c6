"""The other machine's half: a program that ssh hands to its Python, and that leaves with it.

It reads frames from standard input and answers with frames on standard output:

    length of the header (4 bytes, big-endian)   header (JSON)   `bytes` bytes, where it says so

    open     make or find the folder of the key, hold it; say which files are there, and how much
    put      write a file from `offset` on, in chunks; it gets its name once its hash is right
    produce  build and verify (`finishing`); `log` frames come before the result
    get      send a file from `offset` on, in chunks
    remove   remove the folder, and what was made for it
    stop     leave; the folder stays

When standard input ends the connection is gone: what runs is killed, what has arrived stays. It is
one file in the syntax of Python 3.8, and imports of infc only what it was sent.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import queue
import shutil
import signal
import struct
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

CHUNK = 1 << 18
HEADER_BYTES = 1 << 24
"""No header is larger, and no payload than a chunk: what is not so is no frame."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PART = ".part"
OLD_S = 3 * 24 * 3600
"""Folders that nobody has come back to for so long are removed."""
HOLD_S = 10.0
"""How long the folder is waited for: a connection that was cut takes a moment to be noticed."""


class FailedError(Exception):
    """Something that infc has to say to the user; `kind` is as in `finishing.device_error`."""

    def __init__(self, kind: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.document = dict(more, kind=kind, message=message)


class FarSide:
    """The folder of one key, and what can be done in it."""

    def __init__(self, output: IO[bytes], frames: queue.Queue[Any]) -> None:
        self._output = output
        self._frames = frames
        self._lock: Any = None
        self._writing = threading.Lock()
        self.folder = Path()

    def send(self, header: dict[str, Any], payload: bytes = b"") -> None:
        """Write one frame."""
        text = json.dumps(dict(header, bytes=len(payload))).encode()
        with self._writing:
            self._output.write(struct.pack(">I", len(text)) + text + payload)
            self._output.flush()

    def serve(self) -> None:
        """Do what is asked for until there is no more."""
        while True:
            header, payload = self._frames.get()
            if header["do"] == "stop":
                return
            if header["do"] == "chunk":
                continue  # of a file that could not be written
            try:
                action = getattr(self, "_" + header["do"])
                answer = action(header, payload)
            except FailedError as error:
                self.send({"error": error.document})
            except OSError as error:
                self.send({"error": self._described(error)})
            except Exception as error:
                message = f"{type(error).__name__}: {error}"
                self.send({"error": {"kind": "crashed", "message": message}})
            else:
                self.send(answer)

    def _described(self, error: OSError) -> dict[str, Any]:
        kind = "disk" if error.errno in FULL else "crashed"
        place = error.filename or self.folder
        return {"kind": kind, "message": f"{place}: {error.strerror}", "free": self._free()}

    def _free(self) -> int:
        folder = self.folder
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(str(folder)).free

    def _open(self, header: dict[str, Any], _: bytes) -> dict[str, Any]:
        """`files` maps paths to (bytes, SHA-256); the answer's `there` says how many of each."""
        cache = os.environ.get("XDG_CACHE_HOME")
        root = (Path(cache) if cache else Path.home() / ".cache") / "infc" / "remote"
        self.folder = root / header["key"]
        made = [str(p) for p in (self.folder, *self.folder.parents) if not p.exists()]
        root.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)  # the model is nobody else's business
        self._hold(header["token"])
        record = self.folder / ".made"
        if made and not record.exists():
            record.write_text(json.dumps(made), encoding="utf-8")
        self._remove_old(root)
        os.utime(str(self.folder))
        there = {}
        for name, (size, sha256) in header["files"].items():
            file = self._inside(name)
            part = file.with_name(file.name + PART)
            if file.is_file() and file.stat().st_size == size and _sha256(file) == sha256:
                there[name] = size
            elif part.is_file() and part.stat().st_size < size:
                there[name] = part.stat().st_size
        return {"there": there, "free": self._free(), "folder": str(self.folder)}

    def _hold(self, token: str) -> None:
        """Hold the folder; what is left of this very command's last connection is ended."""
        self._lock = (self.folder / ".lock").open("a+")
        deadline = time.monotonic() + HOLD_S
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                self._lock.seek(0)
                holder = self._lock.read().split()
                if len(holder) == 2 and holder[1] == token:
                    with contextlib.suppress(OSError, ValueError):
                        os.kill(int(holder[0]), signal.SIGTERM)
                if time.monotonic() > deadline:
                    message = f"another infc is building the same there: {self.folder}"
                    raise FailedError("busy", message) from None
                time.sleep(0.1)
        self._lock.seek(0)
        self._lock.truncate()
        self._lock.write(f"{os.getpid()} {token}")
        self._lock.flush()

    def _remove_old(self, root: Path) -> None:
        for folder in root.iterdir():
            with contextlib.suppress(OSError):
                if folder != self.folder and time.time() - folder.stat().st_mtime > OLD_S:
                    with (folder / ".lock").open("a+") as lock:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        shutil.rmtree(str(folder))

    def _inside(self, name: str) -> Path:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise FailedError("crashed", f"a path that leads out of the folder: {name}")
        return self.folder / name

    def _put(self, header: dict[str, Any], _: bytes) -> dict[str, Any]:
        """Take the chunks of a file, `length` bytes after the first `offset`."""
        file = self._inside(header["path"])
        part = file.with_name(file.name + PART)
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._take(part, header["offset"], header["length"])
        except OSError as error:  # one that is about no file by its name
            raise OSError(error.errno, error.strerror, str(file)) from error
        if _sha256(part) != header["sha256"]:
            part.unlink()
            raise FailedError("damaged", f"{header['path']} arrived damaged")
        part.replace(file)
        return {"ok": True}

    def _take(self, part: Path, offset: int, left: int) -> None:
        """Write the chunks that come into `part`, `left` bytes from `offset` on."""
        with part.open("r+b" if offset else "wb", buffering=0) as stream:
            stream.truncate(offset)
            stream.seek(offset)
            while left:
                chunk, payload = self._frames.get()
                if chunk["do"] != "chunk":
                    raise FailedError("crashed", "a file that was not sent to its end")
                left -= len(payload)
                while payload:
                    payload = payload[stream.write(payload) :]

    def _produce(self, header: dict[str, Any], _: bytes) -> dict[str, Any]:
        """Build and verify with the package that was sent."""
        sys.path.insert(0, str(self.folder))
        sys.dont_write_bytecode = True
        from finishing.device_error import DeviceError  # type: ignore[import-not-found]
        from finishing.producing import Order, produce  # type: ignore[import-not-found]

        manifest = json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))
        order = Order(
            self.folder,
            manifest,
            self.folder / ".finish",
            header["module"],
            header["verify"],
            header["timeout_s"],
        )
        try:
            result = produce(order, lambda line: self.send({"log": line}))
        except DeviceError as error:
            raise FailedError(**dict(error.to_json(), free=self._free())) from error
        return {"result": result}

    def _get(self, header: dict[str, Any], _: bytes) -> dict[str, Any]:
        """Send a file's chunks from `offset` on, if it is there."""
        file = self._inside(header["path"])
        if not file.is_file():
            return {"missing": True}
        size = file.stat().st_size
        self.send({"size": size, "sha256": _sha256(file)})
        with file.open("rb") as stream:
            stream.seek(header["offset"])
            for block in iter(lambda: stream.read(CHUNK), b""):
                self.send({"chunk": True}, block)
        return {"ok": True}

    def _remove(self, header: dict[str, Any], _: bytes) -> dict[str, Any]:
        """Remove the folder, and the empty ones above it that were made for it."""
        try:
            made = json.loads((self.folder / ".made").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            made = []
        shutil.rmtree(str(self.folder), ignore_errors=True)
        for folder in (*list(self.folder.parents)[:2], *map(Path, made)):
            with contextlib.suppress(OSError):  # not empty: somebody else's, too
                folder.rmdir()
        return {"ok": not self.folder.exists()}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def read_frame(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """The next frame, None at the end of the stream.

    Raises:
        ValueError: what comes is no frame.
    """
    length = _exactly(stream, 4)
    if length is None:
        return None
    text = _exactly(stream, _bounded(struct.unpack(">I", length)[0], HEADER_BYTES))
    if text is None:
        return None
    header = json.loads(text.decode())
    if not isinstance(header, dict):
        raise ValueError("no header")
    payload = _exactly(stream, _bounded(int(header.get("bytes", 0)), CHUNK))
    return None if payload is None else (header, payload)


def _bounded(count: int, most: int) -> int:
    if not 0 <= count <= most:
        raise ValueError("no frame")
    return count


def _exactly(stream: IO[bytes], count: int) -> bytes | None:
    parts = []
    while count:
        part = stream.read(min(count, 1 << 20))
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def listen(frames: queue.Queue[Any]) -> None:
    """Read frames until the connection ends, and end everything then."""
    while True:
        try:
            frame = read_frame(sys.stdin.buffer)
        except ValueError:
            frame = None
        if frame is None:
            # The build that may be running dies with this process.
            os._exit(0)
        frames.put(frame)


def main(marker: str) -> None:
    """Serve; `marker` tells infc where the login shell's own words end."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no frame
    frames: queue.Queue[Any] = queue.Queue(64)
    threading.Thread(target=listen, args=(frames,), daemon=True).start()
    output.write(marker.encode() + b"\n")
    output.flush()
    FarSide(output, frames).serve()
