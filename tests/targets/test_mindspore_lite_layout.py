"""The artifact takes its inputs, and gives its outputs, in the model's own layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from infc import driver
from infc.request import Request

CONV = "Conv<kernel_shape=[3,3], pads=[1,1,1,1]>"
WEIGHTS = ", ".join(str(((7 * i) % 11 - 5) / 4) for i in range(81))
CONSTANTS = f"""<float[3,3,3,3] w = {{{WEIGHTS}}}, float[3,3] m = {{1,2,3, -1,0,1, 0.5,2,-2}},
 int64[4] s = {{2,8,6,3}}>"""
CASES = {
    "images-of-tensorflow": """(float[N,8,6,3] x) => (float[N,8,6,3] y) {
        a = Transpose<perm=[0,3,1,2]>(x)
        b = CONV(a, w)
        y = Transpose<perm=[0,2,3,1]>(b) }""",
    "elements-between": """(float[N,8,6,3] x) => (float[N,3,8,6] y) {
        r = Relu(x)
        a = Transpose<perm=[0,3,1,2]>(r)
        y = CONV(a, w) }""",
    "matrix-product-between": """(float[2,8,6,3] x) => (float[2,3,8,6] y) {
        p = MatMul(x, m)
        a = Transpose<perm=[0,3,1,2]>(p)
        y = CONV(a, w) }""",
    "two-readers": """(float[1,8,6,3] x) => (float[1,3,8,6] y, float[1,8,6,3] z) {
        a = Transpose<perm=[0,3,1,2]>(x)
        y = CONV(a, w)
        z = Relu(x) }""",
    "rows-for-columns": """(float[2,3,8,6] x) => (float[2,3,6,8] y) {
        a = Transpose<perm=[0,1,3,2]>(x)
        y = CONV(a, w) }""",
    "from-three-dimensions": """(float[2,48,3] x) => (float[2,3,8,6] y) {
        r = Reshape(x, s)
        a = Transpose<perm=[0,3,1,2]>(r)
        y = CONV(a, w) }""",
    "two-layouts": """(float[2,3,8,6] x, float[2,8,6,3] u) => (float[2,8,6,3] y) {
        a = CONV(x, w)
        b = Transpose<perm=[0,2,3,1]>(a)
        y = Add(b, u) }""",
}


@pytest.mark.parametrize("name", CASES)
def test_a_layout(name: str, tmp_path: Path, need_back_end: Callable[[str], None]) -> None:
    need_back_end("mindspore-lite")
    signature, _, body = CASES[name].replace("CONV", CONV).partition("{")
    text = f'<ir_version: 8, opset_import: ["": 17]> g {signature} {CONSTANTS} {{ {body}'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "model.onnx")
    request = Request(tmp_path / "model.onnx", ("mindspore-lite",), tmp_path, loaders=())
    (row,) = driver.compile(request).results
    assert row.bundle is not None, "\n".join(d.render() for d in row.diagnostics)
