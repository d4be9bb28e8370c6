"""CMake projects that have the C++ loader of a bundle in them, compiled.

Below the generated, typed files of a loader lies a layer that does not depend on the model:
`runtime/` and the back end's `adaptor.cpp`. It is compiled once for each back end, SDK, compiler
and set of flags, and its objects are kept in `$INFC_HOME/cache`: libtorch's headers alone cost
10 to 25 s.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from infc.bundle import Bundle, publish, sha256_of
from infc.diagnostics import fail
from infc.loaders.programs import call
from infc.loaders.rendering import plain
from infc.places import cache_folder
from infc.request import WorkerLimits
from infc.targets import Target, back_end
from infc.targets.abilities import cross_of, loader_of
from infc.workers.versions import versions

LANGUAGES = {"cpp": "C++", "java": "Java"}
"""The languages a bundle may have a loader in, and how messages call them."""

ADAPTOR_SOURCES = ("adaptor.cpp", "runtime/runtime.cpp", "runtime/sha256.cpp")
ADAPTOR_HEADERS = ("runtime/infc_runtime.h", "runtime/adaptor.h", "runtime/sha256.h")
TOOLCHAIN = "toolchain.cmake"
"""Beside a loader that may be compiled on another machine than it runs on."""
HASHES = "sha256.json"
"""Beside the cached objects: a linker takes a damaged one for an error in the loader, or worse."""


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How a loader is compiled: `sanitize` as for -fsanitize, `warnings` as errors.

    Sanitized code is not optimised: libtorch's headers then take a third of the time.
    """

    sanitize: str = ""
    warnings: bool = False
    keep_objects: bool = True


def loader_folder(bundle: Bundle, language: str) -> Path:
    """Where the sources of the loader in `language` lie.

    Raises:
        InfcError: E702 where the bundle has none.
    """
    folder = bundle.path / "loader" / language
    if not (folder / "CMakeLists.txt").is_file():
        raise fail(
            "E702",
            f"`{bundle.path}` has no {LANGUAGES[language]} loader",
            help=f"compile with `--loader {language}`",
        )
    return folder


@dataclass(frozen=True, slots=True)
class Project:
    """A CMake project that has the C++ loader of a bundle in it.

    `loader` is the loader's folder in the build folder, `entries` are more cache entries, `what`
    names the project in messages.
    """

    source: Path
    what: str
    loader: str = "."
    entries: Mapping[str, str] = field(default_factory=dict)


def build_project(
    project: Project, bundle: Bundle, scratch: Path, limits: WorkerLimits, options: BuildOptions
) -> Path:
    """Compile `project` in the new folder `scratch` and return the build folder.

    Raises:
        InfcError: E501, E503, E703 as `build`.
    """
    target = Target.from_json(bundle.manifest["target"])
    entries = _entries(target, bundle.entry.name, options)
    cmake, loader = _tool("cmake"), bundle.path / "loader" / "cpp"
    cross = cross_of(back_end(target.back_end), target)
    foreign = cross is not None and cross.foreign
    command = cross.compiler() if cross is not None and foreign else [find_compiler()]
    key = _key(loader, target, command, entries)
    scratch.mkdir(parents=True)
    cached = cache_folder() / "objects" / key
    use = options.keep_objects and _is_whole(cached)
    if use:
        entries["INFC_OBJECTS"] = str(cached)
    warnings = "ON" if options.warnings else "OFF"
    entries |= {
        "CMAKE_CXX_COMPILER": _one_program(command, scratch),
        "INFC_WARNINGS": warnings,
        "CMAKE_COMPILE_WARNING_AS_ERROR": warnings,
        **project.entries,
    }
    if foreign:
        entries["CMAKE_TOOLCHAIN_FILE"] = str((loader / TOOLCHAIN).resolve())
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    defines = [f"-D{name}={value}" for name, value in entries.items()]
    built = scratch / "build"
    start = [cmake, "-S", str(project.source.resolve()), "-B", str(built)]
    _compile([*start, *generator, *defines], project.what, limits)
    keep = options.keep_objects and not use
    # Not every project needs the harness, but the cache does.
    targets = ["--target", "all", "infc_harness"] if keep else []
    _compile([cmake, "--build", str(built), "--parallel", *targets], project.what, limits)
    if keep:
        _keep(built / project.loader, cached)
    return built


def _entries(target: Target, entry: str, options: BuildOptions) -> dict[str, str]:
    """The CMake cache entries that say what is compiled, and against what."""
    return {
        **loader_of(back_end(target.back_end), entry).sdk(),
        "CMAKE_BUILD_TYPE": "None" if options.sanitize else "Release",
        "INFC_SANITIZE": options.sanitize,
    }


def find_compiler() -> str:
    """The C++ compiler: `CXX`, else the first there is.

    Raises:
        InfcError: E501 where there is none.
    """
    named = os.environ.get("CXX")
    for name in [named] if named else ["c++", "g++", "clang++"]:
        path = shutil.which(name)
        if path:
            return path
    raise fail(
        "E501",
        f"the C++ compiler `{named}` (CXX) was not found" if named else "no C++ compiler was found",
        help="apt install g++, or set CXX to a compiler for C++17",
    )


def _one_program(command: Sequence[str], folder: Path) -> str:
    """`command` as CMake takes it, without arguments: a program in `folder` where it has any."""
    if len(command) == 1:
        return command[0]
    program = folder.resolve() / "c++"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    return str(program)


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise fail("E501", f"`{name}` was not found", help=f"apt install {name}")
    return path


def _key(folder: Path, target: Target, compiler: Sequence[str], entries: Mapping[str, str]) -> str:
    """What the objects depend on: sources, flags, the compiler, the SDK."""
    end = back_end(target.back_end)
    hashed = hashlib.sha256()
    sources = [*ADAPTOR_SOURCES, *ADAPTOR_HEADERS, "runtime/harness.h", "runtime/harness.cpp"]
    parts: list[str] = [sha256_of(folder / name) for name in sources]
    parts += [sha256_of(file) for file in sorted((folder / "adaptor").glob("*"))]
    parts += [plain("cpp/CMakeLists.txt.j2"), *compiler, _first_line([*compiler, "--version"])]
    parts += [f"{k}={v}" for k, v in sorted(entries.items())]
    # The SDK is the back end's own, wherever the target's artifacts are built.
    own = versions(end, replace(target, toolchain=""))
    parts += [f"{name} {version}" for name, version in own.items()]
    parts += [os.environ.get(name, "") for name in ("CXXFLAGS", "CPPFLAGS")]
    for part in parts:
        hashed.update(part.encode() + b"\0")
    return hashed.hexdigest()[:32]


def _first_line(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0]


def _is_whole(cached: Path) -> bool:
    """Whether the objects are there, as they were written."""
    try:
        hashes = json.loads((cached / HASHES).read_text(encoding="utf-8"))
        return all(sha256_of(cached / name) == value for name, value in hashes.items())
    except (OSError, ValueError, AttributeError):
        return False


def _keep(built: Path, cached: Path) -> None:
    """Copy the objects into the cache in one rename; of two processes the last one wins.

    A cache that cannot be written costs time, not the build.
    """
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=cached.parent))
        try:
            for target, source in [
                *(("infc_adaptor", s) for s in ADAPTOR_SOURCES),
                ("infc_harness", "runtime/harness.cpp"),
            ]:
                made = built / "CMakeFiles" / f"{target}.dir" / f"{source}.o"
                shutil.copyfile(made, partial / f"{Path(source).stem}.o")
            hashes = {p.name: sha256_of(p) for p in sorted(partial.iterdir())}
            (partial / HASHES).write_text(json.dumps(hashes), encoding="utf-8")
            publish(partial, cached)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError:
        return


def _compile(command: Sequence[str], what: str, limits: WorkerLimits) -> None:
    done = call(command, limits, f"compiling {what}")
    if done.returncode != 0:
        raise fail(
            "E703",
            f"{what} does not compile",
            notes=[_told(done.stdout + done.stderr)],
        )


def _told(output: str) -> str:
    """The lines from the first error on, at most 30."""
    lines = [line for line in output.splitlines() if line.strip()]
    first = next((i for i, line in enumerate(lines) if "error" in line.lower()), 0)
    return "\n".join(lines[first : first + 30]) or "the compiler said nothing"
