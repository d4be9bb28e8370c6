"""Shapes and the movement of whole axes.

Source: ONNX operators Reshape-14, Transpose-13, Squeeze-13, Unsqueeze-13, Flatten-13, Expand-13,
Tile-13, Shape-15, Size-13, ConstantOfShape-9, Range-11, DepthToSpace-13, CenterCropPad-18.
"""

from __future__ import annotations

from infc.targets.torchscript_lowering import Op, boolean, int_list, lowers, number, torch_dtype


@lowers("Shape")
def shape(op: Op) -> str:
    """An int64 vector; start and end (Shape-15) clamp as a Python slice does."""
    start, end = op.attribute("start", 0), op.attribute("end")
    dims = f"{op.x(0)}.shape"
    if start != 0 or end is not None:
        dims += f"[{start}:{'' if end is None else end}]"
    return f"torch.tensor({dims}, dtype=torch.int64)"


@lowers("Size")
def size(op: Op) -> str:
    """An int64 scalar."""
    return f"torch.tensor({op.x(0)}.numel(), dtype=torch.int64)"


@lowers("Reshape")
def reshape(op: Op) -> str:
    """0 keeps a dimension unless allowzero, -1 is what remains (Reshape-5: shape is an input)."""
    known = op.known_ints("shape", 1)
    if known is None:
        allow = boolean(op.flag("allowzero"))
        return op.call("reshape", op.x(0), op.ints("shape", 1), allow)
    if op.flag("allowzero") or 0 not in known:
        return f"torch.reshape({op.x(0)}, {int_list(known)})"
    x = op.x(0)
    dims = [f"{x}.shape[{i}]" if d == 0 else str(d) for i, d in enumerate(known)]
    return f"torch.reshape({x}, [{', '.join(dims)}])"


@lowers("Flatten")
def flatten(op: Op) -> str:
    """A matrix, split before `axis`; axis 0 gives one row."""
    return op.call("rows_from", op.x(0), op.attribute("axis", 1))


@lowers("Transpose")
def transpose(op: Op) -> str:
    """Reverses the axes by default."""
    perm = op.attribute("perm")
    if perm is None:
        return op.call("reverse_axes", op.x(0))
    return f"{op.x(0)}.permute({int_list(perm)})"


@lowers("Squeeze")
def squeeze(op: Op) -> str:
    """Without axes, all dimensions of size 1."""
    axes = op.known_ints("axes", 1)
    if axes is None and op.has(1):
        return f"torch.squeeze({op.x(0)}, {op.ints('', 1)})"
    if axes is None:
        return f"torch.squeeze({op.x(0)})"
    return f"torch.squeeze({op.x(0)}, {int_list(axes)})" if axes else op.x(0)


@lowers("Unsqueeze")
def unsqueeze(op: Op) -> str:
    """The axes count in the result, so they are inserted in ascending order."""
    axes = op.known_ints("axes", 1)
    if axes is None or (len(axes) > 1 and min(axes) < 0 and op.rank() is None):
        return op.call("unsqueeze", op.x(0), op.ints("axes", 1))
    if len(axes) > 1:
        rank = (op.rank() or 0) + len(axes)
        axes = sorted(a + rank if a < 0 else a for a in axes)
    x = op.x(0)
    for axis in axes:
        x = f"torch.unsqueeze({x}, {axis})"
    return x


@lowers("Expand")
def expand(op: Op) -> str:
    """Broadcasts both ways: a 1 in `shape` keeps the dimension."""
    return op.call("expand", op.x(0), op.ints("shape", 1))


@lowers("Tile")
def tile(op: Op) -> str:
    """One repeat for each axis."""
    return f"{op.x(0)}.repeat({op.ints('repeats', 1)})"


@lowers("ConstantOfShape")
def constant_of_shape(op: Op) -> str:
    """A float32 0 by default."""
    tensor = op.attribute("value")
    name = "FLOAT" if tensor is None else tensor.dtype.name
    value = 0.0 if tensor is None else tensor.numpy().reshape(-1)[0]
    literal = number(value) if name in ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16") else int(value)
    if name == "BOOL":
        literal = boolean(value)
    return f"torch.full({op.ints('', 0)}, {literal}, dtype={torch_dtype(op, name)})"


@lowers("Range")
def range_(op: Op) -> str:
    """max(ceil((limit - start) / delta), 0) elements; floats in double, rounded once."""
    start, limit, delta = op.all()
    function = "float_range" if op.is_float() else "integer_range"
    return op.call(function, start, limit, delta)


@lowers("EyeLike")
def eye_like(op: Op) -> str:
    """Ones on the diagonal `k`, of the input's type unless told otherwise."""
    return op.call("eye_like", op.x(0), op.attribute("k", 0), op.output_dtype())


@lowers("Trilu")
def trilu(op: Op) -> str:
    """One triangle of the last two axes."""
    side = "triu" if op.flag("upper", True) else "tril"
    return f"torch.{side}({op.x(0)}, {op.int_input(1, '0')})"


@lowers("DepthToSpace")
def depth_to_space(op: Op) -> str:
    """DCR: depth first (depth_to_space in TensorFlow); CRD: pixel shuffle."""
    block = op.attribute("blocksize")
    mode = op.text("mode", "DCR")
    if mode not in ("DCR", "CRD"):
        op.refuse(f"mode `{mode}`")
    if mode == "CRD":
        return f"torch.pixel_shuffle({op.x(0)}, {block})"
    return op.call("depth_to_space", op.x(0), block)


@lowers("SpaceToDepth")
def space_to_depth(op: Op) -> str:
    """The inverse of DepthToSpace; `mode` since opset 28."""
    mode = op.text("mode", "DCR")
    if mode not in ("DCR", "CRD"):
        op.refuse(f"mode `{mode}`")
    if mode == "CRD":
        return f"torch.pixel_unshuffle({op.x(0)}, {op.attribute('blocksize')})"
    return op.call("space_to_depth", op.x(0), op.attribute("blocksize"))


@lowers("CenterCropPad")
def center_crop_pad(op: Op) -> str:
    """Crops or pads with zeros about the middle."""
    axes = op.attribute("axes")
    source = "None" if axes is None else int_list(axes)
    return op.call("center_crop_pad", op.x(0), op.ints("", 1), source)


@lowers("AffineGrid")
def affine_grid(op: Op) -> str:
    """The grid of F.affine_grid, of which ONNX took it."""
    align = boolean(op.flag("align_corners"))
    return f"torch.affine_grid_generator({op.x(0)}, {op.ints('', 1)}, {align})"
