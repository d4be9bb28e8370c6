"""Compilers for other machines than this one, and the emulators that run what they make.

A compiler is looked for in this order: the one that the user names (`-X compiler=`, else the
variable INFC_CC_<TRIPLE>), this machine's own where the triple is this machine's, Debian's
`<triple>-gcc`, and `zig cc` (PyPI `ziglang`), which compiles for all of them. A program for another
Linux runs under qemu's user mode emulation, with the C library of Debian's cross packages.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from infc.diagnostics import fail
from infc.places import cache_folder

ZIG = "zig"
BOARDS = {"arm-none-eabi": "qemu-system-arm"}
"""What emulates whole boards, for triples without an operating system; also Debian's package."""
_NATIVE = ("cc", "gcc", "clang")
_CXX = {"gcc": "g++", "cc": "c++", "clang": "clang++"}
_ZIG_FPUS = {
    "fpv4-sp-d16": "+vfp4d16sp",
    "fpv5-d16": "+fp_armv8d16",
    "fpv5-sp-d16": "+fp_armv8d16sp",
}
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Triple:
    """A kind of machine: what zig, Debian and qemu call it.

    `packages` are Debian's: a compiler, and the C library for the emulator.
    """

    name: str
    zig: tuple[str, ...]
    emulator: str = ""
    compiler_package: str = ""
    library_package: str = ""


_TRIPLES = {
    t.name: t
    for t in (
        Triple(
            "x86_64-linux-gnu",
            ("x86_64-linux-gnu.2.28",),
            "x86_64",
            "g++-x86-64-linux-gnu",
            "libc6-amd64-cross",
        ),
        Triple(
            "aarch64-linux-gnu",
            ("aarch64-linux-gnu.2.28",),
            "aarch64",
            "g++-aarch64-linux-gnu",
            "libc6-arm64-cross",
        ),
        Triple(
            "arm-linux-gnueabihf",
            ("arm-linux-gnueabihf.2.28", "-mcpu=generic+v7a+vfp3d16"),
            "arm",
            "g++-arm-linux-gnueabihf",
            "libc6-armhf-cross",
        ),
        Triple(
            "riscv64-linux-gnu",
            ("riscv64-linux-gnu.2.31",),
            "riscv64",
            "g++-riscv64-linux-gnu",
            "libc6-riscv64-cross",
        ),
        Triple("arm-none-eabi", ("thumb-freestanding-eabihf",), "", "gcc-arm-none-eabi"),
    )
}


@dataclass(frozen=True, slots=True)
class Compiler:
    """Commands of a C and a C++ compiler, ready for its triple."""

    triple: str
    c: tuple[str, ...]
    cxx: tuple[str, ...]

    @property
    def program(self) -> str:
        """The executable: zig's is behind `env`, which gives it a place for what it keeps."""
        return next(word for word in self.c if "=" not in word and Path(word).name != "env")

    @property
    def version(self) -> str:
        """The first line of what it says of itself, without its place."""
        what = ZIG if ZIG in {Path(word).name for word in self.c} else Path(self.c[0]).name
        done = subprocess.run(
            [*self.c, "--version"], capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
        line = done.stdout.partition("\n")[0]
        return line if line.startswith(what) else f"{what}: {line}"


@dataclass(frozen=True, slots=True)
class Emulator:
    """qemu for programs of another processor; `root` has their C library."""

    program: str
    root: str
    model: str = ""

    @property
    def name(self) -> str:
        """What it is, and which processor it is for now: `qemu-aarch64 cortex-a53`."""
        return " ".join(word for word in (Path(self.program).name, self.model) if word)

    @property
    def command(self) -> tuple[str, ...]:
        """What a program is started with."""
        model = ("-cpu", self.model) if self.model else ()
        return (self.program, "-L", self.root, *model)


def gnu_triple(triple: str) -> str:
    """The triple of LLVM's as Debian spells it: `armv7l-linux-gnueabihf` is `arm-...`."""
    first, _, rest = triple.partition("-")
    if "-none-" in triple:
        return "arm-none-eabi"
    return f"arm-{rest}" if first.startswith("armv") else triple


def is_native(triple: str) -> bool:
    """Whether this machine runs programs of `triple` by itself."""
    return platform.system() == "Linux" and gnu_triple(triple) == f"{platform.machine()}-linux-gnu"


def find_compiler(triple: str, named: str = "", flags: tuple[str, ...] = ()) -> Compiler:
    """A compiler for `triple`, the one that is `named`, or the first there is.

    `flags` say which processor of that triple, to compilers that have no better way.

    Raises:
        InfcError: E501, with what to install.
    """
    gnu = gnu_triple(triple)
    given = named or os.environ.get(f"INFC_CC_{gnu.upper().replace('-', '_')}", "")
    if given:
        found = _named(gnu, given, flags)
    elif is_native(triple):
        found = next((f for f in (_of_path(gnu, name, flags) for name in _NATIVE) if f), None)
        found = found or _zig(gnu, flags)
    else:
        found = _of_path(gnu, f"{gnu}-gcc", flags) or _zig(gnu, flags)
    if found is None:
        what = f"the compiler `{given}`" if given else f"a C compiler for {gnu}"
        raise fail("E501", f"{what} was not found", help=_remedy(gnu))
    return found


def _remedy(gnu: str) -> str:
    known = _TRIPLES.get(gnu)
    if is_native(gnu):
        return "apt install g++"
    debian = f", or apt install {known.compiler_package}" if known else ""
    return f"pip install 'infc[cross]'{debian}, or name one: `-X compiler=...`"


def _named(gnu: str, given: str, flags: tuple[str, ...]) -> Compiler | None:
    if given == ZIG:
        return _zig(gnu, flags)
    command = shlex.split(given)
    return _of_path(gnu, command[0], (*command[1:], *flags)) if command else None


def _of_path(gnu: str, name: str, flags: tuple[str, ...]) -> Compiler | None:
    """The compiler called `name`, and that for C++ beside it."""
    program = shutil.which(name)
    if program is None:
        return None
    folder, base = Path(program).parent, Path(name).name
    stem, _, kind = base.rpartition("-")
    other = _CXX.get(kind, kind)
    cxx = folder / (f"{stem}-{other}" if stem else other)
    return Compiler(gnu, (program, *flags), (str(cxx), *flags))


def _zig(gnu: str, flags: tuple[str, ...]) -> Compiler | None:
    known, program = _TRIPLES.get(gnu), zig_program()
    if known is None or program is None:
        return None
    target, *more = known.zig
    options = ("-target", target, *more, *_of_zig(flags))
    place = os.environ.get("ZIG_GLOBAL_CACHE_DIR") or str(cache_folder() / ZIG)
    start = (
        shutil.which("env") or "/usr/bin/env",
        f"ZIG_GLOBAL_CACHE_DIR={place}",
        f"ZIG_LOCAL_CACHE_DIR={place}",
        program,
    )
    return Compiler(gnu, (*start, "cc", *options), (*start, "c++", *options))


def _of_zig(flags: tuple[str, ...]) -> list[str]:
    """GCC's `-mcpu=cortex-m4 -mfpu=fpv4-sp-d16` in zig's words: `-mcpu=cortex_m4+vfp4d16sp`."""
    given = dict(flag.split("=", 1) for flag in flags if "=" in flag)
    if "-mcpu" not in given:
        return []
    unit = _ZIG_FPUS.get(given.get("-mfpu", ""), "")
    return [f"-mcpu={given['-mcpu'].replace('-', '_')}{unit}"]


@cache
def zig_program() -> str | None:
    """Zig's compiler: of the distribution `ziglang`, else on the path."""
    from importlib.util import find_spec

    spec = find_spec("ziglang")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / ZIG).is_file():
            return str(Path(folder) / ZIG)
    return shutil.which(ZIG)


def find_emulator(triple: str, model: str = "") -> Emulator | None:
    """What runs programs of `triple` here, as the processor `model` where it knows that."""
    known = _TRIPLES.get(gnu_triple(triple))
    if known is None or not known.emulator:
        return None
    root = Path("/usr") / known.name
    for name in (f"qemu-{known.emulator}", f"qemu-{known.emulator}-static"):
        program = shutil.which(name)
        if program and (root / "lib").is_dir():
            return Emulator(program, str(root), model if model in _models(program) else "")
    return None


def emulator_remedy(triple: str) -> str:
    """How to have programs of `triple` run here; "" where no emulator runs any."""
    known = _TRIPLES.get(gnu_triple(triple))
    if known is None or not known.emulator:
        return ""
    return f"apt install qemu-user {known.library_package}"


def board_emulator(triple: str) -> str | None:
    """The program that emulates boards of `triple`, where there is no operating system."""
    return shutil.which(BOARDS[triple])


@cache
def _models(program: str) -> frozenset[str]:
    done = subprocess.run(
        [program, "-cpu", "help"], capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
    )
    return frozenset(done.stdout.split())
