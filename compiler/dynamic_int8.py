"""`--precision int8-dynamic`: int8 weights of linear layers, activations rounded at run time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infc.diagnostics import fail
from infc.targets import Target, back_end
from infc.targets.dynamic import dynamic_of

if TYPE_CHECKING:
    import onnx_ir as ir


def lower(model: ir.Model, target: Target, keep_float: frozenset[str]) -> dict[str, Any]:
    """Quantise `model` in place as `target` wants it; what the manifest says of it.

    Raises:
        InfcError: E425 where no layer can be quantised, E204 where the opset cannot be raised.
    """
    from infc.passes.dynamic_quantization import quantize_dynamic

    declared = dynamic_of(back_end(target.back_end))
    if declared is None:
        raise ValueError(f"`{target.back_end}` declares no DYNAMIC")
    record = quantize_dynamic(model, declared.form, keep_float)
    others, before, after = declared.also(model, keep_float) if declared.also else ((), 0, 0)
    if not record.quantized and not others:
        reasons = dict.fromkeys(f"`{node}`: {why}" for node, why in record.kept[:5])
        raise fail(
            "E425",
            f"`{target.name}` at int8-dynamic: no layer of the model can be quantised",
            notes=tuple(reasons),
            help="it is for linear layers; `--precision int8 --calibration DATA` quantises "
            "convolutions too",
        )
    exact, rounded = record.weight_bytes
    return {
        "to": "int8",
        "form": declared.form,
        "converted": len(record.quantized) + len(others),
        "kept": [{"node": node, "reason": reason} for node, reason in record.kept],
        "weight_bytes": {"before": exact + before, "after": rounded + after},
    }
