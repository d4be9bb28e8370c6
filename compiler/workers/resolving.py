"""Requirements to lock: pip's own resolver, in the interpreter that the toolchain is for.

`pip install --dry-run --report` names the one file it would install of every package, with its
SHA-256; nothing is installed. That is done with the interpreter in question, since environment
markers (`python_version < "3.8"`) are evaluated by the one that runs. Source: pip's documentation,
"Installation Report".
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from infc.bundle import unwritable
from infc.diagnostics import InfcError, fail
from infc.workers import environments, interpreters, toolchains
from infc.workers.locks import Lock, Pin, normal, require_name, require_python, this_platform

REPORTING_PIP = (23, 0)
"""The first pip whose report has a stable format."""


def lock(
    name: str,
    python: str | None,
    requirements: Sequence[str],
    imports: Sequence[str],
    output: Path | None,
    platform: str | None = None,
    say: Callable[[str, str], None] = lambda name, step: None,
) -> Lock:
    """Resolve, with what infc knows of `name` where nothing else is given, and write the file.

    Raises:
        InfcError: E110, E508, E509 as `resolve` does; E701 where `output` cannot be written.
    """
    row = toolchains.known().get(name)
    if row is not None and not requirements:
        python, requirements = python or row.python, row.requirements
        imports = imports or row.modules
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    version, machine = python or running, platform or this_platform()
    made = resolve(name, version, requirements, imports, machine, say)
    if output is not None:
        try:
            partial = output.with_name(f".{output.name}.{os.getpid()}")
            partial.write_text(made.render(), encoding="utf-8")
            partial.replace(output)
        except OSError as error:
            raise unwritable(output, error) from error
    return made


def resolve(
    name: str,
    python: str,
    requirements: Sequence[str],
    imports: Sequence[str],
    platform: str,
    say: Callable[[str, str], None] = lambda name, step: None,
) -> Lock:
    """Return a lock of what pip takes for `requirements` on `platform` today.

    `imports` are the modules that an installation has to be able to import.

    Raises:
        InfcError: E110 for an impossible name, version or requirement, E508 without the
            interpreter, E509 where pip finds no solution, E701 without room for temporary files.
    """
    require_name(name)
    require_python(python)
    wanted = _requirements(python, requirements)
    elsewhere = _elsewhere(platform, python)
    interpreter = interpreters.find(python)
    from infc.scratch import scratch_folder

    with scratch_folder() as scratch:
        folder = scratch.resolve()
        builder = environments.Builder(name, folder, folder / "log", say, aim="locked")
        builder.create(interpreter.path)
        version = builder.packages().get("pip", "0")
        if tuple(map(int, re.findall(r"\d+", version)[:2])) < REPORTING_PIP:
            say(name, "getting a pip that can report")
            builder.pip("install", "--upgrade", "--quiet", "pip")
        report = folder / "report.json"
        say(name, "resolving")
        options = ("--dry-run", "--ignore-installed", "--only-binary=:all:", *elsewhere)
        builder.pip("install", *options, "--report", str(report), "--", *wanted)
        rows = json.loads(report.read_text(encoding="utf-8"))["install"]
    if elsewhere:
        _require_the_same_everywhere(name, platform, rows)
    pins = tuple(sorted((_pin(name, row) for row in rows), key=lambda pin: pin.name))
    return Lock(name, python, platform, wanted, tuple(imports), pins)


def _elsewhere(platform: str, python: str) -> tuple[str, ...]:
    """Options of pip for another platform than this one: a Linux with glibc 2.28 or later.

    Source: PEP 600; pip takes the first tag that a wheel has.
    """
    if platform == this_platform():
        return ()
    system, _, machine = platform.partition("-")
    if system != "linux" or not re.fullmatch(r"[a-z0-9_]+", machine):
        help = "for example `linux-aarch64`; for another system make the lock there"
        raise fail("E110", f"a lock for `{platform}` cannot be made here", help=help)
    tags = [f"manylinux_2_{minor}" for minor in range(28, 4, -1)]
    tags += ["manylinux2014", "manylinux2010", "manylinux1", "linux"]
    words = [word for tag in tags for word in ("--platform", f"{tag}_{machine}")]
    return ("--python-version", python, "--implementation", "cp", "--target", "nowhere", *words)


def _require_the_same_everywhere(
    toolchain: str, platform: str, rows: Iterable[Mapping[str, Any]]
) -> None:
    """Refuse a package whose requirements depend on the machine: pip asked this one.

    Raises:
        InfcError: E509.
    """
    for row in rows:
        for line in row["metadata"].get("requires_dist", ()):
            if re.search(r"platform_(machine|release|version)", line.partition(";")[2]):
                name = row["metadata"]["name"]
                reason = f"what `{name}` needs depends on the machine: `{line}`"
                raise _unlockable(toolchain, reason, f"make the lock on {platform}")


def _requirements(python: str, given: Iterable[str]) -> tuple[str, ...]:
    """Those given, in one spelling, and infc's own where its source will be run."""
    wanted = []
    for text in given:
        if not re.match(r"[A-Za-z0-9]", text) or "@" in text or "/" in text or "\n" in text:
            raise fail(
                "E110",
                f"`{text}` is not a requirement that a lock can hold",
                help="a package of the index, for example `openvino==2025.1.0`",
            )
        wanted.append(re.sub(r",\s+", ",", text.strip()))
    if toolchains.runs_own_source(python):
        own = metadata.requires("infc") or ()
        wanted += [line.strip() for line in own if "extra" not in line.partition(";")[2]]
    if not wanted:
        help = "for example: infc toolchain lock my-openvino --python 3.12 openvino==2025.1.0"
        raise fail("E110", "no requirement was given", help=help)
    return tuple(dict.fromkeys(wanted))


def _pin(toolchain: str, row: Mapping[str, Any]) -> Pin:
    """One package of pip's report."""
    name, version = normal(row["metadata"]["name"]), row["metadata"]["version"]
    digest = row["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
    if row.get("is_direct") or not digest:
        help = "use a package index that serves hashes, and only packages of it"
        raise _unlockable(toolchain, f"pip gives no SHA-256 for `{name}=={version}`", help)
    return Pin(name, version, (digest,))


def _unlockable(toolchain: str, reason: str, help: str) -> InfcError:
    return fail("E509", f"toolchain `{toolchain}` cannot be locked: {reason}", help=help)
