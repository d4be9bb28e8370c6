"""The whole pipeline over the single-operator models that come with onnx, against their outputs.

These are the reference semantics of every operator, dtype and attribute there is; most are not
rewritten, which is the point: nothing may crash, and nothing may come out different. Each model
is run twice: with its inputs as inputs, and with all of them turned into initializers, so that
everything that can be folded is.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx_ir as ir
import pytest

from infc import pipeline
from infc.request import PassOptions

SHARDS = 4
pytestmark = pytest.mark.xdist_group("node-models")  # making the cases takes ten seconds, once


@cache
def cases() -> tuple[Any, ...]:
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tuple(sorted(load_model_tests(kind="node"), key=lambda case: case.name))


def loaded(shard: int) -> Iterator[tuple[str, onnx.ModelProto, list[Any], list[Any]]]:
    """(name, model, inputs, expected outputs) of the tensor-only cases of one shard."""
    for case in cases()[shard::SHARDS]:
        graph = case.model.graph
        if all(v.type.HasField("tensor_type") for v in [*graph.input, *graph.output]):
            inputs, outputs = case.data_sets[0]
            yield case.name, case.model, [*map(_array, inputs)], [*map(_array, outputs)]


def _array(data: Any) -> Any:
    return onnx.numpy_helper.to_array(data) if isinstance(data, onnx.TensorProto) else data


def run(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


def optimized(model: onnx.ModelProto) -> onnx.ModelProto:
    loaded_model = ir.from_proto(model)
    pipeline.run(loaded_model, PassOptions(check_between=True))
    return ir.to_proto(loaded_model)


def same(expected: Any, found: Any) -> bool:
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return False
    if expected.dtype.kind in "OUS":
        return [str(x) for x in expected.reshape(-1)] == [str(x) for x in found.reshape(-1)]
    a, b = expected.astype(np.complex128), found.astype(np.complex128)
    tolerance = 1e-3 if expected.dtype.itemsize < 4 else 1e-5
    return bool(np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True))


@pytest.mark.parametrize("shard", range(SHARDS))
def test_operator_models_keep_their_outputs(shard: int) -> None:
    wrong, compared = [], 0
    for name, model, inputs, _ in loaded(shard):
        try:
            feeds = {v.name: a for v, a in zip(model.graph.input, inputs, strict=True)}
            before = run(model, feeds)
        except Exception:  # an operator or type that ONNX Runtime does not have
            before = None
        after_model = optimized(model)
        assert [v.name for v in after_model.graph.input] == [v.name for v in model.graph.input]
        assert [v.name for v in after_model.graph.output] == [v.name for v in model.graph.output]
        if before is None or not is_deterministic(model):
            continue
        compared += 1
        after = run(after_model, feeds)
        if not all(same(a, b) for a, b in zip(before, after, strict=True)):
            wrong.append(name)
    assert not wrong
    assert compared > 100


@pytest.mark.parametrize("shard", range(SHARDS))
def test_operator_models_fold_to_their_outputs(shard: int) -> None:
    wrong, folded = [], 0
    for name, model, inputs, outputs in loaded(shard):
        if not is_deterministic(model):
            continue
        constant = behind_identities(model)
        constant.graph.initializer.extend(
            onnx.numpy_helper.from_array(a, v.name)
            for v, a in zip(model.graph.input, inputs, strict=True)
        )
        del constant.graph.input[:]
        constant.ir_version = max(constant.ir_version, 4)
        result = optimized(constant)
        made = {t.name: t for t in result.graph.initializer}
        for node in result.graph.node:
            if node.op_type in ("Constant", "Identity"):
                source = made.get(node.input[0]) if node.input else node.attribute[0].t
                if source is not None:
                    made[node.output[0]] = source
        for value, expected in zip(model.graph.output, outputs, strict=True):
            if value.name not in made:
                continue
            folded += 1
            if not same(expected, onnx.numpy_helper.to_array(made[value.name])):
                wrong.append(name)
    assert not wrong
    assert folded > 100


def behind_identities(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose outputs are given by Identity nodes: what gives an output stays a node."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    names = {v.name for v in copy.graph.output}
    for node in copy.graph.node:
        for i, name in enumerate(node.output):
            if name in names:
                node.output[i] = f"{name}_computed"
    for name in sorted(names):
        copy.graph.node.append(onnx.helper.make_node("Identity", [f"{name}_computed"], [name]))
    return copy


def is_deterministic(model: onnx.ModelProto) -> bool:
    random = ("Bernoulli", "Random", "Multinomial")
    return not any(
        n.op_type.startswith(random) or (n.op_type == "Dropout" and len(n.input) > 2)
        for n in [*model.graph.node, *(n for f in model.functions for n in f.node)]
    )
