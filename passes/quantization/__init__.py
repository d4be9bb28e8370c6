"""INT8 written into the graph as Q/DQ, the way one back end wants it.

    observed   the values whose ranges and per-channel means are needed
    equalize   cross-layer equalisation, before calibration
    quantize   the ranges of calibration and a scheme made Q/DQ

`units` says what is quantised as one, `placement` where, `affine` to which integers; `insertion`
writes it. None of it knows a back end: a `Scheme` is data.
"""

from infc.passes.quantization.equalize import equalize
from infc.passes.quantization.placement import is_quantized
from infc.passes.quantization.quantize import observed, quantize

__all__ = ["equalize", "is_quantized", "observed", "quantize"]
