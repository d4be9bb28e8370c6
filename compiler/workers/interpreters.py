"""Where a Python of a given version is: named, the running one, on the path, pyenv's, uv's.

Each candidate is started, since a shim of pyenv stands on the path for versions that are not
selected, and does nothing there. No interpreter is ever installed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from infc.diagnostics import InfcError, fail
from infc.workers.locks import require_python

PROBE_TIMEOUT_S = 20.0
PROBE = """\
import json, os, platform, sys
json.dump({"version": platform.python_version(), "kind": platform.python_implementation(),
           "path": sys.executable and os.path.abspath(sys.executable)}, sys.stdout)
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A CPython that runs: `path` to start it, its full `version`."""

    path: Path
    version: str


def find(version: str) -> Interpreter:
    """Return a CPython of `version` ("3.7"), the first one that really runs.

    Raises:
        InfcError: E508 with the commands that install one, or where INFC_PYTHON_3_7 names
            something else; E110 for what is not a version.
    """
    require_python(version)
    variable = "INFC_PYTHON_" + version.replace(".", "_")
    named = os.environ.get(variable)
    if named:
        found = probe(named)
        if found is None or not _is(found, version):
            what = f"Python {found.version}" if found else "no Python that runs"
            raise fail(
                "E508",
                f"{variable}={named} is {what}, and Python {version} is needed",
                help=f"let it name a Python {version}, or unset it",
            )
        return found
    tried = []
    for candidate in _candidates(version):
        found = probe(candidate)
        if found is not None and _is(found, version):
            return found
        tried.append(candidate)
    raise _none(version, variable, tried)


def _is(found: Interpreter, version: str) -> bool:
    return found.version.rsplit(".", 1)[0] == version


def probe(path: str) -> Interpreter | None:
    """Start `path` and ask it what it is; None for anything but a CPython that answers."""
    try:
        done = subprocess.run(
            [path, "-I", "-c", PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_TIMEOUT_S,
            check=True,
        )
        answer = json.loads(done.stdout)
        if answer["kind"] != "CPython" or not answer["path"]:
            return None
        return Interpreter(Path(answer["path"]), str(answer["version"]))
    except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError):
        return None


def _candidates(version: str) -> Iterator[str]:
    """Programs that may be it, the nearest first; those of uv only where nothing else was it."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" == version:
        yield sys.executable
    for folder in os.get_exec_path():
        path = Path(folder) / f"python{version}"
        if path.is_file() and os.access(path, os.X_OK):
            yield str(path)
    yield from map(str, _of_pyenv(version))
    yield from _of_uv(version)


def _of_pyenv(version: str) -> list[Path]:
    """Installed by pyenv, the latest release first, whether it is selected or not."""
    root = os.environ.get("PYENV_ROOT")
    versions = (Path(root) if root else Path.home() / ".pyenv") / "versions"
    found = []
    for path in versions.glob(f"{version}.*/bin/python{version}"):
        release = path.parent.parent.name.rsplit(".", 1)[1]
        if release.isdecimal():
            found.append((int(release), path))
    return [path for _, path in sorted(found, reverse=True)]


def _of_uv(version: str) -> Iterator[str]:
    """What `uv python find` names, uv being a program or a module; it downloads nothing here."""
    program = shutil.which("uv")
    for command in ([program] if program else None, [sys.executable, "-P", "-m", "uv"]):
        if command is None:
            continue
        try:
            done = subprocess.run(
                [*command, "python", "find", "--no-project", version],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=PROBE_TIMEOUT_S,
                env={**os.environ, "UV_PYTHON_DOWNLOADS": "never"},
                check=True,
            )
        except (OSError, ValueError, subprocess.SubprocessError):
            continue
        if done.stdout.strip():
            yield done.stdout.strip().splitlines()[-1]


def _none(version: str, variable: str, tried: list[str]) -> InfcError:
    notes = [f"`{path}` does not run" for path in dict.fromkeys(tried)]
    return fail(
        "E508",
        f"no Python {version} was found: not on the path, not in pyenv, not through uv",
        notes=notes,
        help=f"uv python install {version}\nor: pyenv install {version}\n"
        f"or set {variable} to one that lies elsewhere",
    )
