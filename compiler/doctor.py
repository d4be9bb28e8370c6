"""What is installed, what is missing, and the exact command that gets it.

Nothing is imported to find out: Python packages are looked up in their metadata, programs on the
path. A back end's C++ SDK is looked for by the very function that the loader build uses.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from infc import __version__, targets
from infc.diagnostics import InfcError, fail
from infc.places import toolchain_folder
from infc.targets import BackEnd, Target, cross
from infc.targets.tvm_compiler.cpus import CPUS
from infc.workers import interpreters, toolchains

PROBE_TIMEOUT_S = 10.0
TOOLCHAIN = "toolchain "
"""Before the name of a toolchain's group: a back end may have the same name."""

PACKAGES: Mapping[str, Mapping[str, str]] = {
    "apt-get": {
        "c++": "g++",
        "cmake": "cmake",
        "ninja": "ninja-build",
        "java": "default-jdk-headless",
    },
    "dnf": {
        "c++": "gcc-c++",
        "cmake": "cmake",
        "ninja": "ninja-build",
        "java": "java-latest-openjdk-devel",
    },
    "brew": {"c++": "gcc", "cmake": "cmake", "ninja": "ninja", "java": "openjdk"},
}
"""Package managers in the order of preference, and what they call each tool."""


@dataclass(frozen=True, slots=True)
class Item:
    """Something that is there (`found` says which version or where) or not (`remedy`)."""

    name: str
    found: str | None
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {"name": self.name, "found": self.found, "remedy": self.remedy}


@dataclass(frozen=True, slots=True)
class Group:
    """What one part of infc needs."""

    name: str
    summary: str
    items: tuple[Item, ...]

    @property
    def ready(self) -> bool:
        """Whether nothing is missing."""
        return all(item.found is not None for item in self.items)

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {
            "name": self.name,
            "summary": self.summary,
            "ready": self.ready,
            "items": [item.to_json() for item in self.items],
        }


@dataclass(frozen=True, slots=True)
class Examination:
    """Everything that was looked for. `required` names the groups that the exit code is about."""

    infc: str
    python: str
    system: str
    groups: tuple[Group, ...]
    required: tuple[str, ...]

    @property
    def ready(self) -> bool:
        """Whether nothing is missing of what is required."""
        return all(group.ready for group in self.groups if group.name in self.required)


def examine(names: Iterable[str] = ()) -> Examination:
    """Look for what infc itself needs, and every back end, and the loaders' compilers.

    `base` is always required; `names` adds groups, targets, which stand for their back end, or
    toolchains.

    Raises:
        InfcError: E110 for a name that is neither.
    """
    ends = [_back_end(targets.back_end(name)) for name in targets.BACK_ENDS]
    environments = [_toolchain(entry) for entry in toolchains.entries()]
    groups = (_base(), *ends, *environments, *_compilers(), _cross())
    required = tuple(dict.fromkeys(("base", *(_group_named(name, groups) for name in names))))
    system = f"{platform.system()} {platform.machine()}"
    return Examination(__version__, platform.python_version(), system, groups, required)


def _group_named(name: str, groups: tuple[Group, ...]) -> str:
    known = [group.name for group in groups]
    if name in known:
        return name
    if name in targets.profiles():
        return targets.look_up(name).back_end
    if TOOLCHAIN + name in known:
        return TOOLCHAIN + name
    raise fail("E110", f"doctor knows no `{name}`", help=f"it knows {', '.join(known)}, targets")


def available(target: Target) -> bool:
    """Whether what builds for `target` is installed: its toolchain, or the modules here."""
    end = targets.back_end(target.back_end)
    try:
        name = end.worker(target).toolchain
    except InfcError:
        return False
    return toolchains.state(name) is toolchains.State.READY if name else installed(end)


def installed(end: BackEnd) -> bool:
    """Whether the modules that the back end's worker imports are there."""
    return all(find_spec(module) is not None for module in end.MODULES)


def remedy(end: BackEnd) -> str:
    """The command that installs what the back end's worker imports."""
    wanted = _requirements(end.EXTRA).values() or end.DISTRIBUTIONS
    return _pip_install(*wanted)


def _pip_install(*requirements: str) -> str:
    return shlex.join([sys.executable, "-m", "pip", "install", *requirements])


def _base() -> Group:
    items = tuple(_distribution(name, text) for name, text in _requirements("").items())
    return Group("base", "infc itself", items)


def _back_end(end: BackEnd) -> Group:
    (target,) = targets.in_toolchains([targets.look_up(end.NAME)], {})
    try:
        name = end.worker(target).toolchain
    except InfcError as error:
        return Group(end.NAME, end.SUMMARY, (_lacking("worker", error), _sdk(end)))
    items = (
        (_environment(toolchains.entry(name), end.DISTRIBUTIONS),) if name else _distributions(end)
    )
    return Group(end.NAME, end.SUMMARY, (*items, _sdk(end)))


def _lacking(what: str, error: InfcError) -> Item:
    first = error.diagnostics[0]
    return Item(what, None, first.help or first.message)


def _toolchain(entry: toolchains.Entry) -> Group:
    """The environment, and the interpreter that it is made with where it is not there."""
    lacking = entry.environment is None and entry.python
    interpreter = (_interpreter(entry.python),) if lacking else ()
    items = (*interpreter, _environment(entry))
    return Group(TOOLCHAIN + entry.name, entry.summary, items)


def _environment(entry: toolchains.Entry, shown: Iterable[str] = ()) -> Item:
    """An installed toolchain, with the versions of the packages in `shown`."""
    try:
        found = toolchains.require(entry.name)
    except InfcError as error:
        first = error.diagnostics[0]
        remedy = first.help or first.message
        outdated = entry.state is toolchains.State.OUTDATED
        return Item("environment", None, f"({entry.state}) {remedy}" if outdated else remedy)
    versions = [f"{name} {found.packages[name]}" for name in shown if name in found.packages]
    facts = ", ".join((*versions, f"Python {found.python_version}"))
    return Item("environment", f"{facts} ({toolchain_folder(entry.name)})")


def _interpreter(version: str) -> Item:
    try:
        found = interpreters.find(version)
    except InfcError as error:
        remedy = (error.diagnostics[0].help or "").splitlines()
        return Item(f"Python {version}", None, ", ".join(remedy))
    return Item(f"Python {version}", f"{found.version} ({found.path})")


def _distributions(end: BackEnd) -> tuple[Item, ...]:
    """The packages in infc's own environment."""
    requirements = _requirements(end.EXTRA)
    everything = {**_requirements(""), **requirements}
    items = []
    for name in end.DISTRIBUTIONS:
        item = _distribution(name, everything.get(name, name))
        if item.found is not None and not installed(end):
            item = Item(name, None, item.remedy)
        items.append(item)
    return tuple(items)


def _requirements(extra: str) -> dict[str, str]:
    """What infc's own metadata asks for: name to requirement, `onnx` to `onnx>=1.18`."""
    out = {}
    for line in metadata.requires("infc") or ():
        text, _, marker = line.partition(";")
        match = re.search(r"""extra\s*==\s*['"]([^'"]+)['"]""", marker)
        name = re.match(r"[\w.\-]+", text)
        if name is not None and (match[1] if match else "") == extra:
            out[name[0].lower()] = text.strip()
    return out


def _distribution(name: str, requirement: str) -> Item:
    remedy = _pip_install(requirement)
    try:
        return Item(name, metadata.version(name), remedy)
    except metadata.PackageNotFoundError:
        return Item(name, None, remedy)


def _sdk(end: BackEnd) -> Item:
    """The C++ headers and libraries, as the loader build will find them."""
    try:
        entries = end.LOADER.sdk()
    except InfcError as error:
        return _lacking("C++ SDK", error)
    return Item("C++ SDK", ", ".join(map(str, entries.values())) or "found")


def _compilers() -> tuple[Group, Group]:
    compiler = os.environ.get("CXX", "").partition(" ")[0]
    candidates = (compiler,) if compiler else ("c++", "g++", "clang++")
    cpp = (
        _program("C++ compiler", candidates, "c++"),
        _program("cmake", ("cmake",), "cmake"),
        _program("ninja", ("ninja",), "ninja"),
    )
    java = (_program("javac", ("javac",), "java"), _jni())
    return (
        Group("cpp", "compiling the C++ loaders", cpp),
        Group("java", "compiling the Java loaders", java),
    )


def _cross() -> Group:
    """For each kind of machine that TVM's targets are, but this one: what compiles, what runs."""
    triples = dict.fromkeys(cross.gnu_triple(cpu.triple) for cpu in CPUS.values())
    items = []
    for triple in triples:
        if not cross.is_native(triple):
            items += [_cross_compiler(triple), _emulator(triple)]
    return Group("cross", "TVM's targets of other kinds than this machine", tuple(items))


def _cross_compiler(triple: str) -> Item:
    name = f"{triple} compiler"
    try:
        found = cross.find_compiler(triple)
    except InfcError as error:
        return _lacking(name, error)
    # zig has clang's number.
    kind = "clang " if Path(found.program).name == cross.ZIG else ""
    return Item(name, f"{kind}{_number(found.version)} ({found.program})")


def _emulator(triple: str) -> Item:
    """What runs programs, with their C library; where there is no system, what is a board."""
    name = f"{triple} emulator"
    if triple in cross.BOARDS:
        remedy = f"apt install {cross.BOARDS[triple]}"
        path = cross.board_emulator(triple)
    else:
        remedy = cross.emulator_remedy(triple)
        emulator = cross.find_emulator(triple)
        path = emulator.program if emulator else None
    return Item(name, f"{_version(path)} ({path})" if path else None, remedy)


def _program(name: str, candidates: Iterable[str], package: str) -> Item:
    """The first of `candidates` on the path, with the version it names."""
    remedy = install_command(package)
    for candidate in candidates:
        path = shutil.which(candidate)
        if path is not None:
            return Item(name, f"{_version(path)} ({path})", remedy)
    return Item(name, None, remedy)


def _version(path: str) -> str:
    """The version number in what `path --version` prints, else "found"."""
    try:
        done = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return "found"
    return _number(done.stdout.partition("\n")[0])


def _number(line: str) -> str:
    """The version in what a program says of itself, else "found"."""
    # A compiler's own number comes after the packager's in parentheses.
    match = re.search(r"\d+(\.\d+)+", re.sub(r"\([^)]*\)", "", line))
    return match[0] if match else "found"


def _jni() -> Item:
    """`jni.h` of the JDK that a loader would be compiled with."""
    from infc.loaders.java import find_jdk

    try:
        header = find_jdk() / "include" / "jni.h"
    except InfcError:
        return Item("jni.h", None, install_command("java"))
    return Item("jni.h", str(header), install_command("java"))


def install_command(package: str) -> str:
    """The command that installs `package`, a key of `PACKAGES`, on this machine."""
    for manager, names in PACKAGES.items():
        if shutil.which(manager):
            sudo = "" if manager == "brew" or os.geteuid() == 0 else "sudo "
            return f"{sudo}{manager} install {names[package]}"
    return f"install {PACKAGES['apt-get'][package]} with the system's package manager"
