"""Photos as samples: what each key of the spec does, and what is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from infc.calibration.data import open_samples
from infc.diagnostics import ExitCode, InfcError
from infc.preprocessing import Preprocess
from infc.request import CalibrationOptions
from infc.signature import TensorSpec

NCHW = TensorSpec("image", "float32", ("batch", 3, "height", "width"))
GRAY = TensorSpec("image", "float32", ("batch", 1, "height", "width"))
RNG = np.random.default_rng(0)
Array = np.ndarray[Any, Any]


def read(folder: Path, spec: str, model: TensorSpec = NCHW) -> list[Array]:
    options = CalibrationOptions(str(folder), preprocess=Preprocess.parse(spec) if spec else None)
    return [feed[model.name] for feed in open_samples(options, (model,))]


def one(folder: Path, spec: str, model: TensorSpec = NCHW) -> Array:
    (only,) = read(folder, spec, model)
    return only


def code_of(folder: Path, spec: str, model: TensorSpec = NCHW) -> tuple[str, str]:
    with pytest.raises(InfcError) as caught:
        read(folder, spec, model)
    (diagnostic,) = caught.value.diagnostics
    return diagnostic.code, diagnostic.render()


@pytest.fixture
def pixels(tmp_path: Path) -> Array:
    """A photo of 6x8 pixels in `tmp_path`, without loss."""
    array = RNG.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    Image.fromarray(array).save(tmp_path / "photo.png")
    return array


def test_pixels_as_they_are(pixels: Array, tmp_path: Path) -> None:
    got = one(tmp_path, "color=rgb")
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, pixels.transpose(2, 0, 1)[None])


def test_bgr_scaled_and_channels_last(pixels: Array, tmp_path: Path) -> None:
    model = TensorSpec("image", "float32", (1, 6, 8, 3))
    got = one(tmp_path, "color=bgr,mean=1:2:3,std=4,scale=1/128", model)
    wanted = (pixels[:, :, ::-1] - np.float32([1, 2, 3])) / 4 / 128
    np.testing.assert_allclose(got[0], wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(got, one(tmp_path, "color=bgr,mean=1:2:3,std=4,scale=1/128,layout=nhwc", model))  # fmt: skip # noqa: E501


def test_the_models_own_uint8_input(pixels: Array, tmp_path: Path) -> None:
    model = TensorSpec("image", "uint8", (1, 6, 8, 3))
    np.testing.assert_array_equal(one(tmp_path, "color=rgb", model)[0], pixels)
    assert code_of(tmp_path, "mean=127", model)[0] == "E404"


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((1, 1, 6, 8), (1, 1, 6, 8)), ((1, 6, 8, 1), (1, 6, 8, 1)), (("n", "h", "w"), (1, 6, 8))],
)
def test_gray(
    shape: tuple[Any, ...], expected: tuple[int, ...], pixels: Array, tmp_path: Path
) -> None:
    got = one(tmp_path, "color=gray", TensorSpec("image", "float32", shape))
    assert got.shape == expected
    luma = pixels @ np.float64([0.299, 0.587, 0.114])
    assert np.abs(got.reshape(6, 8) - luma).max() <= 0.51


def test_an_input_without_a_batch(pixels: Array, tmp_path: Path) -> None:
    model = TensorSpec("image", "float32", (3, 6, 8))
    np.testing.assert_array_equal(one(tmp_path, "color=rgb", model), pixels.transpose(2, 0, 1))


def test_stretched_to_a_size(pixels: Array, tmp_path: Path) -> None:
    assert one(tmp_path, "resize=3x5").shape == (1, 3, 3, 5)
    wanted = pixels.reshape(3, 2, 4, 2, 3).mean((1, 3))  # a box over 2x2 pixels
    got = one(tmp_path, "resize=3x4,filter=box")[0].transpose(1, 2, 0)
    assert np.abs(got - wanted).max() <= 1  # Pillow rounds after each direction


def test_opencv_linear_looks_at_four_pixels(pixels: Array, tmp_path: Path) -> None:
    """INTER_LINEAR: pixel centres at (i + 0.5) * step - 0.5, no average when shrinking."""

    def linear(array: Array, size: int) -> Array:
        at = (np.arange(size) + 0.5) * len(array) / size - 0.5
        low = np.floor(at).astype(int)
        part = (at - low).reshape(-1, *[1] * (array.ndim - 1))
        a, b = (array[(low + i).clip(0, len(array) - 1)] for i in (0, 1))
        return a * (1 - part) + b * part

    wide = np.random.default_rng(1).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    Image.fromarray(wide).save(tmp_path / "photo.png")
    for size in ((24, 32), (90, 120), (7, 80)):
        wanted = linear(linear(wide.astype(np.float64), size[0]).swapaxes(0, 1), size[1])
        got = one(tmp_path, f"resize={size[0]}x{size[1]},filter=opencv-linear")
        assert np.abs(got[0].transpose(2, 1, 0) - wanted).max() <= 0.501


def test_letterbox_keeps_all_of_it(pixels: Array, tmp_path: Path) -> None:
    got = one(tmp_path, "resize=12x8,fit=letterbox,pad=114")[0].transpose(1, 2, 0)
    np.testing.assert_array_equal(got[3:9], pixels)
    assert (got[:3] == 114).all()
    assert (got[9:] == 114).all()
    gray = one(tmp_path, "resize=12x8,fit=letterbox,pad=9,color=gray", GRAY)
    assert (gray[0, 0, 0] == 9).all()


def test_cover_fills_and_cuts_the_middle(pixels: Array, tmp_path: Path) -> None:
    got = one(tmp_path, "resize=6x4,fit=cover")[0].transpose(1, 2, 0)
    np.testing.assert_array_equal(got, pixels[:, 2:6])


def test_shorter_side_and_centre_as_imagenet_does(pixels: Array, tmp_path: Path) -> None:
    assert one(tmp_path, "resize=12").shape == (1, 3, 12, 16)
    got = one(tmp_path, "resize=6,crop=4")[0].transpose(1, 2, 0)
    np.testing.assert_array_equal(got, pixels[1:5, 2:6])
    code, text = code_of(tmp_path, "crop=9x9")
    assert code == "E403"
    assert "6x8, smaller than `crop=9x9`" in text


def test_exif_orientation_is_obeyed(tmp_path: Path) -> None:
    array = np.zeros((8, 16, 3), np.uint8)
    array[:, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    Image.fromarray(array).save(tmp_path / "a.jpg", exif=exif, quality=95)
    got = one(tmp_path, "color=gray", TensorSpec("i", "float32", (1, 1, 16, 8)))
    assert got[0, 0, :7].min() > 240
    assert got[0, 0, 9:].max() < 15


def test_palettes_transparency_and_16_bits(tmp_path: Path) -> None:
    array = RNG.integers(0, 256, (4, 4, 4)).astype(np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png")
    deep = (array[..., 0].astype(np.uint16) << 8) + 77
    Image.fromarray(deep).save(tmp_path / "b.png")
    Image.fromarray(array[..., :3]).quantize(16).save(tmp_path / "c.png")
    rgba, sixteen, palette = read(tmp_path, "color=rgb")
    np.testing.assert_array_equal(rgba[0], array[..., :3].transpose(2, 0, 1))
    np.testing.assert_array_equal(sixteen[0, 1], array[..., 0])
    assert palette.shape == (1, 3, 4, 4)


def test_photos_need_a_spec_and_one_input(pixels: Array, tmp_path: Path) -> None:
    code, text = code_of(tmp_path, "")
    assert code == "E110"
    assert "resize=240x320,color=rgb,mean=127,scale=1/128,layout=nchw" in text
    options = CalibrationOptions(str(tmp_path), preprocess=Preprocess.parse("color=rgb"))
    with pytest.raises(InfcError, match="E405"):
        open_samples(options, (NCHW, TensorSpec("scale", "float32", (1,))))


def test_wrong_size_says_what_to_do(pixels: Array, tmp_path: Path) -> None:
    code, text = code_of(tmp_path, "color=rgb", TensorSpec("image", "float32", (1, 3, 5, 5)))
    assert code == "E403"
    assert "photo.png" in text
    assert "a sample is 3x6x8, but `image` takes 1x3x5x5" in text
    assert code_of(tmp_path, "layout=chw")[0] == "E403"
    assert code_of(tmp_path, "color=rgb", TensorSpec("x", "float32", (1, 42)))[0] == "E403"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".ppm", ".webp"])
def test_damaged_photos_are_named(suffix: str, tmp_path: Path) -> None:
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(
        tmp_path / f"a{suffix}"
    )
    assert one(tmp_path, "color=rgb").shape == (1, 3, 64, 64)
    whole = (tmp_path / f"a{suffix}").read_bytes()
    for data in (whole[: len(whole) // 2], b"", b"<html>not found</html>", whole[:20] + bytes(99)):
        (tmp_path / f"a{suffix}").write_bytes(data)
        code, text = code_of(tmp_path, "color=rgb")
        assert code == "E402"
        assert f"a{suffix}" in text


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size < 100_000
    code, text = code_of(tmp_path, "resize=8x8")
    assert code == "E402"
    assert "DecompressionBomb" in text


def test_a_sliver_does_not_become_a_wall(tmp_path: Path) -> None:
    Image.new("L", (60_000, 1)).save(tmp_path / "a.png")
    assert code_of(tmp_path, "resize=5000")[0] == "E403"


def test_postscript_is_never_started(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    )
    code, text = code_of(tmp_path, "color=rgb")
    assert code == "E402"
    assert "UnidentifiedImageError" in text


def test_without_pillow(pixels: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "infc.calibration.images.find_spec", lambda name: None if name == "PIL" else find(name)
    )
    with pytest.raises(InfcError) as caught:
        read(tmp_path, "color=rgb")
    assert caught.value.exit_code == ExitCode.TOOLCHAIN_MISSING
    assert "-m pip install 'pillow>=11'" in caught.value.diagnostics[0].help


@pytest.mark.parametrize(
    ("spec", "warned"),
    [
        ("mean=0.485:0.456:0.406,std=0.229:0.224:0.225", True),
        ("range=1,mean=0.485:0.456:0.406,std=0.229:0.224:0.225", False),
        ("mean=123.7:116.3:103.5,std=58.4:57.1:57.4", False),
        ("std=0.5,scale=1/255", False),
    ],
)
def test_numbers_for_pixels_up_to_1(spec: str, warned: bool, pixels: Array, tmp_path: Path) -> None:
    options = CalibrationOptions(str(tmp_path), preprocess=Preprocess.parse(spec))
    codes = [w.code for w in open_samples(options, (NCHW,)).warnings]
    assert codes == ["E415"] * warned + ["E409"]


@pytest.mark.models
def test_ultraface_photos(models: Path) -> None:
    model = TensorSpec("input", "float32", (1, 3, 240, 320))
    spec = Preprocess.parse("resize=240x320,color=rgb,mean=127,scale=1/128,layout=nchw")
    options = CalibrationOptions(str(models / "ultraface/photos"), preprocess=spec)
    samples = open_samples(options, (model,))
    feeds = [feed["input"] for feed in samples]
    assert (samples.count, len(feeds)) == (24, 24)
    assert {f.shape for f in feeds} == {(1, 3, 240, 320)}
    assert min(f.min() for f in feeds) == np.float32(-127 / 128)
    assert max(f.max() for f in feeds) == 1
    assert samples.warnings == ()
    with Image.open(models / "ultraface/photos/1.jpg") as photo:
        pixels = np.asarray(photo.convert("RGB").resize((320, 240), Image.Resampling.BILINEAR))
    wanted = ((pixels - np.float32(127)) / 128).transpose(2, 0, 1)
    np.testing.assert_allclose(feeds[0][0], wanted, atol=1e-6)


@pytest.mark.models
def test_fastestdet_photos(models: Path) -> None:
    model = TensorSpec("input.1", "float32", (1, 3, 352, 352))
    folder = models / "fastestdet/photos"
    feeds = read(folder, "resize=352x352,color=bgr,scale=1/255,filter=opencv-linear", model)
    assert len(feeds) == 5
    assert all(f.min() >= 0 and f.max() <= 1 for f in feeds)
    rgb = read(folder, "resize=352x352,color=rgb,scale=1/255,filter=opencv-linear", model)
    np.testing.assert_array_equal(feeds[2], rgb[2][:, ::-1])
