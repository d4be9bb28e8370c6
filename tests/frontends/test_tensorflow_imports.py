"""TensorFlow's formats in: what each model becomes, against TensorFlow at three sizes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tensorflow_session

pytestmark = pytest.mark.timeout(1800)
FORMATS = {
    "cnn": ("keras", "h5", "saved_model", "pb", "tflite"),
    "grey": ("keras", "h5", "saved_model", "pb", "tflite"),
    "mobilenet": ("keras", "tflite"),
    "rnn": ("keras", "h5", "saved_model", "pb"),
    "transformer": ("keras", "h5", "saved_model", "pb", "tflite"),
}
INTERFACES = {
    "cnn": (("image", ["float32", ["batch", 16, 16, 3]]), "classes"),
    "grey": (("luma", ["float32", ["batch", "luma_dim1", "luma_dim2", 1]]), "sharp"),
    "mobilenet": (("", ["float32", ["batch", 64, 64, 3]]), "predictions"),
    "rnn": (("frames", ["float32", ["batch", "frames_dim1", 12]]), "scores"),
    "transformer": (("tokens", ["int32", ["batch", 16]]), "logits"),
}
ROUNDING = 1e-5
"""float32 sums in another order; the largest seen is 1.3e-6."""
STEPS = 0.2
"""Of a quantised softmax of a few steps, rounded the other way: verification judges by SQNR."""
NCHW = {"layout": "nchw"}


def path_of(zoo: Path, model: str, form: str) -> Path:
    return zoo / (model if form == "saved_model" else f"{model}.{form}")


@pytest.fixture(scope="module")
def imports(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    zoo = tensorflow_session.zoo()
    cases: dict[str, dict[str, Any]] = {
        f"{model}-{form}": {"path": path_of(zoo, model, form)}
        for model, forms in FORMATS.items()
        for form in forms
    }
    for name in ("cnn-keras", "mobilenet-keras", "grey-keras", "mobilenet-tflite", "rnn-keras"):
        cases[f"{name}-nchw"] = {**cases[name], "options": NCHW}
    files = (
        *("int8_float_io.tflite", "int8_int8_io.tflite", "int8_uint8_io.tflite", "lstm.tflite"),
        *("gelu_False.tflite", "gelu_True.tflite", "keras2.h5", "dictionary.keras", "sm_v1"),
        *(
            "stretched.keras",
            "bfloat16.keras",
            "windows.tflite",
            "sm_several",
            "sm_unread",
            "sm_branch",
            "graph.pb",
            "unknown_rank.pb",
        ),
    )
    cases |= {name: {"path": zoo / name} for name in files}
    mine = {"model": "tensorflow_sources.py:Steep"}
    cases["custom.keras"] = {"path": zoo / "custom.keras", "options": mine}
    cases["custom.h5"] = {"path": zoo / "custom.h5", "options": mine}
    cases["weights"] = {
        "path": zoo / "only.weights.h5",
        "options": {"model": "tensorflow_sources.py:make_model"},
    }
    cases["chosen"] = {"path": zoo / "sm_two", "options": {"signature": "branch"}}
    cases["cut"] = {
        "path": zoo / "graph.pb",
        "options": {"outputs": ["halves:1"]},
        "inputs": ["middle=batchx4"],
    }
    cases["ranked"] = {"path": zoo / "sm_ranks", "inputs": ["x=batchx3"]}
    cases["ranked.pb"] = {"path": zoo / "no_rank.pb", "inputs": ["x:0=nx3"]}
    return tensorflow_session.import_all(cases, tmp_path_factory.mktemp("imports"))


def done(imports: Mapping[str, Any], name: str, rounding: float = ROUNDING) -> Any:
    """The answer of a case that has to be right before and after the passes."""
    row = imports[name]
    assert "errors" in row, row.get("traceback") or row["diagnostics"]
    assert row["errors"]["exported"] < rounding, row["errors"]
    assert row["errors"]["optimized"] < rounding, row["errors"]
    return row


@pytest.mark.parametrize(
    ("model", "form"), [(model, form) for model, forms in FORMATS.items() for form in forms]
)
def test_every_format_of_every_model(imports: Mapping[str, Any], model: str, form: str) -> None:
    row = done(imports, f"{model}-{form}")
    (name, wanted), output = INTERFACES[model]
    ((found, interface),) = row["inputs"].items()
    sizes = [size if isinstance(size, int) else "?" for size in wanted[1]]
    assert interface[0] == wanted[0]
    assert [size if isinstance(size, int) else "?" for size in interface[1]] == sizes
    assert interface[1][0] == "batch"
    if form in ("keras", "h5"):
        assert name in ("", found)
        assert interface == wanted
        assert list(row["outputs"]) == [output]
    assert not any("unk__" in str(size) for size in interface[1])
    assert row["versions"]["tf2onnx"]


def test_nothing_invented_in_an_output(imports: Mapping[str, Any]) -> None:
    for name, row in imports.items():
        for _, sizes in row.get("outputs", {}).values():
            assert not any("unk__" in str(size) for size in sizes), name


@pytest.mark.parametrize("name", ["mobilenet-keras", "mobilenet-tflite"])
def test_channels_first_leaves_no_transpose(imports: Mapping[str, Any], name: str) -> None:
    assert done(imports, name)["after"]["Transpose"] == 1
    row = done(imports, f"{name}-nchw")
    ((_, interface),) = row["inputs"].items()
    assert interface[1] == ["batch", 3, 64, 64]
    assert "Transpose" not in row["after"]


def test_channels_first_before_flattening(imports: Mapping[str, Any]) -> None:
    """The weights behind the flattening take the transpose in."""
    row = done(imports, "cnn-keras-nchw")
    assert row["inputs"] == {"image": ["float32", ["batch", 3, 16, 16]]}
    assert "Transpose" not in row["after"]


def test_channels_first_of_one_channel(imports: Mapping[str, Any]) -> None:
    """A single channel is moved by Reshape as well; the output is a picture, too."""
    row = done(imports, "grey-keras-nchw")
    assert row["inputs"] == {"luma": ["float32", ["batch", 1, "luma_dim1", "luma_dim2"]]}
    assert row["outputs"]["sharp"][1][1] == 1
    # What Squeeze and Unsqueeze there are left compute the size of the transposed convolution.
    assert not {"Transpose", "Reshape"} & set(row["after"])


def test_what_is_no_image_stays(imports: Mapping[str, Any]) -> None:
    assert done(imports, "rnn-keras-nchw")["inputs"] == done(imports, "rnn-keras")["inputs"]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("int8_float_io.tflite", "float32"),
        ("int8_int8_io.tflite", "int8"),
        ("int8_uint8_io.tflite", "uint8"),
    ],
)
def test_a_quantised_file_stays_quantised(
    imports: Mapping[str, Any], name: str, dtype: str
) -> None:
    row = done(imports, name, STEPS)
    ((_, (found, _)),) = row["inputs"].items()
    assert found == dtype
    assert row["after"]["QuantizeLinear"] >= 5
    assert row["after"]["DequantizeLinear"] >= 5
    assert row["after"]["Conv"] == 3


def test_recurrent_layers_are_recognised(imports: Mapping[str, Any]) -> None:
    row = done(imports, "rnn-keras")
    assert row["before"]["LSTM"] == 1


def test_a_recurrent_layer_of_fixed_batch_in_tensorflow_lite(imports: Mapping[str, Any]) -> None:
    done(imports, "lstm.tflite")


@pytest.mark.parametrize("name", ["gelu_False.tflite", "gelu_True.tflite"])
def test_gelu_in_tensorflow_lite(imports: Mapping[str, Any], name: str) -> None:
    row = done(imports, name)
    assert ("Tanh" if "True" in name else "Erf") in row["before"]


def test_a_file_of_keras_2(imports: Mapping[str, Any]) -> None:
    done(imports, "keras2.h5")


def test_rows_behind_a_transposed_convolution(imports: Mapping[str, Any]) -> None:
    """tf2onnx writes them as negative pads."""
    row = done(imports, "stretched.keras")
    assert row["inputs"] == {"coarse": ["float32", ["batch", 5, 4, 3]]}
    ((_, sizes),) = row["outputs"].values()
    assert sizes[1:] == [17, 14]


def test_a_policy_of_bfloat16_is_float32(imports: Mapping[str, Any]) -> None:
    row = done(imports, "bfloat16.keras")
    assert row["outputs"] == {"brief": ["float32", ["batch", 2]]}
    assert "it is imported in float32" in row["notes"][0]["message"]


def test_a_size_that_is_unknown_is_not_one(imports: Mapping[str, Any]) -> None:
    ((_, interface),) = done(imports, "windows.tflite")["inputs"].items()
    assert interface[1] == ["batch", "picture_dim1", "picture_dim2", 1]


@pytest.mark.parametrize("name", ["custom.keras", "custom.h5", "weights"])
def test_code_of_the_user(imports: Mapping[str, Any], name: str) -> None:
    done(imports, name)


def test_a_dictionary_goes_by_its_keys(imports: Mapping[str, Any]) -> None:
    row = done(imports, "dictionary.keras")
    assert set(row["inputs"]) == {"left", "right"}
    assert set(row["outputs"]) == {"sum", "plain"}


def test_a_model_of_tensorflow_1(imports: Mapping[str, Any]) -> None:
    row = done(imports, "sm_v1")
    assert row["inputs"] == {"x": ["float32", ["batch", 4]]}
    assert list(row["outputs"]) == ["y"]


def test_outputs_that_are_inputs_and_constants(imports: Mapping[str, Any]) -> None:
    row = done(imports, "sm_several")
    assert set(row["inputs"]) == {"x", "a"}
    assert set(row["outputs"]) == {"z", "same", "again", "constant"}


def test_an_input_that_nothing_reads_stays(imports: Mapping[str, Any]) -> None:
    assert set(done(imports, "sm_unread")["inputs"]) == {"x", "unused"}


@pytest.mark.parametrize("name", ["sm_branch", "chosen"])
def test_control_flow_that_onnx_has(imports: Mapping[str, Any], name: str) -> None:
    assert done(imports, name)["before"]["If"] == 1


def test_a_graph_without_names(imports: Mapping[str, Any]) -> None:
    row = done(imports, "graph.pb")
    assert row["inputs"] == {"x:0": ["float32", ["batch", 4]]}
    assert list(row["outputs"]) == ["halves:0", "halves:1"]


def test_a_graph_cut_where_the_user_says(imports: Mapping[str, Any]) -> None:
    row = done(imports, "cut")
    assert row["inputs"] == {"middle": ["float32", ["batch", 4]]}
    assert list(row["outputs"]) == ["halves:1"]


def test_a_rank_that_the_graph_implies(imports: Mapping[str, Any]) -> None:
    """The output is channels first already."""
    row = done(imports, "unknown_rank.pb")
    assert row["inputs"] == {"x:0": ["float32", ["batch", "x_dim1", "x_dim2", 2]]}
    assert row["outputs"]["channels_first:0"][1][1] == 4


@pytest.mark.parametrize(("name", "sizes"), [("ranked", ["batch", 3]), ("ranked.pb", ["n", 3])])
def test_a_rank_that_the_user_gives(
    imports: Mapping[str, Any], name: str, sizes: list[int | str]
) -> None:
    ((_, interface),) = done(imports, name)["inputs"].items()
    assert interface[1] == sizes
