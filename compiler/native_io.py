"""`--io native`: inputs and outputs in the type that the artifact computes in.

The graph is changed before its back end sees it (`infc.passes.native_io`); the signature says of
each tensor what it is in the source model, and of integers the scale and the zero point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from infc import native_types
from infc.diagnostics import Diagnostic, Severity, fail
from infc.formatting import listed
from infc.measured import Measured
from infc.precision import TYPES
from infc.request import Precision
from infc.signature import TensorSpec
from infc.targets import Target, back_end
from infc.targets.arithmetic import arithmetic_of
from infc.targets.schemes import scheme_of

if TYPE_CHECKING:
    import onnx_ir as ir

Specs = tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class Native:
    """The signature of an artifact, and what is to be said about it."""

    inputs: Specs
    outputs: Specs
    warnings: tuple[Diagnostic, ...] = ()

    @property
    def signature(self) -> tuple[Specs, Specs]:
        """Inputs and outputs."""
        return self.inputs, self.outputs

    @property
    def converted(self) -> dict[str, TensorSpec]:
        """Those that have another type than in the source model."""
        return native_types.converted((*self.inputs, *self.outputs))


def require_native(target: Target, absent: str) -> None:
    """Refuse a target whose back end makes the reduced precision itself, or cannot run here.

    Raises:
        InfcError: E205.
    """
    end = back_end(target.back_end)
    if target.precision is Precision.FP32:
        return
    own = scheme_of(end) is None
    if target.precision is not Precision.INT8:
        own = arithmetic_of(end, target.precision) is None
    why = f"`{end.NAME}` makes {target.precision} of a float32 graph by itself" if own else absent
    if why:
        raise fail("E205", f"`--io native`: {why}", help="leave it out for this target")


def apply(
    model: ir.Model, target: Target, signature: tuple[Specs, Specs], measured: Measured
) -> Native:
    """Change the inputs and outputs of `model`, in place, to the type of the target's precision."""
    from infc.passes.native_io import to_floats, to_integers

    if target.precision is Precision.FP32:
        return Native(*signature)
    if target.precision is Precision.INT8:
        found = to_integers(model)
    else:
        found = to_floats(model, TYPES[target.precision], measured.ranges())

    def native(spec: TensorSpec) -> TensorSpec:
        if spec.name not in found.types:
            return spec
        dtype, affine = found.types[spec.name], found.quantized.get(spec.name)
        return replace(spec, dtype=dtype, source_dtype=spec.dtype, quantized=affine)

    inputs, outputs = (tuple(map(native, specs)) for specs in signature)
    return Native(inputs, outputs, _kept(found.kept, target))


def _kept(kept: Mapping[str, str], target: Target) -> tuple[Diagnostic, ...]:
    if not kept:
        return ()
    names = listed([f"`{name}`: {why}" for name, why in kept.items()])
    return (
        Diagnostic(
            "E420",
            f"`--io native`: {len(kept)} of the inputs and outputs of `{target.name}` stay float32",
            notes=(names,),
            severity=Severity.WARNING,
        ),
    )
