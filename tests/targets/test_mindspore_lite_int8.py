"""Reduced precision by MindSpore Lite's own converter: full INT8, dynamic INT8, fp16 weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command import Done, infc
from onnx import TensorProto, helper, numpy_helper

from infc import workers
from infc.bundle import Bundle, open_bundle
from infc.diagnostics import ExitCode
from infc.request import WorkerLimits
from infc.signature import load_tensors, save_tensors
from infc.targets import Target, Worker
from infc.targets import mindspore_lite as end

SCORE, OVERLAP = 0.7, 0.3
"""Of a face: the least score, and the greatest intersection over union of two."""


@pytest.fixture(autouse=True)
def toolchain(need_back_end: Callable[[str], None]) -> None:
    need_back_end("mindspore-lite")


def convolutions(path: Path, name: str = "image", batch: int | str = 1) -> Path:
    """Two convolutions of an image that is no square: N, 3, 12, 20 -> N, 8, 6, 10."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.standard_normal((16, 3, 3, 3)) / 5,
        "b1": rng.standard_normal(16) / 10,
        "w2": rng.standard_normal((8, 16, 3, 3)) / 12,
    }
    nodes = [
        helper.make_node("Conv", [name, "w1", "b1"], ["c1"], "first", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"], "relu"),
        helper.make_node("MaxPool", ["r1"], ["p1"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "w2"], ["y"], "second", pads=[1] * 4),
    ]
    return saved(path, nodes, {name: [batch, 3, 12, 20]}, {"y": [batch, 8, 6, 10]}, weights)


def sum_of_two(path: Path) -> Path:
    """y = (a + b) w: what lies between is small where a = -b, and large for any other pairs."""
    weights = {"w": np.random.default_rng(0).standard_normal((32, 16)) / 6}
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"], "add"),
        helper.make_node("MatMul", ["sum", "w"], ["y"], "product"),
    ]
    return saved(path, nodes, {"a": [8, 32], "b": [8, 32]}, {"y": [8, 16]}, weights)


def products(path: Path) -> Path:
    rng = np.random.default_rng(0)
    weights = {"w1": rng.standard_normal((64, 128)) / 8, "w2": rng.standard_normal((128, 32)) / 11}
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["m"], "first"),
        helper.make_node("Relu", ["m"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "w2"], ["y"], "second"),
    ]
    return saved(path, nodes, {"x": [16, 64]}, {"y": [16, 32]}, weights)


def saved(path: Path, nodes: Any, inputs: Any, outputs: Any, weights: Any) -> Path:
    def values(table: Any) -> list[Any]:
        return [helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in table.items()]

    tensors = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()]
    graph = helper.make_graph(nodes, "g", values(inputs), values(outputs), tensors)
    imports = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path


def normal(shape: tuple[int, ...], seed: int = 1) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def compile_int8(model: Path, output: Path, *words: object, **samples: Any) -> Done:
    """Compile with `samples`, arrays that are stacked along a new first axis, as calibration."""
    if samples:
        np.savez(model.with_suffix(".npz"), **samples)
        words = (*words, "--calibration", model.with_suffix(".npz"))
    return infc(
        *("compile", model, "-t", "mindspore-lite", "-o", output, "--loader", "none"),
        *("--precision", "int8", *words),
    )


def published(done: Done, output: Path) -> Bundle:
    assert done.status == ExitCode.DONE, done.err
    (folder,) = (p for p in output.iterdir() if p.suffix != ".log")
    return open_bundle(folder)


def sqnr_db(bundle: Bundle) -> dict[str, float]:
    rows = bundle.manifest["verification"]["artifact"]["outputs"]
    return {row["name"]: row["sqnr_db"] for row in rows}


def test_full_int8_takes_and_gives_float32_in_the_models_layout(tmp_path: Path) -> None:
    model, data = convolutions(tmp_path / "m.onnx"), normal((24, 3, 12, 20))
    float_bytes = (
        published(
            infc(
                *("compile", model, "-t", "mindspore-lite", "-o", tmp_path / "float"),
                *("--loader", "none"),
            ),
            tmp_path / "float",
        )
        .entry.stat()
        .st_size
    )
    bundle = published(compile_int8(model, tmp_path / "o", image=data), tmp_path / "o")
    assert [s.dtype for s in (*bundle.inputs, *bundle.outputs)] == ["float32", "float32"]
    assert sqnr_db(bundle)["y"] > 30
    assert bundle.entry.stat().st_size < float_bytes
    notes = bundle.manifest["artifact"]["notes"]
    assert notes["quantized"] == {"by": "the converter", "calibration_samples": 24}


def test_two_int8_builds_are_byte_identical(tmp_path: Path) -> None:
    model, data = convolutions(tmp_path / "m.onnx"), normal((24, 3, 12, 20))
    made = []
    for name in ("here", "a longer way"):
        bundle = published(compile_int8(model, tmp_path / name, image=data), tmp_path / name)
        files = sorted(p for p in bundle.path.rglob("*") if p.is_file())
        made.append({str(p.relative_to(bundle.path)): p.read_bytes() for p in files})
    assert made[0] == made[1]


def test_the_values_of_several_inputs_come_from_the_same_sample(tmp_path: Path) -> None:
    """Ranges from pairs that do not belong together would be 50 times too wide here."""
    model, a = sum_of_two(tmp_path / "m.onnx"), normal((30, 8, 32)) * 10
    b = -a + normal((30, 8, 32), seed=2) / 5
    bundle = published(compile_int8(model, tmp_path / "o", a=a, b=b), tmp_path / "o")
    # The inputs are rounded to steps of about 80 / 255 each, the sum is of deviation 0.2.
    matched = sqnr_db(bundle)["y"]
    rows = tmp_path / "rows"
    samples = [{"a": a[i], "b": b[(i + 7) % 30]} for i in range(30)]
    mismatched = answer_sqnr_db(model, samples, {"a": a[0], "b": b[0]}, rows)
    assert matched > mismatched + 3


def answer_sqnr_db(model: Path, samples: Any, feeds: Any, folder: Path) -> float:
    """Of an int8 artifact that the worker makes of these samples, on one set of feeds."""
    for i, sample in enumerate(samples):
        save_tensors(folder / "samples" / str(i), sample)
    save_tensors(folder / "feeds", feeds)
    target = Target("mindspore-lite", end.NAME, "", precision=end.Precision.INT8)
    payload = {
        "model": str(model),
        "output": str(folder),
        "target": target.to_json(),
        "inputs": [{"name": name} for name in feeds],
        "calibration": [str(folder / "samples" / str(i)) for i in range(len(samples))],
        "entry": str(folder / "model.ms"),
        "threads": 1,
        "output_types": {"y": "float32"},
        "sets": [[str(folder / "feeds"), str(folder / "answers")]],
    }
    place: Worker = end.worker(target)
    for action in ("build", "run"):
        call = workers.Call("", action, payload, folder / action, folder / "log", action, place)
        workers.call(call, WorkerLimits(timeout_s=120))
    weights = numpy_helper.to_array(onnx.load(model).graph.initializer[0])
    expected = (feeds["a"] + feeds["b"]).astype(np.float64) @ weights
    error = load_tensors(folder / "answers")["y"] - expected
    return float(10 * np.log10((expected**2).sum() / (error**2).sum()))


def test_dynamic_int8_needs_no_samples(tmp_path: Path) -> None:
    model = products(tmp_path / "m.onnx")
    done = compile_int8(model, tmp_path / "o", "-X", "quant=dynamic")
    bundle = published(done, tmp_path / "o")
    assert sqnr_db(bundle)["y"] > 30
    assert bundle.entry.stat().st_size < 0.4 * model.stat().st_size


def test_int8_without_calibration_is_refused(tmp_path: Path) -> None:
    done = compile_int8(convolutions(tmp_path / "m.onnx"), tmp_path / "o")
    assert done.status == ExitCode.USAGE
    assert done.err.startswith("error[E414]: ")
    assert not list(tmp_path.glob("o/m-*"))


def test_a_dynamic_shape_is_refused_and_a_fixed_one_taken(tmp_path: Path) -> None:
    model, data = convolutions(tmp_path / "m.onnx", batch="n"), normal((24, 3, 12, 20))
    done = compile_int8(model, tmp_path / "o", image=data)
    assert (done.status, done.err[:12]) == (ExitCode.USAGE, "error[E205]:")
    assert "--input image=" in done.err
    done = compile_int8(model, tmp_path / "o", "--input", "image=1x3x12x20", image=data)
    assert sqnr_db(published(done, tmp_path / "o"))["y"] > 30


def test_an_input_that_the_configuration_cannot_name(tmp_path: Path) -> None:
    model = convolutions(tmp_path / "m.onnx", name="image:0")
    done = compile_int8(model, tmp_path / "o", **{"image:0": normal((24, 3, 12, 20))})
    assert (done.status, done.err[:12]) == (ExitCode.BUILD_FAILED, "error[E204]:")


@pytest.mark.parametrize("words", [("quant=weight",), ("quant=4",)], ids=["weight", "none"])
def test_other_kinds_of_quantisation_are_refused(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = compile_int8(convolutions(tmp_path / "m.onnx"), tmp_path / "o", "-X", *words)
    assert (done.status, done.err[:12]) == (ExitCode.USAGE, "error[E205]:")


def test_dynamic_quantisation_is_for_int8(tmp_path: Path) -> None:
    model = products(tmp_path / "m.onnx")
    done = infc("compile", model, "-t", "mindspore-lite", "-o", tmp_path, "-X", "quant=dynamic")
    assert (done.status, done.err[:12]) == (ExitCode.USAGE, "error[E205]:")


def test_fp16_halves_the_weights(tmp_path: Path) -> None:
    model, sizes = products(tmp_path / "m.onnx"), []
    for precision in ("fp32", "fp16"):
        words = ("-t", "mindspore-lite", "--precision", precision, "--loader", "none")
        done = infc("compile", model, *words, "-o", tmp_path / precision)
        bundle = published(done, tmp_path / precision)
        sizes.append(bundle.entry.stat().st_size)
        assert (sqnr_db(bundle)["y"] or np.inf) > 60
    assert sizes[1] < 0.6 * sizes[0]


@pytest.mark.slow
@pytest.mark.models
def test_int8_ultraface_finds_the_same_faces(tmp_path: Path, models: Path) -> None:
    """On 8 photos, calibrated on 16 others."""
    import onnxruntime
    from PIL import Image

    source = models / "ultraface" / "version-RFB-320.onnx"
    photos = sorted((models / "ultraface" / "photos").glob("*.jpg"), key=lambda p: int(p.stem))

    def prepared(photo: Path) -> Any:
        picture = Image.open(photo).convert("RGB").resize((320, 240), Image.Resampling.BILINEAR)
        pixels = (np.asarray(picture, np.float32) - 127) / 128
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    np.savez(tmp_path / "calibration.npz", input=np.stack([prepared(p) for p in photos[:16]]))
    done = infc(
        *("compile", source, "-t", "mindspore-lite", "-o", tmp_path / "o", "--loader", "none"),
        *("--precision", "int8", "--calibration", tmp_path / "calibration.npz"),
    )
    bundle = published(done, tmp_path / "o")
    pairs = []
    for photo in photos[16:]:
        save_tensors(tmp_path / photo.stem, {"input": prepared(photo)[None]})
        pairs.append([str(tmp_path / photo.stem), str(tmp_path / f"{photo.stem}-answers")])
    target = Target.from_json(bundle.manifest["target"])
    payload = {
        "entry": str(bundle.entry),
        "target": target.to_json(),
        "threads": 1,
        "output_types": {"scores": "float32", "boxes": "float32"},
        "sets": pairs,
    }
    call = workers.Call(
        "", "run", payload, tmp_path / "run", tmp_path / "log", "int8", end.worker(target)
    )
    workers.call(call, WorkerLimits(timeout_s=300))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(source), options)
    found = matched = expected = 0
    for feeds, answers in pairs:
        reference = session.run(["scores", "boxes"], load_tensors(Path(feeds)))
        ours = load_tensors(Path(answers))
        want, have = faces(*reference), faces(ours["scores"], ours["boxes"])
        expected, found = expected + len(want), found + len(have)
        matched += sum(any(iou(w, h) > 0.8 for h in have) for w in want)
    assert expected > 20
    assert matched >= 0.95 * expected
    assert found <= 1.05 * expected


def faces(scores: Any, boxes: Any) -> list[Any]:
    """The boxes of the faces, greedily, best score first."""
    order = np.argsort(-scores[0, :, 1], kind="stable")
    kept: list[Any] = []
    for i in order[scores[0, order, 1] > SCORE]:
        if all(iou(boxes[0, i], other) <= OVERLAP for other in kept):
            kept.append(boxes[0, i])
    return kept


def iou(a: Any, b: Any) -> float:
    shared = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return float(shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared))
