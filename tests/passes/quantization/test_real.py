"""Real networks on real data, against onnxruntime.quantization on the same samples."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import networks
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conftest import ROOT

from infc import frontends, pipeline
from infc.passes.quantization import equalize, quantize
from infc.passes.quantization.opset import raise_opset
from infc.request import PassOptions
from infc.targets import schemes

Feeds = list[dict[str, np.ndarray]]


def optimized(path: Path) -> ir.Model:
    source = frontends.load(path)
    pipeline.run(source.model, PassOptions())
    return source.model


def ours(model: ir.Model, data: Feeds) -> ir.Model:
    subject = model.clone()
    equalize(subject)
    ranges, means = networks.measured(subject, schemes.ONNXRUNTIME, data)
    quantize(subject, ranges, schemes.ONNXRUNTIME, means=means)
    return subject


def theirs(model: ir.Model, data: Feeds, scratch: Path) -> ir.Model:
    """Min-max, per channel, u8 activations and s8 weights: the scheme that is fast there too."""
    from onnxruntime import quantization as peer

    class Reader(peer.CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(data)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.rest, None)

    raised = model.clone()
    raise_opset(raised)
    ir.save(raised, scratch / "float.onnx")
    peer.quantize_static(
        scratch / "float.onnx",
        scratch / "int8.onnx",
        Reader(),
        per_channel=True,
        activation_type=peer.QuantType.QUInt8,
        weight_type=peer.QuantType.QInt8,
    )
    return ir.load(scratch / "int8.onnx")


def compare(
    model: ir.Model, data: Feeds, unseen: Feeds, scratch: Path, in_float: int = 0
) -> list[float]:
    """How many dB each output gains over the peer's; so many heavy operators are in float."""
    reference = networks.run(model, unseen)
    mine = ours(model, data)
    networks.session(mine, optimized=str(scratch / "optimized.onnx"))
    kinds = Counter(n.op_type for n in onnx.load(scratch / "optimized.onnx").graph.node)
    assert sum(kinds[k] for k in ("Conv", "FusedConv", "Gemm", "MatMul")) == in_float
    found = networks.sqnr_db(reference, networks.run(mine, unseen))
    other = networks.sqnr_db(reference, networks.run(theirs(model, data, scratch), unseen))
    return [a - b for a, b in zip(found, other, strict=True)]


def test_digits(tmp_path: Path) -> None:
    folder = ROOT / "examples" / "digits"
    rows = np.loadtxt(folder / "digits.csv", delimiter=",", dtype=np.float32)
    images = (rows[:, 1:] / 16).reshape(-1, 1, 1, 8, 8)
    feeds = [{"image": image} for image in images]
    (gain,) = compare(optimized(folder / "digits.onnx"), feeds[:40], feeds[40:], tmp_path)
    assert gain > 2


@pytest.mark.parametrize("name", ["RFB-320", "slim-320"])
def test_ultraface(name: str, models: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    folder = models / "ultraface"

    def feed(path: Path) -> dict[str, np.ndarray]:
        pixels = image.open(path).convert("RGB").resize((320, 240))
        array = (np.asarray(pixels, np.float32) - 127) / 128
        return {"input": np.ascontiguousarray(array.transpose(2, 0, 1)[None])}

    feeds = [feed(path) for path in sorted((folder / "photos").iterdir())]
    model = optimized(folder / f"version-{name}.onnx")
    # The convolution of the image.
    scores, boxes = compare(model, feeds[::2], feeds[1::2], tmp_path, in_float=1)
    assert scores > 2
    assert boxes > 5
