"""`infc inspect` on the files of other frameworks: what it prints, and what it does not import.

`INFC_BLESS=1 pytest` rewrites the golden texts; review the diff.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import container_files
import pytest
from command import infc
from conftest import missing

GOLDEN = Path(__file__).parent / "golden" / "inspect"
REAL = {
    "real-saved-model": "dtln/dtln_saved_model",
    "real-variables": "dtln/dtln_saved_model/variables",
    "real-frozen-graph": "fsrcnn/FSRCNN_x2.pb",
    "real-tflite": "ultraface/version-RFB-320_without_postprocessing.tflite",
    "real-tflite-int8": "mlperf_tiny/pretrainedResnet_quant.tflite",
    "real-keras-sequential": "hand_keypoint/keypoint_classifier.hdf5",
    "real-keras-functional": "mlperf_tiny/pretrainedResnet.h5",
}
KEYS = {
    *("kind", "path", "bytes", "title", "version", "inputs", "outputs", "parameters", "tensors"),
    *("unit", "nodes", "operators", "details", "unsafe"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """All the small files whose writers are installed."""
    folder = tmp_path_factory.mktemp("containers")
    rows = container_files.FILES.items()
    return {
        name: container_files.write(name, folder)
        for name, (_, _, needed) in rows
        if not needed or find_spec(needed) is not None
    }


def check_golden(name: str, path: Path) -> None:
    done = infc("inspect", path)
    assert (done.status, done.err) == (0, "")
    text = normalised(done.out.replace(str(path), path.name))
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("INFC_BLESS") == "1":
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert file.is_file(), "new: run INFC_BLESS=1 pytest tests/test_inspect_containers.py"
    assert text == file.read_text()


def normalised(text: str) -> str:
    """Without what depends on torch's version and on where the tests lie."""
    text = re.sub(r"PyTorch 2\.\d+\.\d+\S*", "PyTorch VERSION", text)
    text = re.sub(r"^(  schema +)\d+\.\d+$", r"\1VERSION", text, flags=re.MULTILINE)
    text = re.sub(r"\bs\d+(?=x| 1\.\.)", "sN", text)
    return re.sub(r"\A(.*), [\d.]+ k?B$", r"\1, SIZE", text, flags=re.MULTILINE)


@pytest.mark.parametrize("name", container_files.FILES)
def test_golden_text(name: str, made: dict[str, Path]) -> None:
    if name not in made:
        missing(f"the Python module {container_files.FILES[name][2]}")
    check_golden(name, made[name])


@pytest.mark.models
@pytest.mark.parametrize("name", REAL)
def test_golden_text_of_a_real_model(name: str, models: Path) -> None:
    check_golden(name, models / REAL[name])


@pytest.mark.parametrize("name", container_files.FILES)
def test_document(name: str, made: dict[str, Path]) -> None:
    if name not in made:
        missing(f"the Python module {container_files.FILES[name][2]}")
    done = infc("inspect", made[name], "--json")
    assert done.status == 0
    assert set(done.document) >= KEYS
    assert done.document["path"] == str(made[name])
    if made[name].is_file():
        assert done.document["bytes"] == made[name].stat().st_size


def test_a_class_that_torch_renamed_has_its_own_name(tmp_path: Path) -> None:
    """In one process, the second class of a name is saved as `nets.___torch_mangle_0.Net`."""
    if find_spec("torch") is None:
        missing("the Python module torch")
    for path in (tmp_path / "first.pt", tmp_path / "second.pt"):
        container_files.traced(path)
        document = infc("inspect", path, "--json").document
        assert document["details"]["class"] == "__torch__.nets.Net"
        assert [row["name"] for row in document["inputs"]] == ["image"]


def test_figures_are_those_of_the_framework(made: dict[str, Path]) -> None:
    """The weights, as torch counts them."""
    if "torch-state-dict" not in made:
        missing("the Python module torch")
    import torch

    expected = torch.load(made["torch-state-dict"], weights_only=True)
    for name in ("torchscript-traced", "torch-state-dict", "torch-legacy", "torch-module"):
        document = infc("inspect", made[name], "--json").document
        assert document["parameters"] == {
            "tensors": len(expected),
            "elements": sum(t.numel() for t in expected.values()),
            "bytes": sum(t.nbytes for t in expected.values()),
        }
        rows = {row["name"]: (row["dtype"], row["shape"]) for row in document["tensors"]}
        assert rows == {
            key: (str(tensor.dtype).removeprefix("torch."), list(tensor.shape))
            for key, tensor in expected.items()
        }


def test_tensors_of_every_type_are_named_as_torch_names_them(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    dtypes = (
        *(torch.float16, torch.bfloat16, torch.float64, torch.uint8, torch.int8, torch.int16),
        *(torch.int32, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.uint16),
    )
    tensors = {str(dtype): torch.zeros(2, 3, dtype=dtype) for dtype in dtypes}
    tensors["parameter"] = torch.nn.Parameter(torch.zeros(4))
    tensors["quantised"] = torch.quantize_per_tensor(torch.zeros(5), 0.5, 3, torch.qint8)
    torch.save(tensors, tmp_path / "types.pt")
    done = infc("inspect", tmp_path / "types.pt", "--json")
    rows = {row["name"]: (row["dtype"], row["shape"]) for row in done.document["tensors"]}
    assert rows == {
        **{str(dtype): (str(dtype).removeprefix("torch."), [2, 3]) for dtype in dtypes},
        "parameter": ("float32", [4]),
        "quantised": ("qint8", [5]),
    }
    assert done.document["unsafe"] == []


def test_a_checkpoint_of_many_tensors_shows_the_first(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({f"layer.{i}": torch.zeros(2) for i in range(3000)}, tmp_path / "many.pt")
    done = infc("inspect", tmp_path / "many.pt")
    assert "6,000 in 3,000 tensors" in done.out
    assert done.out.rstrip().endswith("and 2,980 more")
    document = infc("inspect", tmp_path / "many.pt", "--json").document
    assert len(document["tensors"]) == 1000
    assert document["parameters"]["tensors"] == 3000


def test_an_optimizers_memory_is_no_parameter(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.zeros(1, 3)).sum().backward()
    optimizer.step()
    held = {"state_dict": net.state_dict(), "optimizer": optimizer.state_dict(), 7: torch.zeros(5)}
    torch.save(held, tmp_path / "c.pt")
    rows = infc("inspect", tmp_path / "c.pt", "--json").document["tensors"]
    assert [row["name"] for row in rows] == ["state_dict.weight", "state_dict.bias", "7"]


def test_no_framework_is_imported(made: dict[str, Path]) -> None:
    program = (
        "import sys, json\n"
        "from infc.cli import main\n"
        "for path in sys.argv[1:]:\n"
        "    sys.argv = ['infc', 'inspect', '--json', path]\n"
        "    try: main()\n"
        "    except SystemExit as leaving: assert not leaving.code, path\n"
        "print(*sorted({m.partition('.')[0] for m in sys.modules}), file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, *map(str, made.values())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = set(done.stderr.splitlines()[-1].split())
    assert not loaded & {"torch", "tensorflow", "keras", "tf2onnx", "onnxruntime", "safetensors"}
    assert len(re.findall(r'^  "kind"', done.stdout, re.MULTILINE)) == len(made)
    assert json.loads(done.stdout[: done.stdout.index("\n}\n") + 3])["kind"] == "torchscript"


def test_hdf5_without_h5py_says_what_to_install(
    made: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "keras-h5" not in made:
        missing("the Python module h5py")
    from infc.frontends.containers import hdf5

    monkeypatch.setattr(hdf5, "is_readable", lambda: False)
    done = infc("inspect", made["keras-h5"])
    assert done.status == 4
    assert "error[E501]" in done.err
    assert "pip install h5py" in done.err
    done = infc("inspect", made["keras"], "--json")  # the graph can be read all the same
    assert done.document["inputs"] == [
        {"name": "image", "dtype": "float32", "shape": [None, 8, 8, 3]}
    ]
    assert done.document["parameters"] is None


@pytest.mark.parametrize("words", ["package.module:factory", "net.onnxtxt"])
def test_what_cannot_be_looked_into(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.onnxtxt").write_text('<ir_version: 8, opset_import: ["" : 17]> g')
    done = infc("inspect", words)
    assert done.status == 1
    assert "error[E101]" in done.err
    assert "help: " in done.err
