"""Golden graphs: `<pass-name>/<case>.onnxtxt` holds a comment, a graph, `#=>`, the expected graph.

A case named `keep-...` is one in which the pass must not fire. `INFC_BLESS=1` rewrites the
expected graphs (and gives a new file, which has none, its first): review the diff.

Every case is also run: the graph before and after the pass must give the same outputs.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx.checker
import onnx.parser
import onnx.printer
import onnx.shape_inference
import onnx_ir as ir
import pytest

from infc.passes import PIPELINE, PassSpec

HERE = Path(__file__).resolve().parent
BLESS = os.environ.get("INFC_BLESS") == "1"
ARROW = "#=>"
OURS = {
    spec.name: spec
    for phase in PIPELINE
    for spec in phase.passes
    if spec.factory.startswith("infc.")
}
CASES = sorted(HERE.glob("*/*.onnxtxt"))
IDS = [f"{case.parent.name}/{case.stem}" for case in CASES]

TOLERANCE = {np.dtype(np.float16): 2e-2, np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-10}
"""Relative to the largest output: a rewrite may round differently (a folded scale is applied to
the weights instead of the sum, a sum runs in another order), a few units in the last place each;
integers and booleans must be equal."""


def read(case: Path) -> tuple[str, str, str]:
    """(comment, graph, expected graph) of a golden file."""
    head, _, expected = case.read_text(encoding="utf-8").partition(ARROW)
    lines = head.splitlines()
    comment = [line for line in lines if line.startswith("#")]
    graph = [line for line in lines if not line.startswith("#")]
    return "\n".join(comment), "\n".join(graph), expected.strip()


def parse(text: str, name: str = "") -> onnx.ModelProto:
    """The graph with inferred shapes, as the pipeline hands it to a pass but the one for shapes."""
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model, full_check=True)
    if name == "infer-shapes":
        return model
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def apply(spec: PassSpec, model: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
    """The model after one run of the pass, and whether the pass says that it changed it."""
    copy = onnx.ModelProto()  # renaming an initializer renames the TensorProto it was read from
    copy.CopyFrom(model)
    result = spec.make()(ir.from_proto(copy))
    return ir.to_proto(result.model), result.modified


def show(model: onnx.ModelProto, name: str = "") -> str:
    """Text without what a golden graph is not about: inferred shapes and node names."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    pending = [shown.graph]
    while pending:
        graph = pending.pop()
        if name != "infer-shapes":
            del graph.value_info[:]
        for node in graph.node:
            node.ClearField("name")
            pending.extend(attr.g for attr in node.attribute if attr.HasField("g"))
    return "\n".join(line.rstrip() for line in onnx.printer.to_text(shown).strip().splitlines())


def spec_of(case: Path) -> PassSpec:
    name = case.parent.name
    assert name in OURS, f"`{name}` is a golden folder but no pass of the pipeline"
    return OURS[name]


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_golden(case: Path) -> None:
    comment, text, expected = read(case)
    assert comment, "a golden file starts with a comment that says what it shows"
    name = case.parent.name
    source = parse(text, name)
    result, modified = apply(spec_of(case), source)
    onnx.checker.check_model(result, full_check=True)
    found = show(result, name)
    changed = found != show(source, name)
    assert changed == modified, "the pass misreports whether it changed the graph"
    assert changed != case.name.startswith("keep-"), f"fires: {changed}"
    if BLESS:
        case.write_text(f"{comment}\n{text.strip()}\n{ARROW}\n{found}\n", encoding="utf-8")
    else:
        assert found == expected


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_same_outputs(case: Path) -> None:
    _, text, _ = read(case)
    source = parse(text)
    result, modified = apply(spec_of(case), source)
    if not modified:
        assert show(result) == show(source)
        return
    for seed, size in ((0, 3), (1, 2)):
        feeds = random_feeds(source, seed, size)
        before, after = run(source, feeds), run(result, feeds)
        for expected, found in zip(before, after, strict=True):
            assert_close(expected, found)


@pytest.mark.parametrize("name", OURS)
def test_every_pass_has_golden_graphs(name: str) -> None:
    stems = [case.stem for case in CASES if case.parent.name == name]
    assert [stem for stem in stems if not stem.startswith("keep-")], "no case in which it fires"
    assert [stem for stem in stems if stem.startswith("keep-")], "no case in which it must not"


def test_every_golden_folder_is_a_pass() -> None:
    assert {case.parent.name for case in CASES} <= set(OURS)


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


def random_feeds(model: onnx.ModelProto, seed: int, size: int) -> dict[str, np.ndarray]:
    """Random inputs; every symbolic or unknown dimension is `size`."""
    rng = np.random.default_rng(seed)
    initialized = {init.name for init in model.graph.initializer}
    feeds = {}
    for value in model.graph.input:
        if value.name in initialized:
            continue
        tensor = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        shape = [dim.dim_value or size for dim in tensor.shape.dim]
        if dtype == np.bool_:
            feeds[value.name] = np.asarray(rng.random(shape) < 0.5)
        elif dtype.kind in "iu":
            feeds[value.name] = np.asarray(rng.integers(0, 2, shape)).astype(dtype)
        else:
            feeds[value.name] = (2 * rng.standard_normal(shape)).astype(dtype)
    return feeds


def assert_close(expected: np.ndarray, found: np.ndarray) -> None:
    assert expected.dtype == found.dtype
    assert expected.shape == found.shape
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(found, expected)
        return
    tolerance = TOLERANCE[expected.dtype]
    finite = expected[np.isfinite(expected)].astype(np.float64)
    scale = float(np.abs(finite).max()) if finite.size else 1.0
    np.testing.assert_allclose(
        found.astype(np.float64),
        expected.astype(np.float64),
        rtol=tolerance,
        atol=tolerance * scale,
    )
