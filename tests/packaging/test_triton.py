"""Bundles in a model repository: config.pbtxt by the public model_config.proto, and versions."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx.parser
import pytest
from conftest import ROOT, missing

import infc
from infc import packaging
from infc.bundle import open_bundle
from infc.diagnostics import InfcError
from infc.packaging.config import quoted
from infc.packaging.settings import Settings
from infc.signature import load_tensors

DIGITS = ROOT / "examples" / "digits" / "digits.onnx"
INFC = [sys.executable, "-m", "infc"]

pytestmark = pytest.mark.xdist_group("packaging")


@pytest.fixture(scope="session")
def proto() -> ModuleType:
    """model_config.proto as tritonclient has it; the package itself would import grpc."""
    spec = find_spec("tritonclient")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    files = [Path(place) / "grpc" / "model_config_pb2.py" for place in places]
    if not files or not files[0].is_file():
        missing("the Python module tritonclient")
    loading = importlib.util.spec_from_file_location("model_config_pb2", files[0])
    assert loading is not None and loading.loader is not None
    module = importlib.util.module_from_spec(loading)
    loading.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def parsed(proto: ModuleType) -> Callable[[Path], Any]:
    """The ModelConfig of the model in a folder; an unknown field is an error."""
    from google.protobuf import text_format

    def parse(model: Path) -> Any:
        text = (model / "config.pbtxt").read_text(encoding="utf-8")
        return text_format.Parse(text, proto.ModelConfig())

    return parse


@pytest.fixture(scope="module")
def bundles(
    tmp_path_factory: pytest.TempPathFactory, need_back_end: Callable[[str], None]
) -> Callable[..., Path]:
    """`bundles("openvino", precision="int8", ...)` is digits, compiled once for all tests."""
    made: dict[str, Path] = {}

    def bundle(target: str, **options: Any) -> Path:
        need_back_end(infc.targets.look_up(target).back_end)  # type: ignore[attr-defined]
        key = json.dumps([target, {k: str(v) for k, v in options.items()}])
        if key not in made:
            folder = tmp_path_factory.mktemp("digits")
            result = infc.compile(DIGITS, target, folder, loaders=(), **options)
            path = result.results[0].bundle
            assert path is not None
            made[key] = path
        return made[key]

    return bundle


def written(text: str, folder: Path, name: str = "net") -> Path:
    """The bundle of a model that is written down, for ONNX Runtime, unverified."""
    path = folder / f"{name}.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    result = infc.compile(path, "cpu", folder / "out", loaders=(), verify=False)
    bundle = result.results[0].bundle
    assert bundle is not None
    return bundle


def model(signature: str, body: str) -> str:
    return f'<ir_version: 8, opset_import: ["" : 17]>\nm {signature}\n{{ {body} }}'


def refused(code: str, call: Callable[[], object]) -> str:
    """The message and the notes of the one diagnostic that `call` ends with."""
    with pytest.raises(InfcError) as caught:
        call()
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == code
    return "\n".join([diagnostic.message, *diagnostic.notes, diagnostic.help])


def tree(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_onnxruntime_field_by_field(
    bundles: Callable[..., Path], parsed: Callable[[Path], Any], proto: ModuleType, tmp_path: Path
) -> None:
    bundle = bundles("cpu")
    settings = Settings(
        max_batch=16,
        preferred_batch=(8, 4),
        queue_delay_us=250,
        instances=3,
        serve="latest:2",
        threads=2,
    )
    row = packaging.package(bundle, tmp_path / "repo", settings=settings)
    assert (row.name, row.version, row.changed, row.versions) == ("digits", 1, True, (1,))
    folder = tmp_path / "repo" / "digits"
    config = parsed(folder)
    assert config.name == "digits"
    assert (config.backend, config.platform) == ("onnxruntime", "onnxruntime_onnx")
    assert config.max_batch_size == 16
    (image,), (logits,) = config.input, config.output
    assert (image.name, image.data_type, list(image.dims)) == ("image", proto.TYPE_FP32, [1, 8, 8])
    assert (logits.name, logits.data_type, list(logits.dims)) == ("logits", proto.TYPE_FP32, [10])
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 8]
    assert config.dynamic_batching.max_queue_delay_microseconds == 250
    (group,) = config.instance_group
    assert (group.count, group.kind) == (3, proto.ModelInstanceGroup.KIND_CPU)
    assert config.version_policy.latest.num_versions == 2
    assert {k: v.string_value for k, v in config.parameters.items()} == {
        "intra_op_thread_count": "2"
    }
    assert not config.HasField("optimization")
    artifact = (folder / "1" / "model.onnx").read_bytes()
    assert artifact == open_bundle(bundle).entry.read_bytes()


def test_warmup_is_the_reference(
    bundles: Callable[..., Path], parsed: Callable[[Path], Any], proto: ModuleType, tmp_path: Path
) -> None:
    """A request for each batch in the vectors; the data of its first sample, raw."""
    bundle = bundles("cpu")
    packaging.package(bundle, tmp_path)
    config = parsed(tmp_path / "digits")
    batches = {}
    for warmup in config.model_warmup:
        (name,) = warmup.inputs
        given = warmup.inputs[name]
        number = int(warmup.name.removeprefix("reference "))
        vectors = load_tensors(bundle / "reference" / str(number) / "inputs")["image"]
        assert (name, given.data_type) == ("image", proto.TYPE_FP32)
        assert list(given.dims) == [1, 8, 8]
        raw = (tmp_path / "digits" / "warmup" / given.input_data_file).read_bytes()
        assert raw == vectors[:1].tobytes()
        batches[warmup.batch_size] = len(vectors)
    assert all(size == rows for size, rows in batches.items())
    assert len(batches) > 1
    packaging.package(bundle, tmp_path / "cold", settings=Settings(warmup=False))
    assert not parsed(tmp_path / "cold" / "digits").model_warmup
    assert not (tmp_path / "cold" / "digits" / "warmup").exists()


def test_openvino(
    bundles: Callable[..., Path], parsed: Callable[[Path], Any], proto: ModuleType, tmp_path: Path
) -> None:
    packaging.package(bundles("openvino"), tmp_path, settings=Settings(threads=4))
    config = parsed(tmp_path / "digits")
    assert config.backend == "openvino"
    assert config.max_batch_size == 8
    assert config.instance_group[0].kind == proto.ModelInstanceGroup.KIND_CPU
    assert {k: v.string_value for k, v in config.parameters.items()} == {
        "ENABLE_BATCH_PADDING": "YES",
        "INFERENCE_NUM_THREADS": "4",
        "PERFORMANCE_HINT": "LATENCY",
        "TARGET_DEVICE": "CPU",
    }
    names = sorted(p.name for p in (tmp_path / "digits" / "1").iterdir())
    assert names == ["model.bin", "model.xml"]


def test_openvino_device_and_bfloat16(
    bundles: Callable[..., Path], parsed: Callable[[Path], Any], tmp_path: Path
) -> None:
    bundle = bundles("intel-gpu", precision="bf16", inputs={"image": "1x1x8x8"})
    packaging.package(bundle, tmp_path)
    config = parsed(tmp_path / "digits")
    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == [1, 1, 8, 8]
    found = {k: v.string_value for k, v in config.parameters.items()}
    assert (found["TARGET_DEVICE"], found["HINT_BF16"]) == ("GPU", "YES")
    assert "ENABLE_BATCH_PADDING" not in found


def test_torchscript_goes_by_places(
    bundles: Callable[..., Path], parsed: Callable[[Path], Any], tmp_path: Path
) -> None:
    packaging.package(bundles("torchscript"), tmp_path, settings=Settings(threads=1))
    config = parsed(tmp_path / "digits")
    assert (config.backend, config.platform) == ("pytorch", "pytorch_libtorch")
    assert [i.name for i in config.input] == ["INPUT__0"]
    assert [o.name for o in config.output] == ["OUTPUT__0"]
    assert all(list(w.inputs) == ["INPUT__0"] for w in config.model_warmup)
    assert {k: v.string_value for k, v in config.parameters.items()} == {
        "INTRA_OP_THREAD_COUNT": "1"
    }
    assert (tmp_path / "digits" / "1" / "model.pt").is_file()
    assert "# `image`" in (tmp_path / "digits" / "config.pbtxt").read_text()


def test_int8_keeps_the_float_interface(
    bundles: Callable[..., Path], parsed: Callable[[Path], Any], proto: ModuleType, tmp_path: Path
) -> None:
    bundle = bundles("cpu", precision="int8", calibration="random")
    packaging.package(bundle, tmp_path)
    config = parsed(tmp_path / "digits")
    assert config.input[0].data_type == config.output[0].data_type == proto.TYPE_FP32


@pytest.fixture(scope="module")
def engine(bundles: Callable[..., Path], need_back_end: Callable[[str], None]) -> Path:
    """A bundle for TensorRT with two profiles, its engine built by TensorRT for RTX."""
    need_back_end("tensorrt-rtx")
    profiles = {"profiles": "batch=1..4@2;batch=1..8@8"}
    bundle = bundles("jetson", inputs={"image": "1..8@4x1x8x8"}, options=profiles)
    command = [*INFC, "finish", str(bundle), "--stand-in", "tensorrt_rtx"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 3, done.stderr  # built, and not verified
    return bundle


def test_tensorrt(
    engine: Path, parsed: Callable[[Path], Any], proto: ModuleType, tmp_path: Path
) -> None:
    row = packaging.package(
        engine, tmp_path, settings=Settings(gpus=(0, 1), instances=2, cuda_graphs=True)
    )
    assert row.max_batch == 8
    assert "not verified" in row.remarks[0]
    config = parsed(tmp_path / "digits")
    assert (config.backend, config.platform) == ("tensorrt", "tensorrt_plan")
    (group,) = config.instance_group
    assert (group.count, group.kind) == (2, proto.ModelInstanceGroup.KIND_GPU)
    assert list(group.gpus) == [0, 1]
    assert list(group.profile) == ["0", "1"]
    assert config.optimization.cuda.graphs
    plan = (tmp_path / "digits" / "1" / "model.plan").read_bytes()
    assert plan == (engine / "model" / "model.engine").read_bytes()
    assert [p.name for p in (tmp_path / "digits" / "1").iterdir()] == ["model.plan"]
    text = refused(
        "E708",
        lambda: packaging.package(engine, tmp_path / "more", settings=Settings(max_batch=9)),
    )
    assert "was compiled for batches of 1 to 8, not 9" in text
    text = refused(
        "E708", lambda: packaging.package(engine, tmp_path / "more", settings=Settings(threads=1))
    )
    assert "has no number of threads" in text
    assert not (tmp_path / "more").exists()


def test_deferred_bundles_come_later(
    bundles: Callable[..., Path], need_back_end: Callable[[str], None], tmp_path: Path
) -> None:
    need_back_end("tensorrt-rtx")
    bundle = bundles("jetson")
    text = refused("E707", lambda: packaging.package(bundle, tmp_path / "repo"))
    assert "./finish" in text
    assert not (tmp_path / "repo").exists()


@pytest.mark.parametrize(
    ("inputs", "outputs", "body", "batch", "dims"),
    [
        ("float[n, 4] x", "float[n, 4] y", "y = Relu(x)", 8, [4]),
        ("float[2, 4] x", "float[2, 4] y", "y = Relu(x)", 0, [2, 4]),
        ("float[n, n] x", "float[n, n] y", "y = Relu(x)", 0, [-1, -1]),
        ("float[n, k] x", "float[n, k] y", "y = Relu(x)", 8, [-1]),
        ("float[n, 4] x, float[k, 4] z", "float[n, 4] y, float[k, 4] w", None, 0, [-1, 4]),
        ("float[n, 4] x", "float[4, n] y", "y = Transpose(x)", 0, [-1, 4]),
    ],
)
def test_what_is_a_batch(
    inputs: str,
    outputs: str,
    body: str | None,
    batch: int,
    dims: list[int],
    parsed: Callable[[Path], Any],
    tmp_path: Path,
) -> None:
    text = model(f"({inputs}) => ({outputs})", body or "y = Relu(x) w = Relu(z)")
    packaging.package(written(text, tmp_path), tmp_path / "repo")
    config = parsed(tmp_path / "repo" / "net")
    assert config.max_batch_size == batch
    assert list(config.input[0].dims) == dims
    assert config.HasField("dynamic_batching") == (batch > 1)


@pytest.mark.parametrize(("bounds", "batch"), [("1..4", 4), ("2..4", 0), ("1..1", 0)])
def test_batches_that_were_compiled_for(
    bounds: str, batch: int, parsed: Callable[[Path], Any], tmp_path: Path
) -> None:
    """A request alone is a batch of one: what does not take that is served as it is."""
    result = infc.compile(
        DIGITS, "cpu", tmp_path, loaders=(), verify=False, inputs={"image": f"{bounds}x1x8x8"}
    )
    bundle = result.results[0].bundle
    assert bundle is not None
    packaging.package(bundle, tmp_path / "repo")
    assert parsed(tmp_path / "repo" / "digits").max_batch_size == batch


def test_a_scalar_for_each_sample(parsed: Callable[[Path], Any], tmp_path: Path) -> None:
    """Triton knows no empty dims: they are reshaped."""
    text = model("(float[n] x) => (float[n, 1] y)", "o = Constant<value_ints=[1]>() "
                 "y = Unsqueeze(x, o)")  # fmt: skip
    packaging.package(written(text, tmp_path), tmp_path / "repo")
    (given,) = parsed(tmp_path / "repo" / "net").input
    assert list(given.dims) == [1]
    assert given.HasField("reshape")
    assert list(given.reshape.shape) == []


@pytest.mark.parametrize(
    ("signature", "body", "said"),
    [
        ("(float x) => (float y)", "y = Relu(x)", "`x` is a scalar"),
        (
            "(float[0, 4] x) => (float[0, 4] y)",
            "y = Relu(x)",
            "`x` has a dimension of size 0",
        ),
        (
            "(float[n, 4] x, int64[k] s) => (float[] y)",
            "y = Reshape(x, s)",
            "the rank of `y` is known only after a run",
        ),
    ],
)
def test_what_triton_cannot_say(signature: str, body: str, said: str, tmp_path: Path) -> None:
    text = model(signature, body)
    if "Reshape" in body:
        graph = onnx.parser.parse_model(text)
        graph.graph.output[0].type.tensor_type.ClearField("shape")
        onnx.save(graph, tmp_path / "net.onnx")
        result = infc.compile(tmp_path / "net.onnx", "cpu", tmp_path, loaders=(), verify=False)
        bundle = result.results[0].bundle
        assert bundle is not None
    else:
        bundle = written(text, tmp_path)
    assert said in refused("E708", lambda: packaging.package(bundle, tmp_path / "repo"))


def test_back_ends_that_triton_has_not(
    bundles: Callable[..., Path], need_back_end: Callable[[str], None], tmp_path: Path
) -> None:
    """Before anything is built, where it is `compile` that is asked."""
    for target, said in (
        ("mindspore-lite", "MindSpore Lite has a server of its own"),
        ("rtx-any", "Triton's TensorRT back end runs engines of TensorRT only"),
    ):
        command = [*INFC, "compile", str(DIGITS), "-t", target, "-o", str(tmp_path / "out")]
        done = subprocess.run(
            [*command, "--package", "triton"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "error[E708]: Triton has no back end for" in done.stderr
        assert said in done.stderr
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "code", "said"),
    [
        ({"kind": "gpu"}, "E708", "runs these artifacts on cpu instances, not `--kind gpu`"),
        ({"gpus": (0,)}, "E708", "`--gpu` names GPUs, and the instances are of kind `cpu`"),
        ({"cuda_graphs": True}, "E708", "has no `--cuda-graphs`"),
        ({"preferred_batch": (4, 64)}, "E708", "a preferred batch of 64 is more than the greatest"),
        ({"serve": "newest"}, "E110", "`--serve newest` says nothing"),
        ({"instances": 0}, "E110", "0 for `instances` is not a number from 1 on"),
        ({"preferred_batch": (0,)}, "E110", "a preferred batch size is a number from 1 on"),
    ],
)
def test_settings_that_make_no_sense(
    settings: dict[str, Any],
    code: str,
    said: str,
    bundles: Callable[..., Path],
    tmp_path: Path,
) -> None:
    bundle = bundles("openvino")
    repository = tmp_path / "repo"
    text = refused(
        code, lambda: packaging.package(bundle, repository, settings=Settings(**settings))
    )
    assert said in text
    assert not repository.exists()


def test_names_of_tensors_are_untrusted(parsed: Callable[[Path], Any], tmp_path: Path) -> None:
    name = 'a"b\\c\n}\u00e9\x07'
    graph = onnx.parser.parse_model(model("(float[n, 4] x) => (float[n, 4] y)", "y = Relu(x)"))
    graph.graph.input[0].name = graph.graph.node[0].input[0] = name
    onnx.save(graph, tmp_path / "net.onnx")
    result = infc.compile(tmp_path / "net.onnx", "cpu", tmp_path, loaders=(), verify=False)
    bundle = result.results[0].bundle
    assert bundle is not None
    packaging.package(bundle, tmp_path / "repo")
    assert [i.name for i in parsed(tmp_path / "repo" / "net").input] == [name]
    assert quoted('é"') == '"\\303\\251\\042"'


def test_versions_side_by_side(
    bundles: Callable[..., Path], parsed: Callable[[Path], Any], tmp_path: Path
) -> None:
    first = bundles("cpu")
    second = bundles("cpu", precision="int8", calibration="random")
    packaging.package(first, tmp_path, settings=Settings(queue_delay_us=100))
    before = {k: v for k, v in tree(tmp_path / "digits").items() if k != "infc.json"}
    row = packaging.package(second, tmp_path)
    assert (row.version, row.versions) == (2, (1, 2))
    after = tree(tmp_path / "digits")
    assert {k: after[k] for k in before} == before, "what was decided before holds"
    assert after["2/model.onnx"] == open_bundle(second).entry.read_bytes()
    assert parsed(tmp_path / "digits").version_policy.HasField("all")
    assert not list(tmp_path.glob(".*"))

    row = packaging.package(second, tmp_path)
    assert (row.version, row.changed) == (2, False)
    assert tree(tmp_path / "digits") == after
    row = packaging.package(second, tmp_path, settings=Settings(serve="1,2"))
    assert (row.version, row.changed) == (2, True)
    config = parsed(tmp_path / "digits")
    assert list(config.version_policy.specific.versions) == [1, 2]
    assert config.dynamic_batching.max_queue_delay_microseconds == 100
    assert packaging.package(first, tmp_path, version=7).versions == (1, 2, 7)
    rows = json.loads((tmp_path / "digits" / "infc.json").read_text())["versions"]
    assert [(n, rows[n]["precision"]) for n in rows] == [
        ("1", "fp32"),
        ("2", "int8"),
        ("7", "fp32"),
    ]
    text = refused("E709", lambda: packaging.package(second, tmp_path, version=1))
    assert "is there, and holds another artifact" in text


def test_versions_that_differ_are_refused(bundles: Callable[..., Path], tmp_path: Path) -> None:
    packaging.package(bundles("cpu"), tmp_path)
    before = tree(tmp_path)
    fixed = bundles("cpu", inputs={"image": "1x1x8x8"})
    text = refused("E709", lambda: packaging.package(fixed, tmp_path))
    assert "inputs: image TYPE_FP32[1, 8, 8], and now image TYPE_FP32[1, 1, 8, 8]" in text
    assert "--name" in text
    text = refused("E709", lambda: packaging.package(bundles("openvino"), tmp_path))
    assert "backend: onnxruntime, and now openvino" in text
    small = bundles("cpu", inputs={"image": "1..4x1x8x8"})
    text = refused("E709", lambda: packaging.package(small, tmp_path))
    assert "this version takes batches up to 4, and the model's up to 8" in text
    assert tree(tmp_path) == before
    packaging.package(small, tmp_path, name="small")
    text = refused(
        "E709",
        lambda: packaging.package(
            bundles("cpu"), tmp_path, name="small", settings=Settings(max_batch=8)
        ),
    )
    assert "version 1 takes batches up to 4, not 8" in text


def test_a_configuration_that_somebody_changed(
    bundles: Callable[..., Path], tmp_path: Path
) -> None:
    packaging.package(bundles("cpu"), tmp_path)
    config = tmp_path / "digits" / "config.pbtxt"
    config.write_text(config.read_text() + "# mine\n")
    second = bundles("cpu", precision="int8", calibration="random")
    before = tree(tmp_path)
    text = refused("E709", lambda: packaging.package(second, tmp_path))
    assert "was changed since infc wrote it" in text
    assert tree(tmp_path) == before
    assert packaging.package(second, tmp_path, keep_config=True).version == 2
    assert config.read_text().endswith("# mine\n")
    assert (tmp_path / "digits" / "2" / "model.onnx").is_file()


def test_what_is_not_infcs_stays(bundles: Callable[..., Path], tmp_path: Path) -> None:
    bundle = bundles("cpu")
    theirs = tmp_path / "digits" / "1"
    theirs.mkdir(parents=True)
    (theirs / "model.onnx").write_text("theirs")
    text = refused("E709", lambda: packaging.package(bundle, tmp_path))
    assert "infc did not make it" in text
    assert tree(tmp_path) == {"digits/1/model.onnx": b"theirs"}
    (tmp_path / "digits" / "infc.json").write_text('{"schema_version": 1, "versions": []}')
    refused("E709", lambda: packaging.package(bundle, tmp_path))
    packaging.package(bundle, tmp_path, name="mine")
    foreign = tmp_path / "mine" / "2"
    foreign.mkdir()
    row = packaging.package(
        bundles("cpu", precision="int8", calibration="random"), tmp_path, name="mine"
    )
    assert row.version == 3, "the next number that nobody has"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden", "a\nb"])
def test_names_that_are_no_folders(name: str, bundles: Callable[..., Path], tmp_path: Path) -> None:
    if not name:
        return  # falls back to the bundle's own
    text = refused("E110", lambda: packaging.package(bundles("cpu"), tmp_path, name=name))
    assert "does not name a model" in text


def test_same_bytes_twice(bundles: Callable[..., Path], tmp_path: Path) -> None:
    for folder in ("a", "b"):
        for options in ({}, {"precision": "int8", "calibration": "random"}):
            packaging.package(bundles("cpu", **options), tmp_path / folder)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert str(tmp_path).encode() not in b"".join(tree(tmp_path / "a").values())


def test_nothing_is_left_of_a_version_that_failed(
    bundles: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaging.package(bundles("cpu"), tmp_path / "repo")
    before = tree(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    second = bundles("cpu", precision="int8", calibration="random")
    refused("E701", lambda: packaging.package(second, tmp_path / "repo"))
    refused("E701", lambda: packaging.package(second, tmp_path / "repo", name="other"))
    assert tree(tmp_path) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["repo"]
    assert sorted(p.name for p in (tmp_path / "repo").iterdir()) == ["digits"]


def test_several_at_once(bundles: Callable[..., Path], tmp_path: Path) -> None:
    """Each gets a number of its own, and all are in the record."""
    paths = [
        bundles("cpu"),
        bundles("cpu", precision="int8", calibration="random"),
        bundles("cpu", options={"graph-optimization": "all"}, precision="fp16"),
    ]
    command = [*INFC, "package", "-o", str(tmp_path / "repo"), "-q"]
    running = [
        subprocess.Popen([*command, str(path)], stdout=subprocess.PIPE, text=True) for path in paths
    ]
    said = sorted(process.communicate(timeout=120)[0].strip() for process in running)
    assert said == [str(tmp_path / "repo" / "digits" / str(n)) for n in (1, 2, 3)]
    rows = json.loads((tmp_path / "repo" / "digits" / "infc.json").read_text())["versions"]
    assert sorted(row["precision"] for row in rows.values()) == ["fp16", "fp32", "int8"]


def test_a_repository_that_cannot_be_written(bundles: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused("E701", lambda: packaging.package(bundles("cpu"), tmp_path / "file" / "repo"))


def test_a_damaged_bundle(bundles: Callable[..., Path], tmp_path: Path) -> None:
    shutil.copytree(bundles("cpu"), tmp_path / "b")
    (tmp_path / "b" / "model" / "model.onnx").write_bytes(b"")
    refused("E702", lambda: packaging.package(tmp_path / "b", tmp_path / "repo"))
    assert not (tmp_path / "repo").exists()


def test_compile_packages_each_target(
    parsed: Callable[[Path], Any], need_back_end: Callable[[str], None], tmp_path: Path
) -> None:
    need_back_end("openvino")
    command = [*INFC, "compile", str(DIGITS), "--loader", "none", "--package", "triton", "--json"]
    many = [*command, "-t", "cpu", "-t", "openvino", "-o", str(tmp_path / "many")]
    done = subprocess.run(many, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["packages"]
    assert [row["name"] for row in rows] == ["digits-cpu", "digits-openvino"]
    for row in rows:
        folder = tmp_path / "many" / "triton" / row["name"]
        assert parsed(folder).name == row["name"]
    one = [*command[:-1], "-q", "-o", str(tmp_path / "one"), "--repository", str(tmp_path / "repo")]
    done = subprocess.run(one, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    paths = [str(tmp_path / "one" / "digits-cpu"), str(tmp_path / "repo" / "digits" / "1")]
    assert done.stdout.splitlines() == paths
    assert parsed(tmp_path / "repo" / "digits").name == "digits"
    alone = [*INFC, "compile", str(DIGITS), "--repository", str(tmp_path / "x")]
    done = subprocess.run(alone, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "add `--package triton`" in done.stderr


def test_compile_leaves_a_deferred_bundle_for_later(
    need_back_end: Callable[[str], None], tmp_path: Path
) -> None:
    need_back_end("tensorrt-rtx")
    command = [*INFC, "compile", str(DIGITS), "-t", "jetson", "--package", "triton"]
    done = subprocess.run(
        [*command, "--loader", "none", "--no-verify", "-o", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "warning[E707]" in done.stderr
    assert "then `infc package`" in done.stderr
    assert not (tmp_path / "triton").exists()


def test_package_says_what_it_did(bundles: Callable[..., Path], tmp_path: Path) -> None:
    command = [*INFC, "package", str(bundles("cpu")), "-o", "repo", "--max-batch-size", "0"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "digits  repo/digits/1\n"
        "  version     1\n"
        "  served by   onnxruntime, requests one by one\n"
        "  next        tritonserver --model-repository=repo\n"
    )
    version = [*command, str(bundles("cpu")), "--version", "3"]
    done = subprocess.run(version, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "`--version 3` is one number, for 2 bundles" in done.stderr


def test_a_graph_level_that_the_bundle_was_proved_with(
    bundles: Callable[..., Path], parsed: Callable[[Path], Any], tmp_path: Path
) -> None:
    for level, number in (("off", 2), ("basic", -1), ("extended", 1)):
        packaging.package(
            bundles("cpu", options={"graph-optimization": level}), tmp_path, name=level
        )
        assert parsed(tmp_path / level).optimization.graph.level == number
    ort = bundles("cpu", options={"format": "ort"})
    packaging.package(ort, tmp_path, name="ort")
    config = parsed(tmp_path / "ort")
    assert config.default_model_filename == "model.ort"
    assert config.optimization.graph.level == 1
    assert (tmp_path / "ort" / "1" / "model.ort").is_file()


def test_warmups_are_of_samples_that_triton_takes(
    parsed: Callable[[Path], Any], tmp_path: Path
) -> None:
    """Sizes of dims that change are those of the vectors; the first sample of each."""
    text = model(
        "(float[n, k] x, int64[n] i) => (float[n, k] y, int64[n] j)", "y = Relu(x) j = Neg(i)"
    )
    path = tmp_path / "net.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    result = infc.compile(path, "cpu", tmp_path / "out", loaders=())
    bundle = result.results[0].bundle
    assert bundle is not None
    packaging.package(bundle, tmp_path / "repo")
    folder = tmp_path / "repo" / "net"
    config = parsed(folder)
    assert config.model_warmup
    for warmup in config.model_warmup:
        for name, given in warmup.inputs.items():
            assert all(size > 0 for size in given.dims), name
            size = (4 if name == "x" else 8) * int(np.prod(given.dims))
            assert (folder / "warmup" / given.input_data_file).stat().st_size == size
