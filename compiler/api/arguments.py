"""What callers may write, as the driver takes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Literal

from infc.diagnostics import fail
from infc.input_spec import InputSpec
from infc.request import LOADERS, CalibrationOptions, Precision, VerifyOptions

AnyPath = str | PathLike[str]
Through = Literal["runtime", "cpp", "java"]


def specs(inputs: Mapping[str, str] | None) -> tuple[InputSpec, ...]:
    """`{"x": "1x3x224x224"}`.

    Raises:
        InfcError: E110.
    """
    return tuple(InputSpec.parse(f"{name}={shape}") for name, shape in (inputs or {}).items())


def precision_of(value: Precision | str | None) -> Precision | None:
    """A precision, by its name too.

    Raises:
        InfcError: E110.
    """
    try:
        return None if value is None else Precision(value)
    except ValueError as error:
        raise fail("E110", f"`{value}` is no precision", help=_one_of(Precision)) from error


def require_through(through: str) -> None:
    """Refuse what a bundle cannot be run through.

    Raises:
        InfcError: E110.
    """
    known = ("runtime", *LOADERS)
    if through not in known:
        raise fail("E110", f"a bundle cannot be run through `{through}`", help=_one_of(known))


def _one_of(names: Iterable[str]) -> str:
    return "it is one of " + ", ".join(f"`{name}`" for name in names)


def verify_options_of(verify: VerifyOptions | bool) -> VerifyOptions:
    """How the proof is made; False for none."""
    return verify if isinstance(verify, VerifyOptions) else VerifyOptions(enabled=verify)


def calibration_of(calibration: CalibrationOptions | str | None) -> CalibrationOptions | None:
    """What activations are measured on; a string names the data."""
    return CalibrationOptions(calibration) if isinstance(calibration, str) else calibration
