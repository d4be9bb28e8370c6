"""PyTorch's code as a source: what goes in and out has the user's names, and the user's answers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from torch_imports import HERE, Imported, import_model

pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def imported(tmp_path: Path) -> Callable[..., Imported]:
    def run(name: str, *inputs: str) -> Imported:
        return import_model(f"torch_sources.py:{name}", *inputs, folder=tmp_path)

    return run


Load = Callable[..., Imported]


def test_dynamic_batch_down_to_one(imported: Load) -> None:
    found = imported("Cnn", "x=1..8x3x16x16")
    assert found.answer["exporter"] == "torch.export"
    assert found.inputs == {"x": ("batch", 3, 16, 16)}
    assert found.outputs == {"output": ("batch", 5)}
    assert found.error < 1e-6


def test_a_dimension_has_the_users_name(imported: Load) -> None:
    found = imported("Cnn", "x=images,3,height,width")
    assert found.inputs == {"x": ("images", 3, "height", "width")}
    assert found.outputs == {"output": ("images", 5)}


def test_one_name_in_two_inputs_is_one_dimension(imported: Load) -> None:
    found = imported("Add", "a=nx3", "b=nx3")
    assert found.inputs == {"a": ("n", 3), "b": ("n", 3)}


def test_inputs_are_in_the_order_of_forward(imported: Load) -> None:
    assert list(imported("Add", "b=nx3", "a=nx3").inputs) == ["a", "b"]


def test_equal_ranges_on_the_first_axis_are_one_batch(imported: Load) -> None:
    found = imported("Unused", "a=1..4x3", "b=1..4x3")
    assert found.inputs == {"a": ("batch", 3), "b": ("batch", 3)}


def test_other_ranges_on_the_first_axis_are_others(imported: Load) -> None:
    found = imported("Unused", "a=1..4x3", "b=1..8x3")
    assert found.inputs == {"a": ("batch", 3), "b": ("b_dim0", 3)}


def test_shapes_come_from_the_examples(imported: Load) -> None:
    assert imported("cnn_with_examples").inputs == {"x": (1, 3, 16, 16)}


def test_an_input_replaces_its_example(imported: Load) -> None:
    found = imported("cnn_with_examples", "x=1..4x3x?x?")
    assert found.inputs == {"x": ("batch", 3, 16, 16)}


def test_a_module_that_is_there_already(imported: Load) -> None:
    assert imported("instance", "input=1..4x4").outputs == {"output": ("batch", 3)}


@pytest.mark.parametrize("name", ["compiled", "parallel"])
def test_what_is_put_around_a_module_goes(imported: Load, name: str) -> None:
    found = imported(name, "x=1..4x3x8x8")
    assert found.answer["exporter"] == "torch.export"
    assert found.outputs == {"output": ("batch", 5)}


def test_a_factory_of_torchscript(imported: Load) -> None:
    found = imported("scripted", "x=1..4x3x8x8")
    assert found.answer["exporter"] == "torchscript"
    assert found.error < 1e-6


@pytest.mark.parametrize("name", ["nested", "nested_by_keyword", "nested_by_both"])
def test_nested_inputs_and_outputs_have_readable_names(imported: Load, name: str) -> None:
    found = imported(name, "batch_ids=nx3", "batch_pair_0=nx3")
    assert found.inputs == {"batch_ids": ("n", 3), "batch_pair_0": ("n", 3)}
    assert list(found.outputs) == ["y", "more_0", "more_1_0"]
    assert found.notes == ["`count`: no tensor, and left out of the outputs"]
    assert found.error < 1e-6


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("NamedTuples", ["first", "second"]),
        ("Dataclasses", ["logits"]),
        ("Pair", ["output_0", "output_1"]),
        ("Caching", ["y", "cache_0_keys"]),
        ("Aliases", ["x_out", "w", "y", "again"]),
    ],
)
def test_outputs_are_named_by_the_users_structure(
    imported: Load, name: str, outputs: list[str]
) -> None:
    found = imported(name, "x=1..4x3")
    assert list(found.outputs) == outputs
    assert found.error < 1e-6


def test_inputs_of_a_variadic_forward_are_as_the_user_calls_them(imported: Load) -> None:
    found = imported("Variadic", "left=1..4x3", "right=1..4x3")
    assert list(found.inputs) == ["left", "right"]


def test_the_element_type_is_the_users(imported: Load) -> None:
    found = imported("Positions", "ids=1..4x1..16@8:int64")
    assert found.inputs == {"ids": ("batch", "ids_dim1")}
    assert found.outputs == {"output": ("batch", "ids_dim1", 4)}
    assert found.error == 0


def test_a_size_that_depends_on_values_is_named_after_its_output(imported: Load) -> None:
    assert imported("Nonzero", "x=1..4x4").outputs == {"output": ("output_dim0", 2)}


def test_bfloat16_is_imported_in_float32(imported: Load) -> None:
    found = imported("Bfloat16", "x=1..4x4")
    assert "bfloat16; it is imported in float32" in found.notes[0]
    assert found.error < 1e-6


def test_examples_are_widened_with_their_module(imported: Load) -> None:
    assert imported("half_with_examples").error < 1e-6


def test_autocast_is_left_out(imported: Load) -> None:
    found = imported("Mixed", "x=1..4x3x8x8")
    assert "under torch.autocast in bfloat16; it is imported in float32" in found.notes[0]
    assert {o.type.tensor_type.elem_type for o in onnx.load(found.path).graph.output} == {1}
    assert found.error < 1e-6


def test_a_weight_that_is_computed_is_what_it_comes_to(imported: Load) -> None:
    found = imported("orthogonal", "input=1..4x4")
    assert found.error < 1e-6
    assert sorted(t.name for t in onnx.load(found.path).graph.initializer) == ["bias", "weight"]


def test_a_size_that_torchscript_cannot_tell_is_named_after_its_output(imported: Load) -> None:
    found = imported("UpTo", "x=2x4", "n=scalar:int64")
    assert found.answer["exporter"] == "torchscript"
    assert found.outputs == {"output": (2, "output_dim1")}


def test_complex_numbers_inside(imported: Load) -> None:
    assert imported("Magnitude", "x=1..4x16").error < 1e-5


def test_a_buffer_that_is_only_scratch(imported: Load) -> None:
    assert imported("Scratch", "x=2x3").error < 1e-6


def test_branches_on_values_are_scripted_never_traced(imported: Load) -> None:
    found = imported("Branch", "x=1..4x4")
    assert found.answer["exporter"] == "torchscript"
    assert "torch.export could not" in found.notes[0]
    assert "If" in {node.op_type for node in onnx.load(found.path).graph.node}
    assert found.inputs == {"x": ("batch", 4)}


def test_a_length_that_torch_export_fixes_may_vary_through_torchscript(imported: Load) -> None:
    found = imported("Recurrent", "x=1..4x1..10@5x8")
    assert found.answer["exporter"] == "torchscript"
    assert found.inputs == {"x": ("batch", "x_dim1", 8)}
    assert found.error < 1e-6


def test_attention_through_torchscript_is_made_of_operators(imported: Load) -> None:
    found = imported("RecurrentAttention", "x=1..4x2..7x4")
    assert found.answer["exporter"] == "torchscript"
    assert found.error < 1e-5


def test_a_size_among_the_outputs(imported: Load) -> None:
    found = imported("Sizes", "x=1..4x4")
    assert list(found.outputs) == ["output_0"]
    assert found.notes == ["`output_1`: no tensor, and left out of the outputs"]


def test_a_model_without_inputs(imported: Load) -> None:
    found = imported("WithoutInputs")
    assert found.inputs == {}
    assert found.answer["exporter"] == "torch.export"


def test_the_reference_has_the_weights_of_the_export(imported: Load) -> None:
    assert imported("unseeded", "input=2x4").error < 1e-6


def test_a_factory_reads_files_where_the_user_is(tmp_path: Path) -> None:
    import sys

    import torch

    sys.path.insert(0, str(HERE))
    from torch_sources import Cnn

    home = tmp_path / "home"
    home.mkdir()
    torch.save(Cnn().state_dict(), home / "weights.pth")
    source = f"{HERE / 'torch_sources.py'}:reading_here"
    before = Path.cwd()
    assert import_model(source, "x=1x3x8x8", folder=tmp_path, home=home).error < 1e-6
    assert Path.cwd() == before


def test_the_same_factory_gives_the_same_bytes(tmp_path: Path) -> None:
    found = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        done = import_model("torch_sources.py:Cnn", "x=1..4x3x8x8", folder=folder)
        found.append(done.path.read_bytes())
    assert found[0] == found[1]
    assert os.fsencode(HERE) not in found[0]


def test_names_in_the_graph_are_those_of_the_module(imported: Load) -> None:
    graph = onnx.load(imported("Cnn", "x=1..4x3x8x8").path).graph
    assert "head/Gemm" in [node.name for node in graph.node]
    assert {"head.weight", "head.bias"} <= {tensor.name for tensor in graph.initializer}
