"""The C and C++ loader: rendered into a bundle, compiled, and run.

Below the generated, typed files lies a layer that does not depend on the model: `runtime/` and the
back end's `adaptor.cpp`. It is compiled once for each back end and compiler, and its objects kept
in `$INFC_HOME/cache`: libtorch's headers alone cost 25 s.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infc.bundle import Bundle, sha256_of
from infc.diagnostics import fail
from infc.loaders.rendering import c_string, call, fill, plain
from infc.loaders.signature import Dim, Signature, Tensor
from infc.request import WorkerLimits
from infc.targets import Artifact, Target, back_end

RUNTIME_FILES = (
    "infc_runtime.h",
    "adaptor.h",
    "runtime.cpp",
    "sha256.h",
    "sha256.cpp",
    "harness.h",
    "harness.cpp",
)
LANGUAGES = {"cpp": "C++", "java": "Java"}
"""The languages a bundle may have a loader in, and how messages call them."""

ADAPTOR_SOURCES = ("adaptor.cpp", "runtime/runtime.cpp", "runtime/sha256.cpp")
ADAPTOR_HEADERS = ("runtime/infc_runtime.h", "runtime/adaptor.h", "runtime/sha256.h")


def render(
    folder: Path, signature: Signature, target: Target, artifact: Artifact, model: Path
) -> None:
    """Write the loader into the new `folder`; `model` is the folder of the artifact's files."""
    spec = back_end(target.back_end).LOADER
    (folder / "runtime").mkdir(parents=True)
    for name in RUNTIME_FILES:
        (folder / "runtime" / name).write_text(plain(f"cpp/runtime/{name}"))
    (folder / "adaptor.cpp").write_text(plain(f"cpp/adaptors/{spec.adaptor}.cpp"))
    (folder / "sdk.cmake").write_text(plain(f"cmake/adaptors/{spec.adaptor}.cmake"))
    values = {**_layout(signature), **_facts(target, artifact, model)}
    name = signature.name
    for file, template in {
        f"{name}.h": "name.h.j2",
        f"{name}.hpp": "name.hpp.j2",
        f"{name}.cpp": "name.cpp.j2",
        "bundle_info.h": "bundle_info.h.j2",
        "main.cpp": "main.cpp.j2",
        "CMakeLists.txt": "CMakeLists.txt.j2",
        "README.md": "README.md.j2",
    }.items():
        (folder / file).write_text(fill(f"cpp/{template}", values))


def _layout(s: Signature) -> dict[str, Any]:
    """What the templates lay out: declarations broken into lines, expressions."""
    api = f"{s.upper}_API int {s.name}"
    load = ("const char* path", f"const {s.name}_options* options", f"{s.name}_model** model")
    cpp_arguments = [d.identifier for d in s.dims] + [t.identifier for t in s.tensors]
    return {
        "s": s,
        "load_declaration": call(f"{api}_load(", load),
        "load_definition": call(f"int {s.name}_load(", load),
        "run_declaration": call(f"{api}_run(", s.arguments),
        "run_definition": call(f"int {s.name}_run(", s.arguments),
        "method": call("  void run(", [*_dim_parameters(s), *map(_cpp_parameter, s.tensors)]),
        "example": call("model.run(", cpp_arguments, ");").replace("\n", "\n//   "),
        "cpp_example": call("model.run(", cpp_arguments),
        "c_example": call(f"{s.name}_run(", [a.split()[-1].partition("[")[0] for a in s.arguments]),
        "c_call": call(
            f"    {'const int ' if s.is_known else '  '}status = {s.name}_run(",
            ["model_.get()", *_c_arguments(s)],
        ),
        "run_call": call("    model_.run(", _harness_arguments(s)),
        "requirements": [
            call(
                "    require(", [f'"{t.identifier}"', f"{t.identifier}.size()", _count(s, t)], ");"
            )
            for t in s.tensors
            if t.is_known
        ],
        "axes": {t.identifier: ", ".join(_axes(s, t, "INFC_DIM({})")) for t in s.tensors},
        "axes_names": {
            t.identifier: f"k{t.role.capitalize()}{i}Axes"
            for tensors in (s.inputs, s.outputs)
            for i, t in enumerate(tensors)
        },
        "cpp_types": {t.c_type: cpp_type(t) for t in s.tensors},
        "dims": [_harness_dim(d) for d in s.dims],
        "described": {t.identifier: _harness_tensor(s, t) for t in s.tensors},
    }


def _dim_parameters(s: Signature) -> list[str]:
    return [f"std::int64_t {d.identifier}" for d in s.dims]


def cpp_type(t: Tensor) -> str:
    """The element type in C++."""
    return f"std::{t.c_type}" if t.c_type.endswith("_t") else t.c_type


def _cpp_parameter(t: Tensor) -> str:
    if t.role == "input":
        return f"Span<const {cpp_type(t)}> {t.identifier}"
    kind = "Span<{}>" if t.is_known else "Tensor<{}>&"
    return f"{kind.format(cpp_type(t))} {t.identifier}"


def _c_arguments(s: Signature) -> list[str]:
    out = [d.identifier for d in s.dims]
    for t in s.tensors:
        if t.is_known:
            out.append(f"{t.identifier}.data()")
            continue
        out += [
            f"{t.identifier}.data.data()",
            f"{t.identifier}.data.size()",
            f"{t.identifier}_shape",
        ]
        if t.axes is None:
            out.append(f"&{t.identifier}_rank")
    return out


def _harness_arguments(s: Signature) -> list[str]:
    out = [f"r.dims[{i}]" for i in range(len(s.dims))]
    out += [f"r.inputs[{i}].as<{cpp_type(t)}>()" for i, t in enumerate(s.inputs)]
    return out + [
        f"r.outputs[{i}].as<{cpp_type(t)}>()" if t.is_known else f"{t.identifier}_"
        for i, t in enumerate(s.outputs)
    ]


def _count(s: Signature, t: Tensor) -> str:
    """The number of elements, in the words of the C header."""
    if t.is_static:
        return f"{s.upper}_{t.role.upper()}_{t.identifier.upper()}_COUNT"
    arguments = ", ".join(d.identifier for d in t.dims)
    return f"{s.name}_{t.role}_{t.identifier}_count({arguments})"


def _axes(s: Signature, t: Tensor, dim: str, unknown: str = "INFC_UNKNOWN") -> list[str]:
    return [
        dim.format(s.dims.index(a)) if isinstance(a, Dim) else unknown if a is None else str(a)
        for a in t.axes or ()
    ]


def _harness_dim(d: Dim) -> str:
    typical = d.bounds[1] if d.bounds else 0
    return f"{{{c_string(d.name)}, {d.low}, {d.high}, {typical}}}"


def _harness_tensor(s: Signature, t: Tensor) -> str:
    dtype = "boolean" if t.dtype == "bool" else t.dtype
    axes = ", ".join(_axes(s, t, "dim({})", "kUnknown"))
    unknown = ", true" if t.axes is None else ""
    return f"{{{c_string(t.name)}, harness::DType::{dtype}, {{{axes}}}{unknown}}}"


def _facts(target: Target, artifact: Artifact, model: Path) -> dict[str, Any]:
    """What the loader checks and tells the runtime."""
    from importlib.metadata import version

    distribution = back_end(target.back_end).DISTRIBUTIONS[0]
    files = dict.fromkeys((artifact.entry, *artifact.files))
    return {
        "files": [(name, sha256_of(model / name)) for name in files],
        "entry": artifact.entry,
        "settings": sorted(target.options.items()),
        "distribution": distribution,
        "runtime_version": version(distribution),
        "device": target.device,
        "precision": str(target.precision),
    }


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How a loader is compiled: `sanitize` as for -fsanitize, `warnings` as errors.

    Sanitized code is not optimised: libtorch's headers then take a third of the time.
    """

    sanitize: str = ""
    warnings: bool = False
    keep_objects: bool = True


def build(
    bundle: Bundle,
    scratch: Path,
    limits: WorkerLimits,
    options: BuildOptions = BuildOptions(),
) -> Path:
    """Compile the bundle's loader in the new folder `scratch` and return its `main`.

    Raises:
        InfcError: E501 where CMake, the compiler or the SDK is missing, E702 where the bundle has
            no C++ loader, E703 where something does not compile, E503.
    """
    folder = loader_folder(bundle, "cpp")
    what = f"the C++ loader of `{bundle.name}`"
    return build_project(Project(folder, what), bundle, scratch, limits, options) / "main"


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
    entries = _entries(target, options)
    cmake, compiler = _tool("cmake"), find_compiler()
    key = _key(bundle.path / "loader" / "cpp", target, compiler, entries)
    cached = cache_folder() / "objects" / key
    if options.keep_objects and cached.is_dir():
        entries["INFC_OBJECTS"] = str(cached)
    warnings = "ON" if options.warnings else "OFF"
    entries |= {
        "CMAKE_CXX_COMPILER": compiler,
        "INFC_WARNINGS": warnings,
        "CMAKE_COMPILE_WARNING_AS_ERROR": warnings,
        **project.entries,
    }
    scratch.mkdir(parents=True)
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    defines = [f"-D{name}={value}" for name, value in entries.items()]
    built = scratch / "build"
    start = [cmake, "-S", str(project.source.resolve()), "-B", str(built)]
    _compile([*start, *generator, *defines], project.what, limits)
    keep = options.keep_objects and not cached.is_dir()
    # Not every project needs the harness, but the cache does.
    targets = ["--target", "all", "infc_harness"] if keep else []
    _compile([cmake, "--build", str(built), "--parallel", *targets], project.what, limits)
    if keep:
        _keep(built / project.loader, cached)
    return built


def _entries(target: Target, options: BuildOptions) -> dict[str, str]:
    """The CMake cache entries that say what is compiled, and against what."""
    return {
        **back_end(target.back_end).LOADER.sdk(),
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


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise fail("E501", f"`{name}` was not found", help=f"apt install {name}")
    return path


def cache_folder() -> Path:
    """`$INFC_HOME/cache`, or `~/.cache/infc`."""
    home = os.environ.get("INFC_HOME")
    if home:
        return Path(home) / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "infc"


def _key(folder: Path, target: Target, compiler: str, entries: Mapping[str, str]) -> str:
    """What the objects depend on: sources, flags, the compiler, the SDK."""
    from importlib.metadata import version

    hashed = hashlib.sha256()
    sources = [*ADAPTOR_SOURCES, *ADAPTOR_HEADERS, "runtime/harness.h", "runtime/harness.cpp"]
    parts: list[str] = [sha256_of(folder / name) for name in sources]
    parts += [plain("cpp/CMakeLists.txt.j2"), compiler, _first_line([compiler, "--version"])]
    parts += [f"{k}={v}" for k, v in sorted(entries.items())]
    parts += [f"{d} {version(d)}" for d in back_end(target.back_end).DISTRIBUTIONS]
    parts += [os.environ.get(name, "") for name in ("CXXFLAGS", "CPPFLAGS")]
    for part in parts:
        hashed.update(part.encode() + b"\0")
    return hashed.hexdigest()[:32]


def _first_line(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0]


def _keep(built: Path, cached: Path) -> None:
    """Copy the objects into the cache in one rename; of two processes the first one wins.

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
            partial.rename(cached)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError:
        return


def _compile(command: Sequence[str], what: str, limits: WorkerLimits) -> None:
    done = _call(command, limits, f"compiling {what}")
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


def _call(
    command: Sequence[str], limits: WorkerLimits, what: str
) -> subprocess.CompletedProcess[str]:
    """Run a program in a session of its own, which ends with it.

    Raises:
        InfcError: E503 where it takes too long.
    """
    import signal

    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=limits.timeout_s)
    except subprocess.TimeoutExpired as error:
        raise fail(
            "E503",
            f"{what} was stopped after {limits.timeout_s:g} s",
            help="raise the limit with `--timeout SECONDS`",
        ) from error
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return subprocess.CompletedProcess(list(command), process.returncode, out, err)


def run(
    program: Path, bundle: Bundle, arguments: Iterable[str], limits: WorkerLimits
) -> dict[str, Any]:
    """Run a loader's `main` on its bundle and return what it prints as JSON.

    Raises:
        InfcError: E502 where it crashes, E503 where it takes too long, E705 where it fails.
    """
    command = [str(program), str(bundle.path), "--json", *arguments]
    return run_program(command, f"the C++ loader of `{bundle.name}`", limits)


def run_program(command: Sequence[str], what: str, limits: WorkerLimits) -> dict[str, Any]:
    """Run `command` and return what it prints as JSON.

    Raises:
        InfcError: as `run`.
    """
    import signal

    done = _call(command, limits, what)
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise fail("E502", f"{what} crashed with {name}", notes=[_tail(done.stderr)])
    if done.returncode != 0:
        raise fail("E705", f"{what} failed", notes=[_tail(done.stderr)])
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        raise fail("E705", f"{what} printed something else than JSON") from error
    return answer


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-12:]) or "it said nothing"


def device_arguments(bundle: Bundle) -> list[str]:
    """`--device` where the artifact's own device is absent here and another one stands in."""
    device = bundle.manifest["artifact"]["notes"].get("verified_on")
    return ["--device", device] if device else []
