"""How a back end has int8-dynamic: what its module declares as `DYNAMIC`.

One thread of an x86 CPU with AVX-512 VNNI, a BERT of four layers, width 384, 64 tokens (ms):

                   float32   integer   weights
    ONNX Runtime   15        6         17         one kernel (DynamicQuantizeMatMul) of the pattern
    OpenVINO       25        43        13         rounds activations by itself, in groups of 128
    torch, 64 x 384 x 1536
                   1.2                 0.15       quantized::linear_dynamic
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infc.targets import BackEnd

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, slots=True)
class Dynamic:
    """How the back end has it.

    `form` is how linear layers are written (`infc.passes.dynamic_quantization.FORMS`). `also`
    quantises what else it has kernels for, in place, but for the nodes in a set; it returns their
    names, and the bytes of their weights before and after.
    """

    form: str
    also: Callable[[ir.Model, frozenset[str]], tuple[tuple[str, ...], int, int]] | None = None


def dynamic_of(end: BackEnd) -> Dynamic | None:
    """What `end` declares; None where it has no int8-dynamic."""
    declared: Dynamic | None = getattr(end, "DYNAMIC", None)
    return declared
