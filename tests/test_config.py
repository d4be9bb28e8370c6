"""`--config FILE.toml` and the options of calibration, as the driver gets them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command import infc, write_model

from infc import driver
from infc.preprocessing import Preprocess
from infc.request import CalibrationOptions, Request


class CaughtError(Exception):
    pass


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """`requested(words...)` is the request that the driver is given."""
    seen: list[Request] = []

    def catch(request: Request, *_: object) -> None:
        seen.append(request)
        raise CaughtError

    monkeypatch.setattr(driver, "compile", catch)

    def run(*words: object) -> Request:
        done = infc("compile", "m.onnx", *words)
        assert seen, done.err
        return seen.pop()

    return run


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_calibration_options(requested: Any) -> None:
    assert requested().calibration is None
    assert requested("--calibration", "photos").calibration == CalibrationOptions("photos")
    words = (
        "--calibration photos --preprocess resize=8x9,mean=1/2 --calibration-samples all"
        " --calibration-batch 4 --method percentile --percentile 99.9"
    )
    assert requested(*words.split()).calibration == CalibrationOptions(
        data="photos",
        samples=None,
        preprocess=Preprocess(resize=(8, 9), mean=(0.5,)),
        method="percentile",
        percentile=99.9,
        batch=4,
    )


@pytest.mark.parametrize(
    "words",
    [
        "--preprocess mean=1",
        "--calibration x --calibration-samples 0",
        "--calibration x --calibration-samples some",
        "--calibration x --preprocess mean=one",
        "--calibration x --percentile 50",
        "--calibration x --method median",
        "--calibration=",
    ],
)
def test_calibration_options_that_make_no_sense(words: str) -> None:
    done = infc("compile", "m.onnx", *words.split())
    assert done.err.startswith("error[E110]"), done.err
    assert done.status == 2


FULL = """
[compile]
target = ["cpu", "openvino"]
output = "out"
input = {image = "1x3x8x8"}
X = {format = "ort", level = 2}
no-verify = true
disable_pass = "fold-pad"
timeout = 3.5

[calibration]
data = "photos"
preprocess = {resize = "240x320", color = "rgb", mean = [123.5, 116, 103], scale = "1/128"}
samples = 64
method = "mse"

[optimize]
output = "smaller.onnx"
"""


def test_a_file_gives_defaults(requested: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "sub/infc.toml", FULL)
    (tmp_path / "sub/photos").mkdir()
    request = requested("--config", file)
    assert request.targets == ("cpu", "openvino")
    assert request.output == tmp_path / "sub/out"
    assert [str(i) for i in request.inputs] == ["image=1x3x8x8"]
    assert request.options == {"format": "ort", "level": "2"}
    assert not request.verify.enabled
    assert request.passes.disabled == {"fold-pad"}
    assert request.limits.timeout_s == 3.5
    assert request.calibration == CalibrationOptions(
        data=str(tmp_path / "sub/photos"),
        samples=64,
        preprocess=Preprocess.parse("resize=240x320,color=rgb,mean=123.5:116:103,scale=1/128"),
        method="mse",
    )


def test_the_command_line_wins(requested: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "infc.toml", FULL)
    request = requested(
        "-t", "torchscript", "--config", file, "-o", "here", "--calibration", "x.npz"
    )
    assert request.targets == ("torchscript",)
    assert request.output == Path("here")
    assert request.calibration.data == "x.npz"
    assert request.calibration.samples == 64


@pytest.mark.parametrize(
    ("data", "becomes"),
    [
        ("there.npz", "FOLDER/there.npz"),
        ("mine.py:f", "FOLDER/mine.py:f"),
        ("package.module:f", "package.module:f"),
        ("random", "random"),
    ],
)
def test_data_is_looked_for_beside_the_file(
    data: str, becomes: str, requested: Any, tmp_path: Path
) -> None:
    (tmp_path / "there.npz").touch()
    (tmp_path / "random").mkdir()
    file = write(tmp_path / "c.toml", f'[calibration]\ndata = "{data}"')
    assert requested("--config", file).calibration.data == becomes.replace("FOLDER", str(tmp_path))


def test_preprocessing_as_text(requested: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "c.toml", '[calibration]\npreprocess = "mean=1:2:3,color=bgr"')
    assert requested("--config", file).calibration is None
    spec = requested("--config", file, "--calibration", "photos").calibration.preprocess
    assert spec == Preprocess(mean=(1, 2, 3), color="bgr")


def test_no_file_is_read_unasked(
    requested: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "infc.toml", FULL)
    monkeypatch.chdir(tmp_path)
    assert requested().targets == ("cpu",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[compile]\ntargt = 'cpu'", "did you mean `target`?"),
        ("[compil]\n", "did you mean `compile`"),
        ("compile = 3", "`compile` is no table"),
        ("[calibration]\nprepocess = ''", "did you mean `preprocess`?"),
        ("[calibration]\nsamples = 1.5", "`--calibration-samples 1.5` is neither"),
        ("[optimize]\noutptu = 'x'", "did you mean `output`?"),
        ("[compile]\nno-verify = 'yes'", "`compile.no-verify` is `true` or `false`"),
        ("[compile]\nname = true", "`compile.name` is neither text nor a number"),
        ("[compile]\nname = 2020-01-01", "neither text nor a number"),
        ("[compile]\nprecision = 'fp8'", "`compile.precision`: 'fp8' is not one of"),
        ("[compile]\ntimeout = 'long'", "`compile.timeout`: 'long' is not a valid float"),
        ("[compile]\njson = true", "there is no `compile.json`"),
        ("[compile]\nconfig = 'x'", "there is no `compile.config`"),
        ("[compile\n", "is no TOML"),
        ("\xff", "is no TOML"),
    ],
)
def test_what_makes_no_sense(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_bytes(text.encode("latin-1"))
    words = ["--calibration", "x"] if "samples" in text else []
    done = infc("compile", "m.onnx", "--config", file, *words)
    assert done.err.startswith("error[E110]"), done.err
    assert says in done.err
    assert done.status == 2


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = infc("verify", "bundle", "--config", tmp_path / "none.toml")
    assert done.err.startswith("error[E110]")
    assert "none.toml` cannot be read: No such file" in done.err


def test_a_required_option_from_the_file(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.onnx")
    file = write(tmp_path / "c.toml", '[optimize]\noutput = "small.onnx"\nno-verify = true')
    done = infc("optimize", model, "--config", file)
    assert done.status == 0, done.err
    assert (tmp_path / "small.onnx").is_file()
