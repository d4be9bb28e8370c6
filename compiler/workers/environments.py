"""Making one virtual environment with its own interpreter's venv and pip.

The environment's own pip is used, since a later one may not run on an old interpreter. Where it
downloads from is pip's own configuration; what it may install is in the lock alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from infc.diagnostics import InfcError, fail
from infc.workers.locks import normal

TAIL_LINES = 12
QUIETER = ("--disable-pip-version-check", "--no-input", "--progress-bar=off")
SHOWN = ("Collecting ", "Downloading ", "Using cached ", "Installing collected packages")
"""Beginnings of those lines of pip's that say how far it is."""
DIVERTING = frozenset(
    f"PIP_{option}"
    for option in ("TARGET", "PREFIX", "ROOT", "SRC", "EDITABLE", "REQUIREMENT", "CONSTRAINT")
)
"""Options of pip which, set in the user's environment, would install other things or elsewhere."""
DIE_WITH_PARENT = """\
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class Builder:
    """Builds the environment of toolchain `name` in `folder`; every program's output is logged.

    `say` is told the name and the step. `inherited` are descriptors for the children. `aim` is
    what fails where anything does: "installed".
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        log: Path,
        say: Callable[[str, str], None],
        *,
        inherited: tuple[int, ...] = (),
        aim: str = "installed",
    ) -> None:
        self._name, self._folder, self._log, self._say = name, folder, log, say
        self._inherited, self._aim = inherited, aim
        self.python = folder / "bin" / "python"
        log.write_text("", encoding="utf-8")

    def create(self, interpreter: Path) -> None:
        """Make the empty environment, with pip.

        Raises:
            InfcError: E509.
        """
        self._say(self._name, "making the environment")
        status, tail = self._run([str(interpreter), "-I", "-m", "venv", str(self._folder)])
        if status:
            lacking = "ensurepip" in "".join(tail)
            help = "Debian and Ubuntu have `venv` in a package of its own: pythonX.Y-venv"
            raise self._failed("`python -m venv` failed", tail, help if lacking else "")

    def install(self, lock: Path) -> None:
        """Install what `lock` lists, and nothing else.

        Raises:
            InfcError: E509 with the end of pip's log.
        """
        self._say(self._name, "installing")
        options = ("--require-hashes", "--only-binary=:all:", "--no-deps")
        self.pip("install", *options, "-r", str(lock))

    def pip(self, verb: str, *words: str) -> None:
        """Run the environment's pip.

        Raises:
            InfcError: E509 with the end of its log.
        """
        status, tail = self._run([str(self.python), "-I", "-m", "pip", verb, *QUIETER, *words])
        if not status:
            return
        text = "".join(tail)
        if "DO NOT MATCH THE HASHES" in text:
            raise self._failed(
                "a package does not have the SHA-256 that the lock gives",
                tail,
                "do not trust that file; where the lock is an old one, make it anew",
            )
        if "No matching distribution" in text:
            raise self._failed(
                "the package index does not have what it asks for",
                tail,
                "`pip config list` shows which index is used",
            )
        raise self._failed("pip failed", tail)

    def require(self, packages: Mapping[str, str], modules: Sequence[str]) -> None:
        """Check that `packages`, name to version, are there, and that `modules` can be imported.

        Raises:
            InfcError: E509.
        """
        self._say(self._name, "checking")
        there = self.packages()
        lacking = [f"{n}=={v}" for n, v in packages.items() if there.get(n) != v]
        if lacking:
            raise self._failed(f"pip installed no {', '.join(lacking)}", ())
        for module in modules:
            program = f"import importlib; importlib.import_module({module!r})"
            status, tail = self._run([str(self.python), "-I", "-c", program])
            if status:
                raise self._failed(f"its module `{module}` cannot be imported", tail)

    def packages(self) -> dict[str, str]:
        """Name to version of what is installed, by its metadata."""
        places = [str(p) for p in self._folder.glob("lib*/python*/site-packages")]
        return {normal(d.name): d.version for d in metadata.distributions(path=places)}

    def _run(self, command: list[str]) -> tuple[int, Sequence[str]]:
        """Run `command`; return its status and the last lines of what it said."""
        kept = {k: v for k, v in os.environ.items() if k not in DIVERTING}
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", DIE_WITH_PARENT, str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={**kept, "PIP_USER": "0", "PYTHONUNBUFFERED": "1"},
            cwd=self._folder,
            pass_fds=self._inherited,
            start_new_session=True,
        )
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        try:
            assert process.stdout is not None
            with self._log.open("a", encoding="utf-8") as log:
                for line in process.stdout:
                    log.write(line)
                    if line.strip():
                        tail.append(line)
                    if line.lstrip().startswith(SHOWN):
                        self._say(self._name, line.strip()[:100])
            return process.wait(), tuple(tail)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _failed(self, what: str, tail: Sequence[str], help: str = "") -> InfcError:
        notes = ["".join(["the last lines of its log:\n", *tail]).rstrip()] if tail else []
        if self._log.parent != self._folder:  # which will be gone
            notes.append(f"the whole log is {self._log}")
        return fail(
            "E509",
            f"toolchain `{self._name}` cannot be {self._aim}: {what}",
            notes=notes,
            help=help,
        )
