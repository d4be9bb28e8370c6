"""What the engine builder is told of a target's options and of the ranges of its inputs."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from infc import targets
from infc.diagnostics import InfcError
from infc.request import Precision
from infc.signature import TensorSpec
from infc.targets import Target, configure, look_up, tensorrt
from infc.targets.tensorrt_spec import spec_of

FIXED = TensorSpec("image", "float32", (1, 3, 8, 8))
BATCH = TensorSpec("image", "float32", ("N", 3, 8, 8))
BOUNDED = TensorSpec("image", "float32", ("N", 3, 8, 8), {"N": (1, 2, 4)})
TOKENS = TensorSpec("tokens", "int64", ("N", "length"))


def target(name: str = "rtx-any", precision: Precision | None = None, **options: str) -> Target:
    words = {key.replace("_", "-"): value for key, value in options.items()}
    return configure(look_up(name), precision, words)


def refused(code: str, name: str = "rtx-any", **options: str) -> str:
    with pytest.raises(InfcError) as caught:
        spec_of(target(name, **options), (BOUNDED,), ())
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == code
    return f"{diagnostic.message}\n{diagnostic.help}"


def row(spec: TensorSpec, **options: str) -> Mapping[str, object]:
    found: Mapping[str, object] = spec_of(target(**options), (spec,), ())["inputs"][0]
    return found


def test_a_fixed_input_has_no_profile() -> None:
    assert row(FIXED) == {"name": "image", "dtype": "float32", "shape": [1, 3, 8, 8]}


def test_bounds_are_one_profile() -> None:
    assert row(BOUNDED)["profiles"] == [[[1, 3, 8, 8], [2, 3, 8, 8], [4, 3, 8, 8]]]
    assert row(BOUNDED)["shape"] == [-1, 3, 8, 8]


def test_a_batch_without_bounds_has_a_default() -> None:
    assert row(BATCH)["profiles"] == [[[1, 3, 8, 8], [1, 3, 8, 8], [16, 3, 8, 8]]]


def test_any_other_dimension_needs_a_range() -> None:
    with pytest.raises(InfcError) as caught:
        row(TOKENS)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E206"
    assert "dimension 1 of input `tokens`, `length`" in diagnostic.message
    assert diagnostic.help is not None
    assert "--input tokens=1..16,16..512@128" in diagnostic.help


def test_several_profiles_are_given_by_dimension_names() -> None:
    profiles = row(TOKENS, profiles="length=16,N=1;length=17..512@128,N=2..8")["profiles"]
    assert profiles == [[[1, 16], [1, 16], [1, 16]], [[2, 17], [2, 128], [8, 512]]]


def test_a_dimension_that_a_profile_does_not_name_keeps_its_range() -> None:
    spec = TensorSpec("tokens", "int64", ("N", "length"), {"length": (1, 8, 64)})
    assert row(spec, profiles="N=1;N=4")["profiles"] == [
        [[1, 1], [1, 8], [1, 64]],
        [[4, 1], [4, 8], [4, 64]],
    ]


def test_dimensions_of_one_name_have_one_range() -> None:
    mask = TensorSpec("mask", "float32", (1, "N"))
    inputs = spec_of(target(), (BATCH, mask), ())["inputs"]
    assert inputs[1]["profiles"] == [[[1, 1], [1, 1], [1, 16]]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"profiles": "M=1..4"}, "no input has a dynamic dimension `M`"),
        ({"profiles": "N"}, "is not NAME=MIN..MAX@TYPICAL"),
        ({"profiles": "N=2;N=2..9"}, "`N=2..9` lies outside `1..4`, what `--input` gives"),
        ({"profiles": "N=what"}, "is not NAME=MIN..MAX@TYPICAL"),
        ({"compute_capability": "sm90"}, "builds nothing for `sm90`"),
        ({"compute_capability": "sm86,ampere"}, "builds nothing for `ampere`"),
        ({"profiling": "all"}, "`-X profiling=all`: no such value"),
        ({"optimization_level": "9"}, "is not a number from 0 to 5"),
        ({"tf32": "yes"}, "`-X tf32=yes`: no such value"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, str], said: str) -> None:
    assert said in refused("E205", **options)


def test_a_workspace_that_is_no_size() -> None:
    assert "`much` is not a size" in refused("E110", workspace="much")


def test_the_spec_is_plain_json() -> None:
    spec = spec_of(
        target(workspace="1G", tf32="on", compute_capability="sm86,SM120", profiling="detailed"),
        (BOUNDED,),
        (TensorSpec("scores", "float32", ("N", 10)),),
    )
    assert json.loads(json.dumps(spec)) == spec
    assert spec["workspace_bytes"] == 1 << 30
    assert spec["tf32"] is True
    assert spec["compute_capabilities"] == ["sm86", "sm120"]
    assert spec["profiling"] == "detailed"
    assert spec["outputs"] == [{"name": "scores", "dtype": "float32", "shape": [-1, 10]}]
    assert spec["precision"] == "fp16"


PROFILES = {
    "rtx-20xx": ("sm75", "", ""),
    "rtx-30xx": ("sm86", "", ""),
    "rtx-40xx": ("sm89", "", ""),
    "rtx-50xx": ("sm120", "", ""),
    "jetson": ("sm87", "10.3", "aarch64-linux-gnu"),
    "jetson-orin": ("sm87", "10.3", "aarch64-linux-gnu"),
    "jetson-orin-nano": ("sm87", "10.3", "aarch64-linux-gnu"),
    "jetson-thor": ("sm110", "11.4", "aarch64-linux-gnu"),
    "t4": ("sm75", "10.16", "x86_64-linux-gnu"),
    "a10": ("sm86", "10.16", "x86_64-linux-gnu"),
    "a100": ("sm80", "10.16", "x86_64-linux-gnu"),
    "l4": ("sm89", "10.16", "x86_64-linux-gnu"),
    "l40s": ("sm89", "10.16", "x86_64-linux-gnu"),
    "h100": ("sm90", "10.16", "x86_64-linux-gnu"),
    "h200": ("sm90", "10.16", "x86_64-linux-gnu"),
    "b200": ("sm100", "10.16", "x86_64-linux-gnu"),
}


@pytest.mark.parametrize("name", PROFILES)
def test_profiles(name: str) -> None:
    capability, release, triple = PROFILES[name]
    found = target(name)
    assert found.triple == triple
    assert found.precision is Precision.FP16
    assert spec_of(found, (FIXED,), ())["compute_capabilities"] == [capability]
    assert found.options.get("release", "") == release


def test_rtx_any_leaves_the_gpus_to_the_library() -> None:
    assert spec_of(target("rtx-any"), (FIXED,), ())["compute_capabilities"] == []
    current = spec_of(target("rtx-any", compute_capability="current"), (FIXED,), ())
    assert current["compute_capabilities"] == "current"


def test_a_dla_is_for_float16_and_for_the_releases_that_have_one() -> None:
    spec = spec_of(target("jetson", dla="1"), (FIXED,), ())
    assert spec["dla_core"] == 1
    assert "does not compute in fp32" in refused_dla(Precision.FP32)
    assert "takes no Q/DQ on a DLA" in refused_dla(Precision.INT8)
    with pytest.raises(InfcError, match="has no DLA"):
        target("h100", dla="0")


def refused_dla(precision: Precision) -> str:
    with pytest.raises(InfcError) as caught:
        target("jetson", precision, dla="0")
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E205"
    return diagnostic.message


def test_compatible_engines() -> None:
    spec = spec_of(
        target("a100", version_compatible="on", hardware_compatible="ampere+"), (FIXED,), ()
    )
    assert spec["version_compatible"] is True
    assert spec["hardware_compatible"] == "ampere+"
    with pytest.raises(InfcError, match=r"10\.3 does not have it"):
        target("jetson", hardware_compatible="same")


def test_the_release_decides_the_graph() -> None:
    assert tensorrt.release_of(target("jetson")) == "10.3"
    assert tensorrt.release_of(target("jetson", release="11.4")) == "11.4"
    with pytest.raises(InfcError, match=r"release=9\.0"):
        target("jetson", release="9.0")


def test_without_the_library_the_engine_is_built_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tensorrt, "find_spec", lambda name: None)
    assert tensorrt.deferral(target("jetson")) == "TensorRT is not installed here"


@pytest.mark.parametrize(
    ("gpu", "found", "said"),
    [
        ({"reason": "there is no CUDA driver here"}, "11.4.0", "there is no CUDA driver here"),
        (
            {"name": "GeForce", "compute_capability": "sm86"},
            "11.4.0",
            "the GPU here, GeForce, is sm86, and the target sm90",
        ),
        (
            {"name": "H100", "compute_capability": "sm90"},
            "10.3.0",
            "TensorRT 10.3.0 is installed here, and the target has 10.16",
        ),
        ({"name": "H100", "compute_capability": "sm90"}, "11.4.0", None),
        ({"name": "H100", "compute_capability": "sm90"}, "", None),
    ],
)
def test_why_the_engine_is_built_elsewhere(
    monkeypatch: pytest.MonkeyPatch, gpu: dict[str, str], found: str, said: str | None
) -> None:
    """What this machine has is what is put in for it: there is no GPU to be found by the tests."""
    monkeypatch.setattr(tensorrt, "find_spec", lambda name: object())
    monkeypatch.setattr(tensorrt, "_installed", lambda: found)
    monkeypatch.setattr("infc.targets.tensorrt_worker.gpu", lambda: gpu)
    assert tensorrt.deferral(target("h100")) == said


def test_both_back_ends_are_listed() -> None:
    assert {"tensorrt", "tensorrt-rtx"} <= set(targets.BACK_ENDS)
