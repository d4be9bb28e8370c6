"""An sshd on this machine, started by the test as the user who runs it, with keys of its own.

Nothing of the user's is read or written: `INFC_SSH` names a configuration in the test's folder.
What the other machine lacks is said by files that `command.py`, which every session runs, reads.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

COMMAND = '''\
"""Runs what ssh was asked for, as another machine might."""
import os, resource, signal, subprocess, sys, time
from pathlib import Path

here = Path({folder!r})
environment = dict(os.environ, PATH=str(here / "bin") + ":/usr/bin:/bin")
environment["XDG_CACHE_HOME"] = str(here / "cache")
environment.pop("PYTHONPATH", None)
environment.pop("INFC_HOME", None)
if (here / "pythonpath").exists():
    environment["PYTHONPATH"] = (here / "pythonpath").read_text()
if (here / "path").exists():
    environment["PATH"] = (here / "path").read_text()
if (here / "largest-file").exists():
    most = int((here / "largest-file").read_text())
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
with (here / "sessions").open("a") as log:
    print(os.environ["SSH_ORIGINAL_COMMAND"], file=log)
words = ["/bin/sh", "-c", os.environ["SSH_ORIGINAL_COMMAND"]]
limits = (here / "limits").read_text().split() if (here / "limits").exists() else []
if not limits or limits[0] == "-":
    if limits:
        (here / "limits").write_text(" ".join(limits[1:]))
    os.execve(words[0], words, environment)
(here / "limits").write_text(" ".join(limits[1:]))
how, left = limits[0].partition(":")[0], int(limits[0].partition(":")[2])
child = subprocess.Popen(words, stdin=subprocess.PIPE, env=environment)
while left:
    data = os.read(0, min(left, 1 << 16))
    if not data:
        break
    child.stdin.write(data)
    child.stdin.flush()
    left -= len(data)
(here / "reached").touch()
if how == "hold":
    time.sleep(600)
os.kill(os.getppid(), signal.SIGKILL)
'''


class Loopback:
    """`folder` holds all of it; `cache` is where the other machine keeps what it is sent."""

    def __init__(self, folder: Path, *, passwords: bool = False) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self.port = _free_port()
        self._daemon: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)
        folder.chmod(0o700)
        (folder / "bin").mkdir()
        self.cache.mkdir()
        python = folder / "bin" / "python3"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
        for name in ("host", "id", "other-host", "other-id"):
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", folder / name)
        shutil.copyfile(folder / "id.pub", folder / "authorized_keys")
        (folder / "command.py").write_text(COMMAND.format(folder=str(folder)))
        methods = "yes" if passwords else "no"
        rows = {
            "Port": self.port,
            "ListenAddress": "127.0.0.1",
            "HostKey": folder / "host",
            "AuthorizedKeysFile": "none" if passwords else folder / "authorized_keys",
            "PidFile": "none",
            "UsePAM": "no",
            "StrictModes": "no",
            "PasswordAuthentication": methods,
            "KbdInteractiveAuthentication": "no",
            "ForceCommand": f"{sys.executable} {folder / 'command.py'}",
        }
        (folder / "sshd_config").write_text("".join(f"{k} {v}\n" for k, v in rows.items()))
        self.trust("host")
        self.identify("id")

    @property
    def url(self) -> str:
        return f"ssh://127.0.0.1:{self.port}"

    @property
    def left_behind(self) -> list[str]:
        """What infc has left in the other machine's cache."""
        return sorted(str(p.relative_to(self.cache)) for p in self.cache.rglob("*"))

    def trust(self, key: str | None) -> None:
        """Make `key` the host key that the user knows; None for none."""
        line = f"[127.0.0.1]:{self.port} {(self.folder / f'{key}.pub').read_text()}" if key else ""
        (self.folder / "known_hosts").write_text(line)

    def identify(self, key: str) -> None:
        """Make `key` the user's own."""
        rows = {
            "IdentityFile": self.folder / key,
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": self.folder / "known_hosts",
            "GlobalKnownHostsFile": "/dev/null",
        }
        text = "".join(f"  {k} {v}\n" for k, v in rows.items())
        (self.folder / "config").write_text(f"Host *\n{text}")

    def tell(self, **files: object) -> None:
        """Write the files that `command.py` reads: limits="cut:3000000 -"."""
        for name, text in files.items():
            (self.folder / name.replace("_", "-")).write_text(str(text))

    def start(self) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # sshd's own, where the system has none
        log = (self.folder / "sshd.log").open("wb")
        command = [shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-e"]
        self._daemon = subprocess.Popen(
            [*command, "-f", str(self.folder / "sshd_config")], stderr=log, stdin=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self._daemon.poll() is None, (self.folder / "sshd.log").read_text()
            time.sleep(0.05)
        raise AssertionError((self.folder / "sshd.log").read_text())

    def cut(self) -> None:
        """Kill what sshd has started for the connections there are."""
        assert self._daemon is not None
        for child in _children(self._daemon.pid):
            os.kill(child, signal.SIGKILL)

    def stop(self) -> None:
        if self._daemon is not None:
            self._daemon.terminate()
            self._daemon.wait()
            self._daemon = None


def _children(parent: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent:
                found.append(int(path.parent.name))
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _run(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, stdin=subprocess.DEVNULL)


def has_sshd() -> bool:
    return bool(shutil.which("sshd") or Path("/usr/sbin/sshd").is_file())
