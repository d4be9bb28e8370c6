"""Convolutions. Source: ONNX operators Conv-22, ConvTranspose-22, ConvInteger-10, DeformConv-22.

torch pads both ends of an axis alike. Other pads, and those of auto_pad, which depend on the size
of the input, are applied before, as zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

from infc.targets.torchscript_lowering import Op, boolean, int_list, lowers
from infc.targets.torchscript_lowering.indexing import torch_pads

AUTO_PADS = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


@dataclass(frozen=True, slots=True)
class Window:
    """The window of a convolution or a pool; `pads` None: SAME, to be computed from the input."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    pads: list[int] | None
    upper: bool = True

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.kernel)

    def symmetric(self) -> list[int] | None:
        """The pads where torch can apply them itself."""
        if self.pads is None or self.pads[: self.rank] != self.pads[self.rank :]:
            return None
        half = self.pads[: self.rank]
        return half if min(half, default=0) >= 0 else None


def window(op: Op, kernel: list[int]) -> Window:
    """Read strides, dilations, pads and auto_pad; SAME becomes pads where the size is known."""
    rank = len(kernel)
    strides = list(op.attribute("strides", [1] * rank))
    dilations = list(op.attribute("dilations", [1] * rank))
    mode = op.text("auto_pad", "NOTSET")
    if mode not in AUTO_PADS:
        op.refuse(f"auto_pad `{mode}`")
    upper = mode == "SAME_UPPER"
    if mode == "NOTSET":
        pads = list(op.attribute("pads", [0] * (2 * rank)))
        return Window(kernel, strides, dilations, pads)
    if mode == "VALID":
        return Window(kernel, strides, dilations, [0] * (2 * rank))
    sizes = (op.shape() or [])[2:]
    if len(sizes) != rank or None in sizes:
        return Window(kernel, strides, dilations, None, upper)
    totals = [
        max(((n or 0) + s - 1) // s * s - s + (k - 1) * d + 1 - (n or 0), 0)
        for n, k, s, d in zip(sizes, kernel, strides, dilations, strict=True)
    ]
    begins = [(t // 2 if upper else t - t // 2) for t in totals]
    pads = begins + [t - b for t, b in zip(totals, begins, strict=True)]
    return Window(kernel, strides, dilations, pads, upper)


def same_pads(op: Op, x: str, w: Window) -> str:
    """Pads in torch's order for SAME with sizes known only when it runs."""
    lists = [int_list(v) for v in (w.kernel, w.strides, w.dilations)]
    return op.call("same_pads", f"{x}.shape", *lists, boolean(w.upper))


def kernel_of(op: Op, index: int = 1) -> list[int]:
    """kernel_shape, else that of the weights."""
    kernel = op.attribute("kernel_shape")
    if kernel is not None:
        return [int(k) for k in kernel]
    shape = op.shape(index)
    sizes = [d for d in (shape or [])[2:] if d is not None]
    if shape is None or len(sizes) != len(shape) - 2:
        op.refuse("the kernel's shape is not known")
    return sizes


@lowers("Conv")
def conv(op: Op) -> str:
    """x: (N, C, ...); w: (O, C / group, ...); b: (O)."""
    return _conv(op, op.x(0), op.x(1), op.or_none(2), kernel_of(op))


def _conv(op: Op, x: str, w: str, b: str, kernel: list[int]) -> str:
    shape = window(op, kernel)
    if not 1 <= shape.rank <= 3:
        op.refuse(f"{shape.rank} spatial axes")
    padding = shape.symmetric()
    if padding is None:
        pads = same_pads(op, x, shape) if shape.pads is None else int_list(torch_pads(shape.pads))
        x, padding = f"torch.constant_pad_nd({x}, {pads}, 0)", [0] * shape.rank
    lists = ", ".join(int_list(v) for v in (shape.strides, padding, shape.dilations))
    return f"torch.conv{shape.rank}d({x}, {w}, {b}, {lists}, {op.attribute('group', 1)})"


@lowers("ConvInteger")
def conv_integer(op: Op) -> str:
    """Exact in double: |sums| stay far below 2**53. Zero points are per tensor, or per O for w."""
    x = f"{op.x(0)}.to(torch.float64)"
    w = f"{op.x(1)}.to(torch.float64)"
    if op.has(2):
        x = f"torch.sub({x}, {op.x(2)}.to(torch.float64))"
    if op.has(3):
        w = op.call("minus_per_row", w, op.x(3))
    return f"{_conv(op, op.let(x), w, 'None', kernel_of(op))}.to(torch.int32)"


@lowers("ConvTranspose")
def conv_transpose(op: Op) -> str:
    """x: (N, C, ...); w: (C, O / group, ...); pads crop the result, output_padding extends it."""
    kernel = kernel_of(op)
    shape = window_of_transpose(op, kernel)
    rank = len(kernel)
    if not 1 <= rank <= 3:
        op.refuse(f"{rank} spatial axes")
    group, extra = op.attribute("group", 1), list(op.attribute("output_padding", [0] * rank))
    strides, dilations = int_list(shape.strides), int_list(shape.dilations)
    padding = shape.symmetric()
    below = all(
        e < max(s, d) for e, s, d in zip(extra, shape.strides, shape.dilations, strict=True)
    )
    if padding is not None and op.attribute("output_shape") is None and below:
        tail = f"{strides}, {int_list(padding)}, {int_list(extra)}, {group}, {dilations}"
        return f"torch.conv_transpose{rank}d({op.x(0)}, {op.x(1)}, {op.or_none(2)}, {tail})"
    zeros = int_list([0] * rank)
    full = f"torch.conv_transpose{rank}d({op.x(0)}, {op.x(1)}, None, {strides}, {zeros}, {zeros}, "
    full += f"{group}, {dilations})"
    y = op.let(full)
    want = op.attribute("output_shape")
    if want is not None:
        sizes = [int(v) for v in want][-rank:]
        upper = boolean(op.text("auto_pad", "NOTSET") == "SAME_UPPER")
        y = op.call("crop_to", y, int_list(sizes), int_list(extra), upper)
    elif shape.pads is None:
        upper = boolean(shape.upper)
        y = op.call("crop_to_multiple", op.x(0), y, strides, int_list(extra), upper)
    else:
        ends = [e - p for e, p in zip(extra, shape.pads[rank:], strict=True)]
        pads = torch_pads([-p for p in shape.pads[:rank]] + ends)
        y = f"torch.constant_pad_nd({y}, {int_list(pads)}, 0)"
    return f"torch.add({y}, {op.x(2)}.reshape({int_list([-1] + [1] * rank)}))" if op.has(2) else y


def window_of_transpose(op: Op, kernel: list[int]) -> Window:
    """As `window`, but SAME concerns the size of the result, n * stride."""
    rank = len(kernel)
    strides = list(op.attribute("strides", [1] * rank))
    dilations = list(op.attribute("dilations", [1] * rank))
    mode = op.text("auto_pad", "NOTSET")
    if mode not in AUTO_PADS:
        op.refuse(f"auto_pad `{mode}`")
    pads = None if mode.startswith("SAME") else [0] * (2 * rank)
    if mode == "NOTSET":
        pads = list(op.attribute("pads", [0] * (2 * rank)))
    return Window(kernel, strides, dilations, pads, mode == "SAME_UPPER")
