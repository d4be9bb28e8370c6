"""Each lowering against ONNX Runtime, one node at a time, with fixed and with symbolic shapes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torchscript_cases as cases
from onnx import helper, numpy_helper
from torchscript_cases import Array, Case, Const

from infc.targets import Target, torchscript

TARGET = Target("torchscript", "torchscript", "")


def model_of(case: Case, symbolic: bool) -> onnx.ModelProto:
    names, inputs, initializers = [], [], []
    for i, value in enumerate(case.inputs):
        names.append("" if value is None else f"x{i}")
        if isinstance(value, Const):
            initializers.append(numpy_helper.from_array(value.value, f"x{i}"))
        elif value is not None:
            dims = [f"d{i}_{j}" for j in range(value.ndim)] if symbolic else list(value.shape)
            kind = helper.np_dtype_to_tensor_dtype(value.dtype)
            inputs.append(helper.make_tensor_value_info(f"x{i}", kind, dims))
    results = [f"y{i}" for i in range(case.outputs)]
    node = helper.make_node(case.op, names, results, **case.attributes)
    graph = helper.make_graph(
        [node], "one-node", inputs, [onnx.ValueInfoProto(name=n) for n in results], initializers
    )
    opset = helper.make_opsetid("", case.opset)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10)


def by_onnxruntime(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, ["CPUExecutionProvider"]
    )
    results: list[Array] = session.run(None, feeds)
    return results


def by_torchscript(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    """Raises `AssertionError` with the nodes that were refused."""
    import torch

    ours = ir.from_proto(model)
    torchscript.legalize(ours, TARGET)
    program, unsupported = torchscript.program_of(ours)
    assert not unsupported, unsupported
    module = torchscript.compile_program(program, freeze=True)
    with torch.inference_mode():
        results = module(*(torchscript._tensor(feeds[v.name]) for v in model.graph.input))
    return [torchscript._array(t) for t in results]


def variants(case: Case) -> list[tuple[str, Case, bool]]:
    out = [("fixed", case, False), ("symbolic", case, True)]
    constants = [v for v in case.inputs if isinstance(v, Const)]
    if constants and case.also_as_inputs:
        inputs = [v.value if isinstance(v, Const) else v for v in case.inputs]
        out.append(("all inputs", replace(case, inputs=inputs), False))
    return out


def check(case: Case, tolerance: float, symbolic: bool) -> None:
    model = model_of(case, symbolic)
    feeds = {f"x{i}": v for i, v in enumerate(case.inputs) if isinstance(v, np.ndarray)}
    expected = by_onnxruntime(model, feeds)
    answers = by_torchscript(model, feeds)
    for want, got in zip(expected, answers, strict=True):
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("family", cases.FAMILIES)
def test_a_lowering_answers_as_onnxruntime_does(
    family: str, need_module: Callable[[str], None]
) -> None:
    need_module("torch")
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    wrong = []
    for case in cases.FAMILIES[family]:
        for what, variant, symbolic in variants(case):
            try:
                check(variant, case.tolerance, symbolic)
            except Exception as error:
                lines = [line for line in str(error).splitlines() if line.strip()]
                about = f"{case.op}-{case.opset} {case.attributes} ({what})"
                wrong.append(f"{about}: {type(error).__name__}: {' | '.join(lines)[:300]}")
    assert not wrong, "\n" + "\n".join(wrong)


def refusal(node: Any, shapes: Sequence[Sequence[int]], opset: int = 20) -> list[str]:
    inputs = [
        helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s)
        for n, s in zip(node.input, shapes, strict=True)
    ]
    outputs = [onnx.ValueInfoProto(name=n) for n in node.output]
    graph = helper.make_graph([node], "g", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return [u.reason for u in torchscript.program_of(ir.from_proto(model))[1]]


@pytest.mark.parametrize(
    ("node", "shapes", "reason"),
    [
        (helper.make_node("Bernoulli", ["x"], ["y"]), [[2]], "no TorchScript lowering"),
        (helper.make_node("Cast", ["x"], ["y"], to=17), [[2]], "float8e4m3fn"),
        (
            helper.make_node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2], pads=[0, 1]),
            [[1, 1, 4]],
            "Indices with pads",
        ),
        (
            helper.make_node(
                "BatchNormalization", ["x", "s", "b", "m", "v"], ["y"], training_mode=1
            ),
            [[1, 2, 3], [2], [2], [2], [2]],
            "training_mode",
        ),
        (helper.make_node("Conv", ["x", "w"], ["y"]), [[1] * 6, [1] * 6], "4 spatial axes"),
    ],
    ids=lambda v: v.op_type if isinstance(v, onnx.NodeProto) else "",
)
def test_what_cannot_be_kept_is_refused(
    node: onnx.NodeProto, shapes: list[list[int]], reason: str
) -> None:
    found = refusal(node, shapes)
    assert any(reason in text for text in found), found
