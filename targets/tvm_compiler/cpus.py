"""What a processor is to the schedules: vector width, cores, and TVM's name for it."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infc.targets.tvm_compiler.instruction_sets import Ability, Instructions, abilities, known


@dataclass(frozen=True, slots=True)
class Cpu:
    """A processor.

    `triple`, `mcpu` and `features` (`+neon`) are LLVM's. `vector_bytes` is the width of a vector
    register, `registers` how many there are, `cores` how many cores run a model. `options` are
    further ones of TVM's target, `flags` what GCC is told of it.
    """

    triple: str
    mcpu: str
    features: tuple[str, ...] = ()
    vector_bytes: int = 16
    registers: int = 16
    cores: int = 1
    options: Mapping[str, str | int] | None = None
    flags: tuple[str, ...] = ()

    @property
    def machine(self) -> str:
        """Its architecture, as Linux and qemu call it: `aarch64`, `arm`, `riscv64`, `x86_64`."""
        first = self.triple.partition("-")[0]
        return "arm" if first.startswith(("arm", "thumb")) else first

    @property
    def bare(self) -> bool:
        """Whether there is no operating system: no threads, no files, no memory of its own."""
        return "-none-" in self.triple

    @property
    def pointer_bytes(self) -> int:
        """The size of an address."""
        return 8 if self.machine.endswith("64") else 4

    @property
    def abilities(self) -> tuple[Ability, ...]:
        """What to look for in Linux's auxiliary vector before a kernel runs; none of x86-64."""
        if self.bare:
            return ()
        return abilities(self.machine, (*_IMPLIED.get(self.mcpu, ()), *self.features))

    @property
    def multiplies_halves(self) -> bool:
        """Whether it has multiply-adds of vectors of float16: FEAT_FP16 of ARMv8.2-A."""
        if self.machine != "aarch64":
            return False
        return "fullfp16" in _IMPLIED.get(self.mcpu, ()) or "+fullfp16" in self.features

    def missing_here(self) -> list[str]:
        """What this machine's processor, of the same architecture, lacks, as Linux calls it."""
        flags = _flags()
        if self.machine != "x86_64":
            return [a.name for a in self.abilities if a.name not in flags]
        levels = list(_LEVELS)
        at = levels.index(self.mcpu) if self.mcpu in levels else len(levels)
        wanted = [name for level in levels[at:] for name in _LEVELS[level]]
        return [name for name in wanted if name not in flags]

    def lanes(self, dtype_bytes: int) -> int:
        """Elements in a vector register."""
        return max(1, self.vector_bytes // dtype_bytes)

    @property
    def instructions(self) -> Instructions:
        """Sets of instructions to look for before a kernel runs; x86-64 only."""
        if self.machine != "x86_64":
            return Instructions(())
        return known((*_LOOKED_FOR.get(self.mcpu, ()), *self.features))

    def target(self) -> dict[str, Any]:
        """TVM's target, as `tvm.target.Target` takes it."""
        found: dict[str, Any] = {
            "kind": "llvm",
            "mtriple": self.triple,
            "mcpu": self.mcpu,
            "num-cores": self.cores,
        }
        if self.features:
            found["mattr"] = list(self.features)
        return {**found, **(self.options or {})}


_ARM82 = ("crc", "lse", "fullfp16", "dotprod")
_IMPLIED: Mapping[str, tuple[str, ...]] = {
    "cortex-a53": ("crc",),
    "cortex-a72": ("crc",),
    **dict.fromkeys(("cortex-a55", "cortex-a76", "cortex-a78", "neoverse-n1"), _ARM82),
    "neoverse-v2": (*_ARM82, "sve", "sve2", "i8mm", "bf16"),
    "cortex-a7": ("neon", "vfp4", "hwdiv-arm"),
}
"""What LLVM takes for given of a processor, beyond its architecture."""


def _x86(mcpu: str, vector_bytes: int, registers: int) -> Cpu:
    return Cpu("x86_64-linux-gnu", mcpu, (), vector_bytes, registers, 4)


def _arm64(mcpu: str, cores: int, *features: str) -> Cpu:
    return Cpu("aarch64-linux-gnu", mcpu, features, 16, 32, cores)


def _arm32(mcpu: str, *features: str) -> Cpu:
    triple = "armv7l-linux-gnueabihf"
    return Cpu(triple, mcpu, features, 16, 16, 4, {"mfloat-abi": "hard"})


def _cortex_m(mcpu: str, architecture: str, fpu: str) -> Cpu:
    """A microcontroller with floats of 32 bits in hardware, of which it has 32 registers."""
    options: dict[str, str | int] = {"mfloat-abi": "hard", "vector-width": 32}
    flags = (f"-mcpu={mcpu}", "-mthumb", "-mfloat-abi=hard", f"-mfpu={fpu}")
    return Cpu(f"{architecture}-none-eabihf", mcpu, (), 4, 16, 1, options, flags)


HOST = "host"
CPUS = {
    "x86-64-v2": _x86("x86-64-v2", 16, 16),
    "x86-64-v3": _x86("x86-64-v3", 32, 16),
    "x86-64-v4": _x86("x86-64-v4", 64, 32),
    "cortex-a53": _arm64("cortex-a53", 4),
    "cortex-a55": _arm64("cortex-a55", 4),
    "cortex-a72": _arm64("cortex-a72", 4),
    "cortex-a76": _arm64("cortex-a76", 4),
    "cortex-a78": _arm64("cortex-a78", 4),
    "neoverse-n1": _arm64("neoverse-n1", 4),
    "neoverse-v2": _arm64("neoverse-v2", 4),
    "cortex-a7": _arm32("cortex-a7"),
    "armv7": _arm32("generic", "+v7", "+neon"),
    "riscv64": Cpu(
        *("riscv64-linux-gnu", "generic-rv64", ("+m", "+a", "+f", "+d", "+c"), 16, 32, 4),
        {"mabi": "lp64d"},
    ),
    "cortex-m4": _cortex_m("cortex-m4", "thumbv7em", "fpv4-sp-d16"),
    "cortex-m7": _cortex_m("cortex-m7", "thumbv7em", "fpv5-d16"),
    "cortex-m33": _cortex_m("cortex-m33", "thumbv8m.main", "fpv5-sp-d16"),
}
"""Processors by name; LLVM's names for them."""

_LEVELS = {
    "x86-64-v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
    "x86-64-v3": ("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"),
    "x86-64-v2": ("cx16", "popcnt", "sse4_1", "sse4_2", "ssse3"),
}
"""x86-64's levels, and what Linux calls that which each adds. Source: the x86-64 psABI."""
_V2 = ("popcnt", "sse4.2", "ssse3")
_V3 = (*_V2, "avx2", "bmi", "bmi2", "f16c", "fma", "movbe")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
_LOOKED_FOR = {"x86-64-v2": _V2, "x86-64-v3": _V3, "x86-64-v4": _V4}
_BEYOND = {
    "avx512_vnni": "+avx512vnni",
    "avx512_bf16": "+avx512bf16",
    "asimddp": "+dotprod",
    "asimdhp": "+fullfp16",
}
"""What no level has: what Linux calls it, and what LLVM does."""


class UnknownCpuError(Exception):
    """This machine's processor is of no kind that kernels can be made for."""


def host() -> Cpu:
    """This machine: the highest level that it has, and what it has beyond.

    Raises:
        UnknownCpuError: a processor that is neither x86-64 nor aarch64.
    """
    return cpu_of(platform.machine(), _flags(), len(os.sched_getaffinity(0)))


def cpu_of(machine: str, flags: Collection[str], cores: int) -> Cpu:
    """The processor of a machine with these flags in /proc/cpuinfo.

    Raises:
        UnknownCpuError: it is neither x86-64 nor aarch64.
    """
    beyond = tuple(name for flag, name in _BEYOND.items() if flag in flags)
    if "avx512_vnni" not in flags and {"avx2", "avx_vnni"} <= set(flags):
        # The same instruction on shorter vectors; who has both needs no second way to write it.
        beyond = ("+avxvnni", *beyond)
    if machine == "aarch64":
        return Cpu("aarch64-linux-gnu", "generic", beyond, 16, 32, cores)
    if machine != "x86_64":
        raise UnknownCpuError(f"no kernels can be made for this machine ({machine})")
    missing = [
        level for level, names in _LEVELS.items() if not all(name in flags for name in names)
    ]
    for level in _LEVELS:
        above = list(_LEVELS)[list(_LEVELS).index(level) :]
        if not any(name in missing for name in above):
            return replace(CPUS[level], features=beyond, cores=cores)
    return Cpu("x86_64-linux-gnu", "x86-64", (), 16, 16, cores)


def _flags() -> frozenset[str]:
    """What Linux says that the processor can do."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        name, _, words = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(words.split())
    return frozenset()
