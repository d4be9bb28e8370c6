"""What the user asked for: parsed, checked and frozen.

A shape on the command line is `NAME=DIMxDIMx...` (or comma-separated, which a symbolic name with
an `x` in it needs). A dimension is

    224             fixed
    batch           symbolic; renames the model's own dimension
    1..8            dynamic, with bounds
    1..8@4          dynamic, with bounds and the typical value
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from infc.diagnostics import fail


class Precision(StrEnum):
    """The arithmetic an artifact computes in."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


@dataclass(frozen=True, slots=True)
class Dim:
    """One dimension of an input: fixed (`low == high`), bounded, or symbolic without bounds."""

    name: str | None = None
    low: int | None = None
    typical: int | None = None
    high: int | None = None

    @property
    def fixed(self) -> int | None:
        """The value, where there is only one."""
        return self.low if self.low is not None and self.low == self.high else None

    def __str__(self) -> str:
        if self.fixed is not None:
            return str(self.fixed)
        if self.low is None:
            return self.name or "?"
        at = f"@{self.typical}" if self.typical not in (None, self.low) else ""
        return f"{self.low}..{self.high}{at}"


_DIM = re.compile(
    r"(?:(?P<fixed>\d+)|(?P<low>\d+)\.\.(?P<high>\d+)(?:@(?P<typical>\d+))?"
    r"|(?P<name>[A-Za-z_][\w.\-]*))"
)
MAX_DIM = 2**31 - 1


@dataclass(frozen=True, slots=True)
class InputSpec:
    """A shape the user gave for the input `name`."""

    name: str
    dims: tuple[Dim, ...]

    @classmethod
    def parse(cls, text: str) -> InputSpec:
        """Parse `NAME=SHAPE`.

        Raises:
            InfcError: E110, with the part that does not parse.
        """
        name, equals, shape = text.rpartition("=")
        if not equals or not name:
            raise fail(
                "E110",
                f"`--input {text}` is not NAME=SHAPE",
                help="for example `--input images=1x3x224x224`",
            )
        parts = [] if shape in ("", "scalar") else re.split("," if "," in shape else "x", shape)
        return cls(name, tuple(_parse_dim(part.strip(), text) for part in parts))

    def __str__(self) -> str:
        return f"{self.name}={'x'.join(map(str, self.dims)) or 'scalar'}"


def _parse_dim(part: str, text: str) -> Dim:
    match = _DIM.fullmatch(part)
    if match is None:
        raise fail(
            "E110",
            f"`{part}` in `--input {text}` is not a dimension",
            help="a dimension is a number, a name, MIN..MAX or MIN..MAX@TYPICAL",
        )
    if match["name"]:
        return Dim(name=match["name"])
    low = int(match["fixed"] or match["low"])
    high = int(match["fixed"] or match["high"])
    typical = int(match["typical"]) if match["typical"] else low
    if not 0 < low <= typical <= high <= MAX_DIM:
        raise fail(
            "E110",
            f"`{part}` in `--input {text}` is not in order: MIN <= TYPICAL <= MAX",
            help=f"dimensions lie between 1 and {MAX_DIM}",
        )
    return Dim(low=low, typical=typical, high=high)


@dataclass(frozen=True, slots=True)
class PassOptions:
    """How the pipeline runs: names are those of `infc passes`."""

    disabled: frozenset[str] = frozenset()
    dump_after: frozenset[str] = frozenset()
    dump_dir: Path | None = None
    check_between: bool = False


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """How much proof is asked for.

    `data` is an `.npz` whose arrays are named after the inputs; without it the inputs are random
    with `seed`. `samples` counts the input sets for each size of the dynamic dimensions.
    """

    enabled: bool = True
    samples: int = 2
    seed: int = 0
    data: Path | None = None


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """What a worker process may use: `timeout_s` in seconds, `memory_bytes` of address space."""

    timeout_s: float = 1800.0
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """Everything `infc compile` needs to know; nothing below reads the command line again."""

    model: Path
    targets: tuple[str, ...]
    output: Path
    name: str | None = None
    inputs: tuple[InputSpec, ...] = ()
    precision: Precision | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    passes: PassOptions = PassOptions()
    verify: VerifyOptions = VerifyOptions()
    limits: WorkerLimits = WorkerLimits()
    loaders: tuple[str, ...] = ("cpp", "java")

    def __post_init__(self) -> None:
        if not self.targets:
            raise fail("E110", "no target was given", help="add `--target cpu`; see `infc targets`")
        seen: set[str] = set()
        for spec in self.inputs:
            if spec.name in seen:
                raise fail("E110", f"`--input {spec.name}=` is given twice")
            seen.add(spec.name)


def parse_options(pairs: Sequence[str]) -> dict[str, str]:
    """Parse `-X KEY=VALUE` pairs.

    Raises:
        InfcError: E110 for a pair without an equals sign or a key given twice.
    """
    options: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise fail("E110", f"`-X {pair}` is not KEY=VALUE")
        if key in options:
            raise fail("E110", f"`-X {key}=` is given twice")
        options[key] = value
    return options
