"""`infc debug-accuracy`: a layer that was made wrong on purpose is the one that is blamed."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from click import unstyle
from command import SMALL, infc, write_model
from conftest import ROOT
from onnx import TensorProto, helper, numpy_helper

import infc as api
from infc import targets
from infc.bundle import sha256_of
from infc.comparison import OutputError
from infc.divergence import AccuracyResult
from infc.divergence.layers import INPUT, Layer, expose, layers_of
from infc.divergence.verdict import Row, State, ceiling_db, first_of, judge, steepest
from infc.request import Precision
from infc.results.layers import debugged

DIGITS = ROOT / "examples" / "digits" / "digits.onnx"
CHANNELS = 8

Graph = tuple[list[onnx.NodeProto], dict[str, np.ndarray]]


def save(path: Path, graph: Graph, shape: list[int]) -> Path:
    """A model with the input `x` and the output `y`, both float32 of `shape`."""
    nodes, weights = graph
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    initializers = [numpy_helper.from_array(w.astype(np.float32), k) for k, w in weights.items()]
    body = helper.make_graph(nodes, "g", ends[:1], ends[1:], initializers)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(body, opset_imports=opset, ir_version=8), path)
    return path


def compiled(source: Path, target: str, folder: Path, **options: object) -> Path:
    result = api.compile(source, target, folder, loaders=(), **options)  # type: ignore[arg-type]
    (row,) = result.results
    assert row.bundle is not None
    return row.bundle


def row_of(result: AccuracyResult, name: str) -> Row:
    (found,) = [row for row in result.rows if row.layer.name == name]
    return found


def db_of(result: AccuracyResult, name: str) -> float:
    error = row_of(result, name).error
    assert error is not None
    return np.inf if error.sqnr_db is None else error.sqnr_db


@pytest.fixture(scope="module")
def outlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in which the weights of `heavy` have one large element in each output channel.

    What that multiplies is next to nothing, so that it costs all the others their precision; an
    Add before it keeps equalisation from helping.
    """
    folder = tmp_path_factory.mktemp("outlier")
    rng = np.random.default_rng(0)
    first, heavy, last = rng.standard_normal((3, CHANNELS, CHANNELS, 1, 1)) / np.sqrt(CHANNELS)
    first[0], first[:, 0], heavy[:, 0] = 0, 0, 300
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="first"),
        helper.make_node("Add", ["a", "x"], ["b"], name="sum"),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="heavy"),
        helper.make_node("Relu", ["c"], ["d"], name="heavy/relu"),
        helper.make_node("Conv", ["d", "w3"], ["y"], name="last"),
    ]
    graph = nodes, {"w1": first, "w2": heavy, "w3": last}
    save(folder / "outlier.onnx", graph, [1, CHANNELS, 4, 4])
    x = rng.standard_normal((24, CHANNELS, 4, 4)).astype(np.float32)
    x[:, 0] *= 1e-4
    np.savez(folder / "samples.npz", x=x)
    np.savez(folder / "one.npz", x=x[:1])
    return folder


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_int8_blames_the_layer_with_outliers(
    target: str, outlier: Path, tmp_path: Path, need_back_end: Callable[[str], None]
) -> None:
    need_back_end(target)
    source = outlier / "outlier.onnx"
    samples = str(outlier / "samples.npz")
    bundle = compiled(source, target, tmp_path, precision="int8", calibration=samples, verify=False)
    result = api.debug_accuracy(bundle, source, data=outlier / "one.npz", confirm=2)
    assert result.first is not None
    assert result.first.layer.name == "heavy"
    assert result.first.layer.operators == "Conv+Relu"
    assert result.first.alone
    assert row_of(result, "sum").alone
    assert result.steepest == result.first
    assert db_of(result, "sum") > 30
    assert db_of(result, "heavy") < 10
    assert row_of(result, "last").state is State.FOLLOWS
    assert row_of(result, "x").layer.operators == INPUT  # rounded as well
    assert result.identical
    assert result.builds == 4  # as it was, all at once, two alone
    assert result.exit_code == 3


def test_what_a_budget_kept_in_float_is_not_blamed(outlier: Path, tmp_path: Path) -> None:
    source, samples = outlier / "outlier.onnx", str(outlier / "samples.npz")
    bundle = compiled(
        source,
        "onnxruntime",
        tmp_path,
        precision="int8",
        calibration=api.CalibrationOptions(samples, method="percentile", percentile=99.5),
        budget=api.BudgetOptions(min_sqnr_db=20.0),
    )
    result = api.debug_accuracy(bundle, source)
    assert result.identical  # the layers kept in float, and the percentile, are the bundle's
    assert result.first is None
    assert result.inputs == "calibration samples"
    assert db_of(result, "heavy") > 20
    assert result.exit_code == 0


def test_bfloat16_blames_the_layer_in_which_terms_cancel(
    tmp_path: Path, need_back_end: Callable[[str], None]
) -> None:
    """300 + x has steps of 2 in bfloat16, and the weights after it take the 300 away again."""
    need_back_end("torchscript")
    rng = np.random.default_rng(0)
    plain, offset, cancel = rng.standard_normal((3, 16, 16)) / 4
    cancel -= cancel.mean(axis=0)
    nodes = [
        helper.make_node("Gemm", ["x", "w1"], ["a"], name="plain"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Gemm", ["b", "w2", "b2"], ["c"], name="offset"),
        helper.make_node("Sigmoid", ["b"], ["s"], name="gate"),
        helper.make_node("Gemm", ["c", "w3"], ["d"], name="cancel"),
        helper.make_node("Mul", ["d", "s"], ["y"], name="product"),
    ]
    weights = {"w1": plain, "w2": offset, "b2": np.full(16, 300.0), "w3": cancel}
    source = save(tmp_path / "cancel.onnx", (nodes, weights), [4, 16])
    bundle = compiled(source, "torchscript", tmp_path, precision="bf16", verify=False)
    result = api.debug_accuracy(bundle, source)
    assert result.first is not None
    assert result.first.layer.name == "cancel"
    assert db_of(result, "offset") > 40
    assert db_of(result, "gate") > 40
    assert db_of(result, "cancel") < 25
    assert row_of(result, "product").state is State.FOLLOWS
    assert result.inputs == "random, seed 0"
    assert result.identical


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(DIGITS, "cpu", tmp_path_factory.mktemp("digits"))


def test_a_float_bundle_does_not_diverge(digits: Path) -> None:
    done = infc("debug-accuracy", digits, "--source", DIGITS, "--json")
    assert done.status == 0, done.err
    document = done.document
    assert document["ok"] is True
    assert document["first"] is None
    assert document["identical"] is True
    assert document["sets"] == 6  # the batch is dynamic
    assert document["threshold_db"] == 80
    kinds = [row["operators"] for row in document["layers"]]
    assert kinds == [
        *("Conv+Relu", "MaxPool", "Conv+Relu", "MaxPool", "Conv+Relu"),
        *("GlobalAveragePool", "Flatten", "Gemm"),
    ]
    assert all(row["state"] == "fine" for row in document["layers"])
    assert all(row["sqnr_db"] is None or row["sqnr_db"] > 100 for row in document["layers"])
    assert document["layers"][1]["reads"] == [document["layers"][0]["value"]]
    assert document["outputs"][0]["ok"] is True


def test_min_sqnr_is_what_layers_are_held_to(digits: Path) -> None:
    done = infc("debug-accuracy", digits, "--source", DIGITS, "--min-sqnr", 400)
    assert done.status == 3
    first, *_ = done.out.splitlines()
    assert "is the first to diverge" in first
    assert "held to     400 dB, on 6 input sets (random, seed 0)" in done.out


def test_another_source_is_refused(digits: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other.onnx", SMALL)
    done = infc("debug-accuracy", digits, "--source", other, "--json")
    assert done.status == 3
    assert [d["code"] for d in done.document["diagnostics"]] == ["E606"]
    assert sha256_of(other) in done.err
    assert "layers" not in done.document


def test_an_artifact_that_is_another_now_is_remarked_on(digits: Path, tmp_path: Path) -> None:
    """As after an update of the SDK: the bundle is whole, but would not be built like that."""
    changed = shutil.copytree(digits, tmp_path / "changed")
    entry = changed / "model" / "model.onnx"
    model = onnx.load(entry)
    model.producer_version = "of yesterday"
    onnx.save(model, entry)
    manifest = json.loads((changed / "manifest.json").read_text())
    row = {"sha256": sha256_of(entry), "bytes": entry.stat().st_size}
    manifest["files"]["model/model.onnx"] = row
    (changed / "manifest.json").write_text(json.dumps(manifest))
    done = infc("debug-accuracy", changed, "--source", DIGITS, "--json")
    assert done.status == 0
    assert done.document["identical"] is False
    assert [d["code"] for d in done.document["diagnostics"]] == ["E607"]
    assert done.err.startswith("warning[E607]")


@pytest.mark.parametrize("layers", ["0", "some", "-1", "1.5"])
def test_layers_that_are_no_number(layers: str, digits: Path) -> None:
    done = infc("debug-accuracy", digits, "--source", DIGITS, "--layers", layers)
    assert done.status == 2
    assert f"`--layers {layers}`" in done.err


@pytest.fixture
def wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the target `wrong` known to the driver and its workers."""
    site = tmp_path / "site"
    metadata = site / "wrong-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: wrong\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[infc.targets]\nwrong = wrong_back_end\n")
    shutil.copyfile(Path(__file__).with_name("wrong_back_end.py"), site / "wrong_back_end.py")
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    targets.profiles.cache_clear()
    targets._offered.cache_clear()
    yield
    targets.profiles.cache_clear()
    targets._offered.cache_clear()
    sys.modules.pop("wrong_back_end", None)


BRANCHES = """
<ir_version: 8, opset_import: ["" : 17]>
branches (float[N,4] x) => (float[N,4] y, int64[N] best)
<float[4,4] w = {0.5,-1,2,0.3, 1,0.2,1,-0.7, -0.25,0.75,0.1,1, 0,1,-1,0.4}>
{
  a = MatMul(x, w)
  left = Tanh(a)
  right = Sigmoid(a)
  softened = Softplus(left)
  y = Mul(softened, right)
  best = ArgMax<axis=1, keepdims=0>(y)
}
"""


def branches(folder: Path) -> Path:
    """The model of `BRANCHES`, its nodes named after what they give."""
    path = write_model(folder / "branches.onnx", BRANCHES)
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = node.output[0]
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(("operator", "blamed"), [("Tanh", "left"), ("Sigmoid", "right")])
def test_a_bug_of_a_back_end_is_named(
    wrong: None, operator: str, blamed: str, tmp_path: Path
) -> None:
    source = branches(tmp_path)
    options = {"operator": operator}
    bundle = compiled(source, "wrong", tmp_path, options=options, verify=False)
    result = api.debug_accuracy(bundle, source)
    output = debugged(result)
    assert output.exit_code == 3
    assert output.document["first"] == blamed
    assert output.document["steepest"] == blamed
    states = {row["name"]: row["state"] for row in output.document["layers"]}
    expected = {"a": "fine", "left": "fine", "right": "fine", "softened": "fine", "y": "follows"}
    expected |= {"softened": "follows"} if operator == "Tanh" else {}
    assert states == {**expected, blamed: "diverges"}
    text = unstyle(output.text)
    assert text.startswith(f"{blamed} ({operator}) is the first to diverge in {bundle}: SQNR 20")
    assert re.search(rf"^{blamed} +{operator} +20\.\d dB .*<- diverges$", text, re.MULTILINE)
    assert debugged(result, brief=True).text == blamed


def test_a_bug_of_a_fusion_is_found_layer_by_layer(wrong: None, tmp_path: Path) -> None:
    """It is gone as soon as what the operator reads is looked at."""
    source = branches(tmp_path)
    options = {"operator": "Softplus", "only": "fused"}
    bundle = compiled(source, "wrong", tmp_path, options=options, verify=False)
    done = infc("debug-accuracy", bundle, "--source", source)
    assert done.status == 3
    assert done.out.startswith("no single layer diverges")
    assert "`--layers 8`" in done.out
    result = api.debug_accuracy(bundle, source, confirm=8)
    assert result.first is not None
    assert result.first.layer.name == "softened"
    assert result.first.alone
    assert db_of(result, "left") > 100


def test_a_checkpoint_that_is_refused_is_left_out(wrong: None, tmp_path: Path) -> None:
    source = branches(tmp_path)
    options = {"operator": "Tanh", "only": "refused"}
    bundle = compiled(source, "wrong", tmp_path, options=options)
    result = api.debug_accuracy(bundle, source)
    row = row_of(result, "left")
    assert row.error is None
    assert row.state is State.UNKNOWN
    assert "Tanh cannot be an output" in row.reason
    assert all(r.state is State.FINE for r in result.rows if r is not row)
    assert result.exit_code == 0


def test_a_source_that_came_quantised(outlier: Path, tmp_path: Path) -> None:
    source = tmp_path / "quantised.onnx"
    data = str(outlier / "samples.npz")
    api.quantize(outlier / "outlier.onnx", source, "onnxruntime", data, verify=False)
    bundle = compiled(source, "onnxruntime", tmp_path, verify=False)
    result = api.debug_accuracy(bundle, source, data=outlier / "one.npz")
    assert result.identical
    assert result.threshold_db == 15  # what the source itself computes in
    assert result.first is None
    assert result.exit_code == 0


def test_shapes_and_passes_are_those_of_the_bundle(tmp_path: Path) -> None:
    source = write_model(tmp_path / "small.onnx", SMALL)
    bundle = compiled(
        source,
        "cpu",
        tmp_path,
        inputs={"image": "2..4@3x3x8x8"},
        passes=api.PassOptions(disabled=frozenset(("eliminate-identity",))),
    )
    result = api.debug_accuracy(bundle, source)
    assert result.identical
    assert result.exit_code == 0
    assert [row.layer.operators for row in result.rows] == ["Conv+Relu"]


def test_layers_read_what_lies_before_them() -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[2,4] x, bool flag) => (float[2,4] y, int64[2] shape)
    <float[4,4] w = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}, float[4] b = {1,2,3,4}>
    {
      product = MatMul(x, w)
      sum = Add(product, b)
      relu = Relu(sum)
      same = Identity(relu)
      chosen = If (flag) <
        then_branch = t () => (float[2,4] then) { then = Neg(same) },
        else_branch = e () => (float[2,4] other) { other = Abs(x) }
      >
      y = Mul(chosen, relu)
      shape = Shape(y)
    }
    """
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    found = {layer.value: layer for layer in layers_of(model)}
    assert list(found) == ["x", "relu", "chosen", "y"]
    assert found["relu"].operators == "MatMul+Add+Relu"
    assert found["relu"].reads == ("x",)
    assert set(found["chosen"].reads) == {"relu", "x"}
    assert set(found["y"].reads) == {"chosen", "relu"}
    copy, there = expose(model, [found["x"], found["relu"], found["y"]], rounded=False)
    assert [v.name for v in copy.graph.outputs] == ["y", "shape", "relu"]
    assert list(there) == ["relu", "y"]
    assert [v.name for v in model.graph.outputs] == ["y", "shape"]


def layer(value: str, *reads: str) -> Layer:
    return Layer(value, "Conv", value, "float32", (1,), reads)


def error(value: str, sqnr_db: float | None) -> OutputError:
    return OutputError(value, 1.0, 1.0, sqnr_db, ok=True)


def judged(*found: tuple[Layer, float | str | None]) -> tuple[Row, ...]:
    errors = {la.value: error(la.value, e) for la, e in found if not isinstance(e, str)}
    reasons = {la.value: e for la, e in found if isinstance(e, str)}
    rows = [la for la, _ in found]
    return judge(rows, errors, reasons, frozenset(), 15.0, ceiling_db(Precision.INT8))


def test_a_victim_is_not_a_culprit() -> None:
    rows = judged(
        (layer("a", "x"), None),
        (layer("b", "a"), 12.0),
        (layer("c", "b"), 3.0),
        (layer("d", "a"), 40.0),
        (layer("e", "d"), 14.0),
    )
    assert [row.state for row in rows] == ["fine", "diverges", "follows", "fine", "diverges"]
    assert first_of(rows) == rows[1]
    assert steepest(rows) == rows[1]
    assert rows[0].drop_db == 0
    assert rows[3].drop_db == pytest.approx(6.02 * 8 + 1.76 - 40)


def test_what_was_not_compared_is_seen_through() -> None:
    rows = judged((layer("a", "x"), 3.0), (layer("b", "a"), "refused"), (layer("c", "b"), 2.0))
    assert [row.state for row in rows] == ["diverges", "unknown", "follows"]
    assert rows[1].reason == "refused"
    assert rows[2].drop_db == pytest.approx(1.0)


def test_what_all_readers_are_right_about_is_harmless() -> None:
    """As a mask is, of -1e9 or of -16376."""
    rows = judged((layer("mask", "x"), -3.0), (layer("soft", "mask"), 60.0))
    assert [row.state for row in rows] == ["harmless", "fine"]
    assert first_of(rows) is None
    assert steepest(rows) is None
    given = replace(rows[0].layer, output=True)
    assert judged((given, -3.0), (layer("soft", "mask"), 60.0))[0].state is State.DIVERGES
    rows = judged((layer("a", "x"), 3.0), (layer("b", "a"), 60.0), (layer("c", "a"), 3.0))
    assert [row.state for row in rows] == ["diverges", "fine", "follows"]


def test_an_answer_that_is_not_finite_diverges() -> None:
    rows = judged((layer("a", "x"), 40.0), (layer("b", "a"), -np.inf))
    assert rows[1].state is State.DIVERGES
    assert json.loads(json.dumps(rows[1].to_json()))["sqnr_db"] == -999.0
