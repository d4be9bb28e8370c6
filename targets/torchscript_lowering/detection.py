"""Detection heads. Source: ONNX operators NonMaxSuppression-11, RoiAlign-22."""

from __future__ import annotations

from infc.targets.torchscript_lowering import Op, boolean, lowers, number


@lowers("NonMaxSuppression")
def non_max_suppression(op: Op) -> str:
    """(selected, 3): batch, class, box; an absent score threshold keeps every box."""
    most = op.int_input(2, "0")
    overlap = f"float({op.x(3)})" if op.has(3) else "0.0"
    score = f"float({op.x(4)})" if op.has(4) else 'float("-inf")'
    center = boolean(op.flag("center_point_box"))
    return op.call("non_max_suppression", op.x(0), op.x(1), most, overlap, score, center)


@lowers("RoiAlign")
def roi_align(op: Op) -> str:
    """Bilinear samples of each bin, averaged or their maximum; half_pixel since opset 16."""
    mode = op.text("mode", "avg")
    transform = op.text("coordinate_transformation_mode", "half_pixel")
    if mode not in ("avg", "max") or transform not in ("half_pixel", "output_half_pixel"):
        op.refuse(f"mode `{mode}` with `{transform}`")
    if mode == "max":
        op.refuse("mode `max`: ONNX Runtime and the ONNX reference differ")
    half = transform == "half_pixel" and op.version >= 16
    size = f"{op.attribute('output_height', 1)}, {op.attribute('output_width', 1)}"
    ratio, scale = op.attribute("sampling_ratio", 0), number(op.attribute("spatial_scale", 1.0))
    return op.call("roi_align", op.x(0), op.x(1), op.x(2), size, ratio, scale, boolean(half))
