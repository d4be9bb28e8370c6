"""What the ONNX frontend reads, and what it refuses, naming the node."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from command import SMALL, write_model
from fuzzing import control_flow
from onnx import TensorProto, helper, numpy_helper

from infc import building, frontends, pipeline
from infc.diagnostics import Diagnostic, InfcError
from infc.frontends import guarded
from infc.request import PassOptions

info = helper.make_tensor_value_info
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def chain(*nodes: onnx.NodeProto, opset: int = 17, ir_version: int = 8) -> onnx.ModelProto:
    """A model from `x` (float, 2x3) and `i` (int64, 3) to `y`."""
    graph = helper.make_graph(
        list(nodes),
        "main",
        [info("x", FLOAT, [2, 3]), info("i", INT64, [3])],
        [info("y", FLOAT, None)],
        [numpy_helper.from_array(np.ones(3, np.float32), "w")],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


node = helper.make_node


def write(tmp_path: Path, model: onnx.ModelProto) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def found(tmp_path: Path, model: onnx.ModelProto) -> list[Diagnostic]:
    with pytest.raises(InfcError) as caught:
        frontends.load(write(tmp_path, model))
    return list(caught.value.diagnostics)


def one(tmp_path: Path, model: onnx.ModelProto, code: str = "E104") -> Diagnostic:
    (diagnostic,) = found(tmp_path, model)
    assert diagnostic.code == code
    return diagnostic


# ---------------------------------------------------------------- what it reads


def test_the_line_of_a_model(tmp_path: Path) -> None:
    source = frontends.load(write_model(tmp_path / "small.onnx", SMALL))
    assert [(s.name, s.dtype, s.shape) for s in (*source.inputs, *source.outputs)] == [
        ("image", "float32", ("batch", 3, 8, 8)),
        ("scores", "float32", ("batch", 4, 8, 8)),
    ]
    assert (source.kind, source.notes) == ("onnx", ())


@pytest.mark.parametrize("version", [3, 4, 6, 8, 10, onnx.IR_VERSION])
def test_ir_versions(version: int, tmp_path: Path) -> None:
    assert frontends.load(write(tmp_path, chain(node("Relu", ["x"], ["y"]), ir_version=version)))


@pytest.mark.parametrize("opset", [7, 9, 13, 18, 22, onnx.defs.onnx_opset_version()])
def test_opsets(opset: int, tmp_path: Path) -> None:
    assert frontends.load(write(tmp_path, chain(node("Relu", ["x"], ["y"]), opset=opset)))


def test_control_flow_functions_and_external_data(tmp_path: Path) -> None:
    path = write(tmp_path, control_flow(tmp_path))
    source = frontends.load(path)
    assert [(s.name, s.dtype) for s in source.outputs] == [
        ("y", "float32"), ("b", "float32"), ("counts", "int64"),
    ]  # fmt: skip
    pipeline.run(source.model, PassOptions(check_between=True))
    (tmp_path / "out").mkdir()
    building.save_model(source.model, tmp_path / "out" / "model.onnx")
    feeds = {"x": np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4)}
    before = onnxruntime.InferenceSession(path).run(None, feeds)
    after = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx").run(None, feeds)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_unsorted_nodes_also_in_bodies(tmp_path: Path) -> None:
    model = control_flow(tmp_path)
    for graph in [model.graph, *(a.g for n in model.graph.node for a in n.attribute if a.g.node)]:
        nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in reversed(graph.node)]
        del graph.node[:]
        graph.node.extend(nodes)
    source = frontends.load(write(tmp_path, model))
    seen = set(source.model.graph.inputs) | set(source.model.graph.initializers.values())
    for item in source.model.graph:
        assert all(v is None or v in seen for v in item.inputs)
        seen |= set(item.outputs)


def test_a_name_in_a_body_that_hides_one_outside_ties_nothing(tmp_path: Path) -> None:
    """The body's own `late` is not the `late` that is made of the If's result."""
    inside = [node("Relu", ["x"], ["late"], "inner"), node("Relu", ["late"], ["t"], "inner2")]
    body = helper.make_graph(inside, "body", [], [info("t", FLOAT, None)])
    model = chain(
        node("Relu", ["late"], ["y"], "end"),
        node("Relu", ["c"], ["late"], "outer"),
        node("If", ["yes"], ["c"], "if", then_branch=body, else_branch=body),
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    source = frontends.load(write(tmp_path, model))
    assert [n.name for n in source.model.graph] == ["if", "outer", "end"]


def test_sparse_constants_become_dense(tmp_path: Path) -> None:
    values = numpy_helper.from_array(np.array([5, 7], np.float32), "s")
    for indices in (np.array([1, 5]), np.array([[0, 1], [1, 2]])):
        sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(indices), [2, 3])
        model = chain(
            node("Constant", [], ["c"], sparse_value=sparse),
            node("Add", ["x", "s"], ["t"]),
            node("Add", ["t", "c"], ["y"]),
        )
        model.graph.sparse_initializer.add().CopyFrom(sparse)
        source = frontends.load(write(tmp_path, model))
        tensor = source.model.graph.initializers["s"].const_value
        assert tensor is not None
        assert tensor.numpy().tolist() == [[0, 5, 0], [0, 0, 7]]
        assert source.outputs[0].shape == (2, 3)


def test_sparse_index_outside_its_shape(tmp_path: Path) -> None:
    values = numpy_helper.from_array(np.array([5], np.float32), "s")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([6])), [2, 3])
    model = chain(node("Add", ["x", "s"], ["y"]))
    model.graph.sparse_initializer.add().CopyFrom(sparse)
    assert "index" in one(tmp_path, model).message


def test_every_node_gets_a_name_of_its_own(tmp_path: Path) -> None:
    model = chain(
        node("Relu", ["x"], ["a"], "Relu_0"),
        node("Relu", ["a"], ["b"]),
        node("Relu", ["b"], ["c"], "same"),
        node("Relu", ["c"], ["d"], "same"),
        node("Tanh", ["d"], ["y"]),
    )
    model.graph.name = ""
    source = frontends.load(write(tmp_path, model))
    names = [n.name for n in source.model.graph]
    assert names == ["Relu_0", "Relu_1", "same", "Relu_2", "Tanh_0"]
    assert source.model.graph.name == "main"


def test_ai_onnx_is_the_default_domain(tmp_path: Path) -> None:
    model = chain(node("Relu", ["x"], ["y"], domain="ai.onnx"))
    model.opset_import[0].domain = "ai.onnx"
    source = frontends.load(write(tmp_path, model))
    assert source.model.opset_imports == {"": 17}
    assert source.model.graph.node(0).domain == ""


def test_unknown_domains_pass_with_what_the_file_says_of_them(tmp_path: Path) -> None:
    model = chain(node("Magic", ["x"], ["m"], domain="my.ops"), node("Relu", ["m"], ["y"]))
    model.opset_import.add(domain="my.ops", version=1)
    model.graph.value_info.append(info("m", FLOAT, [2, 7]))
    assert frontends.load(write(tmp_path, model)).outputs[0].shape == (2, 7)


def test_constant_without_inputs(tmp_path: Path) -> None:
    model = chain(node("Constant", [], ["y"], value_floats=[1.0, 2.0]))
    del model.graph.input[:]
    source = frontends.load(write(tmp_path, model))
    assert (source.inputs, source.outputs[0].shape) == ((), (2,))


def test_large_weights_do_not_go_through_inference(tmp_path: Path) -> None:
    model = chain(
        node("Constant", [], ["k"], value=numpy_helper.from_array(np.ones((3, 9999), np.float32))),
        node("MatMul", ["x", "k"], ["y"]),
    )
    source = frontends.load(write(tmp_path, model))
    assert source.outputs[0].shape == (2, 9999)
    assert [n.op_type for n in source.model.graph] == ["Constant", "MatMul"]


def test_real_models_load_and_say_nothing_but_their_notes(models: Path) -> None:
    for path in sorted(models.rglob("*.onnx")):
        source = frontends.load(path)
        assert all(s.is_static for s in (*source.inputs, *source.outputs)), path.name
        session = onnxruntime.InferenceSession(path)
        known = {o.name: tuple(o.shape) for o in session.get_outputs()}
        for spec in source.outputs:
            assert spec.shape == known[spec.name], path.name


# ---------------------------------------------------------------- versions


def test_versions_out_of_range(tmp_path: Path) -> None:
    relu = node("Relu", ["x"], ["y"])
    newer = onnx.defs.onnx_opset_version() + 1
    for model, what in (
        (chain(relu, ir_version=2), "IR version 2"),
        (chain(relu, ir_version=onnx.IR_VERSION + 1), f"IR version {onnx.IR_VERSION + 1}"),
        (chain(relu, opset=6), "opset 6 of `ai.onnx`"),
        (chain(relu, opset=newer), f"opset {newer} of `ai.onnx`"),
    ):
        diagnostic = one(tmp_path, model, "E105")
        assert what in diagnostic.message
        assert ("pip install -U onnx" in diagnostic.help) == ("newer" in diagnostic.help)


def test_no_opset_at_all(tmp_path: Path) -> None:
    model = chain(node("Relu", ["x"], ["y"]))
    del model.opset_import[:]
    assert "which opset" in one(tmp_path, model, "E105").message


def test_node_of_a_domain_without_an_opset(tmp_path: Path) -> None:
    diagnostic = one(tmp_path, chain(node("Magic", ["x"], ["y"], "m", domain="my.ops")))
    assert "which opset of `my.ops`" in diagnostic.message
    assert diagnostic.where == "model.onnx:main/m (Magic)"


# ---------------------------------------------------------------- graphs


def test_cycle_names_its_nodes(tmp_path: Path) -> None:
    model = chain(
        node("Add", ["x", "c"], ["a"], "first"),
        node("Relu", ["a"], ["b"], "second"),
        node("Tanh", ["b"], ["c"], "third"),
        node("Relu", ["c"], ["y"], "behind"),
    )
    diagnostic = one(tmp_path, model)
    assert diagnostic.message == "the graph has a cycle"
    assert all(name in diagnostic.notes[0] for name in ("first", "second", "third"))
    assert "behind" not in diagnostic.notes[0]


def test_cycle_through_a_body(tmp_path: Path) -> None:
    body = helper.make_graph([node("Relu", ["y"], ["t"])], "t", [], [info("t", FLOAT, None)])
    model = chain(
        node("Cast", ["i"], ["all"], to=TensorProto.BOOL),
        node("ReduceMax", ["i"], ["any"], keepdims=0),
        node("Cast", ["any"], ["yes"], to=TensorProto.BOOL),
        node("If", ["yes"], ["y"], "if", then_branch=body, else_branch=body),
    )
    assert "cycle" in one(tmp_path, model).message


def test_undefined_input_and_the_nearest_name(tmp_path: Path) -> None:
    diagnostic = one(tmp_path, chain(node("Add", ["x", "ww"], ["y"], "add")))
    assert diagnostic.message == (
        "`ww` is read here, but no node, input or initializer provides it"
    )
    assert diagnostic.where == "model.onnx:main/add (Add-17)"


def test_undefined_input_in_a_body(tmp_path: Path) -> None:
    body = helper.make_graph([node("Relu", ["no"], ["t"], "r")], "b", [], [info("t", FLOAT, None)])
    model = chain(
        node("ReduceMax", ["i"], ["any"], keepdims=0),
        node("Cast", ["any"], ["yes"], to=TensorProto.BOOL),
        node("If", ["yes"], ["y"], "if", then_branch=body, else_branch=body),
    )
    assert "`no` is read here" in found(tmp_path, model)[0].message


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda g: g.node[1].output.__setitem__(0, "a"), "`a` is produced a second time"),
        (lambda g: g.node[0].output.__setitem__(0, "x"), "`x` is produced a second time"),
        (lambda g: g.node[0].output.__setitem__(0, "w"), "`w` is produced a second time"),
        (lambda g: g.input.append(g.input[0]), "input `x` is listed twice"),
        (lambda g: g.output.append(g.output[0]), "output `y` is listed twice"),
        (lambda g: g.initializer.append(g.initializer[0]), "initializer `w` is defined twice"),
        (lambda g: g.output.append(info("z", FLOAT, None)), "output `z` is produced by no node"),
        (lambda g: g.ClearField("output"), "the graph has no outputs"),
        (lambda g: g.initializer[0].ClearField("name"), "an initializer has no name"),
        (lambda g: setattr(g.input[0], "name", ""), "an input has no name"),
        (lambda g: g.initializer[0].dims.__setitem__(0, -3), "the impossible shape -3"),
        (lambda g: g.initializer[0].dims.__setitem__(0, 2**62), "the impossible shape"),
        (lambda g: g.initializer[0].dims.extend([2**62] * 10**5), "the impossible shape"),
        (lambda g: g.initializer[0].dims.__setitem__(0, 4), "16 bytes, but the file holds 12"),
        (lambda g: setattr(g.initializer[0], "data_type", 99), "the element type 99"),
        (lambda g: setattr(g.initializer[0], "raw_data", b""), "but the file holds 0"),
        (lambda g: setattr(g.node[0], "op_type", ""), "the node has no operator"),
        (lambda g: g.node[0].input.append("x"), "the node has 2 inputs, the operator 1"),
        (lambda g: g.node[0].ClearField("input"), "the node has 0 inputs"),
        (lambda g: g.node[0].attribute.add(name="q", type=1, f=1), "has no attribute `q`"),
        (
            lambda g: (
                g.input[0].type.tensor_type.shape.dim.__getitem__(0).__setattr__("dim_value", -7)
            ),
            "`x` has a dimension of -7",
        ),
        (
            lambda g: (
                g.input[0]
                .type.tensor_type.shape.dim.__getitem__(0)
                .__setattr__("dim_value", 2**31 - 1)
            ),
            "input `x` has 6.44e+09 elements",
        ),
    ],
)
@pytest.mark.timeout(30)
def test_malformed(change: Callable[[onnx.GraphProto], object], what: str, tmp_path: Path) -> None:
    model = chain(node("Relu", ["x"], ["a"], "relu"), node("Add", ["a", "w"], ["y"], "add"))
    change(model.graph)
    diagnostics = found(tmp_path, model)
    assert {d.code for d in diagnostics} == {"E104"}
    assert what in "\n".join(d.message for d in diagnostics)


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (node("LeakyRelu", ["x"], ["y"], "n", alpha=1), "attribute `alpha` is INT, not FLOAT"),
        (node("Concat", ["x", "x"], ["y"], "n"), "the required attribute `axis` is missing"),
        (node("Upsample", ["x", "w"], ["y"], "n"), "`Upsample` was removed in opset 17"),
        (node("Cast", ["x"], ["y"], "n", to=2**31 - 1), "is 2147483647, not an element type"),
        (node("Clip", ["", "w"], ["y"], "n"), "the required input `input` is missing"),
        (node("Concat", ["x", "x"], ["y"], "n", axis=5), "axis"),
        (node("MatMul", ["x", "x"], ["y"], "n"), "ncompatible dimensions"),
        (node("Add", ["x", "i"], ["y"], "n"), "`i` (B) is tensor(int64), but `x` is tensor(float)"),
        (node("BitShift", ["x", "x"], ["y"], "n", direction="LEFT"), "is tensor(float)"),
        (node("Gather", ["x", "w"], ["y"], "n"), "`w` (indices) is tensor(float)"),
    ],
)
def test_operators_used_as_they_are_not_defined(
    bad: onnx.NodeProto, what: str, tmp_path: Path
) -> None:
    diagnostic = found(tmp_path, chain(bad))[0]
    assert diagnostic.code == "E104"
    assert what in diagnostic.message
    assert diagnostic.where == f"model.onnx:main/n ({bad.op_type}-17)"


def test_declared_output_type_that_the_node_does_not_give(tmp_path: Path) -> None:
    diagnostic = found(tmp_path, chain(node("Relu", ["i"], ["y"], "r")))[0]
    assert diagnostic.code == "E104"
    assert "main/r" in diagnostic.where


def test_many_at_once_but_not_too_many(tmp_path: Path) -> None:
    model = chain(*(node("Add", ["x", f"no{i}"], [f"t{i}"], f"n{i}") for i in range(50)))
    model.graph.output[0].name = "t0"
    diagnostics = found(tmp_path, model)
    assert len(diagnostics) == 20
    assert diagnostics[-1].notes == ("30 more like these are left off",)


def test_names_from_the_file_cannot_command_the_terminal(tmp_path: Path) -> None:
    diagnostic = one(tmp_path, chain(node("Add", ["x", "\x1b[2J"], ["y"], "\x1b]0;" + "n" * 500)))
    text = diagnostic.render()
    assert "\x1b" not in text
    assert "`\\x1b[2J` is read here" in text
    assert max(map(len, text.splitlines())) < 200


# ---------------------------------------------------------------- functions


def call(function: onnx.FunctionProto, *more: onnx.FunctionProto) -> onnx.ModelProto:
    model = chain(node(function.name, ["x"], ["y"], "call", domain="my"), ir_version=9)
    model.opset_import.add(domain="my", version=1)
    model.functions.extend([function, *more])
    return model


def function(name: str, *nodes: onnx.NodeProto) -> onnx.FunctionProto:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    return helper.make_function("my", name, ["u"], ["v"], list(nodes), opsets)


def test_function_that_calls_itself(tmp_path: Path) -> None:
    model = call(
        function("f", node("g", ["u"], ["v"], domain="my")),
        function("g", node("f", ["u"], ["v"], domain="my")),
    )
    assert "calls itself" in found(tmp_path, model)[0].message


@pytest.mark.timeout(30)
def test_functions_that_unfold_without_end(tmp_path: Path) -> None:
    """A billion laughs: each function calls the one before it twice."""
    functions = [function("f0", node("Relu", ["u"], ["v"]))]
    for i in range(1, 40):
        twice = [
            node(f"f{i - 1}", ["u"], ["t"], domain="my"),
            node(f"f{i - 1}", ["t"], ["v"], domain="my"),
        ]
        functions.append(function(f"f{i}", *twice))
    assert "unfold into" in one(tmp_path, call(*reversed(functions))).message


@pytest.mark.timeout(60)
def test_functions_nested_very_deep(tmp_path: Path) -> None:
    functions = [function("f0", node("Relu", ["u"], ["v"]))]
    for i in range(1, 3000):
        functions.append(function(f"f{i}", node(f"f{i - 1}", ["u"], ["v"], domain="my")))
    assert "more than 100 calls deep" in found(tmp_path, call(*reversed(functions)))[0].message


def test_broken_body_is_named_after_the_function(tmp_path: Path) -> None:
    model = call(function("f", node("Relu", ["nothing"], ["v"], "inside")))
    assert one(tmp_path, model).where == "model.onnx:my.f/inside (Relu-17)"


def test_call_with_too_many_inputs(tmp_path: Path) -> None:
    model = call(function("f", node("Relu", ["u"], ["v"])))
    model.graph.node[0].input.append("x")
    assert "more inputs or outputs than the function" in one(tmp_path, model).message


# ---------------------------------------------------------------- the interface


@pytest.mark.parametrize(
    ("model", "what"),
    [
        (
            chain(node("SequenceConstruct", ["x"], ["y"])),
            "output `y` is seq(tensor(float)), which cannot cross",
        ),
        (chain(node("Optional", ["x"], ["y"])), "output `y` is optional(tensor(float))"),
        (chain(node("Cast", ["x"], ["y"], to=TensorProto.STRING)), "output `y` is tensor(string)"),
    ],
)
def test_types_that_cannot_cross(model: onnx.ModelProto, what: str, tmp_path: Path) -> None:
    model.graph.output[0].ClearField("type")
    diagnostic = one(tmp_path, model, "E108")
    assert what in diagnostic.message


def test_type_that_nobody_knows(tmp_path: Path) -> None:
    model = chain(node("Magic", ["x"], ["y"], domain="my.ops"))
    model.opset_import.add(domain="my.ops", version=1)
    model.graph.output[0].ClearField("type")
    assert one(tmp_path, model, "E108").message == "the type of output `y` is unknown"


# ---------------------------------------------------------------- text that is none


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    data = chain(node("Relu", ["x"], ["y"], "qqqq")).SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(data.replace(b"qqqq", b"q\xffqq"))
    with pytest.raises(InfcError, match=r"E102.*a name is not UTF-8"):
        frontends.load(path)


# ---------------------------------------------------------------- inference at arm's length


def test_inference_that_would_never_end_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from infc.frontends import onnx_inference

    monkeypatch.setattr(onnx_inference, "TIMEOUT_S", 0.2)
    bounds = {"start": 0, "limit": 2**38, "delta": 1}
    model = chain(
        node("Range", list(bounds), ["r"]),
        node("Unsqueeze", ["r", "start1"], ["s"]),
        node("ConstantOfShape", ["r"], ["y"]),
    )
    for name, value in bounds.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "start1"))
    assert "shape inference" in found(tmp_path, model)[0].message


def test_guarded_call() -> None:
    def crash() -> bytes:
        import ctypes

        ctypes.string_at(0)
        return b""

    def hang() -> bytes:
        while True:
            pass

    def bloat() -> bytes:
        return bytes(8 << 30)

    def refuse() -> bytes:
        raise ValueError("no")

    big = b"x" * 3_000_000
    assert guarded.call(lambda: big, 10, 1 << 30) == big
    for function_, message in (
        (crash, "crashed with SIGSEGV"),
        (hang, r"did not finish in 0\.3 s"),
        (bloat, "MemoryError"),
        (refuse, "ValueError: no"),
    ):
        with pytest.raises(guarded.ChildDiedError, match=message):
            guarded.call(function_, 0.3 if function_ is hang else 30, 1 << 30)


def test_the_source_is_frozen(tmp_path: Path) -> None:
    source = frontends.load(write_model(tmp_path / "small.onnx", SMALL))
    assert isinstance(source.model, ir.Model)
    with pytest.raises(dataclasses.FrozenInstanceError):
        source.kind = "other"  # type: ignore[misc]
