"""What the float32 values of a graph lie between: for the guard against overflow of 16 bits.

Measured once for all targets: on the calibration data where the user gives some, else on the inputs
of the verification. The graph measures itself: a ReduceMax and a ReduceMin on every value, whose
results are two vectors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from infc import building
from infc.diagnostics import InfcError
from infc.feeds import make_feeds, write_feeds
from infc.quantization import Range
from infc.request import CalibrationOptions, VerifyOptions, WorkerLimits
from infc.signature import TensorSpec, load_tensors
from infc.verification.running import UNOPTIMIZED, run_entry

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(slots=True)
class Measured:
    """What the float32 values of `model`, the optimised graph, lie between; found when needed.

    `scratch` is a folder that may not exist yet.
    """

    model: ir.Model
    inputs: Sequence[TensorSpec]
    calibration: CalibrationOptions | None
    verify: VerifyOptions
    scratch: Path
    limits: WorkerLimits
    _ranges: dict[str, Range] | None = field(init=False, default=None)

    @property
    def source(self) -> str:
        """What the values are measured on."""
        if self.calibration is not None:
            return "the calibration data"
        return "the user's data" if self.verify.data is not None else "random inputs"

    def ranges(self) -> Mapping[str, Range]:
        """The range of every value by name; those that could not be measured are left out.

        Raises:
            InfcError: E401 to E413 for calibration data that does not serve.
        """
        if self._ranges is None:
            self.scratch.mkdir(parents=True, exist_ok=True)
            names = _float_values(self.model)
            if self.calibration is not None:
                self._ranges = self._calibrated(self.calibration, names)
            else:
                self._ranges = self._probed(names)
        return self._ranges

    def _calibrated(self, options: CalibrationOptions, names: list[str]) -> dict[str, Range]:
        from infc import calibration
        from infc.calibration.data import open_samples

        names = [*names, *(s.name for s in self.inputs if s.dtype == "float32")]
        samples = open_samples(options, self.inputs)
        found = calibration.calibrate(
            self.model, names, samples, self.scratch / "worker", self.limits
        )
        return {
            name: Range(s.low - beyond, s.high + beyond)
            for name, s in found.ranges.tensors.items()
            for beyond in (math.inf if s.infinities else 0.0,)
        }

    def _probed(self, names: list[str]) -> dict[str, Range]:
        feeds = write_feeds(make_feeds(self.inputs, self.verify), self.scratch)
        ranges = {
            name: Range(float(array.min()), float(array.max()))
            for folder in feeds
            for name, array in load_tensors(folder).items()
            if array.dtype.name == "float32" and array.size
        }
        if not names:
            return ranges
        building.save_model(probe(self.model, names), self.scratch / "model.onnx")
        try:
            answers = run_entry(
                "infc.targets.onnxruntime",
                self.scratch / "model.onnx",
                UNOPTIMIZED,
                feeds,
                ([s.name for s in self.inputs], list(PROBES)),
                self.scratch,
                self.limits,
                "the optimised graph, measured",
            )
        except InfcError:
            # An empty tensor has no greatest element: nothing is known then, and less converted.
            return {}
        for folder in answers:
            lows, highs = (load_tensors(folder)[name] for name in PROBES)
            for name, low, high in zip(names, lows, highs, strict=True):
                old = ranges.get(name, Range(0.0, 0.0))
                ranges[name] = Range(min(float(low), old.low), max(float(high), old.high))
        return ranges


PROBES = ("infc_lows", "infc_highs")


def _float_values(model: ir.Model) -> list[str]:
    """The names of what the nodes of the main graph give in float32."""
    import onnx_ir as ir

    return [
        str(value.name)
        for node in model.graph
        for value in node.outputs
        if value.name
        and value.dtype == ir.DataType.FLOAT
        and isinstance(value.type, ir.TensorType)
        and node.op_type != "Constant"
    ]


def probe(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """A clone of `model` with two outputs (N,), float32: the least and greatest of each value."""
    import numpy as np
    import onnx_ir as ir

    copy = model.clone()
    graph = copy.graph
    wanted = set(names)
    values = [v for node in graph for v in node.outputs if v.name in wanted]
    one = ir.Value(name="infc_one", const_value=ir.tensor(np.array([1], np.int64)))
    graph.register_initializer(one)
    found = []
    for op_type, name in zip(("ReduceMin", "ReduceMax"), PROBES, strict=True):
        rows = []
        for value in values:
            least = ir.node(op_type, [value], {"keepdims": 0})
            row = ir.node("Reshape", [least.outputs[0], one])
            graph.extend((least, row))
            rows.append(row.outputs[0])
        joined = ir.node("Concat", rows, {"axis": 0})
        joined.outputs[0].name = name
        joined.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        joined.outputs[0].shape = ir.Shape([len(values)])
        graph.append(joined)
        found.append(joined.outputs[0])
    graph.outputs.clear()
    graph.outputs.extend(found)
    return copy
