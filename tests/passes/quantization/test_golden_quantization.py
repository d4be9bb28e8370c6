"""Golden Q/DQ graphs: `golden/<case>.onnxtxt` as in tests/passes, with what the quantiser is told.

The comment's last lines are `# scheme: NAME`, `# ranges: VALUE=LOW..HIGH ...` and, where it is
given, `# keep: NODE ...`. A case named `keep-...` is one in which nothing may change.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import onnx
import onnx.checker
import onnx.parser
import onnx.printer
import onnx.shape_inference
import onnx_ir as ir
import pytest

from infc.passes.quantization import observed, quantize
from infc.quantization import Range, Scheme
from infc.targets import schemes

HERE = Path(__file__).resolve().parent
BLESS = os.environ.get("INFC_BLESS") == "1"
ARROW = "#=>"
CASES = sorted((HERE / "golden").glob("*.onnxtxt"))
SCHEMES = {s.name: s for s in (schemes.ONNXRUNTIME, schemes.OPENVINO, schemes.TENSORRT)}


def told(comment: str, key: str) -> list[str]:
    found = re.search(rf"^# {key}: (.*)$", comment, re.MULTILINE)
    return found[1].split() if found else []


def ranges_of(comment: str) -> dict[str, Range]:
    pairs = (item.partition("=")[::2] for item in told(comment, "ranges"))
    return {name: Range(*map(float, span.split(".."))) for name, span in pairs}


def show(model: onnx.ModelProto) -> str:
    """Text without inferred shapes and node names."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    del shown.graph.value_info[:]
    for node in shown.graph.node:
        node.ClearField("name")
    return "\n".join(line.rstrip() for line in onnx.printer.to_text(shown).strip().splitlines())


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.stem)
def test_golden(case: Path) -> None:
    head, _, expected = case.read_text(encoding="utf-8").partition(ARROW)
    lines = head.splitlines()
    comment = "\n".join(line for line in lines if line.startswith("#"))
    text = "\n".join(line for line in lines if not line.startswith("#"))
    source = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text), data_prop=True)
    onnx.checker.check_model(source, full_check=True)
    before = show(source)
    scheme: Scheme = SCHEMES[told(comment, "scheme")[0]]
    model = ir.from_proto(source)
    ranges = ranges_of(comment)
    assert set(ranges) == set(observed(model, scheme))
    record = quantize(model, ranges, scheme, keep_float=frozenset(told(comment, "keep")))
    result = ir.to_proto(model)
    onnx.checker.check_model(result, full_check=True)
    found = show(result)
    assert bool(record.quantized) != case.stem.startswith("keep-")
    if case.stem.startswith("keep-"):
        assert found == before
    if BLESS:
        case.write_text(f"{comment}\n{text.strip()}\n{ARROW}\n{found}\n", encoding="utf-8")
    else:
        assert found == expected.strip()
