"""TVM's virtual machine: open dimensions against ONNX Runtime, from Python and C++."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper, parser

from infc import loaders
from infc.diagnostics import InfcError
from infc.native_runs import loader_bundle
from infc.request import WorkerLimits
from infc.signature import TensorSpec, save_tensors
from infc.targets import BuildJob, RunJob, Target, configure, look_up, tvm
from infc.targets.tvm_compiler.forms.vm import ffi_version

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
TOLERANCE = 3e-6
"""Of the largest answer: float32 sums of a few thousand terms, added up in another order."""

CONVOLUTIONS = """agraph (float[n, 3, 20, 14] x) => (float[n, 10] y) {
    a = Conv<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(x, w1, b1)
    r = Relu(a)
    d = Conv<kernel_shape = [3, 3], group = 16, pads = [1, 1, 1, 1]>(r, w2)
    c = Clip(d, zero, six)
    m = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(c)
    p = Conv<kernel_shape = [1, 1]>(m, w3)
    g = GlobalAveragePool(p)
    f = Flatten(g)
    y = Gemm<transB = 1>(f, w4, b4)
}
"""
SIZES = """agraph (float[1, 3, h, w] x) => (float[1, 8, h, w] y, float[1, 12, h2, w2] z) {
    y = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w1)
    r = Relu(y)
    z = Conv<kernel_shape = [3, 3], strides = [2, 2], pads = [0, 1, 1, 0]>(r, w2)
}
"""
ATTENTION = """agraph (float[n, s, 48] x) => (float[n, s, 48] y) {
    q = MatMul(x, w1)
    k = MatMul(x, w2)
    v = MatMul(x, w3)
    shape = Constant<value = int64[4] {0, 0, 4, 12}>()
    q4 = Reshape(q, shape)
    k4 = Reshape(k, shape)
    v4 = Reshape(v, shape)
    qt = Transpose<perm = [0, 2, 1, 3]>(q4)
    kt = Transpose<perm = [0, 2, 3, 1]>(k4)
    vt = Transpose<perm = [0, 2, 1, 3]>(v4)
    scores = MatMul(qt, kt)
    weights = Softmax<axis = -1>(scores)
    mixed = MatMul(weights, vt)
    back = Transpose<perm = [0, 2, 1, 3]>(mixed)
    flat = Constant<value = int64[3] {0, 0, 48}>()
    joined = Reshape(back, flat)
    added = Add(joined, x)
    y = LayerNormalization<axis = -1>(added, scale)
}
"""
RECURRENCE = """agraph (float[5, n, 6] x, int32[n] lengths, float[2, n, 8] h)
    => (float[5, 2, n, 8] y, float[2, n, 8] last, float[5, 2, n, 8] z, float[2, n, 8] cell) {
    y, last = GRU<hidden_size = 8, direction = "bidirectional">(x, w1, r1, b1, lengths, h)
    z, , cell = LSTM<hidden_size = 8, direction = "bidirectional">(x, w2, r2, b2)
}
"""
Shapes = Mapping[str, tuple[int, ...]]


def model_of(text: str, weights: Shapes) -> onnx.ModelProto:
    """The model with random weights of these shapes."""
    model = parser.parse_model(HEAD + text)
    rng = np.random.default_rng(1)
    for name, shape in weights.items():
        array = rng.standard_normal(shape).astype(np.float32) / max(1, shape[-1] if shape else 1)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


def convolutions() -> onnx.ModelProto:
    shapes = {"w1": (16, 3, 3, 3), "b1": (16,), "w2": (16, 1, 3, 3), "w3": (24, 16, 1, 1)}
    model = model_of(CONVOLUTIONS, {**shapes, "w4": (10, 24), "b4": (10,)})
    for name, value in (("zero", 0.0), ("six", 6.0)):
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(np.array(value, np.float32), name)
        )
    return model


def sizes() -> onnx.ModelProto:
    return model_of(SIZES, {"w1": (8, 3, 3, 3), "w2": (12, 8, 3, 3)})


def attention() -> onnx.ModelProto:
    return model_of(ATTENTION, {**dict.fromkeys(("w1", "w2", "w3"), (48, 48)), "scale": (48,)})


def recurrence() -> onnx.ModelProto:
    shapes = {"w1": (2, 24, 6), "r1": (2, 24, 8), "b1": (2, 48)}
    return model_of(RECURRENCE, {**shapes, "w2": (2, 32, 6), "r2": (2, 32, 8), "b2": (2, 64)})


@pytest.fixture
def tvm_is_there(need_module: Callable[[str], None], need_tool: Callable[[str], str]) -> None:
    need_module("tvm")
    need_tool("cc")


def specs(values: Sequence[onnx.ValueInfoProto]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            v.name,
            helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type).name,
            tuple(d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim),
        )
        for v in values
    )


def build(model: onnx.ModelProto, folder: Path, **options: str) -> tuple[RunJob, dict[str, Any]]:
    """Lower, check and build `model`, as a worker does; the job that opens it, and the notes."""
    folder.mkdir(parents=True, exist_ok=True)
    target = Target("tvm", "tvm", "", options=options)
    lowered = ir.from_proto(model)
    tvm.legalize(lowered, target)
    ir.save(lowered, folder / "in.onnx")
    assert tvm.check(folder / "in.onnx", target) == []
    signature = specs(model.graph.input), specs(model.graph.output)
    output = folder / "model"
    output.mkdir()
    made = tvm.build(BuildJob(folder / "in.onnx", output, target, *signature))
    inputs, outputs = (tuple(s.name for s in side) for side in signature)
    return RunJob(output / made.entry, target, outputs, inputs), dict(made.notes)


def require_right(model: onnx.ModelProto, job: RunJob, dims: Mapping[str, int]) -> None:
    """Hold the artifact to ONNX Runtime's answers for these sizes of the open dimensions."""
    rng = np.random.default_rng(3)
    shapes = {s: [dims.get(str(d), d) for d in s.shape or ()] for s in specs(model.graph.input)}
    feeds = {
        # Lengths of sequences of five.
        s.name: rng.integers(0, 6, shape, np.int32)
        if s.dtype == "int32"
        else rng.standard_normal(shape).astype(np.float32)
        for s, shape in shapes.items()
    }
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    answers = tvm.open(job)(feeds)
    for name, wanted in zip(job.outputs, session.run(None, feeds), strict=True):
        assert answers[name].shape == wanted.shape
        assert np.abs(answers[name] - wanted).max() <= TOLERANCE * max(1, np.abs(wanted).max())


CASES = {
    "batch": (convolutions, [{"n": n} for n in (1, 2, 7)]),
    "sizes": (sizes, [{"h": h, "w": w} for h, w in ((5, 3), (16, 16), (9, 40))]),
    "recurrence": (recurrence, [{"n": n} for n in (1, 3, 8)]),
    "sequence": (attention, [{"n": n, "s": s} for n, s in ((1, 1), (1, 16), (2, 37), (3, 64))]),
}


@pytest.mark.parametrize("case", CASES)
def test_open_dimensions(
    tvm_is_there: None, tmp_path: Path, case: str, capfd: pytest.CaptureFixture[str]
) -> None:
    make, dims = CASES[case]
    model = make()
    job, notes = build(model, tmp_path)
    assert "is not scheduled" not in capfd.readouterr().err
    assert job.entry.name == "model.vm.so"
    assert notes["form"] == "vm"
    assert notes["form_reason"].startswith("open: `")
    for row in dims:
        require_right(model, job, row)


def test_fixed_shapes_in_this_form(tvm_is_there: None, tmp_path: Path) -> None:
    model = convolutions()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    job, notes = build(model, tmp_path, form="vm")
    assert notes["form_reason"] == "`-X form=vm`"
    require_right(model, job, {"n": 2})


def test_the_same_bytes_twice(tvm_is_there: None, tmp_path: Path) -> None:
    digests = {
        hashlib.sha256(build(attention(), tmp_path / n)[0].entry.read_bytes()).hexdigest()
        for n in ("a", "another-folder")
    }
    assert len(digests) == 1


@pytest.mark.parametrize("form", ["library", "static"])
def test_the_other_forms_have_fixed_shapes(form: str) -> None:
    with pytest.raises(InfcError, match="`n` of `x` has to be fixed") as caught:
        tvm.legalize(
            ir.from_proto(convolutions()), Target("tvm", "tvm", "", options={"form": form})
        )
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E207"
    assert "-X form=vm" in (diagnostic.help or "")


def test_the_runtime_of_another_machine_has_to_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Target("tvm", "tvm", "", options={"cpu": "cortex-a7", "form": "vm"})
    monkeypatch.delenv("TVM_HOME", raising=False)
    assert "TVM_HOME" in tvm.absence(target)
    assert tvm.worker(target).runner is None
    library = tmp_path / "lib" / "libtvm_runtime.so"
    library.parent.mkdir()
    monkeypatch.setenv("TVM_HOME", str(tmp_path))
    for machine, right in ((62, False), (40, True)):
        library.write_bytes(b"\x7fELF" + bytes(14) + machine.to_bytes(2, "little"))
        runner = tvm.worker(target).runner
        assert (runner is not None and runner.native) is right
        assert ("TVM_HOME" in tvm.absence(target)) is not right


def test_a_form_that_there_is_not() -> None:
    with pytest.raises(InfcError, match="form=machine") as caught:
        configure(look_up("tvm"), None, {"form": "machine"})
    assert caught.value.diagnostics[0].code == "E205"


def test_a_wrong_input_is_refused(tvm_is_there: None, tmp_path: Path) -> None:
    from infc.targets import BackEndError

    job, _ = build(attention(), tmp_path)
    with pytest.raises(BackEndError):
        tvm.open(job)({"x": np.zeros((1, 3, 47), np.float32)})


def test_a_loader_refuses_a_library_of_another_tvm(
    tvm_is_there: None, need_tool: Callable[[str], str], tmp_path: Path
) -> None:
    need_tool("cmake")
    model = convolutions()
    job, _ = build(model, tmp_path / "built")
    data, version = job.entry.read_bytes(), ffi_version().encode() + b"\0"
    assert data.count(version) == 1
    job.entry.write_bytes(data.replace(version, b"9" + version[1:]))
    signature = specs(model.graph.input), specs(model.graph.output)
    bundle = loader_bundle(job.entry, job.target, *signature, tmp_path / "bundle")
    save_tensors(tmp_path / "in", {"x": np.zeros((1, 3, 20, 14), np.float32)})
    with pytest.raises(InfcError) as caught:
        loaders.run_through(
            bundle, "cpp", [tmp_path / "in"], [tmp_path / "out"], tmp_path, WorkerLimits()
        )
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E705"
    assert "compiled with tvm_ffi 9" in diagnostic.notes[0]
