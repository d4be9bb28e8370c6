"""What the engine builder is told: the options of a target, and the shapes that its inputs take.

    (target, inputs, outputs) -> spec        (`tensorrt_builder` says what is in one)

A dynamic dimension needs a range, least, typical and greatest, for the builder to choose kernels
for: the one that `--input` gives it, or, for one optimization profile of several, the one that
`-X profiles=` gives. The first dimension of an input, a batch as a rule, has a default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from infc.diagnostics import did_you_mean, fail
from infc.input_spec import Dim, InputSpec
from infc.request import Precision, parse_bytes
from infc.signature import TensorSpec
from infc.targets import Target, choice
from infc.targets.tensorrt_builder import HARDWARE, PROFILING

Range = tuple[int, int, int]
"""Least, typical and greatest."""

BATCH: Range = (1, 1, 16)
"""Of a first dimension without a range."""

OPTIONS: Mapping[str, str] = {
    "compute-capability": "of the GPUs, separated by commas (sm86,sm120), or current: the one here",
    "profiles": "optimization profiles, separated by `;`: of dynamic dimensions, separated by `,`, "
    "`batch=1;batch=2..8@4` (one, of the ranges in --input)",
    "workspace": "memory that a layer may use at most: 1G (the GPU's)",
    "profiling": "none | names | detailed: what an inspector is told of the layers (names)",
    "optimization-level": "0 to 5: how long kernels are searched for",
    "tf32": "on | off: float32 is multiplied in 19 bits where the GPU has that (off)",
}
"""Of both back ends."""

DEVICE_OPTIONS: Mapping[str, str] = {
    "dla": "number of the DLA core to build for; the GPU runs what that cannot",
    "version-compatible": "on | off: runs on later releases of the same major version too (off)",
    "hardware-compatible": "none | ampere+ | same: runs on other GPUs too, from Ampere on, or of "
    "the same compute capability (none)",
    "timing-cache": "on | off: keep what was measured on this GPU for the next build (on)",
    "release": "of TensorRT, that the engine is built with: 10.3, 10.16, 11.4",
}
"""Of TensorRT alone: what is decided where the engine is built, on the GPU."""


def require_options(target: Target, capabilities: Sequence[str]) -> None:
    """Look at every option that `target` has; `capabilities` are those that can be built for.

    Raises:
        InfcError: E205 for a value that makes no sense.
    """
    for name in capabilities_of(target):
        if name not in capabilities:
            raise fail(
                "E205",
                f"`{target.back_end}` builds nothing for `{name}`",
                help=f"{did_you_mean(name, capabilities)}it builds for {', '.join(capabilities)}",
            )
    _settings(target)
    _given_profiles(target)


def capabilities_of(target: Target) -> list[str]:
    """The compute capabilities that are named; none where it is for the library to choose."""
    text = target.options.get("compute-capability", "")
    if text in ("", "current"):
        return []
    return [name.strip().lower() for name in text.split(",")]


def spec_of(
    target: Target, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> dict[str, Any]:
    """What the builder is told; plain JSON.

    Raises:
        InfcError: E205 for an option that makes no sense, E206 for a dynamic dimension without a
            range, E107 for an input of unknown rank.
    """
    current = target.options.get("compute-capability") == "current"
    return {
        "inputs": [_input(spec, rows) for spec, rows in _ranged(target, inputs)],
        "outputs": [
            {"name": s.name, "dtype": s.dtype, "shape": _shape(s.shape or ())} for s in outputs
        ],
        "precision": str(target.precision),
        "compute_capabilities": "current" if current else capabilities_of(target),
        **_settings(target),
    }


def _settings(target: Target) -> dict[str, Any]:
    """The part of the spec that is about the whole network."""
    options = target.options
    workspace = options.get("workspace")
    level = _number(target, "optimization-level", 5)
    found = {
        "workspace_bytes": None if workspace is None else parse_bytes(workspace),
        "profiling": choice(target, "profiling", tuple(PROFILING), "names"),
        "optimization_level": level,
        "tf32": _on(target, "tf32", "off"),
        "dla_core": _number(target, "dla", 3),
        "version_compatible": _on(target, "version-compatible", "off"),
        "hardware_compatible": choice(target, "hardware-compatible", ("none", *HARDWARE), "none"),
    }
    if found["dla_core"] is not None and target.precision not in (Precision.FP16, Precision.INT8):
        raise fail(
            "E205",
            f"`-X dla={found['dla_core']}`: a DLA does not compute in {target.precision}",
            help="`--precision fp16`",
        )
    return found


def _on(target: Target, option: str, default: str) -> bool:
    return choice(target, option, ("on", "off"), default) == "on"


def _number(target: Target, option: str, greatest: int) -> int | None:
    text = target.options.get(option)
    if text is None:
        return None
    if not text.isdecimal() or int(text) > greatest:
        raise fail("E205", f"`-X {option}={text}` is not a number from 0 to {greatest}")
    return int(text)


def _shape(shape: Sequence[int | str | None]) -> list[int]:
    return [dim if isinstance(dim, int) else -1 for dim in shape]


def _input(spec: TensorSpec, profiles: list[list[Range]]) -> dict[str, Any]:
    """The row of an input; `profiles` holds the range of each of its dimensions."""
    row: dict[str, Any] = {
        "name": spec.name,
        "dtype": spec.dtype,
        "shape": _shape(spec.shape or ()),
    }
    if not spec.is_static:
        row["profiles"] = [[[r[i] for r in ranges] for i in range(3)] for ranges in profiles]
    return row


def _given_profiles(target: Target) -> list[dict[str, Range]]:
    """`-X profiles=`: dimension name to range, for each profile; one empty one without it.

    Raises:
        InfcError: E205 where it does not parse.
    """
    text = target.options.get("profiles", "")
    found = []
    for profile in text.split(";"):
        rows: dict[str, Range] = {}
        for part in filter(None, (p.strip() for p in profile.split(","))):
            name, equals, shape = part.partition("=")
            dim = InputSpec.parse(f"{name or 'x'}={shape},").dims[0] if equals and shape else None
            if dim is None or dim.low is None or dim.typical is None or dim.high is None:
                raise fail(
                    "E205",
                    f"`{part}` in `-X profiles={text}` is not NAME=MIN..MAX@TYPICAL",
                    help="for example `-X profiles=batch=1;batch=2..8@4`",
                )
            rows[name] = (dim.low, dim.typical, dim.high)
        found.append(rows)
    return found


def _ranged(
    target: Target, inputs: Sequence[TensorSpec]
) -> list[tuple[TensorSpec, list[list[Range]]]]:
    """Every input with the ranges of its dimensions, for each profile."""
    profiles = _given_profiles(target)
    named = {str(dim) for s in inputs for dim in s.shape or () if isinstance(dim, str)}
    for rows in profiles:
        for name in rows:
            if name not in named:
                have = ", ".join(f"`{n}`" for n in sorted(named)) or "none"
                raise fail(
                    "E205",
                    f"`-X profiles=`: no input has a dynamic dimension `{name}`",
                    help=f"{did_you_mean(name, named)}there are: {have}",
                )
    bounds = {k: v for s in inputs for k, v in (s.bounds or {}).items()}
    for name, (low, _, high) in (item for rows in profiles for item in rows.items()):
        least, _, most = bounds.get(name, (low, low, high))
        if low < least or high > most:
            raise fail(
                "E205",
                f"`-X profiles=`: `{name}={Dim(low=low, high=high)}` lies outside "
                f"`{Dim(low=least, high=most)}`, what `--input` gives",
                help="widen the one or narrow the other: clients go by `--input`",
            )
    batches = {str(s.shape[0]): BATCH for s in inputs if s.shape and isinstance(s.shape[0], str)}
    known = {**batches, **bounds}
    return [
        (
            spec,
            [
                [_range(spec, axis, {**known, **rows}) for axis in range(_rank(spec))]
                for rows in profiles
            ],
        )
        for spec in inputs
    ]


def _rank(spec: TensorSpec) -> int:
    if spec.shape is None:
        raise fail(
            "E107",
            f"the rank of input `{spec.name}` is unknown",
            help=f"give its shape: `--input {spec.name}=...`",
        )
    return len(spec.shape)


def _range(spec: TensorSpec, axis: int, known: Mapping[str, Range]) -> Range:
    """The range of one dimension of `spec`, whose rank is known."""
    dim = (spec.shape or ())[axis]
    if isinstance(dim, int):
        return (dim, dim, dim)
    if str(dim) in known:
        return known[str(dim)]
    if axis == 0:
        return BATCH
    shown = ",".join(
        str(d) if isinstance(d, int) else "1..16" if i == 0 else "16..512@128"
        for i, d in enumerate(spec.shape or ())
    )
    raise fail(
        "E206",
        f"nothing says what dimension {axis} of input `{spec.name}`"
        + (f", `{dim}`," if dim else "")
        + " lies between",
        help=f"give MIN..MAX@TYPICAL, for example `--input {spec.name}={shown}`",
    )
