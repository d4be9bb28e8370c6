"""Resampling. Source: ONNX operators Resize-19, Upsample-9, GridSample-22.

torch's own kernels where they compute the same: nearest with asymmetric coordinates and floor, the
2-D linear and cubic modes with half_pixel or align_corners. Everything else goes axis by axis
through a matrix of interpolation weights, (out, in), made when the program runs.
"""

from __future__ import annotations

from infc.targets.torchscript_lowering import Op, boolean, int_list, lowers, number

COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
)
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@lowers("Upsample")
def upsample(op: Op) -> str:
    """Resize with asymmetric coordinates; scales are an attribute before opset 9."""
    scales = op.attribute("scales")
    if scales is None:
        known = op.const(1)
        if known is None:
            op.refuse("scales that are not constant")
        scales = known.reshape(-1)
    mode = {"nearest": "nearest", "linear": "linear", "bilinear": "linear"}.get(op.text("mode"))
    if mode is None:
        op.refuse(f"mode `{op.text('mode')}`")
    if mode == "nearest" and min(scales) < 1:
        op.refuse("nearest with a scale below 1, whose rounding Upsample does not define")
    factors = f"[{', '.join(number(s) for s in scales)}]"
    axes = int_list(range(len(scales)))
    sizes = op.let(op.call("scaled_sizes", f"{op.x(0)}.shape", axes, factors))
    return op.call(
        "resize",
        op.x(0),
        axes,
        sizes,
        factors,
        f'"{mode}"',
        '"asymmetric"',
        '"floor"',
        "-0.75",
        "False",
        "False",
        "None",
        "0.0",
    )


@lowers("Resize")
def resize(op: Op) -> str:
    """Scales or sizes, constant or not; opset 10 has no roi and no coordinate modes."""
    mode = op.text("mode", "nearest")
    old = op.version < 11
    coordinates = "asymmetric" if old else op.text("coordinate_transformation_mode", "half_pixel")
    nearest = "floor" if old else op.text("nearest_mode", "round_prefer_floor")
    if mode not in ("nearest", "linear", "cubic") or coordinates not in COORDINATES:
        op.refuse(f"mode `{mode}` with `{coordinates}`")
    if nearest not in NEAREST:
        op.refuse(f"nearest_mode `{nearest}`")
    axes = op.attribute("axes")
    if coordinates == "align_corners" and not op.has(3):
        _refuse_fractional_lengths(op, axes)
    if old and mode == "nearest":
        known = op.const(1)
        if known is None or known.min() < 1:
            op.refuse("nearest with a scale below 1, whose rounding Resize-10 does not define")
    scales_at = 1 if old else 2
    by_sizes = op.has(3) and not old
    if axes is None:
        axes = list(range(op.known_rank()))
    if by_sizes:
        sizes = op.let(op.ints("", 3), "list[int]")
        policy = op.text("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            call = op.call("kept_sizes", f"{op.x(0)}.shape", int_list(axes), sizes, f'"{policy}"')
            sizes, scales = op.unpack(call, 2)
        else:
            scales = op.let(op.call("scales_to", f"{op.x(0)}.shape", int_list(axes), sizes))
    else:
        scales = op.let(_scales(op, scales_at), "list[float]")
        exact = coordinates == "align_corners" and op.const(scales_at) is None
        function = "whole_sizes" if exact else "scaled_sizes"
        sizes = op.let(op.call(function, f"{op.x(0)}.shape", int_list(axes), scales))
    fast = _native(op, mode, coordinates, nearest, axes, sizes, scales)
    if fast is not None:
        return fast
    roi = op.call("floats", op.x(1)) if coordinates == "tf_crop_and_resize" else "None"
    return op.call(
        "resize",
        op.x(0),
        int_list(axes),
        sizes,
        scales,
        f'"{mode}"',
        f'"{coordinates}"',
        f'"{nearest}"',
        number(op.attribute("cubic_coeff_a", -0.75)),
        boolean(op.flag("exclude_outside")),
        boolean(op.flag("antialias")),
        roi,
        number(op.attribute("extrapolation_value", 0.0)),
    )


def _refuse_fractional_lengths(op: Op, axes: list[int] | None) -> None:
    """align_corners by scales: ONNX does not say whether size * scale is rounded before use."""
    scales, shape = op.const(2), op.shape()
    if scales is None:
        return
    for axis, scale in zip(axes or range(scales.size), scales.reshape(-1), strict=True):
        size = None if shape is None else shape[axis]
        length = float(scale) if size is None else float(scale) * size
        if length != int(length):
            op.refuse("align_corners with scales that may give no whole length")


def _scales(op: Op, index: int) -> str:
    known = op.const(index)
    if known is None:
        return op.call("floats", op.x(index))
    return f"[{', '.join(number(s) for s in known.reshape(-1))}]"


def _native(
    op: Op, mode: str, coordinates: str, nearest: str, axes: list[int], sizes: str, scales: str
) -> str | None:
    """Torch's kernel for the last two axes of four, where it computes the same."""
    known = op.const(1 if op.version < 11 else 2) if not op.has(3) else op.const(3)
    if op.rank() != 4 or known is None or not op.is_float() or op.flag("antialias"):
        return None
    values = [float(v) for v in known.reshape(-1)]
    shape = op.shape() or []
    if list(axes) == [0, 1, 2, 3]:
        still = shape[:2] if op.has(3) else [1.0, 1.0]
        if values[:2] != [float(v) if v is not None else None for v in still]:
            return None
    elif list(axes) != [2, 3]:
        return None
    if op.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        return None
    spatial = f"{sizes}[-2:], "
    factors = f"{scales}[-2], {scales}[-1]"
    whole = not op.has(3) and all(v == int(v) for v in values)
    if mode == "nearest" and coordinates == "asymmetric" and nearest == "floor" and whole:
        return f"torch.ops.aten.upsample_nearest2d({op.x(0)}, {spatial}{factors})"
    if coordinates not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return None
    if coordinates == "pytorch_half_pixel" and not whole:
        return None
    align = boolean(coordinates == "align_corners")
    usual = op.attribute("cubic_coeff_a", -0.75) == -0.75 and not op.flag("exclude_outside")
    function = {"linear": "upsample_bilinear2d", "cubic": "upsample_bicubic2d"}.get(mode)
    if function is None or (mode == "cubic" and not usual) or op.flag("exclude_outside"):
        return None
    return f"torch.ops.aten.{function}({op.x(0)}, {spatial}{align}, {factors})"


@lowers("GridSample")
def grid_sample(op: Op) -> str:
    """torch's, of which ONNX took it (bilinear and bicubic are linear and cubic since opset 20)."""
    modes = {"bilinear": 0, "linear": 0, "nearest": 1, "bicubic": 2, "cubic": 2}
    paddings = {"zeros": 0, "border": 1, "reflection": 2}
    mode = modes.get(op.text("mode", "linear"))
    padding = paddings.get(op.text("padding_mode", "zeros"))
    rank = op.known_rank()
    if mode is None or padding is None or rank not in (4, 5) or (rank == 5 and mode == 2):
        op.refuse(f"mode `{op.text('mode', 'linear')}` at rank {rank}")
    align = boolean(op.flag("align_corners"))
    return f"torch.grid_sampler({op.x(0)}, {op.x(1)}, {mode}, {padding}, {align})"
