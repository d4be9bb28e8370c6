"""Mixed precision by budget: as few layers as it takes stay in float."""

from __future__ import annotations

import csv
import itertools
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command import Done, infc, write_model
from conftest import ROOT
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

from infc import latency
from infc.budget import BudgetOptions, parse_drop, parse_latency
from infc.bundle import open_bundle
from infc.diagnostics import InfcError
from infc.mixed_precision.curve import curves
from infc.mixed_precision.evaluation import Figures
from infc.mixed_precision.layers import CANONICAL, scheme_from_json, scheme_to_json
from infc.mixed_precision.metrics import Top1
from infc.mixed_precision.selection import select
from infc.mixed_precision.sensitivity import Layer, Sensitivity
from infc.targets.schemes import SCHEMES

DIGITS = ROOT / "examples" / "digits" / "digits.onnx"
TARGETS = ("onnxruntime", "openvino")
CULPRIT = "outlier"
Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing measured before, and nothing left behind."""
    monkeypatch.setenv("INFC_HOME", str(tmp_path_factory.mktemp("home")))


def outlier_network(path: Path) -> Path:
    """Six convolutions; one reads the exponentials of another, of which one channel is e**9 larger.

    That channel takes the whole range of the layer's input and says almost nothing: its weights
    are 1e-4 of the others'. An Exp is quantised by nobody, and no equalisation goes through it.
    """
    rng = np.random.default_rng(7)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def constant(array: Array) -> str:
        weights.append(numpy_helper.from_array(array.astype(np.float32), f"w{len(weights)}"))
        return weights[-1].name

    def conv(name: str, x: str, w: Array, b: Array, relu: bool = True) -> str:
        pads = [w.shape[2] // 2] * 4
        inputs = [x, constant(w), constant(b)]
        nodes.append(helper.make_node("Conv", inputs, [f"{name}_sum"], name=name, pads=pads))
        if not relu:
            return f"{name}_sum"
        nodes.append(helper.make_node("Relu", [f"{name}_sum"], [f"{name}_out"]))
        return f"{name}_out"

    def he(o: int, i: int, k: int) -> Array:
        return rng.standard_normal((o, i, k, k)) * np.sqrt(2 / (i * k * k))

    x = conv("stem", "x", he(16, 3, 3), rng.standard_normal(16) * 0.1)
    x = conv("body", x, he(16, 16, 3), rng.standard_normal(16) * 0.1)
    x = conv("wide", x, he(16, 16, 1) * 0.5, 9.0 * np.eye(16)[5], relu=False)
    nodes.append(helper.make_node("Exp", [x], ["e"]))
    w = he(16, 16, 1)
    w[:, 5] *= 1e-4
    x = conv(CULPRIT, "e", w, np.zeros(16))
    x = conv("neck", x, he(16, 16, 3), rng.standard_normal(16) * 0.1)
    x = conv("head", x, he(8, 16, 1), rng.standard_normal(8) * 0.1, relu=False)
    row = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "network",
        [row("x", TensorProto.FLOAT, ["batch", 3, 12, 12])],
        [row(x, TensorProto.FLOAT, ["batch", 8, 12, 12])],
        weights,
    )
    imports = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    images = rng.standard_normal((64, 3, 12, 12)).astype(np.float32)
    np.savez(path.with_suffix(".npz"), x=images)
    return path


def compile_int8(model: Path, output: Path, *words: object, targets: Any = TARGETS) -> Done:
    named = [w for t in targets for w in ("-t", t)]
    return infc(
        *("compile", model, *named, "-o", output, "--precision", "int8", "--loader", "none"),
        *("--calibration", model.with_suffix(".npz"), *words),
    )


def budget_of(bundle: Path) -> dict[str, Any]:
    found: dict[str, Any] = open_bundle(bundle).manifest["quantization"]["budget"]
    return found


@pytest.fixture(scope="module")
def rescued(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outlier network for every target at 25 dB."""
    folder = tmp_path_factory.mktemp("outlier")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INFC_HOME", str(folder / "home"))
        model = outlier_network(folder / "network.onnx")
        done = compile_int8(model, folder / "build", "--min-sqnr", "25")
    assert done.status == 0, done.err
    assert f"1 of 6 layers: {CULPRIT}" in done.out
    return folder


def test_one_outlier_heavy_layer_ruins_a_model(rescued: Path, tmp_path: Path) -> None:
    done = compile_int8(rescued / "network.onnx", tmp_path, "--json")
    assert done.status == 3
    codes = [d["code"] for row in done.document["results"] for d in row["diagnostics"]]
    assert codes == ["E602", "E602"]


@pytest.mark.parametrize("target", TARGETS)
def test_the_budget_search_leaves_exactly_that_layer_in_float(rescued: Path, target: str) -> None:
    budget = budget_of(rescued / "build" / f"network-{target}")
    assert budget["keep"] == [CULPRIT]
    assert budget["minimal"] is True
    assert budget["int8"]["sqnr_db"] < 5
    assert budget["found"]["sqnr_db"] > 30
    assert abs(budget["artifact"]["sqnr_db"] - budget["found"]["sqnr_db"]) < 1
    kept = {k["node"]: k["reason"] for k in manifest(rescued, target)["quantization"]["kept"]}
    assert kept[CULPRIT] == "it was asked to stay in float"
    harmful = [row["name"] for row in budget["layers"]]
    assert harmful[0] == CULPRIT
    assert len(harmful) == 6


def manifest(folder: Path, target: str) -> dict[str, Any]:
    return dict(open_bundle(folder / "build" / f"network-{target}").manifest)


def test_the_report_shows_the_curve(rescued: Path) -> None:
    page = (rescued / "build" / "network-onnxruntime" / "report.html").read_text()
    assert "Mixed precision" in page
    budget = budget_of(rescued / "build" / "network-onnxruntime")
    sensitivity, search = curves(budget)
    assert [bar.style for bar in sensitivity.bars] == ["after"] + ["before"] * 5
    assert sensitivity.bars[0].height < min(bar.height for bar in sensitivity.bars[1:])
    assert search.limit is not None
    for bar, point in zip(search.bars, budget["curve"], strict=True):
        assert (bar.y <= search.limit) == (point["sqnr_db"] >= 25)
        assert f"{bar.title}</title>" in page


def test_sensitivity_is_measured_once_for_all_targets_and_budgets(tmp_path: Path) -> None:
    model = outlier_network(tmp_path / "network.onnx")
    first = compile_int8(model, tmp_path / "a", "--min-sqnr", "25", "-v")
    again = compile_int8(model, tmp_path / "b", "--min-sqnr", "35", "-v", targets=TARGETS[1:])
    assert (first.status, again.status) == (0, 0), first.err + again.err
    assert "measuring sensitivity" in first.err
    assert "measuring sensitivity" not in again.err
    files = [tmp_path / "a" / f"network-{t}" / "sensitivity.json" for t in TARGETS]
    files.append(tmp_path / "b" / "network-openvino" / "sensitivity.json")
    (text,) = {file.read_text() for file in files}
    found = Sensitivity.from_json(json.loads(text))
    assert found.dump() == text
    assert found.order()[0] == CULPRIT


def test_the_same_bytes_twice(rescued: Path, tmp_path: Path) -> None:
    """All of it measured anew, and for another set of targets."""
    done = compile_int8(
        rescued / "network.onnx", tmp_path, "--min-sqnr", "25", targets=("onnxruntime",)
    )
    assert done.status == 0, done.err
    new, old = (f / "network-onnxruntime" for f in (tmp_path, rescued / "build"))
    for name in ("sensitivity.json", "model/model.onnx"):
        assert (new / name).read_bytes() == (old / name).read_bytes()
    assert budget_of(new) == budget_of(old)


def test_a_budget_that_no_layer_meets_leaves_all_in_float_and_says_so(
    rescued: Path, tmp_path: Path
) -> None:
    done = compile_int8(
        rescued / "network.onnx", tmp_path, "--min-sqnr", "80", targets=("onnxruntime",)
    )
    assert done.status == 0, done.err
    assert "E421" in done.err
    assert "no layer can be quantised for `onnxruntime`" in done.err
    assert len(budget_of(tmp_path / "network-onnxruntime")["keep"]) == 6


@pytest.mark.parametrize("target", TARGETS)
def test_an_artifact_that_misses_the_budget_is_refused(
    rescued: Path, tmp_path: Path, target: str
) -> None:
    """With all in float the graph is exact; the artifact's fused arithmetic is at 131 dB of it."""
    done = compile_int8(rescued / "network.onnx", tmp_path, "--min-sqnr", "200", targets=(target,))
    assert done.status == 3
    assert f"error[E421]: the `{target}` artifact misses the budget: its SQNR is 1" in done.err
    assert not list(tmp_path.iterdir())


def test_quantize_takes_a_budget_and_names_of_its_own(rescued: Path, tmp_path: Path) -> None:
    done = infc(
        *("quantize", rescued / "network.onnx", "-o", tmp_path / "out.onnx", "--json"),
        *("--scheme", "openvino", "--calibration", rescued / "network.npz"),
        *("--min-sqnr", "25", "--keep-float", "stem"),
    )
    assert done.status == 0, done.err
    budget = done.document["quantization"]["budget"]
    assert budget["keep"] == [CULPRIT]
    kept = {row["node"] for row in done.document["quantization"]["kept"]}
    assert {CULPRIT, "stem"} <= kept
    assert done.document["verification"]["outputs"][0]["sqnr_db"] > 25


def digits(folder: Path, labels: bool = True) -> Path:
    """200 images to calibrate on, and the others with their labels."""
    data = load_digits()
    images = (data.images[:, None] / 16.0).astype(np.float32)
    np.savez(folder / "images.npz", image=images[:200])
    rest = {"labels": data.target[200:]} if labels else {}
    np.savez(folder / "labelled.npz", image=images[200:], **rest)
    return folder


@pytest.mark.parametrize("target", TARGETS)
def test_digits_keep_their_accuracy(tmp_path: Path, target: str) -> None:
    folder = digits(tmp_path)
    done = infc(
        *("compile", DIGITS, "-t", target, "-o", tmp_path, "--precision", "int8"),
        *("--calibration", folder / "images.npz", "--labelled", folder / "labelled.npz"),
        *("--max-drop", "0.1%", "--loader", "none"),
    )
    assert done.status == 0, done.err
    budget = budget_of(tmp_path / f"digits-{target}")
    assert budget["labelled_samples"] == 1597
    assert budget["float"]["metric"] > 0.97
    assert budget["float"]["metric"] - budget["artifact"]["metric"] <= 0.001 + 1e-9
    # 0.1 % of 1597 images is one: the artifact's own answers, counted here.
    from onnxruntime import InferenceSession

    if target == "onnxruntime":
        session = InferenceSession(tmp_path / "digits-onnxruntime" / "model" / "model.onnx")
        rows = np.load(folder / "labelled.npz")
        (scores,) = session.run(None, {session.get_inputs()[0].name: rows["image"]})
        right = (scores.argmax(1) == rows["labels"]).mean()
        assert math.isclose(right, budget["artifact"]["metric"], abs_tol=1e-6)


@pytest.mark.models
@pytest.mark.parametrize("target", TARGETS)
def test_hand_keypoints_of_a_table_with_labels(
    models: Path, tmp_path: Path, target: str, need_module: Callable[[str], None]
) -> None:
    need_module("h5py")
    sys.path.insert(0, str(ROOT / "scripts"))
    import keras_layers

    folder = models / "hand_keypoint"
    if not folder.is_dir():
        pytest.skip("missing: the model hand_keypoint")
    network = keras_layers.read(folder / "keypoint_classifier.hdf5")
    onnx.save(network, tmp_path / "keypoint.onnx")
    table = folder / "keypoint.csv"
    done = infc(
        *("compile", tmp_path / "keypoint.onnx", "-t", target, "-o", tmp_path),
        *("--precision", "int8", "--calibration", table, "--preprocess", "label=0"),
        *("--labelled", table, "--max-drop", "0.1%", "--loader", "none"),
    )
    assert done.status == 0, done.err
    budget = budget_of(tmp_path / f"keypoint-{target}")
    with table.open() as stream:
        assert budget["labelled_samples"] == sum(1 for _ in csv.reader(stream)) == 4450
    assert 0.964 < budget["float"]["metric"] < 0.967
    assert budget["float"]["metric"] - budget["artifact"]["metric"] <= 0.001 + 1e-9


SCORES = """
import numpy as np

def rows():
    data = np.load({data!r})
    for image, label in zip(data["image"], data["labels"]):
        yield {{"image": image}}, label

def confidence(outputs, labels):
    assert list(outputs) == ["logits"] and outputs["logits"].shape == (len(labels), 10)
    return -float(np.abs(outputs["logits"][np.arange(len(labels)), labels]).mean())

def broken(outputs, labels):
    return outputs["scores"]
"""


def test_a_metric_and_labelled_data_of_the_users_own(tmp_path: Path) -> None:
    folder = digits(tmp_path)
    code = tmp_path / "task.py"
    code.write_text(SCORES.format(data=str(folder / "labelled.npz")))
    words = (
        *("compile", DIGITS, "-t", "onnxruntime", "-o", tmp_path, "--precision", "int8"),
        *("--calibration", folder / "images.npz", "--labelled", f"{code}:rows"),
        *("--loader", "none"),
    )
    config = tmp_path / "infc.toml"  # what it names lies beside it
    config.write_text('[compile]\nmax-drop = 0.5\nmetric = "task.py:confidence"\n')
    done = infc(*words, "--config", config)
    assert done.status == 0, done.err
    budget = budget_of(tmp_path / "digits-onnxruntime")
    assert budget["float"]["metric"] < -1
    assert budget["float"]["metric"] - budget["artifact"]["metric"] <= 0.5
    failed = infc(*words, "--max-drop", "0.5", "--metric", f"{code}:broken")
    assert failed.status == 1
    assert "error[E423]: it raised KeyError: 'scores'" in failed.err
    assert "task.py:14 in broken" in failed.err


def test_data_without_labels_is_refused(tmp_path: Path) -> None:
    folder = digits(tmp_path, labels=False)
    done = infc(
        *("compile", DIGITS, "-t", "onnxruntime", "-o", tmp_path, "--precision", "int8"),
        *("--calibration", folder / "images.npz", "--labelled", folder / "labelled.npz"),
        *("--max-drop", "1%"),
    )
    assert done.status == 1
    assert "error[E423]: it holds no array `labels`" in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--min-sqnr", "25"), "are for int8, and no target here is"),
        (("--max-drop", "1%"), "`--max-drop` needs labelled data"),
        (("--labelled", "x.npz"), "`--labelled` says nothing without `--max-drop`"),
        (("--metric", "a:b"), "`--metric` says nothing without `--max-drop`"),
        (("--metric", "topp1"), "there is no metric `topp1`"),
        (("--max-drop", "much"), "`--max-drop much` is no drop"),
        (("--max-latency", "5"), "`--max-latency 5` is no limit"),
        (("--max-latency", "0ms"), "is not above 0"),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    done = infc("compile", write_model(tmp_path / "net.onnx"), "-o", tmp_path, *words)
    assert done.status == 2
    assert message in done.err


def test_what_limits_mean() -> None:
    assert parse_drop("0.5%") == parse_drop("0.005") == 0.005
    assert parse_latency("float") == parse_latency("1.0x") == (1.0, None)
    assert parse_latency("800us") == (None, 0.8)
    assert parse_latency("0.1s") == (None, 100.0)


def test_the_set_found_is_minimal_and_every_set_is_tried_once() -> None:
    """All budgets over four layers that are met by the superset of what meets them."""
    order = ["a", "b", "c", "d"]
    subsets = [frozenset(s) for n in range(5) for s in itertools.combinations(order, n)]
    for needed in itertools.combinations(subsets, 2):  # either of the two will do
        tried: list[frozenset[str]] = []

        def meets(keep: frozenset[str], needed: Any = needed, tried: Any = tried) -> bool:
            assert keep not in tried
            tried.append(keep)
            return any(keep >= want for want in needed)

        found = select(order, meets)
        assert found.minimal
        assert any(set(found.keep) >= want for want in needed)
        for name in found.keep:
            assert not any(set(found.keep) - {name} >= want for want in needed)


def test_trials_are_bounded() -> None:
    order = [str(i) for i in range(40)]
    found = select(order, lambda keep: len(keep) >= 30, max_trials=8)
    assert not found.minimal
    assert len(found.keep) >= 30
    assert found.trials <= 8


def test_a_drop_that_two_samples_decide_orders_no_layers() -> None:
    def layer(name: str, sqnr_db: float, metric: float) -> Layer:
        return Layer(name, "Conv", Figures(sqnr_db, metric))

    rows = (layer("noisy", 20, 0.90), layer("unlucky", 40, 0.89), layer("wrong", 60, 0.5))
    found = Sensitivity("m", "d", 16, "top1", 100, Figures(metric=0.90), rows)
    assert found.order() == ["wrong", "noisy", "unlucky"]


def test_top1_takes_numbers_of_classes() -> None:
    metric = Top1()
    metric.add({"y": np.array([[0.1, 0.9], [0.8, 0.2]], np.float32)}, np.array([1, 1]))
    assert metric.value() == 0.5
    for labels in (np.array([0.5, 1]), np.array(["a", "b"]), np.array([0, 2])):
        with pytest.raises(InfcError) as raised:
            Top1().add({"y": np.zeros((2, 2), np.float32)}, labels)
        assert raised.value.diagnostics[0].code == "E423"


RATIO = BudgetOptions(max_ratio=1.0)


def test_slower_than_float_is_refused_beyond_noise() -> None:
    even = [[1.02, 1.0], [0.99, 1.0], [1.01, 1.0], [1.0, 1.0], [1.03, 1.0]]
    assert latency.judge(RATIO, "cpu", even)["ratio"] == 1.01
    noisy = [[1.1, 1.0], [0.8, 1.0], [1.4, 1.0], [1.2, 1.0], [0.9, 1.0]]
    assert latency.judge(RATIO, "cpu", noisy)["ratio"] == 1.1
    slower = [[1.2, 1.0], [1.21, 1.0], [1.19, 1.0], [1.2, 1.0], [1.22, 1.0]]
    with pytest.raises(InfcError) as raised:
        latency.judge(RATIO, "cpu", slower)
    assert raised.value.diagnostics[0].code == "E422"
    assert "1.2 ms for a run at int8 and 1 ms at fp32: 1.20x" in str(raised.value)


def test_the_artifacts_are_timed(tmp_path: Path) -> None:
    folder = digits(tmp_path)
    words = (
        *("compile", DIGITS, "-t", "onnxruntime", "-o", tmp_path, "--precision", "int8"),
        *("--calibration", folder / "images.npz", "--loader", "none"),
    )
    done = infc(*words, "--max-latency", "100x")
    assert done.status == 0, done.err
    timings = json.loads((tmp_path / "digits-onnxruntime.log" / "timings.json").read_text())
    assert timings["latency"]["int8_ms"] > 0
    assert timings["latency"]["float_ms"] > 0
    text = (tmp_path / "digits-onnxruntime" / "manifest.json").read_text()
    assert "int8_ms" not in text
    refused = infc(*words, "--max-latency", "0.001us")
    assert refused.status == 1
    assert "error[E422]: the `onnxruntime` artifact takes" in refused.err
    assert "may take 0 us" in refused.err


def test_a_scheme_crosses_to_the_worker_whole() -> None:
    for scheme in (CANONICAL, *SCHEMES.values()):
        assert scheme_from_json(json.loads(json.dumps(scheme_to_json(scheme)))) == scheme
