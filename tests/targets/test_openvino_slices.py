"""OpenVINO compiles its own slices away, and does not take what that leaves."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from infc import driver
from infc.request import Request


@pytest.mark.parametrize("start", ["0", "1"])
@pytest.mark.parametrize("rows", ["N", "3"])
def test_elements_gathered_from_a_slice(
    start: str, rows: str, tmp_path: Path, need_module: object
) -> None:
    need_module("openvino")  # type: ignore[operator]
    text = f"""<ir_version: 8, opset_import: ["": 17]>
    g (float[{rows}, 8, 6] x) => (float[{rows}, 5, 4] y)
    <int64[1] start = {{{start}}}, int64[1] end = {{{int(start) + 4}}}, int64[1] last = {{2}},
     int64 score = {{4}}, int64[1] best = {{5}}, int64[3] repeats = {{1, 1, 4}}> {{
        boxes = Slice (x, start, end, last)
        scores = Gather <axis = 2> (x, score)
        values, rows = TopK <axis = 1> (scores, best)
        column = Unsqueeze (rows, last)
        indices = Tile (column, repeats)
        y = GatherElements <axis = 1> (boxes, indices)
    }}"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    request = Request(tmp_path / "m.onnx", ("openvino",), tmp_path / "out", loaders=())
    (row,) = driver.compile(request).results
    assert row.bundle is not None, [d.render() for d in row.diagnostics]
