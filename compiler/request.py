"""What the user asked for: parsed, checked and frozen."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from infc.budget import BudgetOptions
from infc.diagnostics import fail
from infc.import_options import ImportOptions
from infc.input_spec import MAX_DIM, InputSpec
from infc.preprocessing import Preprocess
from infc.prune_options import PruneOptions
from infc.tuning_options import TuningOptions
from infc.user_code import Reference


class Precision(StrEnum):
    """The arithmetic an artifact computes in."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    INT8_DYNAMIC = "int8-dynamic"


_INDEX = re.compile(r"\.(safetensors|bin)\.index$")
"""What the index of a checkpoint in several files has behind its name, but for `.json`."""
FLOATS = (Precision.FP32, Precision.FP16, Precision.BF16)
"""What a layer that is not quantised may compute in."""


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
    `calibration` are tensor folders of calibration samples; where there are any, they are the
    inputs.
    """

    enabled: bool = True
    samples: int = 2
    seed: int = 0
    data: Path | None = None
    calibration: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """What a worker process may use: `timeout_s` in seconds, `memory_bytes` of address space."""

    timeout_s: float = 1800.0
    memory_bytes: int | None = None


CALIBRATION_METHODS = ("minmax", "percentile", "entropy", "mse", "average")
"""How a tensor's range is chosen from what was observed."""


@dataclass(frozen=True, slots=True)
class CalibrationOptions:
    """What activations are measured on, and how a range is made of what was measured.

    `data` is a file, a folder, `module:function` or the word `random`. `samples` is how many are
    taken at most, spread evenly over what there is (None: all). `batch` is how many make one run
    of a model whose first dimension is not fixed. `percentile` is of the absolute values, above 50
    and up to 100. `seed` is of `random`. The default method is the one that no model of
    `scripts/bench int8` loses much by: README.md of `infc.calibration`, "Accuracy and speed".
    """

    data: str
    samples: int | None = 512
    preprocess: Preprocess | None = None
    method: str = "percentile"
    percentile: float = 99.999
    batch: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.data:
            raise fail("E110", "`--calibration` names nothing")
        if self.method not in CALIBRATION_METHODS:
            known = ", ".join(f"`{name}`" for name in CALIBRATION_METHODS)
            raise fail("E110", f"no calibration method `{self.method}`", help=f"there are {known}")
        if not 50 < self.percentile <= 100:
            raise fail("E110", f"`--percentile {self.percentile:g}` is not above 50 and up to 100")
        if self.batch < 1 or (self.samples is not None and self.samples < 1):
            raise fail("E110", f"{self.samples} calibration samples in batches of {self.batch}")


IO = ("float", "native")
"""What `--io` may say: inputs and outputs as in the source model, or of the precision's type."""
LOADERS = ("cpp", "java")
"""The languages that loaders are generated in."""


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
    loaders: tuple[str, ...] = LOADERS
    calibration: CalibrationOptions | None = None
    toolchains: Mapping[str, str] = field(default_factory=dict)
    budget: BudgetOptions | None = None
    reading: ImportOptions = field(default_factory=ImportOptions)
    pruning: PruneOptions | None = None
    keep_float: frozenset[str] = frozenset()
    """Nodes that stay in float32 at a reduced precision, by their names or those of values."""
    fallback: Precision = Precision.FP32
    """What computes at int8 that is not quantised: FP32, FP16 or BF16."""
    native_io: bool = False
    """Whether inputs and outputs have the type of the precision, instead of the source model's."""
    deferred: bool = True
    """Whether an engine that cannot be built here may be left to the device."""
    remote: str = ""
    """`ssh://user@host`: where engines are built that have to be built on the device."""
    stand_in: str = ""
    """The Python module that builds them there in place of the target's own."""
    tuning: TuningOptions = field(default_factory=TuningOptions)
    """What is measured before the build, and which records of that it uses."""

    @property
    def stem(self) -> str:
        """What bundles are called after where the user gives no name."""
        factory = Reference.parse(str(self.model))
        return factory.name if factory else _INDEX.sub("", self.model.stem)

    def __post_init__(self) -> None:
        if self.fallback not in FLOATS:
            raise fail("E110", f"`--fallback {self.fallback}` is not fp32, fp16 or bf16")
        if not self.targets:
            raise fail("E110", "no target was given", help="add `--target cpu`; see `infc targets`")
        seen: set[str] = set()
        for spec in self.inputs:
            if spec.name in seen:
                raise fail("E110", f"`--input {spec.name}=` is given twice")
            seen.add(spec.name)
        if self.name is not None and ("/" in self.name or self.name in ("", ".", "..")):
            raise fail("E110", f"`--name {self.name}` does not name a folder")


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


def parse_toolchains(pairs: Sequence[str]) -> dict[str, str]:
    """Parse `--toolchain BACKEND=NAME` pairs; an empty NAME is infc's own environment.

    Raises:
        InfcError: E110 for a pair that is not one, or a back end given twice.
    """
    toolchains: dict[str, str] = {}
    for pair in pairs:
        back_end, equals, name = pair.partition("=")
        if not equals or not back_end:
            help = "for example `--toolchain openvino=my-openvino`"
            raise fail("E110", f"`--toolchain {pair}` is not BACKEND=NAME", help=help)
        if back_end in toolchains:
            raise fail("E110", f"`--toolchain {back_end}=` is given twice")
        toolchains[back_end] = name
    return toolchains


_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_bytes(text: str) -> int:
    """Parse a size: `8G`, `1.5GiB`, `500M`, `4096`; the units are powers of 1024.

    Raises:
        InfcError: E110 where it is not one, or not positive.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * 1024 ** _UNITS[match[2].lower()]) if match else 0
    if size <= 0:
        raise fail("E110", f"`{text}` is not a size", help="for example `8G` or `500M`")
    return size


def parse_dims(pairs: Sequence[str]) -> dict[str, int]:
    """Parse `--dim NAME=N` pairs.

    Raises:
        InfcError: E110 for a pair that is not one, or a name given twice.
    """
    dims: dict[str, int] = {}
    for pair in pairs:
        name, _, value = pair.rpartition("=")
        if not name or not value.isdecimal() or not 0 < int(value) <= MAX_DIM:
            raise fail("E110", f"`--dim {pair}` is not NAME=N", help="for example `--dim batch=4`")
        if name in dims:
            raise fail("E110", f"`--dim {name}=` is given twice")
        dims[name] = int(value)
    return dims


def parse_layers(text: str) -> int:
    """Parse `--layers`: how many layers are measured alone, 0 for `all`, which are not.

    Raises:
        InfcError: E110 where it is neither `all` nor a number above 0.
    """
    if text == "all":
        return 0
    if not re.fullmatch("[1-9][0-9]{0,5}", text):
        raise fail("E110", f"`--layers {text}` is neither `all` nor a number above 0")
    return int(text)


def parse_io(word: str) -> bool:
    """Whether `--io` asks for native inputs and outputs.

    Raises:
        InfcError: E110 for a word that it does not know.
    """
    if word not in IO:
        raise fail("E110", f"`--io {word}` is neither `{IO[0]}` nor `{IO[1]}`")
    return word == IO[1]


def parse_loaders(names: Sequence[str]) -> tuple[str, ...]:
    """The languages after `--loader`, in a fixed order; all of them where there is none.

    Raises:
        InfcError: E110 for `none` together with a language, or a language infc does not speak.
    """
    known = LOADERS
    wanted = set(names) or set(known)
    if wanted == {"none"}:
        return ()
    if not wanted <= set(known):
        listed = " ".join(f"--loader {name}" for name in names)
        have = ", ".join(f"`{name}`" for name in known)
        raise fail("E110", f"`{listed}` makes no sense", help=f"{have} or both, or `none` alone")
    return tuple(name for name in known if name in wanted)
