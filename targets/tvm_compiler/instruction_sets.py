"""What a library looks for in a processor before it runs there: CPUID, and Linux on Arm.

It asks the processor itself: what compilers offer for that (`__builtin_cpu_supports`) is in
libraries that not every one of them brings, and finds nothing in zig's.
Sources: Intel's Software Developer's Manual, volume 2, CPUID and XGETBV; Linux's asm/hwcap.h.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ability:
    """A bit of `getauxval(kind)`: 16 is AT_HWCAP, 26 AT_HWCAP2; `name` is Linux's."""

    name: str
    kind: int
    bit: int


_HWCAP, _HWCAP2 = 16, 26
ABILITIES = {
    "aarch64": {
        "crc": Ability("crc32", _HWCAP, 7),
        "lse": Ability("atomics", _HWCAP, 8),
        "fullfp16": Ability("asimdhp", _HWCAP, 10),
        "dotprod": Ability("asimddp", _HWCAP, 20),
        "sve": Ability("sve", _HWCAP, 22),
        "sve2": Ability("sve2", _HWCAP2, 1),
        "i8mm": Ability("i8mm", _HWCAP2, 13),
        "bf16": Ability("bf16", _HWCAP2, 14),
    },
    "arm": {
        "neon": Ability("neon", _HWCAP, 12),
        "vfp4": Ability("vfpv4", _HWCAP, 16),
        "hwdiv-arm": Ability("idiva", _HWCAP, 17),
    },
}
"""By architecture: LLVM's name of a feature, and how Linux says that it is there."""

_EAX, _EBX, _ECX, _EDX = range(4)
_CPUID = {
    "ssse3": (1, 0, _ECX, 9),
    "sse4.1": (1, 0, _ECX, 19),
    "sse4.2": (1, 0, _ECX, 20),
    "popcnt": (1, 0, _ECX, 23),
    "movbe": (1, 0, _ECX, 22),
    "fma": (1, 0, _ECX, 12),
    "avx": (1, 0, _ECX, 28),
    "f16c": (1, 0, _ECX, 29),
    "bmi": (7, 0, _EBX, 3),
    "avx2": (7, 0, _EBX, 5),
    "bmi2": (7, 0, _EBX, 8),
    "avx512f": (7, 0, _EBX, 16),
    "avx512dq": (7, 0, _EBX, 17),
    "avx512cd": (7, 0, _EBX, 28),
    "avx512bw": (7, 0, _EBX, 30),
    "avx512vl": (7, 0, _EBX, 31),
    "avx512vbmi": (7, 0, _ECX, 1),
    "avx512vnni": (7, 0, _ECX, 11),
    "avx512fp16": (7, 0, _EDX, 23),
    "avxvnni": (7, 1, _EAX, 4),
    "avx512bf16": (7, 1, _EAX, 5),
}
"""LLVM's name of a feature: leaf and subleaf of CPUID, the register and the bit in it."""
_OSXSAVE = (1, 0, _ECX, 27)
_AVX_STATE, _AVX512_STATE = 0x06, 0xE6
"""Bits of XCR0: registers that the system saves and restores."""


@dataclass(frozen=True, slots=True)
class Query:
    """What a register (0 is EAX) has to have after CPUID with `leaf` and `subleaf`."""

    leaf: int
    subleaf: int
    register: int
    mask: int


@dataclass(frozen=True, slots=True)
class Instructions:
    """Sets of instructions on x86-64: how to ask for them; `state` is what XCR0 has to have."""

    names: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.names)

    @property
    def queries(self) -> list[Query]:
        """One for each register."""
        rows = [_CPUID[name] for name in self.names] + ([_OSXSAVE] if self.state else [])
        places = sorted({row[:3] for row in rows})
        return [Query(*p, sum(1 << bit for *q, bit in set(rows) if tuple(q) == p)) for p in places]

    @property
    def state(self) -> int:
        """Of XCR0; 0 where there are no registers but those that every system knows."""
        if any(name.startswith("avx512") for name in self.names):
            return _AVX512_STATE
        return _AVX_STATE if any(name.startswith(("avx", "fma")) for name in self.names) else 0


def known(names: Iterable[str]) -> Instructions:
    """Those of `names`, LLVM's with or without a `+`, that can be asked for, each once."""
    plain = dict.fromkeys(name.lstrip("+") for name in names)
    return Instructions(tuple(name for name in plain if name in _CPUID))


def abilities(machine: str, names: Collection[str]) -> tuple[Ability, ...]:
    """What Linux says of the features `names` of an architecture."""
    wanted = {name.lstrip("+") for name in names}
    return tuple(a for name, a in ABILITIES.get(machine, {}).items() if name in wanted)
