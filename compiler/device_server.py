"""A device server for TVM RPC, built for the device: a program, and the libraries it needs.

    templates/tvm/device/server.cc + tvm_ffi's headers -> serve, linked with TVM's runtime

The libraries are those of TVM's wheels: the installed ones for this kind of machine, for another
one those of a folder of wheels that the user downloaded. Nothing is ever downloaded here.
"""

from __future__ import annotations

import shutil
import stat
import tempfile
import zipfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from infc.bundle import publish
from infc.diagnostics import fail
from infc.loaders.programs import call
from infc.request import WorkerLimits
from infc.targets import Target, cross, tvm_sdk
from infc.targets.tvm_compiler.settings import cpu_of

LIBRARIES = (
    ("tvm", "libtvm_runtime.so"),
    ("tvm", "libtvm_runtime_extra.so"),
    ("tvm_ffi", "libtvm_ffi.so"),
)
"""Package and file; of RPC the last but one."""
WHEELS = {"x86_64-linux-gnu": "x86_64", "aarch64-linux-gnu": "aarch64"}
"""The triples that TVM has wheels for, and how those call the machine."""
PROGRAM = "serve"
MAX_LIBRARY_BYTES = 1 << 28
_OPTIONS = ("-std=c++17", "-O2", "-fvisibility=hidden", "-Wl,--no-as-needed", "-Wl,-rpath,$ORIGIN")


@dataclass(frozen=True, slots=True)
class ServerFolder:
    """What was built: the folder, the triple that it is for, the files in it."""

    path: Path
    triple: str
    files: tuple[str, ...]


def build(target: Target, output: Path, wheels: Path | None, limits: WorkerLimits) -> ServerFolder:
    """Build the server for the processor of `target` in the folder `output`, which is replaced.

    Raises:
        InfcError: E110 for a target of another back end, E501 where TVM's libraries for it or a
            compiler are missing, E503, E703.
    """
    if target.back_end != "tvm":
        raise fail(
            "E110",
            f"`{target.name}` is not a target of `tvm`: only that has devices over TVM RPC",
            help="`infc targets` lists those whose back end is `tvm`",
        )
    cpu = cpu_of(target)
    gnu = cross.gnu_triple(cpu.triple)
    compiler = cross.find_compiler(cpu.triple, target.options.get("compiler", ""), cpu.flags)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=output.parent))
    try:
        for package, name in LIBRARIES:
            (partial / name).write_bytes(_library(package, name, gnu, wheels))
        _compile(compiler.cxx, partial, limits)
        partial.chmod(0o755)
        files = tuple(sorted(p.name for p in partial.iterdir()))
        publish(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return ServerFolder(output, gnu, files)


def _library(package: str, name: str, gnu: str, wheels: Path | None) -> bytes:
    """One of TVM's libraries, of the wheels that are installed or of those in a folder.

    Raises:
        InfcError: E501.
    """
    installed = tvm_sdk.package(package)
    if installed is None:
        raise fail("E501", f"`{package}` is not installed", help="pip install 'infc[tvm]'")
    if wheels is None and cross.is_native(gnu):
        return (installed / "lib" / name).read_bytes()
    if gnu not in WHEELS:
        raise fail(
            "E501",
            f"TVM has no wheels for {gnu}, and a device server needs the libraries in them",
            help="verify in the emulator or with the loader on the device instead",
        )
    if wheels is None:
        raise fail(
            "E501",
            f"TVM's libraries for {gnu} are not here",
            help=f"download its wheels, and give their folder with `--wheels`:\n{_command(gnu)}",
        )
    return _of_wheel(package, name, gnu, wheels)


def _of_wheel(package: str, name: str, gnu: str, wheels: Path) -> bytes:
    """A library out of the wheel of the installed version for another machine.

    Raises:
        InfcError: E501 where there is none, or none that has it.
    """
    distribution = f"apache_{package}"
    release = version(distribution.replace("_", "-"))
    pattern = f"{distribution}-{release}-*{WHEELS[gnu]}.whl"
    for wheel in sorted(wheels.glob(pattern)):
        try:
            with zipfile.ZipFile(wheel) as archive:
                row = archive.getinfo(f"{package}/lib/{name}")
                if row.file_size <= MAX_LIBRARY_BYTES:
                    return archive.read(row)
        except (OSError, KeyError, zipfile.BadZipFile):
            continue
    raise fail(
        "E501",
        f"`{wheels}` has no `{pattern}` with `{name}` in it",
        help=f"download it:\n{_command(gnu)}",
    )


def _command(gnu: str) -> str:
    names = " ".join(f"{d}=={version(d)}" for d in ("apache-tvm", "apache-tvm-ffi"))
    platform = f"manylinux_2_28_{WHEELS[gnu]}"
    return f"pip download --no-deps --only-binary=:all: --platform {platform} -d wheels {names}"


def _compile(cxx: tuple[str, ...], folder: Path, limits: WorkerLimits) -> None:
    """Compile and link the program.

    Raises:
        InfcError: E503, E703.
    """
    from infc import templates

    source = Path(next(iter(templates.__path__))) / "tvm" / "device" / "server.cc"
    headers = tvm_sdk.headers()
    names = [f"-l{name.removeprefix('lib').removesuffix('.so')}" for _, name in LIBRARIES]
    command = [
        *cxx,
        *_OPTIONS,
        *(word for path in headers for word in ("-isystem", path)),
        str(source),
        f"-L{folder}",
        *names,
        # What TVM's libraries need lies on the device.
        "-Wl,--allow-shlib-undefined",
        *("-ldl", "-lpthread", "-s", "-o"),
        str(folder / PROGRAM),
    ]
    done = call(command, limits, "compiling the device server")
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line][:10]
        raise fail("E703", "the device server does not compile", notes=["\n".join(lines)])
    program = folder / PROGRAM
    program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
