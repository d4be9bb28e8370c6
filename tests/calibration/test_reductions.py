"""What the model reduces its tensors to is what they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from infc.calibration import worker
from infc.calibration.observed import Observed, observe_in, write_observed
from infc.calibration.observers import Statistics

NET = """
<ir_version: 8, opset_import: ["" : OPSET]>
net (float[batch,3,H,W] image, float[8] bias) => (float[batch,3] y, double wide, float[many] some)
<int64[2] axes = {2, 3}>
{
  relu = Relu(image)
  root = Sqrt(image)
  gap = GlobalAveragePool(relu)
  y = Squeeze(gap, axes)
  line = Neg(bias)
  double = Cast<to = 11>(relu)
  wide = ReduceMax<keepdims = 0>(double)
  places = NonZero(relu)
  rows = Transpose(places)
  some = GatherND(relu, rows)
}
"""
NAMES = ["image", "relu", "y", "line", "double", "some"]
REDUCED = ["relu", "y", "line"]
Array = np.ndarray[Any, Any]


def network(opset: int) -> ir.Model:
    model = onnx.parser.parse_model(NET.replace("OPSET", str(opset)))
    return ir.from_proto(onnx.shape_inference.infer_shapes(model, strict_mode=True))


def opened(model: ir.Model, path: Path, names: list[str]) -> tuple[Observed, worker.Run]:
    observed = observe_in(model, names, path)
    observed.pending.touch()
    write_observed(model, observed)
    again = Observed.from_json(observed.to_json())
    return again, worker.open_model(again)


def images(shape: tuple[int, ...], seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    bias = rng.standard_normal(8).astype(np.float32)
    return {"image": rng.standard_normal(shape).astype(np.float32), "bias": bias}


def require_same(found: Statistics, wanted: Statistics) -> None:
    for field in ("samples", "elements", "nans", "infinities", "low", "high", "axis"):
        assert getattr(found, field) == getattr(wanted, field), field
    for field in ("positive", "negative", "zero", "top"):
        one, two = getattr(found.histogram, field), getattr(wanted.histogram, field)
        assert np.array_equal(one, two), field
    if wanted.means is None:
        assert found.means is None
    else:
        assert found.means is not None
        np.testing.assert_allclose(found.means, wanted.means, rtol=1e-5, atol=1e-6)


def files_run(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    run = worker.Sessions.run

    def told(self: worker.Sessions, file: Path, *rest: Any) -> Any:
        seen.append(file.name)
        return run(self, file, *rest)

    monkeypatch.setattr(worker.Sessions, "run", told)
    return seen


@pytest.mark.parametrize("opset", [13, 18, 22])
def test_reduced_and_whole_tensors_give_the_same(
    opset: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network(opset)
    observed, run = opened(model, tmp_path / "net.onnx", NAMES)
    assert [row.name for row in observed.reductions.rows] == REDUCED
    assert observed.unreduced == ("double", "some")
    bare = Observed(
        *(observed.path, observed.outputs, observed.inputs, observed.axes),
        *(type(observed.reductions)("", ()), observed.dims),
    )
    by_hand = worker.open_model(bare)
    seen = files_run(monkeypatch)
    shapes = [(1, 3, 9, 7), (2, 3, 120, 180), (1, 3, 9, 7)]
    for sample, shape in enumerate(shapes):
        feeds = images(shape, sample)
        found, wanted = run(sample, feeds), by_hand(sample, feeds)
        assert set(found) == set(wanted) == set(NAMES)
        for name, statistics in found.items():
            require_same(statistics, wanted[name])
    assert seen == ["net.onnx", "whole-net.onnx"] * len(shapes)


def spoilt(value: float) -> dict[str, Array]:
    feeds = images((1, 3, 40, 50))
    feeds["image"][0, 1, 7, 9] = value
    return feeds


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["relu", "root"])
def test_what_is_not_finite_is_counted(value: float, name: str, tmp_path: Path) -> None:
    """A maximum does not show every NaN."""
    feeds = spoilt(value)
    feeds["image"] = np.abs(feeds["image"]) if value > 0 or np.isnan(value) else feeds["image"]
    _, run = opened(network(17), tmp_path / "net.onnx", [name])
    (found,) = run(0, feeds).values()
    operator = {"relu": lambda x: np.where(x < 0, np.float32(0), x), "root": np.sqrt}[name]
    with np.errstate(invalid="ignore"):
        exact = operator(feeds["image"])
    assert found.nans == np.isnan(exact).sum()
    assert found.infinities == np.isinf(exact).sum()
    assert found.low == exact[np.isfinite(exact)].min()


def test_a_sum_that_overflows_is_no_infinity(tmp_path: Path) -> None:
    _, run = opened(network(17), tmp_path / "net.onnx", ["relu"])
    feeds = images((1, 3, 4, 4))
    feeds["image"][:] = 3e38
    (found,) = run(0, feeds).values()
    assert found.finite
    assert found.means is None
    assert found.high == np.float32(3e38)


def test_a_sample_without_elements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, run = opened(network(17), tmp_path / "net.onnx", ["relu"])
    seen = files_run(monkeypatch)
    (found,) = run(0, images((0, 3, 4, 4))).values()
    assert (found.samples, found.elements) == (0, 0)
    assert seen == ["whole-net.onnx"]


def test_a_shape_that_the_model_is_wrong_about(tmp_path: Path) -> None:
    """ONNX Runtime warns of it, and computes."""
    model = network(17)
    (relu,) = (v for node in model.graph for v in node.outputs if v.name == "relu")
    relu.shape = ir.Shape([1, 3, 5, 5])
    _, run = opened(model, tmp_path / "net.onnx", ["relu"])
    feeds = images((1, 3, 9, 7))
    (found,) = run(0, feeds).values()
    assert found.elements == feeds["image"].size
    assert found.high == feeds["image"].max()


def test_names_of_the_models_own_are_kept_apart(tmp_path: Path) -> None:
    model = network(17)
    for node in model.graph:
        for value in node.outputs:
            if value.name == "root":
                value.name = "infc.calibration.max.0"
    observed, run = opened(model, tmp_path / "net.onnx", ["relu"])
    assert observed.reductions.prefix == "_infc.calibration."
    feeds = images((1, 3, 9, 7))
    assert run(0, feeds)["relu"].high == feeds["image"].max()


@pytest.mark.parametrize(("opset", "rows"), [(9, 0), (10, 1)])
def test_old_opsets(opset: int, rows: int, tmp_path: Path) -> None:
    """Before opset 10 a Slice had its places as attributes."""
    text = f'<ir_version: 5, opset_import: ["" : {opset}]> net (float[2,3] x) => (float[2,3] y) '
    model = ir.from_proto(onnx.parser.parse_model(text + "{ y = Relu(x) }"))
    observed, run = opened(model, tmp_path / "net.onnx", ["y"])
    assert len(observed.reductions.rows) == rows
    found = run(0, {"x": np.arange(6, dtype=np.float32).reshape(2, 3)})["y"]
    assert (found.low, found.high, found.elements) == (0, 5, 6)
    assert found.means is not None
    assert found.means.tolist() == [1.5, 2.5, 3.5]


def test_later_samples_count_fewer_values(tmp_path: Path) -> None:
    _, run = opened(network(17), tmp_path / "net.onnx", ["relu"])
    feeds = images((1, 3, 200, 300))
    size = feeds["image"].size
    for sample, weight in ((127, 7), (255, 11), (100_000, 23)):
        counts = run(sample, feeds)["relu"].histogram
        assert np.gcd.reduce([*counts.positive, counts.zero]) == weight
        assert counts.positive.sum() + counts.zero == pytest.approx(size, rel=0.01)
