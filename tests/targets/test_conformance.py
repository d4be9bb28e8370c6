"""The one suite that every back end passes: compiled, verified, run again, or refused as known.

A refusal is written down below, so that a back end that learns an operator fails here until its
row is removed, and one that forgets it fails too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import verdicts
from conformance_models import CASES, foreign_operators
from onnx.reference import ReferenceEvaluator

from infc import building, driver, handed_over
from infc.bundle import Bundle, open_bundle
from infc.comparison import THRESHOLDS, compare, require
from infc.diagnostics import Diagnostic, InfcError
from infc.divergence import rebuilding
from infc.feeds import make_feeds, write_feeds
from infc.frontends import Reading
from infc.input_spec import InputSpec
from infc.request import Precision, Request, VerifyOptions, WorkerLimits
from infc.signature import load_tensors
from infc.targets import BACK_ENDS, Target, back_end, look_up
from infc.verification.sets import Sets, recorded_sets
from infc.workers.versions import versions

Refusal = tuple[str, tuple[str, ...]]

TENSORRT_REFUSALS: dict[tuple[str, str], Refusal] = {
    (name, case): refusal
    for name in ("tensorrt", "tensorrt-rtx")
    for case, refusal in {
        "signed-integers": ("E203", ("Unsqueeze", "Concat")),
        "unsigned-integers": ("E203", ("Concat",) * 6),
        "float64": ("E203", ("Mul", "Sub")),
        "dynamic-shapes": ("E206", ()),
        "lstm": ("E206", ()),
        "determinant": ("E203", ("Det",)),
    }.items()
}
"""No engine has a float64, int16 or unsigned input but uint8; each dynamic dimension but the first
needs a range."""

REFUSALS: dict[tuple[str, str], Refusal] = {
    ("openvino", "determinant"): ("E203", ("Det",)),
    ("openvino", "integer-beyond-32-bits"): ("E602", ()),
    ("mindspore-lite", "signed-integers"): ("E203", ("Expand", "Reshape", "Concat")),
    ("mindspore-lite", "unsigned-integers"): ("E203", ("Concat",) * 4),
    ("mindspore-lite", "float16"): ("E203", ("Add", "Transpose")),
    ("mindspore-lite", "bfloat16"): ("E203", ("Concat",)),
    ("mindspore-lite", "float64"): ("E203", ("Mul", "Sub")),
    ("mindspore-lite", "integer-beyond-32-bits"): ("E203", ("Add",)),
    ("mindspore-lite", "input-that-is-an-output"): ("E203", ("Identity",)),
    ("mindspore-lite", "initializer-as-output"): ("E203", ("Identity",) * 2),
    ("mindspore-lite", "empty-tensors"): ("E203", ("Relu", "Concat")),
    ("mindspore-lite", "conditional"): ("E203", ("If",)),
    ("mindspore-lite", "loop"): ("E203", ("Loop",)),
    ("mindspore-lite", "lstm"): ("E203", ("LSTM",)),
    ("mindspore-lite", "determinant"): ("E203", ("Det",)),
    ("tvm", "conditional"): ("E203", ("If",)),
    ("tvm", "loop"): ("E203", ("Loop",)),
    ("tvm", "determinant"): ("E203", ("Det",)),
    **TENSORRT_REFUSALS,
}
"""(back end, case): the code, and for E203 the operators. openvino's CPU plugin saturates at 32
bits; verification says so before a wrong artifact is published. mindspore-lite computes in float32
and int32, takes no subgraphs, no empty tensors, and no output that no operator makes. tvm
takes no control flow."""


PARTS = {"manifest.json", "report.html", "model", "loader", "reference"}
DEFERRED_PARTS = {"BUILD.md", "build.json", "build_engine.py", "finish", "finishing"}
"""What a bundle holds, and one whose engine is built on the device besides."""


@pytest.fixture(params=BACK_ENDS)
def name(request: pytest.FixtureRequest, need_back_end: Any) -> str:
    """The name of each back end that infc ships."""
    need_back_end(request.param)
    return str(request.param)


def compile_with(name: str, case: str, folder: Path, **options: Any) -> driver.TargetResult:
    source = CASES[case].write(folder)
    inputs = tuple(InputSpec.parse(text) for text in CASES[case].inputs)
    request = Request(
        source, (name,), folder / "build", inputs=inputs, loaders=(), **options
    )  # fmt: skip
    (result,) = driver.compile(request).results
    return result


@pytest.mark.parametrize("case", CASES)
def test_compiles_and_answers_as_onnx_says(name: str, case: str, tmp_path: Path) -> None:
    verify = VerifyOptions(samples=1)
    result = compile_with(name, case, tmp_path, verify=verify)
    if (name, case) in REFUSALS:
        code, operators = REFUSALS[name, case]
        assert result.bundle is None
        assert {d.code for d in result.diagnostics} == {code}
        assert tuple(operator_of(d) for d in result.diagnostics if d.where) == operators
        return
    assert result.bundle is not None, [d.render() for d in result.diagnostics]
    verdict = verdicts.expected(name)
    assert result.verification["verdict"] == verdict
    bundle = open_bundle(result.bundle)
    source = onnx.load(tmp_path / f"{case}.onnx")
    fed = [v.name for v in source.graph.input]
    constants = {t.name for t in source.graph.initializer}
    assert [s.name for s in bundle.inputs] == [n for n in fed if n not in constants]
    assert [s.name for s in bundle.outputs] == [v.name for v in source.graph.output]
    # Other inputs than the verification's, run by the worker, judged by ONNX's own evaluator.
    feeds = make_feeds(bundle.inputs, VerifyOptions(seed=1, samples=1))[-1:]
    folders = write_feeds(feeds, tmp_path)
    sets = Sets(folders, folders)
    target = Target.from_json(bundle.manifest["target"])
    types = {s.name: s.dtype for s in bundle.outputs}
    if verdict != "passed":
        answers = run_graph_again(sets, target, bundle, tmp_path / f"{case}.onnx", tmp_path)
    else:
        answers = run_again(sets, target, bundle.entry, types, tmp_path)
    errors = compare([(evaluate(source, feeds[0]), answers)], THRESHOLDS[Precision.FP32])
    require(errors, "E602", f"{name} on {case}", "")


def operator_of(diagnostic: Diagnostic) -> str:
    """`Det` of a place as `det.onnx:g/node (Det-17)`."""
    return diagnostic.where.rpartition("(")[2].rpartition("-")[0]


def evaluate(source: onnx.ModelProto, feeds: dict[str, Any]) -> dict[str, Any]:
    """ONNX's own answer."""
    if source.opset_import[0].version < 14:
        # The evaluator runs older BatchNormalizations as if in training.
        source = onnx.version_converter.convert_version(source, 15)
    answers = ReferenceEvaluator(source).run(None, dict(feeds))
    return {v.name: a for v, a in zip(source.graph.output, answers, strict=True)}


def run_again(
    sets: Sets, target: Target, entry: Path, types: dict[str, str], folder: Path
) -> dict[str, Any]:
    """Run an artifact on one set of inputs, through the worker; `types` are its outputs'."""
    from infc import workers
    from infc.targets import module_of

    payload = {
        "entry": str(entry.resolve()),
        "target": target.to_json(),
        "inputs": list(load_tensors(sets.feeds[0])),
        "outputs": list(types),
        "output_types": types,
        "threads": 1,
        "sets": [[str(sets.feeds[0]), str(folder / "again")]],
    }
    module, worker = module_of(target.back_end), back_end(target.back_end).worker(target)
    scratch, log = folder / "scratch", folder / "log"
    call = workers.Call(module, "run", payload, scratch, log, "the artifact", worker)
    workers.call(call, WorkerLimits(timeout_s=120))
    return load_tensors(folder / "again")


def run_graph_again(
    sets: Sets, target: Target, subject: Bundle, source: Path, folder: Path
) -> dict[str, Any]:
    """Run what the artifact was built of, made again: the artifact itself cannot run here."""
    how, limits = Reading(folder / "reading"), WorkerLimits(timeout_s=120)
    loaded = rebuilding.load_source(source, subject, how)
    rebuilt = rebuilding.rebuild(subject, target, loaded, (), folder / "rebuilt", limits)
    rebuilt.end.legalize(rebuilt.model, target)
    building.save_model(rebuilt.model, folder / "graph.onnx")
    recorded = recorded_sets(subject)
    sets = Sets(sets.feeds, recorded.reference[:1])
    (answers,) = handed_over.run_graph(
        sets, target, folder / "graph.onnx", folder / "again", limits
    )
    return load_tensors(answers)


def test_every_node_that_is_not_supported_is_listed(name: str, tmp_path: Path) -> None:
    source = tmp_path / "foreign.onnx"
    onnx.save(foreign_operators(), source)
    verify = VerifyOptions(enabled=False)
    request = Request(source, (name,), tmp_path / "build", verify=verify, loaders=())
    (result,) = driver.compile(request).results
    assert result.bundle is None
    assert {d.code for d in result.diagnostics} == {"E203"}
    # What has no subgraphs names the If as well.
    known = [d for d in result.diagnostics if operator_of(d) != "If"]
    assert len(result.diagnostics) - len(known) == (name in ("mindspore-lite", "tvm"))
    assert [operator_of(d) for d in known] == ["Strange", "Stranger", "Strange"]
    assert "/first (" in known[0].where
    assert "/inner (" in known[1].where
    assert not list((tmp_path / "build").glob("foreign-*[!g]"))


def test_two_builds_are_byte_identical(name: str, tmp_path: Path) -> None:
    trees = []
    for folder in (tmp_path / "here", tmp_path / "a much longer path" / "there"):
        folder.mkdir(parents=True)
        result = compile_with(name, "convolutions-with-activations", folder)
        assert result.bundle is not None, [d.render() for d in result.diagnostics]
        files = sorted(p for p in result.bundle.rglob("*") if p.is_file())
        trees.append({str(p.relative_to(result.bundle)): p.read_bytes() for p in files})
    first, second = trees
    assert list(first) == list(second)
    assert [n for n in first if first[n] != second[n]] == []
    parts = PARTS | (DEFERRED_PARTS if verdicts.expected(name) == "deferred" else set())
    assert {Path(n).parts[0] for n in first} <= parts


def test_no_file_of_a_bundle_names_this_machine(name: str, tmp_path: Path) -> None:
    result = compile_with(name, "fixed-batch", tmp_path)
    assert result.bundle is not None, [d.render() for d in result.diagnostics]
    for file in (p for p in result.bundle.rglob("*") if p.is_file()):
        assert str(tmp_path).encode() not in file.read_bytes(), file


def test_the_manifest_names_the_toolchain(name: str, tmp_path: Path) -> None:
    result = compile_with(name, "scalars", tmp_path, verify=VerifyOptions(enabled=False))
    assert result.bundle is not None, [d.render() for d in result.diagnostics]
    manifest = json.loads((result.bundle / "manifest.json").read_text())
    if verdicts.expected(name) == "deferred":
        assert name not in manifest["toolchain"]  # nothing has been built yet
        assert manifest["on_device"]["module"] == back_end(name).MODULES[0]
        return
    installed = versions(back_end(name), look_up(name))
    assert list(installed) == list(back_end(name).DISTRIBUTIONS)
    for distribution, version in installed.items():
        assert manifest["toolchain"][distribution] == version


def test_an_unknown_option_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InfcError) as caught:
        compile_with(name, "scalars", tmp_path, options={"no-such-option": "1"})
    assert [d.code for d in caught.value.diagnostics] == ["E205"]
    assert not (tmp_path / "build").exists()


def test_bounds_reach_the_manifest(name: str, tmp_path: Path) -> None:
    result = compile_with(name, "bounded-batch", tmp_path)
    if (name, "bounded-batch") in REFUSALS:
        assert result.bundle is None
        return
    assert result.bundle is not None, [d.render() for d in result.diagnostics]
    (spec,) = open_bundle(result.bundle).inputs
    assert list((spec.bounds or {}).values()) == [(1, 2, 4)]


def test_the_module_is_what_the_protocol_says(name: str) -> None:
    end = back_end(name)
    assert name == end.NAME
    assert all(isinstance(text, str) and text for text in end.OPTIONS.values())
    assert Precision.FP32 in end.PRECISIONS
    for attribute in ("require_options", "legalize", "check", "build", "open", "device"):
        assert callable(getattr(end, attribute))
