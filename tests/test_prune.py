"""`--prune`: what is published answers as the pruned graph, and says what pruning cost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from command import infc, write_model
from conftest import ROOT

import infc as api
from infc import front, pruning
from infc.diagnostics import InfcError
from infc.prune_options import PruneOptions, parse_part
from infc.request import Request, VerifyOptions, WorkerLimits

DIGITS = ROOT / "examples" / "digits"
LABELLED = ("--labelled", DIGITS / "digits.csv", "--preprocess", "label=0,range=16")


def manifest(bundle: Path) -> dict:
    return json.loads((bundle / "manifest.json").read_text())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pruned")
    words = ("compile", DIGITS / "digits.onnx", "--prune", "30%", "-o", folder)
    done = infc(*words, *LABELLED, "--loader", "none")
    assert done.status == 0, done.err
    assert "3 of 4 layers lost channels" in done.out
    assert "top1 0.983333 -> " in done.out
    return folder / "digits-cpu"


def test_the_manifest_says_what_pruning_cost(bundle: Path) -> None:
    document = manifest(bundle)
    told = document["pruning"]
    assert told["amount"] == 0.3
    assert told["exact"] is True
    assert told["parameters"]["after"] < 0.6 * told["parameters"]["before"]
    assert told["macs"]["after"] < 0.6 * told["macs"]["before"]
    assert told["metric"]["samples"] == 60
    assert told["metric"]["before"] == pytest.approx(59 / 60)
    assert 0 <= told["metric"]["after"] <= told["metric"]["before"]
    assert [row["name"] for row in told["outputs"]] == ["logits"]
    assert told["outputs"][0]["sqnr_db"] < 40
    proof = document["verification"]
    assert proof["reference"] == pruning.REFERENCE
    assert proof["artifact"]["outputs"][0]["sqnr_db"] > 80
    report = (bundle / "report.html").read_text()
    assert "3 of 4 layers lost channels" in report
    assert "Compared with the pruned model" in report


def test_the_metric_is_that_of_the_artifact(bundle: Path) -> None:
    import onnxruntime

    rows = np.loadtxt(DIGITS / "digits.csv", delimiter=",", dtype=np.float32)
    session = onnxruntime.InferenceSession(bundle / "model" / "model.onnx")
    (logits,) = session.run(None, {"image": (rows[:, 1:] / 16).reshape(-1, 1, 8, 8)})
    accuracy = float((logits.argmax(1) == rows[:, 0]).mean())
    assert manifest(bundle)["pruning"]["metric"]["after"] == pytest.approx(accuracy)


def test_a_pruned_bundle_is_verified_against_its_source_pruned_again(bundle: Path) -> None:
    done = infc("verify", bundle, "--source", DIGITS / "digits.onnx")
    assert done.status == 0, done.err


def test_a_pruned_bundle_is_debugged(bundle: Path) -> None:
    words = ("debug-accuracy", bundle, "--source", DIGITS / "digits.onnx", "--json")
    done = infc(*words)
    assert done.status == 0, done.err
    assert done.document["identical"] is True
    assert done.document["first"] is None


def test_the_same_bytes_twice(bundle: Path, tmp_path: Path) -> None:
    words = ("compile", DIGITS / "digits.onnx", "--prune", "30%", "-o", tmp_path)
    assert infc(*words, *LABELLED, "--loader", "none").status == 0
    again = tmp_path / "digits-cpu"
    for file in ("manifest.json", "model/model.onnx", "report.html"):
        assert (again / file).read_bytes() == (bundle / file).read_bytes()


def test_int8_of_a_pruned_model_is_held_to_the_pruned_one(tmp_path: Path) -> None:
    rows = np.loadtxt(DIGITS / "digits.csv", delimiter=",", dtype=np.float32)
    np.savez(tmp_path / "d.npz", image=(rows[:, 1:] / 16).reshape(-1, 1, 8, 8))
    options = PruneOptions(0.5, norm="l2", multiple=4)
    result = api.compile(
        DIGITS / "digits.onnx",
        output=tmp_path,
        precision="int8",
        calibration=str(tmp_path / "d.npz"),
        pruning=options,
        loaders=(),
    )
    (row,) = result.results
    assert row.verification["artifact"]["outputs"][0]["sqnr_db"] > 15
    assert row.bundle is not None
    document = manifest(row.bundle)
    assert PruneOptions.from_json(document["pruning"]) == options
    assert document["verification"]["inputs"] == "calibration samples"


def test_optimize_writes_the_pruned_graph(tmp_path: Path) -> None:
    output = tmp_path / "small.onnx"
    done = infc("optimize", DIGITS / "digits.onnx", "-o", output, "--prune", "0.5", "--json")
    assert done.status == 0, done.err
    told = done.document["pruning"]
    sizes = sum(np.prod(t.dims) for t in onnx.load(output).graph.initializer if t.data_type == 1)
    assert int(sizes) == told["parameters"]["after"]
    assert "metric" not in told


def test_quantize_writes_the_pruned_graph(tmp_path: Path) -> None:
    rows = np.loadtxt(DIGITS / "digits.csv", delimiter=",", dtype=np.float32)
    np.savez(tmp_path / "d.npz", image=(rows[:, 1:] / 16).reshape(-1, 1, 8, 8))
    words = ("quantize", DIGITS / "digits.onnx", "-o", tmp_path / "q.onnx", "--prune", "30%")
    data = ("--calibration", tmp_path / "d.npz", "--scheme", "onnxruntime", "--json")
    done = infc(*words, *data)
    assert done.status == 0, done.err
    assert len(done.document["pruning"]["layers"]) == 3


def test_without_proof_sizes_are_told_all_the_same(tmp_path: Path) -> None:
    words = ("compile", DIGITS / "digits.onnx", "--prune", "30%", "-o", tmp_path, "--no-verify")
    assert infc(*words, "--loader", "none").status == 0
    told = manifest(tmp_path / "digits-cpu")["pruning"]
    assert "outputs" not in told
    assert told["parameters"]["after"] < told["parameters"]["before"]


def test_nothing_to_prune(tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    done = infc("optimize", write_model(tmp_path / "m.onnx"), "-o", output, "--prune", "30%")
    assert done.status == 1
    assert "E424" in done.err
    assert "`--prune 0.3` removes no channel: there is 1 layer with weights" in done.err
    assert not output.exists()


def test_what_is_not_zeroing_is_a_bug_of_ours(tmp_path: Path) -> None:
    """The pruned graph is held to the one with zeros: here that has other zeros."""
    from infc.passes.pruning import Amount, prune, silenced

    request = Request(DIGITS / "digits.onnx", ("cpu",), tmp_path, verify=VerifyOptions(samples=1))
    found = front.optimize(request, tmp_path / "stage", lambda target, step: None)
    model = found.model
    wrong: ir.Model = silenced(model, Amount(0.5))
    prune(model, Amount(0.3), {})
    stage = tmp_path / "judged"
    stage.mkdir()
    source = pruning._as_source(found.source, stage)
    judge = pruning.Reference(source, VerifyOptions(samples=1), stage / "r", WorkerLimits())
    with pytest.raises(InfcError) as raised:
        pruning._require_silence(judge, wrong, found.outputs, stage, WorkerLimits())
    assert raised.value.diagnostics[0].code == "E303"


@pytest.mark.parametrize(
    ("text", "part"), [("30%", 0.3), ("0.25", 0.25), (".5", 0.5), ("7 %", 0.07)]
)
def test_parts(text: str, part: float) -> None:
    assert parse_part(text) == part


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prune", "much"], "`--prune much` is no part"),
        (["--prune", "0"], "not above 0 and below 100 %"),
        (["--prune", "100%"], "not above 0 and below 100 %"),
        (["--prune-scope", "model"], "`--prune-scope` says nothing without `--prune`"),
        (["--labelled", "x.npz"], "says nothing without"),
        (["--prune", "30%", "--labelled", "x.npz", "--metric", "best"], "`best`"),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, list) else "",
)
@pytest.mark.parametrize("verb", ["compile", "optimize"])
def test_refusals(verb: str, words: list[str], said: str, tmp_path: Path) -> None:
    done = infc(verb, DIGITS / "digits.onnx", "-o", tmp_path / "out", *words)
    assert done.status != 0
    assert said in done.err
    assert not (tmp_path / "out" / "digits-cpu").exists()
