"""`--input NAME=SHAPE`, and what a request refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infc.diagnostics import ExitCode, InfcError
from infc.input_spec import MAX_DIM, Dim, InputSpec
from infc.request import Request, parse_options


@pytest.mark.parametrize(
    ("text", "name", "dims"),
    [
        ("x=1x3x224x224", "x", [Dim(low=n, typical=n, high=n) for n in (1, 3, 224, 224)]),
        ("x=batchx3", "x", [Dim(name="batch"), Dim(low=3, typical=3, high=3)]),
        ("x=1..8x3", "x", [Dim(low=1, typical=1, high=8), Dim(low=3, typical=3, high=3)]),
        ("x=1..8@4", "x", [Dim(low=1, typical=4, high=8)]),
        ("x=?x3", "x", [Dim(), Dim(low=3, typical=3, high=3)]),
        ("x=1,max_len", "x", [Dim(low=1, typical=1, high=1), Dim(name="max_len")]),
        ("ids=max_len,", "ids", [Dim(name="max_len")]),
        ("a=b=2", "a=b", [Dim(low=2, typical=2, high=2)]),
        ("gpu_0/data_0=1x3", "gpu_0/data_0", [Dim(low=n, typical=n, high=n) for n in (1, 3)]),
        ("x=scalar", "x", []),
    ],
)
def test_parse(text: str, name: str, dims: list[Dim]) -> None:
    assert InputSpec.parse(text) == InputSpec(name, tuple(dims))


@pytest.mark.parametrize(
    "text",
    [
        *("x", "=1x3", "x=", "x=1xx3", "x=1x", "x=-1", "x=0", "x=1.5", "x=1..", "x=8..1"),
        *("x=1..8@9", "x=2..8@1", "x=2147483648", "x=" + "9" * 5000, "x=٣", "x=1..8..9"),
        *("x=,", "x=1,,3", "x=a b", "x=1x3x$", "x=" + "n" * 101),
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(InfcError) as caught:
        InputSpec.parse(text)
    assert [d.code for d in caught.value.diagnostics] == ["E110"]
    assert caught.value.exit_code == ExitCode.USAGE


NAMES = st.sampled_from(["batch", "N", "seq_len", "_", "h.0", "past-key"])
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def dims(draw: st.DrawFn) -> Dim:
    if draw(st.booleans()):
        return Dim(name=draw(NAMES))
    low, typical, high = sorted(draw(st.lists(st.integers(1, MAX_DIM), min_size=3, max_size=3)))
    return Dim(low=low, typical=typical if low != high else low, high=high)


@PATIENT
@given(st.lists(dims(), min_size=1, max_size=6))
def test_text_and_back(shape: list[Dim]) -> None:
    spec = InputSpec("x", tuple(shape))
    assert InputSpec.parse(str(spec)) == spec


@PATIENT
@given(st.text(max_size=30))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        InputSpec.parse(text)
    except InfcError as error:
        assert error.diagnostics[0].code == "E110"


def test_input_given_twice() -> None:
    specs = tuple(map(InputSpec.parse, ("x=1", "x=2")))
    with pytest.raises(InfcError, match=r"E110.*`--input x=` is given twice"):
        Request(Path("m"), ("cpu",), Path("o"), inputs=specs)


def test_no_target() -> None:
    with pytest.raises(InfcError, match=r"E110.*no target"):
        Request(Path("m"), (), Path("o"))


def test_options() -> None:
    assert parse_options(["a=b", "c=d=e", "f="]) == {"a": "b", "c": "d=e", "f": ""}
    for pairs in (["a"], ["=b"], ["a=1", "a=2"]):
        with pytest.raises(InfcError, match="E110"):
            parse_options(pairs)
