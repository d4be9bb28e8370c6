"""What can stay in float by itself: a unit of the quantiser's, named after its first node.

    Conv -> Relu      one layer       Add      one layer       MaxPool, Reshape, ...   none

What only moves values follows the layers around it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from infc.quantization import Range, Scheme
from infc.targets.schemes import ONNXRUNTIME, SCHEMES

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from infc.passes.quantization.units import Unit

CANONICAL = replace(
    ONNXRUNTIME,
    name="canonical",
    operators=frozenset[str]().union(*(scheme.operators for scheme in SCHEMES.values())),
    least_channels=1,
)
"""What sensitivity is measured in, once for all targets: activations asymmetric u8, weights s8 per
output channel, results of convolutions rounded, for every operator that any target quantises."""


def layers(model: ir.Model, scheme: Scheme) -> dict[str, Unit]:
    """The layers of `model` that compute in integers under `scheme`, by name, in graph order."""
    from infc.passes.quantization.placement import place
    from infc.passes.quantization.units import name_of

    units = place(model, scheme, frozenset(), {}).units
    return {name_of(n): u for n, u in units.items() if n.op_type not in scheme.shared}


def alone(
    model: ir.Model,
    name: str,
    spans: Mapping[str, Range],
    means: Mapping[str, np.ndarray[Any, Any]],
    scheme: Scheme,
) -> ir.Model:
    """A clone of `model` in which the layer `name` is quantised and nothing else.

    `spans` and `means` are as for `infc.passes.quantization.quantize`. What has no weights
    computes in integers only beside what has: its inputs and outputs are rounded instead.

    Raises:
        InfcError: E204 where the opset cannot be raised.
    """
    from infc.passes.quantization import quantize
    from infc.passes.quantization.opset import raise_opset
    from infc.passes.quantization.units import WEIGHTED

    copy = model.clone()
    raise_opset(copy)
    found = layers(copy, scheme)
    if found[name].node.op_type in WEIGHTED:
        quantize(copy, spans, scheme, keep_float=frozenset(found) - {name}, means=means)
    else:
        _round_around(copy, found[name], spans, scheme)
    return copy


def _round_around(model: ir.Model, unit: Unit, spans: Mapping[str, Range], scheme: Scheme) -> None:
    """Q/DQ on what `unit` reads and gives, in place."""
    from infc.passes.quantization.affine import affine
    from infc.passes.quantization.insertion import Insertion

    insertion = Insertion(model)
    for number, value in enumerate(dict.fromkeys((*unit.inputs, *unit.outputs))):
        name = value.name or ""
        if name not in spans:
            continue
        parameters = insertion.parameters(number, affine(spans[name], scheme), name)
        readers = {use.node for use in value.uses() if use.node.graph is model.graph}
        read = {unit.node} if value in unit.inputs else readers
        insertion.pair(value, parameters, read, output=value in unit.outputs)


def scheme_to_json(scheme: Scheme) -> dict[str, Any]:
    """`scheme` for a worker's job: also that of a back end from elsewhere."""
    return {k: sorted(v) if isinstance(v, frozenset) else v for k, v in asdict(scheme).items()}


def scheme_from_json(document: Mapping[str, Any]) -> Scheme:
    """The inverse of `scheme_to_json`."""
    fields: dict[str, Any] = {
        k: frozenset(v) if isinstance(v, list) else v for k, v in document.items()
    }
    return Scheme(**fields)
