"""What `scripts/bench int8` measures on: models, data to calibrate on, other data to judge by.

    digits          the example's CNN; calibrated on training images, judged on held-out ones
    hand_keypoint   300 of the 4,450 labelled rows; judged on all of them, as the issue's figure is
    autoencoder     MLPerf Tiny's anomaly detection: 5 frames of 128 log-mel bands, 16 kHz, of
                    made-up machines (a hum with overtones, noise of some colour)
    resnet          MLPerf Tiny's image classification: pieces of photos, shrunk to 32 x 32
    rfb, slim       ultraface 320 x 240: 16 photos, and 8 others
    fastestdet      352 x 352: random pieces, mirrored or not, of 19 photos, and of 9 others
    dtln1, dtln2    made-up voices in noise, frame by frame as the two models work together,
                    states carried on; the inputs of either are recorded from the float models

Labels where there are any: accuracy. Detectors: the float model's boxes count as the truth.
Another seed gives other samples, made or drawn, and other photos to calibrate on; hand_keypoint and
digits are judged on the same rows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime
from int8_sounds import RATE, coloured, log_mel_frames, machine, voice

ROOT = Path(__file__).resolve().parent.parent
Array = np.ndarray[Any, Any]
Outputs = list[Array]
"""Of each output of a model, the results for every sample, stacked."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A model and its data, arrays by input with a sample in each row.

    `judge` makes figures in percent by name, more is better, of the float model's outputs and
    another's.
    """

    path: Path
    calibrate: dict[str, Array]
    test: dict[str, Array]
    judge: Callable[[Outputs, Outputs], dict[str, float]] | None = None


class Maker(Protocol):
    """Makes a subject of the real models and data in `models`; what it writes goes to `scratch`."""

    def __call__(self, models: Path, scratch: Path, seed: int = 0) -> Subject:
        """The subject with the samples of `seed`."""


def run(path: Path, data: dict[str, Array], plain: bool = False) -> Outputs:
    """The outputs for every row of `data`, in ONNX Runtime on one thread."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if plain:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return stacked(session.run(None, feed) for feed in feeds(data))


def feeds(data: dict[str, Array]) -> Iterator[dict[str, Array]]:
    """One sample after the other, each with a batch dimension of 1."""
    for i in range(len(next(iter(data.values())))):
        yield {name: rows[i : i + 1] for name, rows in data.items()}


def stacked(results: Any) -> Outputs:
    """The results of single samples, joined by output."""
    return [np.concatenate(rows) for rows in zip(*results, strict=True)]


def accuracy(labels: Array) -> Callable[[Outputs, Outputs], dict[str, float]]:
    """Of the first output's greatest class; and how many are those of the float model."""

    def judge(reference: Outputs, found: Outputs) -> dict[str, float]:
        answers = found[0].argmax(1)
        right, same = answers == labels, answers == reference[0].argmax(1)
        return {"accuracy": 100 * float(right.mean()), "same answers": 100 * float(same.mean())}

    return judge


def digits(models: Path, scratch: Path, seed: int = 0) -> Subject:
    sys.path.append(str(ROOT / "examples" / "digits"))
    import train

    pixels, held_out, _, labels = train.split()

    def images(rows: Array) -> Array:
        return (rows.reshape(-1, 1, 8, 8) / train.GREY_MAX).astype(np.float32)

    path = ROOT / "examples" / "digits" / "digits.onnx"
    some = drawn(range(len(pixels)), seed)[:300]
    data = {"image": images(pixels[some])}, {"image": images(held_out)}
    return Subject(path, *data, accuracy(labels))


def hand_keypoint(models: Path, scratch: Path, seed: int = 0) -> Subject:
    folder = models / "hand_keypoint"
    rows = np.loadtxt(folder / "keypoint.csv", delimiter=",", dtype=np.float32)
    path = keras(folder / "keypoint_classifier.hdf5", scratch)
    some = np.random.default_rng(seed).permutation(len(rows))[:300]
    data = {"x": rows[some, 1:]}, {"x": rows[:, 1:]}
    return Subject(path, *data, accuracy(rows[:, 0]))


def keras(source: Path, scratch: Path) -> Path:
    import keras_layers
    import onnx

    onnx.save(keras_layers.read(source), scratch / f"{source.stem}.onnx")
    return scratch / f"{source.stem}.onnx"


def autoencoder(models: Path, scratch: Path, seed: int = 0) -> Subject:
    rng = np.random.default_rng(seed)
    path = keras(models / "mlperf_tiny" / "ad01.h5", scratch)
    rows = [np.concatenate([log_mel_frames(machine(rng)) for _ in range(8)]) for _ in range(2)]
    return Subject(path, {"x": rows[0]}, {"x": rows[1]})


def photos(*folders: Path) -> list[Any]:
    from PIL import Image

    paths = [path for folder in folders for path in sorted((folder / "photos").iterdir())]
    return [Image.open(path).convert("RGB") for path in paths]


def piece(rng: Any, photo: Any, side: int, least: float) -> Array:
    """A random square of `photo`, at least the part `least` of its shorter side: H, W, C."""
    width = int(min(photo.size) * rng.uniform(least, 1))
    x, y = (int(rng.integers(0, extent - width + 1)) for extent in photo.size)
    pixels = np.asarray(photo.resize((side, side), box=(x, y, x + width, y + width)), np.float32)
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels


def drawn(rows: Sequence[Any], seed: int) -> list[Any]:
    """`rows` in an order of their own for each `seed`; as they are for 0."""
    order = np.random.default_rng(seed).permutation(len(rows)) if seed else range(len(rows))
    return [rows[i] for i in order]


def halves(images: list[Any], seed: int) -> tuple[list[Any], list[Any]]:
    """Two thirds to calibrate on, each third one to judge by."""
    images = drawn(images, seed)
    return [p for i, p in enumerate(images) if i % 3 < 2], images[2::3]


def resnet(models: Path, scratch: Path, seed: int = 0) -> Subject:
    rng = np.random.default_rng(seed)
    path = keras(models / "mlperf_tiny" / "pretrainedResnet.h5", scratch)
    parts = halves(photos(models / "fastestdet", models / "ultraface"), seed)
    data = [
        np.stack([piece(rng, part[i % len(part)], 32, 0.3) for i in range(200)]) for part in parts
    ]
    return Subject(path, {"x": data[0]}, {"x": data[1]})


def ultraface(version: str) -> Maker:
    def make(models: Path, scratch: Path, seed: int = 0) -> Subject:
        folder = models / "ultraface"
        data = []
        for part in halves(photos(folder), seed):
            pixels = np.stack([np.asarray(p.resize((320, 240)), np.float32) for p in part])
            rows = np.ascontiguousarray(((pixels - 127) / 128).transpose(0, 3, 1, 2))
            data.append({"input": rows})
        path = folder / f"version-{version}.onnx"
        return Subject(path, *data, detections(faces, 0.7))

    return make


def faces(outputs: Outputs, i: int) -> tuple[Array, Array, Array]:
    """Scores (K,), corners (K, 4) and classes (K,) of the sample `i`."""
    scores = outputs[0][i, :, 1]
    return scores, outputs[1][i], np.zeros(scores.size)


def fastestdet(models: Path, scratch: Path, seed: int = 0) -> Subject:
    rng = np.random.default_rng(seed)
    parts = halves(photos(models / "fastestdet", models / "ultraface"), seed)
    data = []
    for part, count in zip(parts, (64, 40), strict=True):
        pixels = [piece(rng, part[i % len(part)], 352, 0.6) for i in range(count)]
        rows = np.stack(pixels)[..., ::-1].transpose(0, 3, 1, 2) / np.float32(255)
        data.append({"input.1": np.ascontiguousarray(rows)})
    path = models / "fastestdet" / "FastestDet.onnx"
    return Subject(path, *data, detections(objects, 0.65))


def objects(outputs: Outputs, i: int) -> tuple[Array, Array, Array]:
    """As FastestDet's own test.py decodes it: objectness, box, 80 classes in each of 22 x 22."""
    rows = outputs[0][i].reshape(85, 22, 22).astype(np.float64)
    down, right = np.indices((22, 22))
    scores = np.maximum(rows[0], 0) ** 0.6 * np.maximum(rows[5:].max(0), 0) ** 0.4
    x, y = (right + np.tanh(rows[1])) / 22, (down + np.tanh(rows[2])) / 22
    w, h = (1 / (1 + np.exp(-rows[3:5]))) / 2
    corners = np.stack([x - w, y - h, x + w, y + h], -1).reshape(-1, 4)
    return scores.reshape(-1), corners, rows[5:].argmax(0).reshape(-1)


def detections(
    decode: Callable[[Outputs, int], tuple[Array, Array, Array]], threshold: float
) -> Callable[[Outputs, Outputs], dict[str, float]]:
    """F1 of the boxes above `threshold`, after suppression, that lie on one of the float model's.

    Two boxes match by the same class and an IoU above 0.5; each box matches at most once.
    """

    def found(outputs: Outputs, i: int) -> tuple[Array, Array]:
        scores, corners, classes = decode(outputs, i)
        order = [k for k in np.argsort(-scores, kind="stable") if scores[k] > threshold]
        kept: list[int] = []
        for k in order:
            same = [j for j in kept if classes[j] == classes[k]]
            if not same or overlap(corners[k], corners[same]).max() <= 0.3:
                kept.append(k)
        return corners[kept], classes[kept]

    def judge(reference: Outputs, outputs: Outputs) -> dict[str, float]:
        matched = count = 0
        for i in range(len(reference[0])):
            truth, kinds = found(reference, i)
            boxes, classes = found(outputs, i)
            count += len(truth) + len(boxes)
            free = np.ones(len(truth), bool)
            for box, kind in zip(boxes, classes, strict=True):
                fit = np.where(free & (kinds == kind), overlap(box, truth), 0)
                if fit.size and fit.max() > 0.5:
                    free[fit.argmax()] = False
                    matched += 1
        return {"detections": 200 * matched / count}

    return judge


def overlap(box: Array, others: Array) -> Array:
    """Intersection over union of corners (4,) with corners (K, 4)."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    area = (others[:, 2:] - others[:, :2]).prod(axis=1)
    return np.asarray(shared / ((box[2:] - box[:2]).prod() + area - shared))


def dtln(number: int) -> Maker:
    def make(models: Path, scratch: Path, seed: int = 0) -> Subject:
        parts = [recorded(models, 2 * seed + part)[number - 1] for part in (0, 1)]
        return Subject(models / "dtln" / f"model_{number}.onnx", *parts)

    return make


def recorded(models: Path, seed: int, seconds: float = 3.0) -> tuple[dict[str, Array], ...]:
    """The inputs of both models while they clean a made-up voice: frames of 512, every 128."""
    rng = np.random.default_rng(seed)
    sound = 0.1 * voice(rng, seconds) + 0.02 * coloured(rng, int(seconds * RATE))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    first, second = (
        onnxruntime.InferenceSession(models / "dtln" / f"model_{k}.onnx", options) for k in (1, 2)
    )
    states = [np.zeros((1, 2, 128, 2), np.float32) for _ in range(2)]
    taken: tuple[list[Any], list[Any]] = ([], [])
    for frame in np.lib.stride_tricks.sliding_window_view(sound, 512)[::128]:
        spectrum = np.fft.rfft(frame)
        size = np.abs(spectrum).astype(np.float32)[None, None]
        taken[0].append((size, states[0]))
        mask, states[0] = first.run(None, {"input_2": size, "input_3": states[0]})
        clean = np.fft.irfft(spectrum * mask[0, 0]).astype(np.float32)[None, None]
        taken[1].append((clean, states[1]))
        states[1] = second.run(None, {"input_4": clean, "input_5": states[1]})[1]
    names = ("input_2", "input_3"), ("input_4", "input_5")
    return tuple(
        {
            name: np.concatenate(rows)
            for name, rows in zip(pair, zip(*all_, strict=True), strict=True)
        }
        for pair, all_ in zip(names, taken, strict=True)
    )


SUBJECTS: dict[str, Maker] = {
    "digits": digits,
    "hand_keypoint": hand_keypoint,
    "autoencoder": autoencoder,
    "resnet": resnet,
    "rfb": ultraface("RFB-320"),
    "slim": ultraface("slim-320"),
    "fastestdet": fastestdet,
    "dtln1": dtln(1),
    "dtln2": dtln(2),
}
