"""`--input`: fixed, renamed and bounded dimensions, and what contradicts the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from command import write_model

from infc import frontends
from infc.diagnostics import Diagnostic, ExitCode, InfcError
from infc.frontends import Source
from infc.input_spec import InputSpec

PAIR = """
<ir_version: 8, opset_import: ["" : 17]>
pair (float[N,3] a, float[N,3] b, float[M,K] c) => (float[N,3] y, float[M,K] z)
{
  y = Add(a, b)
  z = Relu(c)
}
"""
RESHAPED = """
<ir_version: 8, opset_import: ["" : 17]>
reshaped (float[batch,3,H,W] image) => (float[batch,flat] y)
<int64[1] zero = {0}, int64[1] one = {1}, int64[1] rest = {-1}>
{
  shape = Shape(image)
  rows = Slice(shape, zero, one)
  target = Concat<axis = 0>(rows, rest)
  y = Reshape(image, target)
}
"""


def load(tmp_path: Path, text: str, *specs: str) -> Source:
    path = write_model(tmp_path / "model.onnx", text)
    return frontends.load(path, [InputSpec.parse(s) for s in specs])


def shapes(source: Source) -> dict[str, object]:
    return {s.name: s.shape for s in (*source.inputs, *source.outputs)}


def refusal(tmp_path: Path, text: str, *specs: str) -> Diagnostic:
    with pytest.raises(InfcError) as caught:
        load(tmp_path, text, *specs)
    assert caught.value.exit_code == ExitCode.USAGE
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E106"
    return diagnostic


def test_without_anything_it_is_as_the_model_says(tmp_path: Path) -> None:
    source = load(tmp_path, PAIR)
    assert shapes(source) == {
        "a": ("N", 3), "b": ("N", 3), "c": ("M", "K"), "y": ("N", 3), "z": ("M", "K"),
    }  # fmt: skip


def test_a_fixed_symbol_is_fixed_wherever_it_occurs(tmp_path: Path) -> None:
    source = load(tmp_path, PAIR, "a=4x3")
    assert shapes(source) == {
        "a": (4, 3), "b": (4, 3), "c": ("M", "K"), "y": (4, 3), "z": ("M", "K"),
    }  # fmt: skip


def test_a_renamed_symbol_is_renamed_wherever_it_occurs(tmp_path: Path) -> None:
    source = load(tmp_path, PAIR, "b=batchx3")
    assert shapes(source)["a"] == shapes(source)["y"] == ("batch", 3)


def test_a_bounded_symbol_keeps_its_name(tmp_path: Path) -> None:
    source = load(tmp_path, PAIR, "a=1..8@4x3")
    assert shapes(source)["a"] == ("N", 3)
    for spec in (*source.inputs[:2], source.outputs[0]):
        assert spec.bounds == {"N": (1, 4, 8)}
    assert source.inputs[2].bounds is None


def test_a_question_mark_leaves_the_dimension(tmp_path: Path) -> None:
    assert shapes(load(tmp_path, PAIR, "c=?x7"))["z"] == ("M", 7)


def test_fixed_sizes_reach_the_outputs_through_shape_arithmetic(tmp_path: Path) -> None:
    assert shapes(load(tmp_path, RESHAPED, "image=2x3x4x5"))["y"] == (2, 60)
    # What inference cannot tell stays as the model says.
    assert shapes(load(tmp_path, RESHAPED, "image=?x3x4x5"))["y"] == ("batch", "flat")


def test_a_stale_claim_about_the_output_gives_way(tmp_path: Path) -> None:
    text = PAIR.replace("(float[N,3] y", "(float[1,3] y")
    assert shapes(load(tmp_path, text, "a=4x3"))["y"] == (4, 3)


def test_dimensions_without_a_name_get_one_of_their_own(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.onnx", PAIR)
    model = onnx.load(path)
    for value, symbol in zip(model.graph.input, ("", "?", "9**9**9"), strict=True):
        value.type.tensor_type.shape.dim[0].dim_param = symbol
    model.graph.input[2].type.tensor_type.shape.dim[1].dim_value = -1
    onnx.save(model, path)
    found = {s.name: s.shape for s in frontends.load(path).inputs}
    assert found == {"a": ("a_dim0", 3), "b": ("b_dim0", 3), "c": ("c_dim0", "c_dim1")}
    bounded = frontends.load(path, [InputSpec.parse("a=1..8x3")])
    assert bounded.inputs[0].bounds == {"a_dim0": (1, 1, 8)}
    assert bounded.inputs[1].bounds is None


def test_an_input_of_unknown_rank_gets_one(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.onnx", PAIR)
    model = onnx.load(path)
    model.graph.input[2].type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    assert frontends.load(path).inputs[2].shape is None
    source = frontends.load(path, [InputSpec.parse("c=1..4,5,rest")])
    assert shapes(source)["c"] == shapes(source)["z"] == ("c_dim0", 5, "rest")
    assert source.inputs[2].bounds == {"c_dim0": (1, 1, 4)}


def test_unknown_input_names_the_nearest_and_all(tmp_path: Path) -> None:
    found = refusal(tmp_path, RESHAPED, "imag=1x3x4x5")
    assert found.message == "the model has no input `imag`"
    assert found.help == "did you mean `image`? its inputs: `image`"


def test_rank(tmp_path: Path) -> None:
    found = refusal(tmp_path, PAIR, "a=4x3x1")
    assert found.message == "`--input a=4x3x1` has rank 3, the model's `a` has 2 (Nx3)"
    assert "has rank 0" in refusal(tmp_path, PAIR, "a=scalar").message


@pytest.mark.parametrize("shape", ["4x5", "4xC", "4x1..8", "4x3..4"])
def test_a_dimension_that_the_model_fixes(shape: str, tmp_path: Path) -> None:
    assert "dimension 1" in refusal(tmp_path, PAIR, f"a={shape}").message
    assert "the model fixes it at 3" in refusal(tmp_path, PAIR, f"a={shape}").message


def test_one_symbol_cannot_be_two_numbers(tmp_path: Path) -> None:
    found = refusal(tmp_path, PAIR, "a=4x3", "b=8x3")
    assert found.message == "`--input b=8x3` makes `N` 8, but `--input a=4x3` makes it 4"
    square = PAIR.replace("float[M,K]", "float[K,K]")
    assert "makes `K` 5" in refusal(tmp_path, square, "c=4x5").message
    assert shapes(load(tmp_path, square, "c=4x4"))["z"] == (4, 4)


def test_all_contradictions_at_once(tmp_path: Path) -> None:
    specs = [InputSpec.parse(s) for s in ("a=4x5", "c=1", "d=1")]
    with pytest.raises(InfcError) as caught:
        frontends.load(write_model(tmp_path / "model.onnx", PAIR), specs)
    assert [d.code for d in caught.value.diagnostics] == ["E106"] * 3


def test_sizes_no_machine_can_feed(tmp_path: Path) -> None:
    assert "elements" in refusal(tmp_path, PAIR, "c=65536x65536").message
    assert "elements" in refusal(tmp_path, PAIR, "c=1..65536x65536").message


DEFAULTS = """
<ir_version: {ir}, opset_import: ["" : 9]>
defaults (float[N,2] x, float[2] w, float[2] v) => (float[N,2] y)
<float[2] w = {{1, 2}}, float[2] v = {{3, 4}}>
{{
  s = Add(x, w)
  y = Mul(s, v)
}}
"""


def write_defaults(tmp_path: Path, ir_version: int) -> Path:
    path = write_model(tmp_path / "model.onnx", DEFAULTS.format(ir=ir_version))
    model = onnx.load(path)
    names = [v.name for v in model.graph.input]
    for name in ("w", "v"):  # the parser keeps an initializer out of the inputs in some releases
        if name not in names:
            value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2])
            model.graph.input.add().CopyFrom(value)
    onnx.save(model, path)
    return path


def test_weights_among_the_inputs_are_constants(tmp_path: Path) -> None:
    source = frontends.load(write_defaults(tmp_path, 3))
    assert [s.name for s in source.inputs] == ["x"]
    assert [v.name for v in source.model.graph.inputs] == ["x"]
    assert set(source.model.graph.initializers) == {"w", "v"}
    assert source.notes == ()  # the format left its writer no choice


def test_inputs_with_a_default_are_constants_with_a_note(tmp_path: Path) -> None:
    source = frontends.load(write_defaults(tmp_path, 8))
    assert [s.name for s in source.inputs] == ["x"]
    (note,) = source.notes
    assert (note.code, note.severity) == ("E109", "note")
    assert note.message == "2 inputs with a default value are treated as constants: `w`, `v`"


def test_an_input_with_a_default_that_is_asked_for_stays_one(tmp_path: Path) -> None:
    path = write_defaults(tmp_path, 8)
    source = frontends.load(path, [InputSpec.parse("w=2")])
    assert [s.name for s in source.inputs] == ["x", "w"]
    assert set(source.model.graph.initializers) == {"v"}
    assert source.notes[0].message == "1 input with a default value is treated as a constant: `v`"
    # The source model, which is the reference, takes the same feeds.
    session = onnxruntime.InferenceSession(path)
    feeds = {"x": np.ones((1, 2), np.float32), "w": np.zeros(2, np.float32)}
    assert session.run(None, feeds)[0].tolist() == [[3, 4]]


def test_before_ir_version_4_there_are_no_defaults(tmp_path: Path) -> None:
    with pytest.raises(InfcError, match=r"E106.*`w` is a constant of the model"):
        frontends.load(write_defaults(tmp_path, 3), [InputSpec.parse("w=2")])
