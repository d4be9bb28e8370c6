"""Samples from arrays: shapes, types, batches, resuming, fingerprints, warnings."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from infc.calibration.data import Samples, open_samples, reopen
from infc.calibration.remarks import FEW
from infc.diagnostics import InfcError
from infc.preprocessing import Preprocess
from infc.request import CalibrationOptions
from infc.signature import TensorSpec

IMAGE = TensorSpec("image", "float32", (1, 3, 4, 5))
RNG = np.random.default_rng(0)


def samples(
    data: Path | str, *inputs: TensorSpec, spec: str = "", folder: Path | None = None, **more: Any
) -> Samples:
    preprocess = Preprocess.parse(spec) if spec else None
    options = CalibrationOptions(str(data), preprocess=preprocess, **more)
    return open_samples(options, inputs or (IMAGE,), folder)


def code_of(data: Path | str, *inputs: TensorSpec, **more: Any) -> tuple[str, str]:
    """The code and the text of what opening or reading `data` raises."""
    with pytest.raises(InfcError) as caught:
        list(samples(data, *inputs, **more))
    (diagnostic,) = caught.value.diagnostics
    return diagnostic.code, diagnostic.render()


def normal(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
@pytest.mark.parametrize("shape", [(7, 3, 4, 5), (7, 1, 3, 4, 5)])
def test_stacked_npz(save: Any, shape: tuple[int, ...], tmp_path: Path) -> None:
    stack = normal(*shape)
    save(tmp_path / "x.npz", image=stack, labels=np.arange(7))
    read = samples(tmp_path / "x.npz")
    assert (read.kind, read.count, read.batch) == ("npz", 7, 1)
    feeds = list(read)
    assert all(list(feed) == ["image"] for feed in feeds)
    np.testing.assert_array_equal([f["image"][0] for f in feeds], stack.reshape(7, 3, 4, 5))


def test_a_single_npy_is_a_stack(tmp_path: Path) -> None:
    stack = normal(3, 3, 4, 5)
    np.save(tmp_path / "x.npy", stack)
    feeds = list(samples(tmp_path / "x.npy"))
    np.testing.assert_array_equal(np.concatenate([f["image"] for f in feeds]), stack)


def test_fortran_order_is_read_as_what_it_means(tmp_path: Path) -> None:
    stack = normal(4, 7).T
    assert not stack.flags.c_contiguous
    vector = TensorSpec("x", "float32", ("batch", 4))
    np.save(tmp_path / "x.npy", stack)
    read = [f["x"] for f in samples(tmp_path / "x.npy", vector)]
    np.testing.assert_array_equal(np.concatenate(read), stack)
    np.savez_compressed(tmp_path / "x.npz", x=stack)
    code, text = code_of(tmp_path / "x.npz", vector)
    assert code == "E402"
    assert "ascontiguousarray" in text
    (tmp_path / "folder").mkdir()
    np.save(tmp_path / "folder/0.npy", stack[:4])
    square = TensorSpec("x", "float32", (4, 4))
    np.testing.assert_array_equal(next(iter(samples(tmp_path / "folder", square)))["x"], stack[:4])


def test_big_endian_arrays(tmp_path: Path) -> None:
    stack = normal(2, 3, 4, 5)
    np.save(tmp_path / "x.npy", stack.astype(">f4"))
    feeds = list(samples(tmp_path / "x.npy"))
    assert feeds[0]["image"].dtype == np.dtype("<f4")
    np.testing.assert_array_equal(feeds[1]["image"][0], stack[1])


def test_arrays_without_names_go_in_order(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", normal(2, 3), normal(2, 4))
    a, b = TensorSpec("a", "float32", (1, 3)), TensorSpec("b", "float32", (1, 4))
    assert {k: v.shape for k, v in next(iter(samples(tmp_path / "x.npz", a, b))).items()} == {
        "a": (1, 3),
        "b": (1, 4),
    }


def test_folder_of_differently_shaped_arrays(tmp_path: Path) -> None:
    free = TensorSpec("image", "float32", (1, 3, "height", "width"))
    shapes = [(3, 4, 5), (1, 3, 9, 2), (3, 1, 1)]
    (tmp_path / "deeper").mkdir()
    for i, shape in enumerate(shapes):
        np.save(tmp_path / "deeper" / f"{i}.npy", normal(*shape))
    (tmp_path / ".hidden.npy").write_bytes(b"no array")
    read = [f["image"].shape for f in samples(tmp_path, free)]
    assert read == [(1, 3, 4, 5), (1, 3, 9, 2), (1, 3, 1, 1)]


def test_folder_of_npz_with_several_inputs(tmp_path: Path) -> None:
    ids = TensorSpec("ids", "int64", ("batch", "length"))
    mask = TensorSpec("mask", "bool", ("batch", "length"))
    for n in (3, 5):
        np.savez(tmp_path / f"{n}.npz", ids=np.arange(n, dtype=np.int32), mask=np.ones(n, np.uint8))
    feeds = list(samples(tmp_path, ids, mask))
    assert [(f["ids"].dtype, f["mask"].dtype, f["ids"].shape) for f in feeds] == [
        (np.int64, np.bool_, (1, 3)),
        (np.int64, np.bool_, (1, 5)),
    ]
    np.savez(tmp_path / "7.npz", ids=np.arange(7), mask=np.ones(6, bool))
    code, text = code_of(tmp_path, ids, mask)
    assert code == "E403"
    assert "`length` is 7 in `ids` and 6 in `mask`" in text


def test_dimensions_of_one_may_be_left_out(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", normal(6, 257))
    spec = TensorSpec("x", "float32", (1, 1, 257))
    assert [f["x"].shape for f in samples(tmp_path / "x.npy", spec)] == [(1, 1, 257)] * 6


def test_a_fixed_batch_is_filled(tmp_path: Path) -> None:
    stack = normal(11, 3, 4, 5)
    np.save(tmp_path / "x.npy", stack)
    four = TensorSpec("image", "float32", (4, 3, 4, 5))
    read = samples(tmp_path / "x.npy", four)
    assert (read.count, read.batch) == (2, 4)
    got = np.concatenate([f["image"] for f in read])
    np.testing.assert_array_equal(got, stack[[i * 11 // 8 for i in range(8)]])
    code, text = code_of(tmp_path / "x.npy", TensorSpec("image", "float32", (16, 3, 4, 5)))
    assert code == "E401"
    assert "there are 11 samples, and one run of the model takes 16" in text


def test_batches_on_request(tmp_path: Path) -> None:
    free = TensorSpec("image", "float32", ("batch", 3, 4, 5))
    for shape in ((9, 3, 4, 5), (9, 1, 3, 4, 5)):
        stack = normal(*shape)
        np.save(tmp_path / "x.npy", stack)
        read = samples(tmp_path / "x.npy", free, batch=3)
        assert (read.count, read.batch) == (3, 3)
        got = np.concatenate([f["image"] for f in read])
        np.testing.assert_array_equal(got, stack.reshape(9, 3, 4, 5))


def test_samples_are_spread_evenly(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(100, dtype=np.float32)[:, None])
    spec = TensorSpec("x", "float32", ("batch", 1))
    read = [float(f["x"][0, 0]) for f in samples(tmp_path / "x.npy", spec, samples=4)]
    assert read == [0, 25, 50, 75]
    assert samples(tmp_path / "x.npy", spec, samples=None).count == 100


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
@pytest.mark.parametrize("at", [0, 1, 5, 9, 10])
def test_resuming_gives_the_rest(save: Any, at: int, tmp_path: Path) -> None:
    save(tmp_path / "x.npz", image=normal(23, 3, 4, 5))
    read = samples(tmp_path / "x.npz", samples=10)
    every = [f["image"] for f in read]
    rest = [f["image"] for f in read.start(at)]
    assert len(rest) == 10 - at
    for a, b in zip(every[at:], rest, strict=True):
        np.testing.assert_array_equal(a, b)


def test_reopened_in_another_process_from_json(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", image=RNG.integers(0, 255, (8, 3, 4, 5)).astype(np.uint8))
    here = samples("x.npz", folder=tmp_path, spec="mean=1:2:3,scale=1/128,layout=nchw", samples=5)
    program = (
        "import json, sys; from infc.calibration.data import reopen\n"
        "s = reopen(json.load(sys.stdin))\n"
        "print(s.fingerprint, s.count, sum(float(f['image'].sum()) for f in s))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        input=json.dumps(here.to_json()),
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    total = sum(float(f["image"].sum()) for f in here)
    assert done.stdout.split() == [str(here.fingerprint), "5", repr(total)]


def test_memory_does_not_grow_with_the_samples(tmp_path: Path) -> None:
    wide = TensorSpec("x", "float32", (1, 1 << 16))
    np.savez(tmp_path / "s.npz", x=np.ones((256, 1 << 16), np.float32))
    np.savez_compressed(tmp_path / "c.npz", x=np.ones((256, 1 << 16), np.float32))
    for file in ("s.npz", "c.npz"):
        read = samples(tmp_path / file, wide)
        next(iter(read))
        tracemalloc.start()
        assert sum(1 for _ in read) == 256
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 << 20, f"{file}: {peak} bytes for samples of {1 << 18}"


def test_the_fingerprint_is_the_contents(tmp_path: Path) -> None:
    stack = normal(4, 3, 4, 5)
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", image=stack)
    base = samples(tmp_path / "a.npz").fingerprint
    assert base == samples(tmp_path / "b.npz").fingerprint
    assert base == samples("b.npz", folder=tmp_path).fingerprint
    others = [
        samples(tmp_path / "a.npz", spec="scale=2"),
        samples(tmp_path / "a.npz", samples=3),
        samples(tmp_path / "a.npz", TensorSpec("image", "float16", (1, 3, 4, 5))),
        samples(tmp_path / "a.npz", TensorSpec("image", "float32", (2, 3, 4, 5))),
    ]
    stack[1, 2, 3, 4] += 1
    np.savez(tmp_path / "b.npz", image=stack)
    prints = {base, samples(tmp_path / "b.npz").fingerprint, *(o.fingerprint for o in others)}
    assert len(prints) == 6
    assert base is not None


def test_a_folders_fingerprint_is_of_the_samples_used(tmp_path: Path) -> None:
    for i in range(4):
        np.save(tmp_path / f"{i}.npy", normal(3, 4, 5))
    two = samples(tmp_path, samples=2).fingerprint
    np.save(tmp_path / "1.npy", normal(3, 4, 5))
    assert samples(tmp_path, samples=2).fingerprint == two
    np.save(tmp_path / "2.npy", normal(3, 4, 5))
    assert samples(tmp_path, samples=2).fingerprint != two


def test_uint8_pictures_are_scaled_per_channel(tmp_path: Path) -> None:
    stack = RNG.integers(0, 256, (3, 3, 4, 5)).astype(np.uint8)
    np.save(tmp_path / "x.npy", stack)
    spec = "range=1,mean=0.5:0.25:0,std=0.5:1:2"
    read = np.concatenate([f["image"] for f in samples(tmp_path / "x.npy", spec=spec)])
    mean = np.float32([0.5, 0.25, 0]).reshape(3, 1, 1)
    std = np.float32([0.5, 1, 2]).reshape(3, 1, 1)
    np.testing.assert_allclose(read, (stack / 255 - mean) / std, rtol=1e-5, atol=1e-6)
    code, text = code_of(tmp_path / "x.npy", spec="mean=1:2,layout=nchw")
    assert code == "E110"
    assert "2 channels" in text


@pytest.mark.parametrize(
    ("source", "dtype", "code"),
    [
        (np.float64([0.1, 2]), "float32", None),
        (np.float16([0.5, 2]), "float32", None),
        (np.uint8([0, 255]), "float32", None),
        (np.array([True, False]), "float32", None),
        (np.int64([1, 127]), "int8", None),
        (np.float32([0.5, 3]), "bfloat16", None),
        (np.array([0.5, 3], ml_dtypes.bfloat16), "bfloat16", None),
        (np.int64([1, 128]), "int8", "E404"),
        (np.int8([-1, 2]), "uint8", "E404"),
        (np.int64([0, 2]), "bool", "E404"),
        (np.float32([1, 2]), "int64", "E404"),
        (np.complex64([1, 2]), "float32", "E404"),
        (np.array(["a", "b"]), "float32", "E404"),
        (np.float32([1, np.nan]), "float32", "E406"),
        (np.float64([1, 1e300]), "float32", "E406"),
        (np.float32([1, -np.inf]), "float16", "E406"),
    ],
    ids=str,
)
def test_element_types(
    source: np.ndarray[Any, Any], dtype: str, code: str | None, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", source)
    spec = TensorSpec("x", dtype, ("batch",))
    if code is None:
        read = [f["x"] for f in samples(tmp_path / "x.npy", spec)]
        assert {str(r.dtype) for r in read} == {dtype}
        np.testing.assert_allclose(
            np.concatenate(read).astype(np.float64), source.astype(np.float64), rtol=1e-6
        )
    else:
        assert code_of(tmp_path / "x.npy", spec)[0] == code


def test_nan_is_named_by_sample_and_element(tmp_path: Path) -> None:
    stack = normal(9, 3, 4, 5)
    stack[7, 2, 0, 1] = np.nan
    np.savez(tmp_path / "x.npz", image=stack)
    code, text = code_of("x.npz", folder=tmp_path)
    assert code == "E406"
    assert "--> x.npz:image[7]" in text
    assert "1 of 60 values for `image` are NaN or Inf, the first at [2, 0, 1]" in text


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((2, 4, 5, 3), "the channels come last"),
        ((2, 3, 5, 5), "one sample is 3x4x5, or 1x3x4x5"),
        ((2, 7), "one sample is 3x4x5"),
    ],
)
def test_wrong_shapes(shape: tuple[int, ...], hint: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", image=normal(*shape))
    code, text = code_of(tmp_path / "x.npz")
    assert code == "E403"
    assert hint in text
    assert "`image` takes 1x3x4x5" in text


def test_shapes_stay_within_the_bounds(tmp_path: Path) -> None:
    bounded = TensorSpec("x", "float32", (1, "n"), {"n": (2, 4, 8)})
    for n in (2, 8, 9):
        np.save(tmp_path / f"{n}.npy", normal(n))
    code, text = code_of(tmp_path, bounded)
    assert code == "E403"
    assert "9.npy" in text
    assert "n from 2 to 8" in text


def test_missing_inputs_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", imgae=normal(2, 3, 4, 5))
    code, text = code_of(tmp_path / "x.npz")
    assert code == "E405"
    assert "did you mean `image`?" in text
    np.savez(tmp_path / "y.npz", a=normal(2, 3), b=normal(3, 3))
    a, b = (TensorSpec(n, "float32", ("batch", 3)) for n in "ab")
    assert code_of(tmp_path / "y.npz", a, b)[0] == "E403"
    np.save(tmp_path / "z.npy", normal(2, 3))
    assert code_of(tmp_path / "z.npy", a, b)[0] == "E405"


def test_inputs_without_a_batch_must_agree_within_one(tmp_path: Path) -> None:
    x, k = TensorSpec("x", "float32", ("batch", 3)), TensorSpec("k", "float32", ())
    np.savez(tmp_path / "same.npz", x=normal(4, 3), k=np.ones(4, np.float32))
    read = list(samples(tmp_path / "same.npz", x, k, batch=2))
    assert [f["x"].shape + f["k"].shape for f in read] == [(2, 3), (2, 3)]
    np.savez(tmp_path / "other.npz", x=normal(4, 3), k=np.arange(4, dtype=np.float32))
    assert code_of(tmp_path / "other.npz", x, k, batch=2)[0] == "E403"


@pytest.mark.parametrize("count", [1, 8, FEW - 1, FEW])
def test_few_samples_are_counted(count: int, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", normal(count, 3, 4, 5))
    read = samples(tmp_path / "x.npy")
    codes = [(w.code, w.severity) for w in read.warnings]
    assert codes == ([("E409", "warning")] if count < FEW else [])
    if count == 8:
        assert "only 8 samples: about 22 in 100 real ones" in read.warnings[0].message


def test_the_chance_that_few_warns_of_is_what_happens() -> None:
    """2 / (n + 1), for a distribution that is nothing like uniform."""
    draws = np.random.default_rng(1).lognormal(size=(200_000, 9))
    seen, new = draws[:, :8], draws[:, 8]
    outside = (new > seen.max(1)) | (new < seen.min(1))
    assert abs(outside.mean() - 2 / 9) < 0.005


def test_constant_inputs_are_warned_of_once_all_are_read(tmp_path: Path) -> None:
    x, state = TensorSpec("x", "float32", (1, 3)), TensorSpec("state", "float32", (1, 2))
    constant = np.tile(np.float32([1, 2]), (30, 1))
    np.savez(tmp_path / "x.npz", x=normal(30, 3), state=constant)
    read = samples(tmp_path / "x.npz", x, state)
    assert read.warnings == ()
    list(itertools.islice(read, 5))
    assert read.warnings == ()
    list(read)
    (warning,) = read.warnings
    assert warning.code == "E408"
    assert "`state` is the same in every sample" in warning.message
    np.savez(tmp_path / "x.npz", x=normal(30, 3), state=constant * 0)
    read = samples(tmp_path / "x.npz", x, state)
    list(read)
    assert "`state` is always 0:" in read.warnings[0].message


def test_random_only_in_words_and_with_a_warning(tmp_path: Path) -> None:
    free = TensorSpec("x", "float32", ("batch", 3, "n"), {"n": (4, 6, 8)})
    read = samples("random", free, samples=25)
    assert [w.code for w in read.warnings] == ["E410"]
    feeds = [f["x"] for f in read]
    assert {f.shape for f in feeds} == {(2, 3, 6)}
    assert abs(np.concatenate(feeds).std() - 1) < 0.1
    np.testing.assert_array_equal(next(read.start(7))["x"], feeds[7])
    assert not np.array_equal(feeds[0], feeds[1])
    assert read.fingerprint != samples("random", free, samples=25, seed=1).fingerprint
    assert code_of("random", free, spec="mean=3")[0] == "E110"


def test_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "mixed").mkdir()
    np.save(tmp_path / "mixed/0.npy", normal(3, 4, 5))
    (tmp_path / "mixed/0.jpg").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/labels.txt").write_text("cat")
    np.save(tmp_path / "none.npy", normal(0, 3, 4, 5))
    (tmp_path / "f.py").write_text("raise SystemExit(3)")
    texts = {
        name: code_of(name, folder=tmp_path)
        for name in ("nowhere", "empty", "mixed", "other", "none.npy", "f.py", "g.py:f", "x" * 9999)
    }
    assert {code for code, _ in texts.values()} == {"E401"}
    assert "it is empty" in texts["empty"][1]
    assert "1 arrays and 1 photos" in texts["mixed"][1]
    assert "only `labels.txt`" in texts["other"][1]
    assert "there is no sample" in texts["none.npy"][1]
    assert "`f.py:function`" in texts["f.py"][1]


def test_arrays_are_no_photos(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", normal(2, 3, 4, 5))
    code, text = code_of(tmp_path / "x.npy", spec="resize=4x5,scale=2")
    assert code == "E110"
    assert "`resize=` cannot be done to arrays" in text


def test_reopen_is_the_inverse() -> None:
    read = samples("random", IMAGE, samples=3, seed=4, batch=2)
    assert reopen(read.to_json()).to_json() == read.to_json()
