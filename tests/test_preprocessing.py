"""`--preprocess`: what it says, what it refuses, and the text it becomes again."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from infc.diagnostics import ExitCode, InfcError
from infc.preprocessing import COLORS, FILTERS, LAYOUTS, Preprocess
from infc.request import CalibrationOptions


def test_the_spec_of_the_readme() -> None:
    spec = Preprocess.parse("resize=240x320,color=rgb,mean=127,scale=1/128,layout=nchw")
    assert spec == Preprocess(
        resize=(240, 320), color="rgb", mean=(127.0,), scale=(1 / 128,), layout="nchw"
    )
    assert spec.scales


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("resize=256,crop=224", Preprocess(resize=256, crop=(224, 224))),
        (
            "mean=123.7:116.3:103.5 , std=58.4:57.1:57.4",
            Preprocess(mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4)),
        ),
        (
            "resize=8x9,fit=letterbox,pad=114,filter=opencv-linear",
            Preprocess(resize=(8, 9), fit="letterbox", pad=114, filter="opencv-linear"),
        ),
        ("range=1,layout=NHWC", Preprocess(range=1.0, layout="nhwc")),
        ("columns=1:", Preprocess(columns=(1, None))),
        ("columns=:3", Preprocess(columns=(0, 3))),
        ("columns=2", Preprocess(columns=(2, 3))),
        ("label=class", Preprocess(label="class")),
    ],
)
def test_parse(text: str, expected: Preprocess) -> None:
    assert Preprocess.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", ",", "resize", "resize=", "=3", "resize=8x8,", "resize=8x8,resize=9x9"),
        *("resize=0x8", "resize=8x8x8", "resize=-3", "resize=٣", "resize=99999", "resize=1e3"),
        *("resize=00000000001555555555", "mean=a", "mean=nan", "mean=1:", "std=0", "std=1:0"),
        *("scale=1/0", "scale=inf", "scale=0", "range=0", "range=-1", "color=yuv", "layout=chwn"),
        *("fit=letterbox", "resize=3,fit=cover", "pad=3", "filter=box", "pad=256"),
        *("columns=3:3", "columns=-1:", "columns=a", "mean=1:2:3,std=1:2", "gamma=2"),
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(InfcError) as caught:
        Preprocess.parse(text)
    assert [d.code for d in caught.value.diagnostics] == ["E110"]
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("resise=3", "did you mean `resize`?"),
        ("keep-aspect=1", "that is `fit=letterbox` or `fit=cover`"),
        ("std=0", "one number or fraction"),
    ],
)
def test_the_help_says_what_to_write(text: str, hint: str) -> None:
    with pytest.raises(InfcError) as caught:
        Preprocess.parse(text)
    assert hint in caught.value.diagnostics[0].help


def test_the_recipes_of_the_documentation() -> None:
    text = (ROOT / "compiler/calibration/README.md").read_text()
    recipes = re.findall(r"\| `((?:\w[\w-]*=[^`]*,)+[^`]*)` \|", text)
    assert len(recipes) == 4
    torchvision = Preprocess.parse(recipes[0])
    assert (torchvision.resize, torchvision.crop, torchvision.range) == (256, (224, 224), 1)
    assert all(Preprocess.parse(r).scales or Preprocess.parse(r).crop for r in recipes)


SIDES = st.integers(1, 65536)
CHANNELS = st.lists(
    st.floats(-1e6, 1e6).filter(bool), min_size=3, max_size=3
).map(tuple)  # fmt: skip


@given(
    size=st.none() | SIDES | st.tuples(SIDES, SIDES),
    crop=st.none() | st.tuples(SIDES, SIDES),
    color=st.none() | st.sampled_from(COLORS),
    layout=st.none() | st.sampled_from(LAYOUTS),
    which=st.sampled_from(FILTERS),
    mean=st.just(()) | CHANNELS,
    scale=st.just(()) | CHANNELS,
)
def test_text_and_back(size, crop, color, layout, which, mean, scale) -> None:  # type: ignore[no-untyped-def]
    spec = Preprocess(
        resize=size, crop=crop, color=color, layout=layout, mean=mean, scale=scale,
        filter=which if size else "bilinear",
    )  # fmt: skip
    if spec.given():
        assert Preprocess.parse(str(spec)) == spec


@given(st.text(max_size=40))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        Preprocess.parse(text)
    except InfcError as error:
        assert error.diagnostics[0].code == "E110"


@pytest.mark.parametrize(
    "wrong",
    [
        {"data": ""},
        {"method": "median"},
        {"percentile": 50.0},
        {"percentile": 100.1},
        {"samples": 0},
        {"batch": 0},
    ],
)
def test_calibration_options_refuse(wrong: dict[str, object]) -> None:
    with pytest.raises(InfcError, match="E110"):
        CalibrationOptions(**{"data": "photos", **wrong})  # type: ignore[arg-type]
