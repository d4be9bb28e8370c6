r"""Locks: what an environment holds, to the byte.

A lock is a file of pip requirements, every one pinned and with the SHA-256 of the files that may
be installed for it, after a header of comments that says what it is for:

    # infc toolchain lock 1
    # name: mindspore-lite
    # python: 3.7
    # platform: linux-x86_64
    # requires: mindspore-lite==2.0.0
    # imports: mindspore_lite

    numpy==1.21.6 \
        --hash=sha256:a6be4cb0ef3b8c9250c19cc122267263093eee7edd4e3fa75395dfda8c17a8e2

Nothing else may stand in one: no index, no path, no option of pip. Where packages come from is
pip's own configuration, and the hashes make that a matter of trust in nobody.
Source: pip's documentation, "Requirements File Format" and "Secure installs".
"""

from __future__ import annotations

import hashlib
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from infc.diagnostics import InfcError, fail

HEADER = "# infc toolchain lock 1"
FIELDS = ("name", "python", "platform", "requires", "imports")
NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")
"""A toolchain's name; it becomes a file's."""
PYTHON = re.compile(r"3\.[0-9]+")
PIN = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==([A-Za-z0-9.!+_-]+)")
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
MAX_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Pin:
    """One package of a lock: `name` in PEP 503's normal form, `hashes` SHA-256, hexadecimal."""

    name: str
    version: str
    hashes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock as read: `requires` are the requirements it was made from, `imports` modules."""

    name: str
    python: str
    platform: str
    requires: tuple[str, ...]
    imports: tuple[str, ...]
    pins: tuple[Pin, ...]

    @property
    def packages(self) -> Mapping[str, str]:
        """Name to version."""
        return {pin.name: pin.version for pin in self.pins}

    def render(self) -> str:
        """The file; the same lock gives the same bytes."""
        values = (self.name, self.python, self.platform)
        lists = (", ".join(self.requires), ", ".join(self.imports))
        lines = [HEADER]
        lines += [f"# {k}: {v}".rstrip() for k, v in zip(FIELDS, (*values, *lists), strict=True)]
        lines.append("")
        for pin in sorted(self.pins, key=lambda pin: pin.name):
            hashes = (f"    --hash=sha256:{digest}" for digest in sorted(pin.hashes))
            lines.append(" \\\n".join((f"{pin.name}=={pin.version}", *hashes)))
        return "\n".join(lines) + "\n"


def this_platform() -> str:
    """Of the running machine: `linux-x86_64`."""
    return f"{sys.platform}-{platform.machine().lower()}"


def normal(name: str) -> str:
    """`name` of a package in PEP 503's normal form."""
    return re.sub(r"[-_.]+", "-", name).lower()


def digest(text: str) -> str:
    """The SHA-256 that a lock goes by."""
    return hashlib.sha256(text.encode()).hexdigest()


def require_name(name: str) -> None:
    """Refuse what cannot be a toolchain's name.

    Raises:
        InfcError: E110.
    """
    if not NAME.fullmatch(name) or len(name) > 64:
        raise fail(
            "E110",
            f"`{name}` cannot be the name of a toolchain",
            help="up to 64 lower-case letters, digits, and `-`, `_`, `.` between them",
        )


def require_python(version: str) -> None:
    """Refuse what is not the version of a Python 3, as in `3.12`.

    Raises:
        InfcError: E110.
    """
    if not PYTHON.fullmatch(version):
        raise fail("E110", f"`{version}` is not a version of Python", help="for example `3.12`")


def load(path: Path) -> tuple[Lock, str]:
    """Read a lock; return it with its text.

    Raises:
        InfcError: E510 where it cannot be read or is not one.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise _refused(path.name, 0, "it is far too large")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise _refused(path.name, 0, reason) from error
    return parse(text, path.name), text


def parse(text: str, source: str) -> Lock:
    """Read the text of a lock; `source` is its file's name, for messages.

    Raises:
        InfcError: E510, with the line, for anything that is not a pinned and hashed package.
    """
    lines = text.splitlines()
    if lines[:1] != [HEADER]:
        raise _refused(source, 1, f"its first line is not `{HEADER}`")
    fields = _header(lines, source)
    pins: dict[str, Pin] = {}
    for number, requirement in _logical(lines):
        pin = _pin(requirement, source, number)
        if pin.name in pins:
            raise _refused(source, number, f"`{pin.name}` is listed twice")
        pins[pin.name] = pin
    if not pins:
        raise _refused(source, len(lines), "it lists no package")
    try:
        require_name(fields["name"])
        require_python(fields["python"])
    except InfcError as error:
        raise _refused(source, 0, error.diagnostics[0].message) from error
    requires, imports = (_words(fields[key]) for key in ("requires", "imports"))
    for module in imports:
        if not all(part.isidentifier() for part in module.split(".")):
            raise _refused(source, 0, f"`{module}` is not the name of a module")
    return Lock(
        fields["name"],
        fields["python"],
        fields["platform"],
        requires,
        imports,
        tuple(pins.values()),
    )


def _words(text: str) -> tuple[str, ...]:
    # A requirement may hold commas (`a>=1,<2`); in the header a blank follows those between two.
    return tuple(filter(None, (word.strip() for word in text.split(", "))))


def _header(lines: list[str], source: str) -> dict[str, str]:
    """The fields of the comments at the top."""
    found: dict[str, str] = {}
    for line in lines[1:]:
        match = re.fullmatch(r"# ([a-z]+):(.*)", line)
        if match is None:
            break
        found[match[1]] = match[2].strip()
    for key in FIELDS:
        if key not in found:
            raise _refused(source, 1, f"its header has no `{key}:`")
    return found


def _logical(lines: Iterable[str]) -> Iterable[tuple[int, str]]:
    """(number of the first line, text) of each line, continuations joined, comments left out."""
    parts: list[str] = []
    first = 0
    for number, raw in enumerate(lines, 1):
        line = re.sub(r"(^|\s)#.*", "", raw).strip()
        if not parts:
            first = number
        more = line.endswith("\\")
        parts.append(line.removesuffix("\\"))
        if not more:
            text = " ".join(parts).strip()
            parts = []
            if text:
                yield first, text
    if " ".join(parts).strip():
        yield first, " ".join(parts)


def _pin(requirement: str, source: str, line: int) -> Pin:
    name, *options = requirement.split()
    match = PIN.fullmatch(name)
    if match is None:
        raise _refused(source, line, f"`{name}` is not pinned as NAME==VERSION")
    hashes = []
    for option in options:
        found = HASH.fullmatch(option)
        if found is None:
            raise _refused(source, line, f"`{option}` is not `--hash=sha256:` and a digest")
        hashes.append(found[1])
    if not hashes:
        raise _refused(source, line, f"`{name}` has no `--hash=sha256:`")
    return Pin(normal(match[1]), match[2], tuple(hashes))


def _refused(source: str, line: int, reason: str) -> InfcError:
    return fail(
        "E510",
        f"`{source}` is not a lock that can be installed: {reason}",
        where=f"{source}:{line}" if line else "",
        help="`infc toolchain lock NAME REQUIREMENT... -o FILE` makes one",
    )
