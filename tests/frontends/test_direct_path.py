"""TorchScript of a PyTorch model: through the graph, directly, and which of them is kept."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command import infc, write_model

pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.filterwarnings("ignore")

SOURCES = Path(__file__).with_name("direct_sources.py")
Compile = Callable[..., Path]


@pytest.fixture
def compiled(tmp_path: Path) -> Compile:
    """Compiles for TorchScript, and returns the bundle."""

    def run(model: object, *words: object, folder: str = "out", loader: str = "none") -> Path:
        place = tmp_path / folder
        more = ("-t", "torchscript", "-o", place, "--name", "net", "--loader", loader)
        done = infc("compile", model, *words, *more)
        assert done.status == 0, done.err
        return place / "net-torchscript"

    return run


def manifest(bundle: Path) -> dict:
    return json.loads((bundle / "manifest.json").read_text())


def notes(bundle: Path) -> dict:
    return manifest(bundle)["artifact"]["notes"]


SEVERAL = (f"{SOURCES}:several", "--input", "left=1..6x64", "--input", "right=1..6x64")


def test_directly(compiled: Compile) -> None:
    bundle = compiled(*SEVERAL, "-X", "path=direct")
    assert notes(bundle) == {"method": "trace", "path": "direct"}
    document = manifest(bundle)
    assert [row["name"] for row in document["inputs"]] == ["left", "right"]
    assert [row["name"] for row in document["outputs"]] == ["scores", "flat"]
    proof = document["verification"]["artifact"]["outputs"]
    assert [row["name"] for row in proof] == ["scores", "flat"]
    assert document["verification"]["sets"] == 6
    source = SEVERAL[0]
    refused = infc("debug-accuracy", bundle, "--source", source)
    assert "error[E205]" in refused.err
    assert infc("verify", bundle, "--source", source).status == 0
    again = compiled(*SEVERAL, "-X", "path=direct", folder="again")
    assert (again / "manifest.json").read_bytes() == (bundle / "manifest.json").read_bytes()


def test_the_archive_names_no_file_of_the_user(compiled: Compile) -> None:
    bundle = compiled(*SEVERAL, "-X", "path=direct")
    with zipfile.ZipFile(bundle / "model" / "model.pt") as archive:
        for name in archive.namelist():
            assert not name.endswith(".debug_pkl")
            assert b"direct_sources.py" not in archive.read(name)


def test_through_the_loader(compiled: Compile, need_tool: Callable[[str], str]) -> None:
    need_tool("cmake")
    bundle = compiled(*SEVERAL, "-X", "path=direct", loader="cpp")
    done = infc("verify", bundle, "--through", "cpp")
    assert done.status == 0, done.err


def test_both_are_timed_and_one_is_kept(compiled: Compile) -> None:
    bundle = compiled(*SEVERAL)
    said = notes(bundle)
    assert said["path"] in ("ir", "direct")
    assert "85%" in said["because"]
    figures = json.loads((bundle.with_name(f"{bundle.name}.log") / "timings.json").read_text())
    row = figures["latency"]["paths"]
    assert row["kept"] == said["path"]
    assert row["ir_ms"] > 0
    assert row["direct_ms"] > 0
    assert "ms" not in json.dumps(said)
    again = compiled(*SEVERAL, folder="again")
    assert (again / "manifest.json").read_bytes() == (bundle / "manifest.json").read_bytes()


def test_through_the_graph_when_asked(compiled: Compile) -> None:
    assert notes(compiled(*SEVERAL, "-X", "path=ir")) == {"path": "ir"}


def test_a_loop_over_a_size_is_scripted(tmp_path: Path) -> None:
    import torch

    from infc.frontends.pytorch import calls, direct, flat, loading, state
    from infc.frontends.pytorch.order import Order
    from infc.frontends.sniff import Kind
    from infc.import_options import ImportOptions
    from infc.input_spec import InputSpec

    spec = InputSpec.parse("x=1..3x2..6x8")
    order = Order(f"{SOURCES}:sized", Kind.PYTHON, Path.cwd(), ImportOptions(), (spec,))
    loaded = loading.load(order)
    module, _ = flat.flatten(loaded.module, calls.plan(loaded, order.inputs))
    state.save(module, tmp_path)
    payload = {
        "entry": str(order.save(tmp_path)),
        "output": str(tmp_path / "out"),
        "inputs": ["x"],
        "outputs": ["output"],
        "dynamic": False,
        "freeze": True,
    }
    assert direct.build(payload)["notes"]["method"] == "script"
    made = torch.jit.load(tmp_path / "out" / "model.pt")
    for length in (2, 3, 6):
        x = torch.randn(2, length, 8)
        (answer,) = made(x)
        assert torch.allclose(answer, loaded.module(x), atol=1e-6)


def test_scripted_torchscript_keeps_its_branches(compiled: Compile, tmp_path: Path) -> None:
    import direct_sources
    import torch

    torch.jit.script(direct_sources.seeded(direct_sources.Branch())).save(tmp_path / "branch.pt")
    words = (tmp_path / "branch.pt", "--input", "x=1..4x8", "-X", "path=direct")
    assert notes(compiled(*words))["method"] == "script"


def test_an_exported_program(compiled: Compile, tmp_path: Path) -> None:
    import direct_sources
    import torch

    batch = torch.export.Dim("batch", min=1, max=8)
    program = torch.export.export(
        direct_sources.several(),
        (torch.randn(2, 64), torch.randn(2, 64)),
        dynamic_shapes=({0: batch}, {0: batch}),
    )
    torch.export.save(program, tmp_path / "program.pt2")
    assert notes(compiled(tmp_path / "program.pt2", "-X", "path=direct"))["path"] == "direct"


def test_a_checkpoint(compiled: Compile, tmp_path: Path) -> None:
    import direct_sources
    import torch

    torch.save(direct_sources.several().state_dict(), tmp_path / "weights.pth")
    words = ("--model", f"{SOURCES}:Several", *SEVERAL[1:], "-X", "path=direct")
    assert notes(compiled(tmp_path / "weights.pth", *words))["path"] == "direct"


def test_int8_dynamic_quantises_recurrent_layers_too(compiled: Compile) -> None:
    words = (f"{SOURCES}:recurrent", "--input", "x=1..3x7x32")
    exact = compiled(*words, "-X", "path=direct")
    small = compiled(*words, "-X", "path=direct", "--precision", "int8-dynamic", folder="dynamic")
    sizes = [(bundle / "model" / "model.pt").stat().st_size for bundle in (exact, small)]
    assert sizes[1] < 0.5 * sizes[0]
    (row,) = manifest(small)["verification"]["artifact"]["outputs"]
    assert 20 < row["sqnr_db"] < 70


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--precision", "bf16"], "bf16 is written into the graph"),
        (["-X", "mobile=on"], "goes through the graph"),
    ],
    ids=lambda v: v[-1] if isinstance(v, list) else "",
)
def test_what_goes_through_the_graph_only(words: list[str], said: str, tmp_path: Path) -> None:
    more = ("-t", "torchscript", "-o", tmp_path, "-X", "path=direct", *words)
    done = infc("compile", *SEVERAL, *more)
    assert done.status == 2
    assert "error[E205]" in done.err or "E205" in done.out
    assert said in done.err


def test_a_pruned_model_goes_through_the_graph_only(tmp_path: Path) -> None:
    words = ("--input", "input=2x64", "-t", "torchscript", "-X", "path=direct", "--prune", "30%")
    done = infc("compile", f"{SOURCES}:deep", "-o", tmp_path, *words)
    assert done.status == 2
    assert "channels are pruned in the graph" in done.err


def test_onnx_has_one_path(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.onnx")
    done = infc("compile", model, "-t", "torchscript", "-o", tmp_path, "-X", "path=direct")
    assert done.status == 2
    assert "the source is no model of PyTorch" in done.err
    assert infc("compile", model, "-t", "torchscript", "-o", tmp_path).status == 0
    assert "path" not in notes(tmp_path / "m-torchscript")


def test_longer_examples_agree_along_shared_names() -> None:
    import torch

    from infc.frontends.pytorch.calls import Input
    from infc.frontends.pytorch.direct import _other
    from infc.input_spec import Dim

    dims = (Dim(low=1, typical=2, high=3), Dim(name="n"))
    a = Input("a", torch.arange(6.0).reshape(2, 3), dims, ("batch", "n"))
    b = Input("b", torch.arange(3.0), (Dim(name="n"),), ("n",))
    first, second = _other([a.example, b.example], [a, b])
    assert first.shape == (3, 5)
    assert second.shape == (5,)
    assert np.array_equal(second.numpy(), [0, 1, 2, 0, 1])
