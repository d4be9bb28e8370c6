"""Golden pruned graphs: `golden/<case>.onnxtxt` as in tests/passes, with the amount.

The comment's last line is `# amount: PART [multiple=N] [averaged]`. A case named `keep-...` is one
in which nothing may change.
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

from infc.passes.pruning import Amount, prune

HERE = Path(__file__).resolve().parent
BLESS = os.environ.get("INFC_BLESS") == "1"
ARROW = "#=>"
CASES = sorted((HERE / "golden").glob("*.onnxtxt"))


def amount_of(comment: str) -> Amount:
    found = re.search(r"^# amount: (\S+)(?: multiple=(\d+))?( averaged)?$", comment, re.MULTILINE)
    assert found is not None
    multiple = int(found[2] or 1)
    return Amount(float(found[1]), multiple=multiple, averaged=found[3] is not None)


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
    model = ir.from_proto(source)
    record = prune(model, amount_of(comment), {"n": 1})
    result = ir.to_proto(model)
    onnx.checker.check_model(result, full_check=True)
    found = show(result)
    assert bool(record.pruned) != case.stem.startswith("keep-")
    if case.stem.startswith("keep-"):
        assert found == before
    if BLESS:
        case.write_text(f"{comment}\n{text.strip()}\n{ARROW}\n{found}\n", encoding="utf-8")
    else:
        assert found == expected.strip()
